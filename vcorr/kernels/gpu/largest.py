"""The k largest logits of each reference on a GPU: a tile of queries holds k slots a row, the keys stream past.

A block of scores gives up its largest as long as any row of the tile has one above its least slot, which that one then
replaces: exact for any order of keys, and after the first blocks few rounds a block. Every reference is a program of
its own. Slots come out unsorted; k numbers a cell are sorted by torch.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from vcorr.kernels.geometry import Reference
from vcorr.kernels.gpu import tuning
from vcorr.kernels.gpu.kernels import (
    box_around,
    cells_of_program,
    cells_to_read,
    centres,
    in_window,
    load_rows,
    products,
    taps_outside,
)
from vcorr.kernels.gpu.reading import constants, inputs_of, prepared, programs, reach_of, run_tuned, runs, taps_of
from vcorr.kernels.gpu.tuning import Tiling


@triton.jit
def peaks_kernel(
    Q, K, MASK, OFFSET, WANTED, TOP, CELL,
    q_b, q_y, q_x, k_r: tl.int64, k_b, k_y, k_x, m_r, t_r,
    H, W, C, R, TAPS: tl.int64, PART, scale,
    STEP: tl.constexpr, TAP: tl.constexpr, CORNERS: tl.constexpr, HAS_OFFSET: tl.constexpr, HAS_WANTED: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, CHUNKS: tl.constexpr,
    TOP_K: tl.constexpr, SLOTS: tl.constexpr, DISK: tl.constexpr, ZEROS: tl.constexpr, HAS_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The TOP_K largest logits of a tile of query cells in one reference, unsorted, in slots.

    TOP [r b h w k] float32, -inf where fewer can be read; CELL [r b h w k] int32, the key's number in its frame, -1 for
    none and for taps outside the frame. The others are those of the window's forward kernel.
    """
    BM: tl.constexpr = TH * TW
    y, x, top, left, height, width, b = cells_of_program(H, W, STEP, TH, TW, 0)
    inside = (y < height) & (x < width)
    own_cell = b * H * W + (top + STEP * y) * W + left + STEP * x
    wanted = cells_to_read(WANTED, own_cell, inside, HAS_WANTED)
    cy, cx, _, _ = centres(OFFSET, own_cell, wanted, y, x, CORNERS, HAS_OFFSET)
    reach = R * TAP
    first_row, first_column, columns, count = box_around(
        cy, cx, wanted, reach, reach, reach, reach, 0, height - 1, 0, width - 1
    )  # fmt: skip
    r = tl.program_id(1).to(tl.int64)
    Q += b * q_b
    K += r * k_r + b * k_b
    q_at = (top + STEP * y) * q_y + (left + STEP * x) * q_x
    own = load_rows(Q, q_at, wanted, 0, C, BC) if CHUNKS == 1 else 0
    slot, place = tl.arange(0, SLOTS), tl.arange(0, BN)
    # Slots past k are never the least.
    best = tl.where(slot < TOP_K, float("-inf"), float("inf"))[None, :] + tl.zeros((BM, SLOTS), dtype=tl.float32)
    cells = tl.full((BM, SLOTS), -1, dtype=tl.int32)
    counted = tl.zeros((BM,), dtype=tl.int64)
    for start in range(0, count, BN):
        n = start + place
        ky, kx, valid = first_row + n // columns, first_column + n % columns, n < count
        row, column = top + STEP * ky, left + STEP * kx
        seen = in_window(ky[None, :] - cy[:, None], kx[None, :] - cx[:, None], R, TAP, DISK) & valid[None, :]
        if ZEROS:
            counted += tl.sum(seen.to(tl.int32), 1)
        if HAS_MASK:
            kept = tl.load(MASK + r * m_r + (b * H + row) * W + column, mask=valid, other=0) != 0
            seen = seen & kept[None, :]
        k_at = row * k_y + column * k_x
        scores = products(own, Q, q_at, wanted, K, k_at, valid, C, BM, BN, BC, CHUNKS, PRECISION) * scale
        scores = tl.where(scores == scores, scores, float("inf"))  # NaN counts as the largest, as in torch.topk
        scores = tl.where(seen & wanted[:, None], scores, float("-inf"))
        while tl.max((tl.max(scores, 1) > tl.min(best, 1)).to(tl.int32), 0) > 0:
            largest, where = tl.max(scores, 1, return_indices=True)
            least, worst = tl.min(best, 1, return_indices=True)
            taken = (slot[None, :] == worst[:, None]) & (largest > least)[:, None]
            best = tl.where(taken, largest[:, None], best)
            found = start + where
            cell = (top + STEP * (first_row + found // columns)) * W + left + STEP * (first_column + found % columns)
            cells = tl.where(taken, cell[:, None], cells)
            scores = tl.where(place[None, :] == where[:, None], float("-inf"), scores)
    if ZEROS:  # the taps outside the frame, of logit 0
        outside = taps_outside(TAPS, PART, counted)
        for k in tl.static_range(TOP_K):
            least, worst = tl.min(best, 1, return_indices=True)
            taken = (slot[None, :] == worst[:, None]) & ((least < 0.0) & (outside > k))[:, None]
            best = tl.where(taken, 0.0, best)
            cells = tl.where(taken, -1, cells)
    if HAS_WANTED:
        best = tl.where(wanted[:, None] | (best == float("inf")), best, float("-inf"))
        cells = tl.where(wanted[:, None], cells, -1)
    at = (r * t_r + own_cell)[:, None] * TOP_K + slot[None, :]
    stored = inside[:, None] & (slot < TOP_K)[None, :]
    tl.store(TOP + at, tl.where(best == float("inf"), float("nan"), best), mask=stored)
    tl.store(CELL + at, cells, mask=stored)


def largest(
    query: Tensor, references: Sequence[Reference], top_k: int, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w r k] of each reference's top_k largest logits, where a cell is wanted [b h w]."""
    query, references = prepared(query, references)
    found = [_largest_of_run(query, run, top_k, wanted) for run in runs(references)]
    logits, cells = (torch.cat(parts).movedim(0, 3) for parts in zip(*found, strict=True))  # [b h w r k]
    logits, order = logits.sort(dim=-1, descending=True)
    return logits, cells.gather(-1, order).long()


def _largest_of_run(
    query: Tensor, run: Sequence[Reference], top_k: int, wanted: Tensor | None
) -> tuple[Tensor, Tensor]:
    """[r b h w k], unsorted."""
    first = run[0]
    (q, key, _, mask, offset, read), steps = inputs_of(query, run, wanted)
    height, width, features = query.shape[1:]
    shape = (len(run), *query.shape[:3], top_k)
    logits = torch.empty(shape, dtype=torch.float32, device=query.device)
    cells = torch.empty(shape, dtype=torch.int32, device=query.device)
    taps, part = taps_of([first])

    def launch(tiling: Tiling) -> None:
        fixed = constants(query, first, wanted, tiling)
        peaks_kernel[(programs(query.shape, tiling, fixed["STEP"]), len(run))](
            q, key, mask, offset, read, logits, cells, *steps[:7], steps[-1], cells[0, ..., 0].numel(),
            height, width, features, reach_of(query, first), taps, part, first.window.scale,
            **fixed, TOP_K=top_k, SLOTS=max(2, triton.next_power_of_2(top_k)), **tuning.options(tiling),
        )  # fmt: skip

    run_tuned("peaks", query, run, wanted, launch)
    return logits, cells
