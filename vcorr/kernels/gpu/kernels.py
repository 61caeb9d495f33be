"""The kernels of a windowed reading: one program a tile of cells, the keys of its halo streamed past, no atomics.

    forward   a tile of queries stays, keys and values pass; online softmax in base 2; P . V with a channel of ones, so
              that the readout is divided by the sum of P as the product rounded it: one-hot labels stay a distribution
    dq        a tile of queries stays, keys and values pass; S again from the saved logsumexp
    dk, dv    a tile of keys stays, queries and gradients pass

The keys under a tile are its halo cut to the frame, counted row by row, so that any radius and any strides do. Frames
at even steps in memory are one launch; a launch may go on from the readout and logsumexp of another (GOES_ON).

Without offsets STEP is the dilation: a tile lies in one of the interleaved sub-images, whose taps are adjacent (TAP 1).
With offsets STEP is 1 and TAP the dilation; the halo is the box around all windows of the tile. A fractional position
blends four cells (CORNERS 4), and the blend commutes with the product: the scores of a key block and of the same block
one cell on are four products, blended by the query's own weights. There a key block holds the upper left cells, from
row and column -1 on (EDGE), and dk, dv are written for each corner apart.

Shapes in comments: M cells of the tile, N cells that pass, C channels of a chunk, V value channels padded to a power of
two. Within a frame offsets are int32, between frames int64; the steps between references are declared so, since they
differ from call to call, and each type would be compiled anew.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import math

import triton
import triton.language as tl

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2.0))
FAR = tl.constexpr(1 << 28)  # a row or column past every frame


@triton.jit
def cells_of_program(H, W, STEP: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr, EDGE: tl.constexpr):
    """Of this program: rows and columns [M] in its sub-image, that one's origin and size, and the image's number."""
    across = tl.cdiv(tl.cdiv(W, STEP) + EDGE, TW)
    tiles = tl.cdiv(tl.cdiv(H, STEP) + EDGE, TH) * across
    tile, rest = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    lefts = tl.minimum(W, STEP)
    sub_images = tl.minimum(H, STEP) * lefts
    top, left = rest % sub_images // lefts, rest % sub_images % lefts
    m = tl.arange(0, TH * TW)
    y = tile // across * TH + m // TW - EDGE
    x = tile % across * TW + m % TW - EDGE
    return y, x, top, left, tl.cdiv(H - top, STEP), tl.cdiv(W - left, STEP), (rest // sub_images).to(tl.int64)


@triton.jit
def centres(OFFSET, cell, inside, y, x, CORNERS: tl.constexpr, HAS_OFFSET: tl.constexpr):
    """The cell at or above and left of each window's centre, and how far the centre lies below and right of it."""
    low, right = tl.zeros(y.shape, dtype=tl.float32), tl.zeros(y.shape, dtype=tl.float32)
    if HAS_OFFSET:
        dy = tl.load(OFFSET + 2 * cell, mask=inside, other=0)
        dx = tl.load(OFFSET + 2 * cell + 1, mask=inside, other=0)
        low, right = (dy - tl.floor(dy), dx - tl.floor(dx)) if CORNERS == 4 else (low, right)
        y += (tl.floor(dy) if CORNERS == 4 else dy).to(tl.int32)
        x += (tl.floor(dx) if CORNERS == 4 else dx).to(tl.int32)
    return y, x, low, right


@triton.jit
def box_around(y, x, inside, up, down, left, right, top, bottom, leftmost, rightmost):
    """First row, first column, columns and number of the cells, from row ``top`` to ``bottom`` and column ``leftmost``
    to ``rightmost``, that lie so far up to so far right of cells (y, x).
    """
    first_row = tl.maximum(tl.min(tl.where(inside, y, FAR), 0) - up, top)
    first_column = tl.maximum(tl.min(tl.where(inside, x, FAR), 0) - left, leftmost)
    rows = tl.minimum(tl.max(tl.where(inside, y, -FAR), 0) + down, bottom) - first_row + 1
    columns = tl.minimum(tl.max(tl.where(inside, x, -FAR), 0) + right, rightmost) - first_column + 1
    return first_row, first_column, columns, tl.maximum(rows, 0) * tl.maximum(columns, 0)


@triton.jit
def cells_to_read(WANTED, cell, inside, HAS_WANTED: tl.constexpr):
    """Which of the cells inside are to be read: a tile without any has an empty box, and reads nothing."""
    if HAS_WANTED:
        inside = inside & (tl.load(WANTED + cell, mask=inside, other=0) != 0)
    return inside


