"""A magic stroke: from scribbles on objects and on the background to a mask, by the encoder's own features.

A walker starts in each cell and steps to one of the four beside it, the more likely the more alike they are in features
and in colour: w = exp(-FEATURES (1 - <f, g>) - COLOURS |c - d|^2). The share of an object in a cell is the probability
that the walker meets a scribble of that object first (Grady 2006, random walks for image segmentation), the solution of
a sparse linear system, by conjugate gradients. The border of the frame counts as background where no object was
scribbled nearby. Shares are upsampled along the colours of the frame, as those of propagation are.

Classes by the nearest scribbled cells alone, whatever lies between, reach half the J: ``benchmarks/scribbles.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vcorr.errors import UsageError
from vcorr.labels.label import MaskLabels
from vcorr.labels.raw_ids import Ids
from vcorr.machine import in_own_modes
from vcorr.matching.cells import downsample
from vcorr.model import color
from vcorr.model.encoder import Model
from vcorr.propagation.propagator import Propagator

UNKNOWN, BACKGROUND = 0, 65535  # in an image of scribbles; other values are ids of objects
MOST = 64  # objects of a frame that are scribbled on
FEATURES, COLOURS = 20.0, 300.0  # how much a difference keeps the walker from a step
LEAST = 1e-4  # weight of any step: every scribble reaches every cell
NEAR = 4  # cells around an object's scribble in which the border is no background
STEPS, EXACT = 400, 1e-5  # of the solver: at most; residual at which it ends

Picture = NDArray[np.uint8]


@dataclass
class Magic:
    """Masks of scribbles, with the walk of the frame that was scribbled on last. Any thread may ask.

    Attributes:
        load: gives the model whose features tell cells apart; called once, when it is needed.
    """

    load: Callable[[], Model]
    _model: Model | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _frame: int | None = None
    _walk: Walk | None = field(default=None, repr=False)

    @in_own_modes
    @torch.inference_mode()
    def mask(self, k: int, picture: Callable[[], Picture], scribbles: NDArray[np.uint16]) -> Ids:
        """The mask of scribbles.

        Args:
            k: index of the frame. picture: gives the frame, [h w 3], as the encoder is to see it.
            scribbles: uint16 [H W] at full size, ``UNKNOWN`` where there are none.

        Returns:
            [H W]: ids of the objects that were scribbled on, and 0.

        Raises:
            UsageError: no object was scribbled on, or too many.
        """
        ids = [int(i) for i in np.unique(scribbles) if i not in (UNKNOWN, BACKGROUND)]
        if not 0 < len(ids) <= MOST:
            raise UsageError("magic stroke", f"{len(ids)} objects were scribbled on", f"scribble on 1 to {MOST}")
        with self._lock:
            model = self._model = self._model or self.load()
            if self._walk is None or self._frame != k:
                self._walk, self._frame = Walk.of(model, picture()), k
            walk = self._walk
        size = (scribbles.shape[0], scribbles.shape[1])
        kind: Any = np.uint16 if max(ids) > 255 else np.uint8
        labels = MaskLabels(np.array([0, *ids], kind), size, model.encoder.device)
        grid = Propagator(model, labels).grid(walk.picture)
        drawn = [torch.from_numpy((scribbles == value).astype(np.float32)) for value in (BACKGROUND, *ids)]
        seeds = torch.stack([grid.downsample(each.to(labels.device)[None, None])[0, ..., 0] for each in drawn])
        return labels.from_cells(walk.shares(seeds)[None], grid)


@dataclass(frozen=True)
class Walk:
    """The walker's steps in one frame.

    Attributes:
        picture: [h w 3]. down, across: weights of the steps between rows [h'-1 w'], and between columns [h' w'-1].
    """

    picture: Picture
    down: Tensor
    across: Tensor

    @classmethod
    def of(cls, model: Model, picture: Picture) -> Walk:
        """Of a frame [h w 3]."""
        feature = F.normalize(model.encoder.query(picture)[0], dim=-1)
        pixels = color.to_lab(color.from_uint8(picture[None], model.encoder.device))
        lab = downsample(pixels, model.encoder.stride, alignment="cell")[0]

        def weight(a: slice, b: slice, axis: int) -> Tensor:
            one, other = ((a, slice(None)), (b, slice(None))) if axis == 0 else ((slice(None), a), (slice(None), b))
            unlike = 1 - (feature[one] * feature[other]).sum(-1)
            apart = (lab[one] - lab[other]).square().sum(-1)
            return torch.exp(-FEATURES * unlike - COLOURS * apart) + LEAST

        rest, last = slice(1, None), slice(None, -1)
        return cls(picture, weight(rest, last, 0), weight(rest, last, 1))

    def shares(self, seeds: Tensor) -> Tensor:
        """Shares of the classes in each cell [h' w' v].

        Args:
            seeds: share of each class's scribbles in each cell [v h' w'], the background first.
        """
        seeds = seeds.clone()
        border = torch.zeros_like(seeds[0])
        border[[0, -1]] = 1
        border[:, [0, -1]] = 1
        near = F.max_pool2d(seeds[1:].amax(0)[None], 2 * NEAR + 1, 1, NEAR)[0]
        seeds[0] = torch.maximum(seeds[0], 1e-3 * border * (near == 0))
        most, which = seeds.max(0)
        fixed = most > 0
        found = [self._met(fixed, fixed & (which == i)) for i in range(1, len(seeds))]
        return torch.stack([1 - torch.stack(found).sum(0), *found], -1).clamp(0, 1)

    def _met(self, fixed: Tensor, own: Tensor) -> Tensor:
        """The probability [h' w'] that the walker meets the cells ``own`` before others that are fixed."""
        degree = self._sums(torch.ones_like(own, dtype=torch.float32))
        value = own.float()

        def apply(p: Tensor) -> Tensor:
            return (degree * p - self._sums(p)).masked_fill(fixed, 0)

        p = torch.zeros_like(value)
        residual = self._sums(value).masked_fill(fixed, 0)
        along = scaled = residual / degree
        energy = (residual * scaled).sum()
        for _ in range(STEPS):
            if residual.abs().max() < EXACT:
                break
            pushed = apply(along)
            step = energy / (along * pushed).sum()
            p, residual = p + step * along, residual - step * pushed
            scaled = residual / degree
            energy, before = (residual * scaled).sum(), energy
            along = scaled + energy / before * along
        return torch.where(fixed, value, p)

    def _sums(self, p: Tensor) -> Tensor:
        """The weighted sum of the neighbours' values."""
        result = torch.zeros_like(p)
        result[1:] += self.down * p[:-1]
        result[:-1] += self.down * p[1:]
        result[:, 1:] += self.across * p[:, :-1]
        result[:, :-1] += self.across * p[:, 1:]
        return result
