"""Windows that go with what moves, for the references that a span reads to its end (``matching.carry``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from vcorr.kernels import label_query_mask
from vcorr.matching import carry
from vcorr.model import nn
from vcorr.model.encoder import Model
from vcorr.propagation.memory import Memory, MemoryFrame

Follow = Callable[[Tensor, Mapping[int, MemoryFrame], Memory, int, Model, bool], Mapping[int, MemoryFrame]]
"""Arguments and result of ``followed``."""

NEAR = 6  # cells around a carried place in which its match is looked for
COARSE = 2  # cells a side that are followed as one: windows need not be centred better, and it takes a 16th of the time


def followed(
    query: Tensor, frames: Mapping[int, MemoryFrame], memory: Memory, position: int, model: Model, background: bool
) -> dict[int, MemoryFrame]:
    """The frames that a query reads, long references with windows where its cells come from.

    Args:
        query: features [1 h w c] of the frame at a position.
        frames: by how far they lie back, as ``memory.read`` gives them.
        memory: its places are carried on to this frame.
        background: of the labels (``Labels.background``).
    """
    radius, margin = model.reading.radius, model.inference.follow
    assert radius is not None and margin is not None  # the settings were checked
    last = memory.frames[position - 1]
    values = [last.values, *(frame.values for frame in frames.values())]
    reached = label_query_mask(values, radius=radius, background=0 if background else None)
    wanted = _pooled(reached.float()[..., None], F.max_pool2d)[..., 0] > 0
    reach, near = -(-radius // COARSE), -(-NEAR // COARSE)
    coarse = _coarse(query)
    _, step = carry.best_match(coarse, _coarse(last.feature), radius=reach, query_mask=wanted)
    windows: dict[int, Tensor] = {}
    for p in model.inference.references.long:
        if position - p not in frames:
            continue
        if p == position - 1:
            memory.places[p] = step
            continue
        key = _coarse(memory.frames[p].feature)
        if p not in memory.places:  # since then frames have repeated each other
            _, memory.places[p] = carry.best_match(coarse, key, radius=reach, query_mask=wanted)
            continue
        moved, memory.places[p] = carry.follow(
            coarse, key, memory.places[p], step, radius=reach, near=near, margin=margin, query_mask=wanted
        )
        fine = moved.repeat_interleave(COARSE, 1).repeat_interleave(COARSE, 2) * COARSE
        windows[p] = fine[:, : query.shape[1], : query.shape[2]]
    return {gap: replace(frame, window=windows.get(position - gap)) for gap, frame in frames.items()}


def _coarse(feature: Tensor) -> Tensor:
    return nn.unit(_pooled(feature, F.avg_pool2d))


def _pooled(cells: Tensor, pool: Callable[..., Tensor]) -> Tensor:
    """COARSE x COARSE cells [1 h w c] in one; those at the far edges stand for what they lack."""
    height, width = cells.shape[1:3]
    padded = F.pad(cells.permute(0, 3, 1, 2), (0, -width % COARSE, 0, -height % COARSE), mode="replicate")
    return pool(padded, COARSE).permute(0, 2, 3, 1)
