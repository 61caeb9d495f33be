"""Windows that go with what moves, for the references that a span reads to its end (``matching.carry``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vcorr.kernels import memory_read
from vcorr.matching import carry
from vcorr.matching.coarse import COARSE, coarse_features, within
from vcorr.model.encoder import Model
from vcorr.propagation.memory import Memory, MemoryFrame

Follow = Callable[[Tensor, Mapping[int, MemoryFrame], Memory, int, Model, bool], Mapping[int, MemoryFrame]]
"""Arguments and result of ``followed``."""


def followed(
    query: Tensor, frames: Mapping[int, MemoryFrame], memory: Memory, position: int, model: Model, background: bool
) -> dict[int, MemoryFrame]:
    """The frames that a query reads, long references with windows where its objects come from.

    Places are those of coarse cells: a window need not be centred better.

    Args:
        query: features [1 h w c] of the frame at a position.
        frames: by how far they lie back, as ``memory.read`` gives them.
        memory: its places are carried on to this frame.
        background: of the labels (``Labels.background``).
    """
    radius, margin = model.reading.radius, model.inference.follow
    assert radius is not None and margin is not None  # the settings were checked
    reach = -(-radius // COARSE)
    last, coarse = memory.frames[position - 1], coarse_features(query)
    share = 1 - last.coarse_values[..., :1] if background else last.coarse_values.abs().amax(-1, keepdim=True)
    wanted = within(share[..., 0] > 0, reach)
    long = [p for p in model.inference.references.long if position - p in frames]
    known = [p for p in long if p in memory.places]
    carried = torch.cat([share, *(memory.places[p][None] for p in known)], -1)
    moved = memory_read(coarse, [last.coarse], [carried], radius=reach, scale=carry.SCALE, query_mask=wanted)[0]
    size = (coarse.shape[1], coarse.shape[2])
    own, weight = carry.places(*size, coarse), moved[..., :1] + carry.FAINT * wanted[0, ..., None]
    blocks = carry.near_objects(moved[..., :1])
    stay = own.new_zeros(*blocks.shape, 2)
    windows: dict[int, Tensor] = {}
    for p in long:
        key = memory.frames[p].coarse[0]
        here = carry.match_blocks(coarse[0], key, stay, blocks, radius=reach)
        if p not in known:
            memory.places[p] = here.place
            continue
        place = moved[..., 1 + 2 * known.index(p) :][..., :2]
        shift = carry.mean_in_blocks(place - own, weight).round()
        there = carry.match_blocks(coarse[0], key, shift, blocks, radius=reach)
        gain = carry.mean_in_blocks((there.similarity - here.similarity)[..., None], weight)
        fine = (query.shape[1], query.shape[2])
        proven = torch.where(gain >= margin, shift, 0.0) * COARSE
        windows[p] = carry.to_cells(proven, fine, carry.BLOCK * COARSE)[None]
        memory.places[p] = torch.where(carry.to_cells(gain >= 0, size), there.place, here.place)
    return {gap: replace(frame, window=windows.get(position - gap)) for gap, frame in frames.items()}
