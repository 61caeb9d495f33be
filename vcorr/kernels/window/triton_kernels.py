"""The kernels of a windowed reading: one program a tile of cells, the keys of its halo streamed past, no atomics.

    forward   a tile of queries stays, keys and values pass; online softmax in base 2; P . V with the rounded P also
              summed, so that one-hot labels stay a distribution
    dq        a tile of queries stays, keys and values pass; S again from the saved logsumexp
    dk, dv    a tile of keys stays, queries and gradients pass

The keys under a tile are its halo cut to the frame, counted row by row, so that any radius and any strides do. Shapes
in comments: M cells of the tile, N cells that pass, C channels of a chunk, V value channels padded to a power of two.
Within a frame offsets are int32, between images int64.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import math

import triton
import triton.language as tl

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2.0))


@triton.jit
def cells_of_tile(H, W, TH: tl.constexpr, TW: tl.constexpr, D: tl.constexpr):
    """Rows and columns [M] of this program's tile in its sub-image, the sub-image's origin and size."""
    sub = tl.program_id(1) % (D * D)
    top, left = sub // D, sub % D
    height, width = (H - top + D - 1) // D, (W - left + D - 1) // D
    across = tl.cdiv((W + D - 1) // D, TW)
    m = tl.arange(0, TH * TW)
    y = tl.program_id(0) // across * TH + m // TW
    x = tl.program_id(0) % across * TW + m % TW
    return y, x, top, left, height, width


@triton.jit
def halo_of_tile(height, width, R, TH: tl.constexpr, TW: tl.constexpr, W, D: tl.constexpr):
    """First row, first column, columns and number of the cells within R of this program's tile."""
    across = tl.cdiv((W + D - 1) // D, TW)
    y0 = tl.program_id(0) // across * TH
    x0 = tl.program_id(0) % across * TW
    first_row, first_column = tl.maximum(y0 - R, 0), tl.maximum(x0 - R, 0)
    rows = tl.maximum(tl.minimum(y0 + TH + R, height) - first_row, 0)
    columns = tl.maximum(tl.minimum(x0 + TW + R, width) - first_column, 0)
    return first_row, first_column, columns, rows * columns


@triton.jit
def load_rows(base, offset, inside, first, C, BC: tl.constexpr, CAST: tl.constexpr):
    """Channels first..first+BC of the cells at ``offset``: [cells BC], zero where not inside."""
    c = first + tl.arange(0, BC)
    rows = tl.load(base + offset[:, None] + c[None, :], mask=inside[:, None] & (c < C)[None, :], other=0.0)
    return rows.to(tl.bfloat16) if CAST else rows


@triton.jit
def products(A, a_offset, a_inside, B, b_offset, b_inside, C, BM: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr,
             CHUNKS: tl.constexpr, PRECISION: tl.constexpr, CAST: tl.constexpr):  # fmt: skip
    """Dot products of two sets of cells over all channels: [M N] in float32."""
    scores = tl.zeros((BM, BN), dtype=tl.float32)
    for chunk in tl.range(0, CHUNKS):
        a = load_rows(A, a_offset, a_inside, chunk * BC, C, BC, CAST)
        b = load_rows(B, b_offset, b_inside, chunk * BC, C, BC, CAST)
        scores = tl.dot(a, tl.trans(b), scores, input_precision=PRECISION)
    return scores


@triton.jit
def within(y, x, other_y, other_x, R, DISK: tl.constexpr):
    """Whether cells see one another: [M N]."""
    dy, dx = other_y[None, :] - y[:, None], other_x[None, :] - x[:, None]
    if DISK:
        return dy * dy + dx * dx < R * R
    return (tl.abs(dy) <= R) & (tl.abs(dx) <= R)


@triton.jit
def forward_kernel(
    Q, K, V, MASK, OUT, LSE,
    q_b, q_y, q_x, k_b, k_y, k_x, v_b, v_y, v_x, m_b, m_y, m_x, o_b, o_y, o_x, l_b, l_y, l_x,
    H, W, C, CV, R, scale,
    D: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, CHUNKS: tl.constexpr,
    BV: tl.constexpr, DISK: tl.constexpr, HAS_MASK: tl.constexpr, PRECISION: tl.constexpr, CAST: tl.constexpr,
):  # fmt: skip
    BM: tl.constexpr = TH * TW
    y, x, top, left, height, width = cells_of_tile(H, W, TH, TW, D)
    first_row, first_column, columns, count = halo_of_tile(height, width, R, TH, TW, W, D)
    b = tl.program_id(2).to(tl.int64)
    Q += b * q_b
    K += b * k_b
    V += b * v_b
    inside = (y < height) & (x < width)
    q_at = (top + D * y) * q_y + (left + D * x) * q_x
    largest = tl.full((BM,), float("-inf"), dtype=tl.float32)
    mass = tl.zeros((BM,), dtype=tl.float32)
    total = tl.zeros((BM, BV), dtype=tl.float32)
    for start in range(0, count, BN):
        n = start + tl.arange(0, BN)
        ky, kx, valid = first_row + n // columns, first_column + n % columns, n < count
        row, column = top + D * ky, left + D * kx
        scores = products(Q, q_at, inside, K, row * k_y + column * k_x, valid, C, BM, BN, BC, CHUNKS, PRECISION, CAST)
        if HAS_MASK:
            kept = tl.load(MASK + b * m_b + row * m_y + column * m_x, mask=valid, other=0)
            valid = valid & (kept != 0)
        scores = tl.where(within(y, x, ky, kx, R, DISK) & valid[None, :], scores * scale, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        level = tl.where(larger == float("-inf"), 0.0, larger)  # nothing valid so far
        values = load_rows(V, row * v_y + column * v_x, valid, 0, CV, BV, CAST)  # [N V]
        weights = tl.exp2(scores - level[:, None]).to(values.dtype)
        shrink = tl.exp2(largest - level)
        mass = mass * shrink + tl.sum(weights.to(tl.float32), 1)
        total = tl.dot(weights, values, total * shrink[:, None], input_precision=PRECISION)
        largest = larger
    readout = total / tl.where(mass == 0, 1.0, mass)[:, None]
    row, column = top + D * y, left + D * x
    v = tl.arange(0, BV)
    OUT += b * o_b
    tl.store(OUT + (row * o_y + column * o_x)[:, None] + v[None, :], readout, mask=inside[:, None] & (v < CV)[None, :])
    tl.store(LSE + b * l_b + row * l_y + column * l_x, (largest + tl.log2(mass)) * LN_2, mask=inside)


@triton.jit
def query_gradient_kernel(
    Q, K, V, MASK, G, DELTA, LSE, DQ,
    q_b, q_y, q_x, k_b, k_y, k_x, v_b, v_y, v_x, m_b, m_y, m_x, g_b, g_y, g_x, l_b, l_y, l_x, d_b, d_y, d_x,
    H, W, C, CV, R, scale,
    D: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, CHUNKS: tl.constexpr,
    BO: tl.constexpr, BV: tl.constexpr, DISK: tl.constexpr, HAS_MASK: tl.constexpr, PRECISION: tl.constexpr,
    CAST: tl.constexpr,
):  # fmt: skip
    BM: tl.constexpr = TH * TW
    y, x, top, left, height, width = cells_of_tile(H, W, TH, TW, D)
    first_row, first_column, columns, count = halo_of_tile(height, width, R, TH, TW, W, D)
    b, chunk = tl.program_id(2).to(tl.int64), tl.program_id(1) // (D * D) * BO
    Q += b * q_b
    K += b * k_b
    V += b * v_b
    inside = (y < height) & (x < width)
    own_row, own_column = top + D * y, left + D * x
    q_at, l_at = own_row * q_y + own_column * q_x, own_row * l_y + own_column * l_x
    lse = tl.load(LSE + b * l_b + l_at, mask=inside, other=float("inf"))  # base 2; +inf makes P = 0
    delta = tl.load(DELTA + b * l_b + l_at, mask=inside, other=0.0)
    grads = load_rows(G + b * g_b, own_row * g_y + own_column * g_x, inside, 0, CV, BV, CAST)  # [M V]
    total = tl.zeros((BM, BO), dtype=tl.float32)
    for start in range(0, count, BN):
        n = start + tl.arange(0, BN)
        ky, kx, valid = first_row + n // columns, first_column + n % columns, n < count
        row, column = top + D * ky, left + D * kx
        k_at = row * k_y + column * k_x
        if HAS_MASK:
            valid = valid & (tl.load(MASK + b * m_b + row * m_y + column * m_x, mask=valid, other=0) != 0)
        scores = products(Q, q_at, inside, K, k_at, valid, C, BM, BN, BC, CHUNKS, PRECISION, CAST)
        seen = within(y, x, ky, kx, R, DISK) & valid[None, :]
        weights = tl.where(seen, tl.exp2(scores * (scale * LOG2_E) - lse[:, None]), 0.0)
        values = load_rows(V, row * v_y + column * v_x, valid, 0, CV, BV, CAST)
        slopes = weights * (tl.dot(grads, tl.trans(values), input_precision=PRECISION) - delta[:, None])
        keys = load_rows(K, k_at, valid, chunk, C, BO, CAST)  # [N BO]
        total = tl.dot(slopes.to(keys.dtype), keys, total, input_precision=PRECISION)
    c = chunk + tl.arange(0, BO)
    at = (own_row * d_y + own_column * d_x)[:, None] + c[None, :]
    tl.store(DQ + b * d_b + at, total * scale, mask=inside[:, None] & (c < C)[None, :])


@triton.jit
def key_gradient_kernel(
    Q, K, V, MASK, G, DELTA, LSE, DK, DV,
    q_b, q_y, q_x, k_b, k_y, k_x, v_b, v_y, v_x, m_b, m_y, m_x, g_b, g_y, g_x, l_b, l_y, l_x, d_b, d_y, d_x,
    e_b, e_y, e_x,
    H, W, C, CV, R, scale,
    D: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, CHUNKS: tl.constexpr,
    BO: tl.constexpr, BV: tl.constexpr, DISK: tl.constexpr, HAS_MASK: tl.constexpr, PRECISION: tl.constexpr,
    CAST: tl.constexpr,
):  # fmt: skip
    BM: tl.constexpr = TH * TW
    y, x, top, left, height, width = cells_of_tile(H, W, TH, TW, D)
    first_row, first_column, columns, count = halo_of_tile(height, width, R, TH, TW, W, D)
    b, chunk = tl.program_id(2).to(tl.int64), tl.program_id(1) // (D * D) * BO
    Q += b * q_b
    K += b * k_b
    G += b * g_b
    own_row, own_column = top + D * y, left + D * x
    in_frame = (y < height) & (x < width)
    inside = in_frame
    if HAS_MASK:
        inside = inside & (tl.load(MASK + b * m_b + own_row * m_y + own_column * m_x, mask=inside, other=0) != 0)
    k_at = own_row * k_y + own_column * k_x
    values = load_rows(V + b * v_b, own_row * v_y + own_column * v_x, inside, 0, CV, BV, CAST)  # [M V]
    total = tl.zeros((BM, BO), dtype=tl.float32)
    value_total = tl.zeros((BM, BV), dtype=tl.float32)
    for start in range(0, count, BN):
        n = start + tl.arange(0, BN)
        qy, qx, valid = first_row + n // columns, first_column + n % columns, n < count
        row, column = top + D * qy, left + D * qx
        q_at, l_at = row * q_y + column * q_x, row * l_y + column * l_x
        lse = tl.load(LSE + b * l_b + l_at, mask=valid, other=float("inf"))
        delta = tl.load(DELTA + b * l_b + l_at, mask=valid, other=0.0)
        scores = products(K, k_at, inside, Q, q_at, valid, C, BM, BN, BC, CHUNKS, PRECISION, CAST)
        seen = within(y, x, qy, qx, R, DISK) & valid[None, :] & inside[:, None]
        weights = tl.where(seen, tl.exp2(scores * (scale * LOG2_E) - lse[None, :]), 0.0)
        grads = load_rows(G, row * g_y + column * g_x, valid, 0, CV, BV, CAST)  # [N V]
        value_total = tl.dot(weights.to(grads.dtype), grads, value_total, input_precision=PRECISION)
        slopes = weights * (tl.dot(values, tl.trans(grads), input_precision=PRECISION) - delta[None, :])
        queries = load_rows(Q, q_at, valid, chunk, C, BO, CAST)  # [N BO]
        total = tl.dot(slopes.to(queries.dtype), queries, total, input_precision=PRECISION)
    c, v = chunk + tl.arange(0, BO), tl.arange(0, BV)
    at = (own_row * d_y + own_column * d_x)[:, None] + c[None, :]
    tl.store(DK + b * d_b + at, total * scale, mask=in_frame[:, None] & (c < C)[None, :])
    own_values = tl.where(chunk == 0, CV, 0)  # programs of other channels computed the same values' gradient
    value_at = (own_row * e_y + own_column * e_x)[:, None] + v[None, :]
    tl.store(DV + b * e_b + value_at, value_total, mask=in_frame[:, None] & (v < own_values)[None, :])
