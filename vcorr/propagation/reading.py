"""Values of a query frame, read from frames in memory: the settings of a reader as arguments of the operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vcorr.kernels import memory_read
from vcorr.matching import compactness, region
from vcorr.model.inference import Reader
from vcorr.propagation.memory import MemoryFrame

Read = Callable[[Tensor, Mapping[int, MemoryFrame]], Tensor]
"""Features of a query [1 h w c], frames by how far they lie back -> values [1 h w v]."""


def reading(reader: Reader, *, background: bool) -> Read:
    """How values are read.

    Args:
        reader: the settings.
        background: whether a cell's values are shares of 1 already (``Labels.background``); others are divided by the
            weight they were read with, wherever that is not 1.
    """
    whole = background or not (reader.compactness or reader.border == "zeros")

    def read(query: Tensor, frames: Mapping[int, MemoryFrame]) -> Tensor:
        values = [frame.values for frame in frames.values()]
        if whole:
            return _read(reader, query, frames, values)
        ones = torch.ones_like(values[0][..., :1])
        found = _read(reader, query, frames, [torch.cat([v, ones], -1) for v in values])
        return found[..., :-1] / found[..., -1:].clamp(min=1e-6)

    return read


def _read(reader: Reader, query: Tensor, frames: Mapping[int, MemoryFrame], values: list[Tensor]) -> Tensor:
    keys = [frame.feature for frame in frames.values()]
    radius, scale, border = reader.radius, reader.scale, reader.border
    if k := reader.compactness:
        return compactness.read(query, keys, values, peaks=k, radius=radius, scale=scale, border=border)
    offset = [
        region.offsets(query, key, gap, search=reader.search, radius=radius, scale=scale, border=border)
        if radius is not None and 0 < reader.search < abs(gap)
        else None
        for gap, key in zip(frames, keys, strict=True)
    ]
    taps = len(keys) * (query[0, ..., 0].numel() if radius is None else (2 * radius + 1) ** 2)
    top_k = reader.top_k and min(reader.top_k, taps)  # the first frames have few references
    return memory_read(query, keys, values, radius=radius, offset=offset, scale=scale, border=border, top_k=top_k)
