"""Reads the values of a query from its references: turns the settings into arguments of the operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from vcorr.kernels import Options, label_query_mask, memory_read
from vcorr.matching import compactness, region
from vcorr.matching.coarse import COARSE, coarse_features, screen
from vcorr.matching.settings import Matching
from vcorr.model.inference import Inference
from vcorr.propagation.focus import known
from vcorr.propagation.memory import MemoryFrame

Read = Callable[[Tensor, Mapping[int, MemoryFrame]], Tensor]
"""Features of a query [1 h w c], frames by how far they lie back -> values [1 h w v]."""


def reading(matching: Matching, inference: Inference, *, background: bool) -> Read:
    """How values are read.

    Args:
        matching: how frames are compared when labels are read. inference: the rest.
        background: whether a cell's values are shares of 1 already (``Labels.background``); others are divided by the
            weight they were read with, wherever that is not 1.
    """
    whole = background or not (inference.compactness or matching.border == "zeros")

    def read(query: Tensor, frames: Mapping[int, MemoryFrame]) -> Tensor:
        values = [frame.values for frame in frames.values()]
        if whole:
            return _read(matching, inference, query, frames, values, background=background)
        ones = torch.ones_like(values[0][..., :1])
        with_ones = [torch.cat([v, ones], -1) for v in values]
        found = _read(matching, inference, query, frames, with_ones, background=False)
        return found[..., :-1] / found[..., -1:].clamp(min=1e-6)

    return read


def _read(
    matching: Matching,
    inference: Inference,
    query: Tensor,
    frames: Mapping[int, MemoryFrame],
    values: list[Tensor],
    *,
    background: bool,
) -> Tensor:
    keys = [frame.feature for frame in frames.values()]
    if inference.compactness:
        return compactness.read(query, keys, values, peaks=inference.compactness, **matching.window)
    offset = [
        _roi(matching, inference, query, frame.feature, gap) if frame.window is None else frame.window
        for gap, frame in frames.items()
    ]
    top_k = inference.top_k and min(inference.top_k, _taps(matching, inference, query, frames.values()))
    radius = [None if frame.whole else matching.radius for frame in frames.values()]
    windows = Options(
        radius=radius, scale=matching.scale, border=matching.border, window=inference.shape, offset=offset
    )
    if matching.border == "zeros":
        return memory_read(query, keys, values, top_k=top_k, **windows)
    if background and inference.screen is not None:
        reached = _screened(matching, inference, query, frames)
    else:
        first = 0 if background else None
        reached = label_query_mask(values, radius=radius, window=inference.shape, offset=offset, background=first)
    if background and inference.focus is not None:
        reached = reached & known(query)
    windows["query_mask"] = reached
    found = memory_read(query, keys, values, top_k=top_k, **windows)
    if background:
        found[..., 0] = torch.where(reached, found[..., 0], 1.0)  # where no label reaches, all is background
    return found


def _screened(matching: Matching, inference: Inference, query: Tensor, frames: Mapping[int, MemoryFrame]) -> Tensor:
    """The cells that may hold an object, by a coarse reading of plain windows."""
    assert matching.radius is not None and inference.screen is not None  # the settings were checked
    keys, values = ([frame.coarse for frame in frames.values()], [frame.coarse_values for frame in frames.values()])
    return screen(
        coarse_features(query),
        keys,
        values,
        radius=-(-matching.radius // COARSE),
        scale=matching.scale,
        least=inference.screen,
        size=(query.shape[1], query.shape[2]),
    )


def _roi(matching: Matching, inference: Inference, query: Tensor, key: Tensor, gap: int) -> Tensor | None:
    """Where the windows of a reference go; None is each cell's own place."""
    radius, scale, border = matching.radius, matching.scale, matching.border
    if radius is None or not 0 < inference.roi_search < gap:
        return None
    return region.offsets(query, key, gap, search=inference.roi_search, radius=radius, scale=scale, border=border)


def _taps(matching: Matching, inference: Inference, query: Tensor, frames: Iterable[MemoryFrame]) -> int:
    """Taps of all windows: the first frames have few references, and may have fewer taps than top_k."""
    cells = query[0, ..., 0].numel()
    whole = (frame.whole or matching.radius is None for frame in frames)
    return sum(cells if read else _in_window(matching.radius or 0, inference.shape) for read in whole)


@lru_cache(maxsize=1)
def _in_window(radius: int, shape: str) -> int:
    """Taps of a window."""
    span = range(-radius, radius + 1)
    return sum(shape == "square" or dy * dy + dx * dx < radius * radius for dy in span for dx in span)
