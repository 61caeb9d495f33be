"""The specification of the negatives' mass: the full matrix of logits."""

from __future__ import annotations

import torch
from torch import Tensor


def logsumexp(
    query: Tensor, negatives: Tensor, query_group: Tensor | None, negative_group: Tensor | None, scale: float
) -> Tensor:
    """log sum_m exp(scale * <query_n, negative_m>) over pairs of different groups: [n], -inf where there is none."""
    logits = scale * (query @ negatives.T)
    counted = torch.ones_like(logits, dtype=torch.bool)
    if query_group is not None and negative_group is not None:
        counted = query_group[:, None] != negative_group
    some = counted.any(1)
    kept = torch.where(counted | ~some[:, None], logits, -torch.inf)  # rows with nothing left: any number, no NaN
    lse = kept.logsumexp(1) if negatives.shape[0] else kept.sum(1)
    lse_type = torch.promote_types(query.dtype, torch.float32)
    return torch.where(some, lse, -torch.inf).to(lse_type)
