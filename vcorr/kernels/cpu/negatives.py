"""The negatives' mass in blocks of queries and negatives: an online softmax, and its mean negative where wanted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vcorr.kernels.cpu.products import times
from vcorr.kernels.geometry import working_type

QUERIES, NEGATIVES = 1024, 512  # one block of logits is 2 MB
LOG2_E = math.log2(math.e)
LN_2 = math.log(2.0)


def logsumexp(
    query: Tensor,
    negatives: Tensor,
    query_group: Tensor | None,
    negative_group: Tensor | None,
    scale: float,
    keep_mean: bool,
) -> tuple[Tensor, Tensor]:
    """Logsumexp [n], and each query's mean negative [n c] under its softmax, or [0 c] where it is not kept."""
    work, (count, channels) = working_type(query), query.shape
    lse = torch.empty(count, dtype=work, device=query.device)
    mean = torch.empty(count if keep_mean else 0, channels, dtype=work, device=query.device)
    for first in range(0, count, QUERIES):
        some = slice(first, first + QUERIES)
        queries = query[some].to(work) * (scale * LOG2_E)
        largest = queries.new_full((queries.shape[0],), -torch.inf)
        mass, total = torch.zeros_like(largest), torch.zeros_like(queries)
        for start in range(0, negatives.shape[0], NEGATIVES):
            part = slice(start, start + NEGATIVES)
            block = negatives[part].to(work)
            scores = times(queries, block.T)
            if query_group is not None and negative_group is not None:
                scores.masked_fill_(query_group[some, None] == negative_group[part], -torch.inf)
            larger = torch.maximum(largest, scores.amax(1))
            level = larger.masked_fill(larger == -torch.inf, 0.0)  # no negative left so far
            scores.sub_(level[:, None]).exp2_()
            shrink = (largest - level).exp2_()
            mass.mul_(shrink).add_(scores.sum(1))
            if keep_mean:
                total.mul_(shrink[:, None]).add_(times(scores, block))
            largest = larger
            del scores  # before the next block's
        lse[some] = (largest + mass.log2()) * LN_2
        if keep_mean:
            mean[some] = total / mass.masked_fill(mass == 0, 1.0)[:, None]
    return lse, mean