@triton.jit
def load_rows(base, offset, inside, first, C, BC: tl.constexpr):
    """Channels first..first+BC of the cells at ``offset``: [cells BC], zero where not inside."""
    c = first + tl.arange(0, BC)
    return tl.load(base + offset[:, None] + c[None, :], mask=inside[:, None] & (c < C)[None, :], other=0.0)


@triton.jit
def products(own, A, a_offset, a_inside, B, b_offset, b_inside, C, BM: tl.constexpr, BN: tl.constexpr,
             BC: tl.constexpr, CHUNKS: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Dot products of the tile's cells, held in ``own`` where one chunk is all, and those that pass: [M N] float32."""
    scores = tl.zeros((BM, BN), dtype=tl.float32)
    if CHUNKS == 1:
        b = load_rows(B, b_offset, b_inside, 0, C, BC)
        scores = tl.dot(own, tl.trans(b), scores, input_precision=PRECISION)
    else:
        for chunk in tl.range(0, tl.cdiv(C, BC)):  # a count the compiler knows would be unrolled
            a = load_rows(A, a_offset, a_inside, chunk * BC, C, BC)
            b = load_rows(B, b_offset, b_inside, chunk * BC, C, BC)
            scores = tl.dot(a, tl.trans(b), scores, input_precision=PRECISION)
    return scores


@triton.jit
def corner_weight(low, right, corner: tl.constexpr):
    """The bilinear weight of a corner: 0 upper left, 1 upper right, 2 lower left, 3 lower right."""
    return (low if corner // 2 == 1 else 1.0 - low) * (right if corner % 2 == 1 else 1.0 - right)


@triton.jit
def in_window(dy, dx, R, TAP: tl.constexpr, DISK: tl.constexpr):
    """Whether a cell that far from a window's centre is one of its taps."""
    reach = R * TAP
    seen = (dy * dy + dx * dx < reach * reach) if DISK else (tl.abs(dy) <= reach) & (tl.abs(dx) <= reach)
    if TAP > 1:
        seen = seen & (dy % TAP == 0) & (dx % TAP == 0)
    return seen


@triton.jit
def between_centres(row, column, low, right, height, width):
    """Whether positions lie between the centres of the frame's outermost cells."""
    down = (row >= 0) & ((row < height - 1) | ((row == height - 1) & (low == 0.0)))
    return down & (column >= 0) & ((column < width - 1) | ((column == width - 1) & (right == 0.0)))


@triton.jit
def taps_outside(TAPS, PART, counted):
    """How many taps lie outside the frame, of all and of those counted in it. A float32 cannot count from 2^24 on: what
    is counted wrongly, and may be one instead of none, would take the whole softmax where all logits are low.
    """
    return (TAPS - counted).to(tl.float32) * PART


@triton.jit
def forward_kernel(
    Q, K, V, MASK, OFFSET, WANTED, OUT, LSE,
    q_b, q_y, q_x, k_r: tl.int64, k_b, k_y, k_x, v_r: tl.int64, v_b, v_y, v_x, m_r, o_x,
    COUNT, H, W, C, CV, R, TAPS: tl.int64, PART, scale,
    STEP: tl.constexpr, TAP: tl.constexpr, CORNERS: tl.constexpr, HAS_OFFSET: tl.constexpr, HAS_WANTED: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, CHUNKS: tl.constexpr, BV: tl.constexpr,
    DISK: tl.constexpr, ZEROS: tl.constexpr, HAS_MASK: tl.constexpr, GOES_ON: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Readout and logsumexp of a tile of query cells in a run of references, by an online softmax in base 2.

    Q [b h w c], K and V [r b h w .] by their strides, MASK [r b h w], OFFSET [b h w 2] in cells as (dy, dx), WANTED the
    cells to read; OUT [b h w v+1] and LSE [b h w], which GOES_ON continues from what earlier runs left there. TAPS and
    PART: how many taps a window has in all references, for those outside the frame that count (ZEROS).
    """
    BM: tl.constexpr = TH * TW
    EDGE: tl.constexpr = 1 if CORNERS == 4 else 0
    y, x, top, left, height, width, b = cells_of_program(H, W, STEP, TH, TW, 0)
    inside = (y < height) & (x < width)
    own_cell = b * H * W + (top + STEP * y) * W + left + STEP * x  # in buffers without gaps, images one after another
    wanted = cells_to_read(WANTED, own_cell, inside, HAS_WANTED)
    cy, cx, low, right = centres(OFFSET, own_cell, wanted, y, x, CORNERS, HAS_OFFSET)
    reach = R * TAP
    first_row, first_column, columns, count = box_around(
        cy, cx, wanted, reach, reach, reach, reach, -EDGE, height - 1, -EDGE, width - 1
    )  # fmt: skip
    blocks = tl.cdiv(count, BN)
    Q += b * q_b
    q_at = (top + STEP * y) * q_y + (left + STEP * x) * q_x
    own = load_rows(Q, q_at, wanted, 0, C, BC) if CHUNKS == 1 else 0
    v = tl.arange(0, BV)
    ones = v == CV
    stored = inside[:, None] & (v < CV)[None, :]
    if GOES_ON:
        largest = tl.load(LSE + own_cell, mask=inside, other=float("-inf")) * LOG2_E
        mass = tl.where(largest == float("-inf"), 0.0, 1.0)
        total = tl.load(OUT + own_cell[:, None] * o_x + v[None, :], mask=stored, other=0.0)
        total = tl.where(ones[None, :], mass[:, None], total)
    else:
        largest = tl.full((BM,), float("-inf"), dtype=tl.float32)
        mass = tl.zeros((BM,), dtype=tl.float32)
        total = tl.zeros((BM, BV), dtype=tl.float32)
    counted = tl.zeros((BM,), dtype=tl.int64)
    for block in range(0, COUNT * blocks):
        r, n = (block // blocks).to(tl.int64), block % blocks * BN + tl.arange(0, BN)
        ky, kx, valid = first_row + n // columns, first_column + n % columns, n < count
        keys, values = K + r * k_r + b * k_b, V + r * v_r + b * v_b
        seen = in_window(ky[None, :] - cy[:, None], kx[None, :] - cx[:, None], R, TAP, DISK) & valid[None, :]
        if CORNERS == 4 and not ZEROS:
            seen = seen & between_centres(ky[None, :], kx[None, :], low[:, None], right[:, None], height, width)
        if ZEROS:
            counted += tl.sum(seen.to(tl.int32), 1)
        scores = tl.zeros((BM, BN), dtype=tl.float32)
        for corner in tl.static_range(CORNERS):
            row, column = top + STEP * (ky + corner // 2), left + STEP * (kx + corner % 2)
            there = valid & (row >= 0) & (row < H) & (column >= 0) & (column < W) if CORNERS == 4 else valid
            if HAS_MASK:
                kept = tl.load(MASK + r * m_r + (b * H + row) * W + column, mask=there, other=1) != 0
                if CORNERS == 4:  # a masked cell takes the whole tap along, unless its weight is 0
                    seen = seen & (kept[None, :] | (corner_weight(low, right, corner) == 0.0)[:, None])
                else:
                    seen = seen & kept[None, :]
            part = products(own, Q, q_at, wanted, keys, row * k_y + column * k_x, there, C, BM, BN, BC, CHUNKS,
                            PRECISION)  # fmt: skip
            scores = part if CORNERS == 1 else scores + part * corner_weight(low, right, corner)[:, None]
        scores = tl.where(seen, scores * scale, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        level = tl.where(larger == float("-inf"), 0.0, larger)  # nothing valid so far
        weights = tl.exp2(scores - level[:, None])
        shrink = tl.exp2(largest - level)
        total = total * shrink[:, None]
        for corner in tl.static_range(CORNERS):
            row, column = top + STEP * (ky + corner // 2), left + STEP * (kx + corner % 2)
            there = valid & (row >= 0) & (row < H) & (column >= 0) & (column < W) if CORNERS == 4 else valid
            carried = load_rows(values, row * v_y + column * v_x, there, 0, CV, BV)  # [N V]
            carried = tl.where(ones[None, :], 1.0, carried).to(carried.dtype)
            part = weights if CORNERS == 1 else weights * corner_weight(low, right, corner)[:, None]
            total = tl.dot(part.to(carried.dtype), carried, total, input_precision=PRECISION)
        mass = mass * shrink + tl.sum(weights, 1)
        largest = larger
    if ZEROS:  # the taps outside the frame, of logit 0 and value 0
        outside = taps_outside(TAPS, PART, counted)
        larger = tl.where(outside > 0, tl.maximum(largest, 0.0), largest)
        level = tl.where(larger == float("-inf"), 0.0, larger)
        shrink = tl.exp2(largest - level)
        beyond = tl.where(outside > 0, outside * tl.exp2(-level), 0.0)
        mass = mass * shrink + beyond
        total = total * shrink[:, None] + tl.where(ones[None, :], beyond[:, None], 0.0)
        largest = larger
    share = tl.sum(tl.where(ones[None, :], total, 0.0), 1)
    readout = total / tl.where(share == 0, 1.0, share)[:, None]
    lse = (largest + tl.log2(mass)) * LN_2
    if HAS_WANTED:
        readout, lse = tl.where(wanted[:, None], readout, 0.0), tl.where(wanted, lse, float("-inf"))
    tl.store(OUT + own_cell[:, None] * o_x + v[None, :], readout, mask=stored)
    tl.store(LSE + own_cell, lse, mask=inside)


@triton.jit
def query_gradient_kernel(
    Q, K, V, MASK, OFFSET, WANTED, G, DELTA, LEVEL, DQ,
    q_b, q_y, q_x, k_r: tl.int64, k_b, k_y, k_x, v_r: tl.int64, v_b, v_y, v_x, m_r, g_x,
    COUNT, H, W, C, CV, R, scale,
    STEP: tl.constexpr, TAP: tl.constexpr, CORNERS: tl.constexpr, HAS_OFFSET: tl.constexpr, HAS_WANTED: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, CHUNKS: tl.constexpr, BO: tl.constexpr,
    BV: tl.constexpr, DISK: tl.constexpr, ZEROS: tl.constexpr, HAS_MASK: tl.constexpr, GOES_ON: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ of a tile of query cells, some channels a program: scale * sum dS k, dS = P * (g . v - delta).

    G [b h w v] is the gradient of the readout, DELTA [b h w] g . readout less that of the logsumexp, LEVEL [b h w] the
    logsumexp in base 2; DQ [b h w c] float32, which GOES_ON adds to. The others are those of the forward kernel.
    """
    BM: tl.constexpr = TH * TW
    EDGE: tl.constexpr = 1 if CORNERS == 4 else 0
    y, x, top, left, height, width, b = cells_of_program(H, W, STEP, TH, TW, 0)
    inside = (y < height) & (x < width)
    own_cell = b * H * W + (top + STEP * y) * W + left + STEP * x
    wanted = cells_to_read(WANTED, own_cell, inside, HAS_WANTED)
    cy, cx, low, right = centres(OFFSET, own_cell, wanted, y, x, CORNERS, HAS_OFFSET)
    reach = R * TAP
    first_row, first_column, columns, count = box_around(
        cy, cx, wanted, reach, reach, reach, reach, -EDGE, height - 1, -EDGE, width - 1
    )  # fmt: skip
    blocks = tl.cdiv(count, BN)
    Q += b * q_b
    q_at = (top + STEP * y) * q_y + (left + STEP * x) * q_x
    own = load_rows(Q, q_at, wanted, 0, C, BC) if CHUNKS == 1 else 0
    first = tl.program_id(1) * BO
    level = tl.load(LEVEL + own_cell, mask=inside, other=float("inf"))  # lse in base 2; +inf makes P = 0
    delta = tl.load(DELTA + own_cell, mask=inside, other=0.0)
    grads = load_rows(G, own_cell * g_x, inside, 0, CV, BV)  # [M V]
    total = tl.zeros((BM, BO), dtype=tl.float32)
    for block in range(0, COUNT * blocks):
        r, n = (block // blocks).to(tl.int64), block % blocks * BN + tl.arange(0, BN)
        ky, kx, valid = first_row + n // columns, first_column + n % columns, n < count
        keys, values = K + r * k_r + b * k_b, V + r * v_r + b * v_b
        seen = in_window(ky[None, :] - cy[:, None], kx[None, :] - cx[:, None], R, TAP, DISK) & valid[None, :]
        if CORNERS == 4 and not ZEROS:
            seen = seen & between_centres(ky[None, :], kx[None, :], low[:, None], right[:, None], height, width)
        scores, slopes = tl.zeros((BM, BN), dtype=tl.float32), tl.zeros((BM, BN), dtype=tl.float32)
        for corner in tl.static_range(CORNERS):
            row, column = top + STEP * (ky + corner // 2), left + STEP * (kx + corner % 2)
            there = valid & (row >= 0) & (row < H) & (column >= 0) & (column < W) if CORNERS == 4 else valid
            if HAS_MASK:
                kept = tl.load(MASK + r * m_r + (b * H + row) * W + column, mask=there, other=1) != 0
                if CORNERS == 4:
                    seen = seen & (kept[None, :] | (corner_weight(low, right, corner) == 0.0)[:, None])
                else:
                    seen = seen & kept[None, :]
            part = products(own, Q, q_at, wanted, keys, row * k_y + column * k_x, there, C, BM, BN, BC, CHUNKS,
                            PRECISION)  # fmt: skip
            carried = load_rows(values, row * v_y + column * v_x, there, 0, CV, BV)
            slope = tl.dot(grads, tl.trans(carried), input_precision=PRECISION)
            scores = part if CORNERS == 1 else scores + part * corner_weight(low, right, corner)[:, None]
            slopes = slope if CORNERS == 1 else slopes + slope * corner_weight(low, right, corner)[:, None]
        weights = tl.where(seen, tl.exp2(scores * (scale * LOG2_E) - level[:, None]), 0.0)
        slopes = weights * (slopes - delta[:, None])
        for corner in tl.static_range(CORNERS):
            row, column = top + STEP * (ky + corner // 2), left + STEP * (kx + corner % 2)
            there = valid & (row >= 0) & (row < H) & (column >= 0) & (column < W) if CORNERS == 4 else valid
            part = slopes if CORNERS == 1 else slopes * corner_weight(low, right, corner)[:, None]
            some = load_rows(keys, row * k_y + column * k_x, there, first, C, BO)  # [N BO]
            total = tl.dot(part.to(some.dtype), some, total, input_precision=PRECISION)
    c = first + tl.arange(0, BO)
    at, stored = DQ + own_cell[:, None] * C + c[None, :], inside[:, None] & (c < C)[None, :]
    total *= scale
    if GOES_ON:
        total += tl.load(at, mask=stored, other=0.0)
    tl.store(at, total, mask=stored)


@triton.jit
def key_gradient_kernel(
    Q, K, V, MASK, OFFSET, WANTED, BOUNDS, G, DELTA, LEVEL, DK, DV,
    q_b, q_y, q_x, k_r: tl.int64, k_b, k_y, k_x, v_r: tl.int64, v_b, v_y, v_x, m_r, g_x,
    B, H, W, C, CV, R, scale,
    STEP: tl.constexpr, TAP: tl.constexpr, CORNERS: tl.constexpr, HAS_OFFSET: tl.constexpr, HAS_WANTED: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, CHUNKS: tl.constexpr, BO: tl.constexpr,
    BV: tl.constexpr, DISK: tl.constexpr, ZEROS: tl.constexpr, HAS_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dK and dV of a tile of key cells of one reference, some channels a program: sums over the queries that see them.

    BOUNDS: the least and largest offset of each image, of rows, then of columns [b 4]; WANTED: first and last row, then
    column of the cells to read [b 4]. DK and DV [r corner b h w .] float32; at fractional offsets each of the
    four corners has a frame of its own, a cell larger. The others are those of the query's gradient.
    """
    BM: tl.constexpr = TH * TW
    EDGE: tl.constexpr = 1 if CORNERS == 4 else 0
    y, x, top, left, height, width, b = cells_of_program(H, W, STEP, TH, TW, EDGE)
    own_corner, first = tl.program_id(1) % CORNERS, tl.program_id(1) // CORNERS * BO
    r = tl.program_id(2).to(tl.int64)
    in_frame = (y < height) & (x < width)
    up, down, left_of, right_of = R * TAP, R * TAP, R * TAP, R * TAP
    if HAS_OFFSET:  # the least and largest offset say how far away a query may be that sees this tile
        down, up = down - tl.load(BOUNDS + 4 * b), up + tl.load(BOUNDS + 4 * b + 1)
        right_of, left_of = right_of - tl.load(BOUNDS + 4 * b + 2), left_of + tl.load(BOUNDS + 4 * b + 3)
    upper, lower, leftmost, rightmost = 0, height - 1, 0, width - 1
    if HAS_WANTED:  # first and last row, first and last column of the cells to read
        upper = tl.maximum(upper, tl.cdiv(tl.maximum(tl.load(WANTED + 4 * b) - top, 0), STEP))
        lower = tl.minimum(lower, (tl.load(WANTED + 4 * b + 1) - top + STEP) // STEP - 1)
        leftmost = tl.maximum(leftmost, tl.cdiv(tl.maximum(tl.load(WANTED + 4 * b + 2) - left, 0), STEP))
        rightmost = tl.minimum(rightmost, (tl.load(WANTED + 4 * b + 3) - left + STEP) // STEP - 1)
    first_row, first_column, columns, count = box_around(
        y, x, in_frame, up, down, left_of, right_of, upper, lower, leftmost, rightmost
    )  # fmt: skip
    Q += b * q_b
    K += r * k_r + b * k_b
    V += r * v_r + b * v_b
    own = 0
    if CHUNKS == 1 and CORNERS == 1:
        k_at = (top + STEP * y) * k_y + (left + STEP * x) * k_x
        own = load_rows(K, k_at, in_frame, 0, C, BC)
    total = tl.zeros((BM, BO), dtype=tl.float32)
    value_total = tl.zeros((BM, BV), dtype=tl.float32)
    for start in range(0, count, BN):
        n = start + tl.arange(0, BN)
        qy, qx, valid = first_row + n // columns, first_column + n % columns, n < count
        row, column = top + STEP * qy, left + STEP * qx
        cell, q_at = (b * H + row) * W + column, row * q_y + column * q_x
        cy, cx, low, right = centres(OFFSET, cell, valid, qy, qx, CORNERS, HAS_OFFSET)
        level = tl.load(LEVEL + cell, mask=valid, other=float("inf"))
        delta = tl.load(DELTA + cell, mask=valid, other=0.0)
        grads = load_rows(G, cell * g_x, valid, 0, CV, BV)  # [N V]
        seen = in_window(y[:, None] - cy[None, :], x[:, None] - cx[None, :], R, TAP, DISK)
        seen = seen & valid[None, :] & in_frame[:, None]
        if CORNERS == 4 and not ZEROS:
            seen = seen & between_centres(y[:, None], x[:, None], low[None, :], right[None, :], height, width)
        scores, slopes = tl.zeros((BM, BN), dtype=tl.float32), tl.zeros((BM, BN), dtype=tl.float32)
        for corner in tl.static_range(CORNERS):
            key_row, key_column = top + STEP * (y + corner // 2), left + STEP * (x + corner % 2)
            there = in_frame & (key_row >= 0) & (key_row < H) & (key_column >= 0) & (key_column < W)
            if HAS_MASK:
                kept = tl.load(MASK + r * m_r + (b * H + key_row) * W + key_column, mask=there, other=1) != 0
                if CORNERS == 4:
                    seen = seen & (kept[:, None] | (corner_weight(low, right, corner) == 0.0)[None, :])
                else:
                    seen = seen & kept[:, None]
            k_at = key_row * k_y + key_column * k_x
            mine = own
            if CHUNKS == 1 and CORNERS == 4:
                mine = load_rows(K, k_at, there, 0, C, BC)
            part = products(mine, K, k_at, there, Q, q_at, valid, C, BM, BN, BC, CHUNKS, PRECISION)
            carried = load_rows(V, key_row * v_y + key_column * v_x, there, 0, CV, BV)  # [M V]
            slope = tl.dot(carried, tl.trans(grads), input_precision=PRECISION)
            scores = part if CORNERS == 1 else scores + part * corner_weight(low, right, corner)[None, :]
            slopes = slope if CORNERS == 1 else slopes + slope * corner_weight(low, right, corner)[None, :]
        weights = tl.where(seen, tl.exp2(scores * (scale * LOG2_E) - level[None, :]), 0.0)
        slopes = weights * (slopes - delta[None, :])
        if CORNERS == 4:
            share = tl.where(own_corner // 2 == 1, low, 1.0 - low) * tl.where(own_corner % 2 == 1, right, 1.0 - right)
            weights, slopes = weights * share[None, :], slopes * share[None, :]
        value_total = tl.dot(weights.to(grads.dtype), grads, value_total, input_precision=PRECISION)
        queries = load_rows(Q, q_at, valid, first, C, BO)  # [N BO]
        total = tl.dot(slopes.to(queries.dtype), queries, total, input_precision=PRECISION)
    c, v = first + tl.arange(0, BO), tl.arange(0, BV)
    image = (r * CORNERS + own_corner) * B + b  # gradients are [r corner b h w .], without gaps
    cell = (image * (H + EDGE) + top + STEP * (y + EDGE)) * (W + EDGE) + left + STEP * (x + EDGE)
    tl.store(DK + cell[:, None] * C + c[None, :], total * scale, mask=in_frame[:, None] & (c < C)[None, :])
    own_values = tl.where(first == 0, CV, 0)  # programs of other channels computed the same values' gradient
    tl.store(DV + cell[:, None] * CV + v[None, :], value_total, mask=in_frame[:, None] & (v < own_values)[None, :])
