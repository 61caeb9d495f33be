"""The specification of the k largest logits: every logit of every tap, then the largest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vcorr.kernels.geometry import Reference, working_type
from vcorr.kernels.window.reference import positions, sample, where


def largest(
    query: Tensor, references: Sequence[Reference], top_k: int, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w r k] of each reference's top_k largest logits, where a cell is wanted [b h w]."""
    if wanted is not None:
        logits, cells = largest(query, references, top_k)
        kept = wanted[..., None, None]
        return torch.where(kept, logits, -torch.inf), torch.where(kept, cells, -1)
    found = [_largest_of(query, reference, top_k) for reference in references]
    return torch.stack([logits for logits, _ in found], -2), torch.stack([cells for _, cells in found], -2)


def _largest_of(query: Tensor, reference: Reference, top_k: int) -> tuple[Tensor, Tensor]:
    logits, cells = [], []
    for position in positions(reference):
        inside, unmasked = where(reference, position)
        logit = reference.window.scale * (query * sample(reference.key, position)).sum(-1)
        counted = unmasked & (inside | (reference.window.border == "zeros"))
        cell = position.long()[..., 0] * query.shape[2] + position.long()[..., 1]
        logits.append(torch.where(counted, logit.to(working_type(query)), -torch.inf))
        cells.append(torch.where(counted & inside, cell, -1))
    for _ in range(top_k - len(logits)):
        logits.append(torch.full_like(logits[0], -torch.inf))
        cells.append(torch.full_like(cells[0], -1))
    top, tap = torch.stack(logits, -1).topk(top_k)
    return top, torch.stack(cells, -1).gather(-1, tap)
