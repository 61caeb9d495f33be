"""The negatives' mass on a GPU: a tile of queries stays, the bank streams past; online softmax in base 2.

The bank is split over programs, so that few queries fill the GPU too; each split writes its own logsumexp and mean, and
the splits are merged in a fixed order. A program accumulates the mean negative of some channels; where there are more,
further programs compute the logits again: registers hold [M BO] sums, not [M C].
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vcorr.kernels.gpu import tuning
from vcorr.kernels.gpu.tuning import Tiling

LOG2_E = math.log2(math.e)
LN_2 = tl.constexpr(math.log(2.0))
PROGRAMS = 264  # two for each of 132 multiprocessors


@triton.jit
def load_rows(base, rows, inside, step, first, C, BC: tl.constexpr):
    """Channels first..first+BC of some rows, zero where not inside."""
    c = first + tl.arange(0, BC)
    at = rows.to(tl.int64)[:, None] * step + c[None, :]
    return tl.load(base + at, mask=inside[:, None] & (c < C)[None, :], other=0.0)


@triton.jit
def forward_kernel(
    Q, BANK, Q_GROUP, BANK_GROUP, LSE, MEAN,
    q_step, bank_step, N, M, C, scale, share,
    BM: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, CHUNKS: tl.constexpr, BO: tl.constexpr,
    HAS_GROUPS: tl.constexpr, KEEP_MEAN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Logsumexp (natural) and mean negative of a tile of queries over a part of the bank.

    Q [N C] and BANK [M C] by their steps; Q_GROUP [N] and BANK_GROUP [M]: pairs of one group are left out (HAS_GROUPS).
    LSE [splits N] and MEAN [splits N C] float32, merged by the launcher; share: negatives a split.
    """
    split, first = tl.program_id(1), tl.program_id(2) * BO
    n = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = n < N
    own = tl.load(Q_GROUP + n, mask=inside, other=0) if HAS_GROUPS else n
    largest = tl.full((BM,), float("-inf"), dtype=tl.float32)
    mass = tl.zeros((BM,), dtype=tl.float32)
    total = tl.zeros((BM, BO), dtype=tl.float32)
    if CHUNKS == 1:
        own_features = load_rows(Q, n, inside, q_step, 0, C, BC)
    for start in range(split * share, tl.minimum((split + 1) * share, M), BN):
        m = start + tl.arange(0, BN)
        valid = (m < M) & (m < (split + 1) * share)
        scores = tl.zeros((BM, BN), dtype=tl.float32)
        if CHUNKS == 1:
            negatives = load_rows(BANK, m, valid, bank_step, 0, C, BC)
            scores = tl.dot(own_features, tl.trans(negatives), scores, input_precision=PRECISION)
        else:
            for chunk in tl.range(0, tl.cdiv(C, BC)):  # a count the compiler knows would be unrolled
                queries = load_rows(Q, n, inside, q_step, chunk * BC, C, BC)
                negatives = load_rows(BANK, m, valid, bank_step, chunk * BC, C, BC)
                scores = tl.dot(queries, tl.trans(negatives), scores, input_precision=PRECISION)
        counted = inside[:, None] & valid[None, :]
        if HAS_GROUPS:
            counted = counted & (own[:, None] != tl.load(BANK_GROUP + m, mask=valid, other=0)[None, :])
        scores = tl.where(counted, scores * scale, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        level = tl.where(larger == float("-inf"), 0.0, larger)  # no negative left so far
        weights = tl.exp2(scores - level[:, None])
        shrink = tl.exp2(largest - level)
        mass = mass * shrink + tl.sum(weights, 1)
        if KEEP_MEAN:
            part = load_rows(BANK, m, valid, bank_step, first, C, BO)
            total = tl.dot(weights.to(part.dtype), part, total * shrink[:, None], input_precision=PRECISION)
        largest = larger
    row = split.to(tl.int64) * N + n
    tl.store(LSE + row, (largest + tl.log2(mass)) * LN_2, mask=n < tl.where(first == 0, N, 0))
    if KEEP_MEAN:
        c = first + tl.arange(0, BO)
        mean = total / tl.where(mass == 0, 1.0, mass)[:, None]
        tl.store(MEAN + row[:, None] * C + c[None, :], mean, mask=inside[:, None] & (c < C)[None, :])


def logsumexp(
    query: Tensor,
    negatives: Tensor,
    query_group: Tensor | None,
    negative_group: Tensor | None,
    scale: float,
    precision: str,
    keep_mean: bool,
) -> tuple[Tensor, Tensor]:
    """Logsumexp [n], and each query's mean negative [n c] under its softmax, or [0 c] where it is not kept."""
    count, features = query.shape
    work = tuning.multiplied_type(query.dtype, precision)
    q, bank = (x.to(work) if x.stride(1) == 1 else x.to(work).contiguous() for x in (query, negatives))
    found: list[tuple[Tensor, Tensor]] = []

    def launch(tiling: Tiling) -> None:
        tiles = triton.cdiv(count, tiling.rows * tiling.columns)
        blocks = max(1, triton.cdiv(len(bank), tiling.passing))
        splits = max(1, min(blocks, PROGRAMS // max(1, tiles)))
        lse = torch.empty(splits, count, dtype=torch.float32, device=query.device)
        mean = torch.empty(splits if keep_mean else 0, count, features, dtype=torch.float32, device=query.device)
        fixed = constants(q, precision, tiling)
        groups = (query_group, negative_group) if query_group is not None else (lse, lse)
        found[:] = [(lse, mean)]
        if count:
            forward_kernel[(tiles, splits, triton.cdiv(features, fixed["BO"]) if keep_mean else 1)](
                q, bank, *groups, lse, mean, q.stride(0), bank.stride(0), count, len(bank), features,
                scale * LOG2_E, triton.cdiv(blocks, splits) * tiling.passing,
                **fixed, HAS_GROUPS=query_group is not None, KEEP_MEAN=keep_mean, **tuning.options(tiling),
            )  # fmt: skip

    kernel: tuning.Kernel = "mean_negatives" if keep_mean else "negatives"
    tuning.run(kernel, q, precision, launch, key=(len(bank), query_group is not None))
    ((lse, mean),) = found
    joint = lse.logsumexp(0)
    if not keep_mean:
        return joint, query.new_empty(0, features, dtype=torch.float32)
    level = joint.masked_fill(joint == -torch.inf, 0.0)
    return joint, ((lse - level).exp()[..., None] * mean).sum(0)


def constants(query: Tensor, precision: str, tiling: Tiling) -> dict[str, Any]:
    """What the kernel is compiled for; BO channels of the mean are one program's."""
    wide = triton.next_power_of_2(query.shape[1])
    block = max(16, min(tiling.channels, wide))
    return {
        "BM": tiling.rows * tiling.columns,
        "BN": tiling.passing,
        "BC": block,
        "CHUNKS": triton.cdiv(query.shape[1], block),
        "BO": max(16, min(tiling.held, wide)),
        "PRECISION": tuning.product_precision(query.dtype, precision),
    }
