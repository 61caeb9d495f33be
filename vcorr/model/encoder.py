"""Features of pictures by trained weights, and how labels are read with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcorr.machine import native_bf16
from vcorr.matching.settings import Matching
from vcorr.model import color, network
from vcorr.model.inference import Inference
from vcorr.model.nn import Tensors
from vcorr.model.weights import Weights

CPU = torch.device("cpu")
T = TypeVar("T")

Picture = NDArray[np.uint8]
Encode = Callable[[Picture], Tensor]
"""A picture [h w 3] -> features [1 h' w' c]."""
EncodeBoth = Callable[[Picture], tuple[Tensor, Tensor]]
"""A picture [h w 3] -> features [1 h' w' c], and context features on a coarser grid [1 h'' w'' d]."""


@dataclass(frozen=True)
class Encoder:
    """Features of frames, as queries and as the references that these read from.

    Attributes:
        query: features of a frame that reads.
        stride: pixels a feature cell.
        slow: features of references, where they have an encoder of their own (MAST-momentum).
        with_context: the same with features of what lies around, for ``appearance``; None where there are none.
        device: of the computation.
        placed: whether features tell where in the picture a cell lies (position encoding), so that those of a part of
            it are others.
    """

    query: Encode
    stride: int
    slow: Encode | None = None
    with_context: EncodeBoth | None = None
    device: torch.device = CPU
    placed: bool = False

    def reference(self, picture: Picture, query: Tensor | None = None) -> Tensor:
        """Features of a frame as a reference; ``query``: those that it has as a query, if they are known."""
        if self.slow is not None:
            return self.slow(picture)
        return self.query(picture) if query is None else query


@dataclass(frozen=True)
class Model:
    """An encoder and how labels are read with it.

    Attributes:
        encoder: features of frames.
        matching: how frames were compared in training.
        inference: how labels are read.
    """

    encoder: Encoder
    matching: Matching = Matching()  # noqa: RUF009 (frozen: its own immutable default)
    inference: Inference = Inference()  # noqa: RUF009

    @classmethod
    def of(cls, weights: Weights, device: torch.device | str) -> Model:
        """The model of trained weights."""
        return cls(encoder(weights, device), weights.matching, weights.inference)

    @property
    def reading(self) -> Matching:
        """How frames are compared when labels are read."""
        return self.inference.matching(self.matching)


def encoder(weights: Weights, device: torch.device | str) -> Encoder:
    """The trained encoder, with a slow one for references where the weights hold it and are read with it."""
    on = torch.device(device)
    net, slow = weights.net, weights.slow and weights.inference.slow
    prepared = _prepared(weights, weights.params, weights.stats, on)
    slow_prepared = _prepared(weights, weights.slow, weights.slow_stats, on) if slow else None

    def features(params: Tensors, stats: Tensors, x: Tensor, place: Tensor | None) -> Tensor:
        return network.apply(net, params, stats, x, train=False, position=place)[0].float()

    def both(params: Tensors, stats: Tensors, x: Tensor, place: Tensor | None) -> tuple[Tensor, Tensor]:
        feature, context = network.apply_with_context(net, params, stats, x, position=place)
        return feature.float(), context.float()

    return Encoder(
        query=prepared(features),
        stride=net.stride,
        slow=slow_prepared and slow_prepared(features),
        with_context=prepared(both),
        device=on,
        placed=network.place(net, weights.params, (net.stride, net.stride)) is not None,
    )


def _prepared(
    weights: Weights, params: Tensors, stats: Tensors, device: torch.device
) -> Callable[[Callable[[Tensors, Tensors, Tensor, Tensor | None], T]], Callable[[Picture], T]]:
    """What makes a function of pictures from one of folded parameters, statistics, images and the position encoding."""
    params, stats = network.fold(*({k: v.to(device) for k, v in group.items()} for group in (params, stats)))
    bf16 = native_bf16(device)

    @lru_cache(maxsize=1)  # the frames of a video are of one size
    def position(height: int, width: int) -> Tensor | None:
        return network.place(weights.net, params, (height, width))

    def of(apply: Callable[[Tensors, Tensors, Tensor, Tensor | None], T]) -> Callable[[Picture], T]:
        def encode(picture: Picture) -> T:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                seen = color.to_space(color.from_uint8(picture[None], device), weights.space)
                return apply(params, stats, seen, position(*picture.shape[:2]))

        return encode

    return of
