"""Windows that follow what moves: where a cell lay in a frame far back, carried along from frame to frame.

A window around a cell's own place loses a reference as soon as the object has moved further than the window reaches.
The place in the reference is therefore carried along as a label is: cell x of frame t takes the mean place of the cells
of frame t-1 that it matches,

    P_t(x) = sum_y A(x, y) P_{t-1}(y),    A = softmax over a window of SCALE <q(x), k(y)>.

The windows of a block of cells move as one, by the mean of its cells, those of an object first: so that reading them
costs little more than reading plain windows. Errors would add up, so that each block must prove its place at every
frame: it looks for its cells around the carried place and around their own, and the carried window stands where the
matches there are better by ``margin``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 4  # cells a side of a block
SCALE = 60.0  # of the matches: so sharp that their mean place is nearly that of the best
FAINT = 1e-3  # weight of a cell without an object beside that of one with it, 1
HELD = 2**22  # scores held at once
LEAST = 0.05  # share of an object from which on a cell is followed


class Matches(NamedTuple):
    """What the cells of a frame match in a reference.

    Attributes:
        place: mean place of the matches [h w 2], as (y, x).
        similarity: smooth maximum of the products of the features [h w]; -1 where no key was seen.
    """

    place: Tensor
    similarity: Tensor


def places(height: int, width: int, like: Tensor) -> Tensor:
    """(y, x) of each cell, [h w 2] of a tensor's type and device."""
    y, x = (torch.arange(n, dtype=like.dtype, device=like.device) for n in (height, width))
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)


def match_blocks(query: Tensor, key: Tensor, shift: Tensor, wanted: Tensor, *, radius: int) -> Matches:
    """Matches of cells in windows that move block by block.

    Args:
        query, key: features of unit length [h w c] of a frame and of a reference.
        shift: how far each block's windows are moved, as (dy, dx) in whole cells [m n 2] with m = ceil(h / BLOCK), n
            likewise.
        wanted: the blocks whose cells are matched [m n]; all others keep their own places, with similarity -1.
        radius: of the window around each cell, in cells.
    """
    height, width = query.shape[:2]
    place, similarity = places(height, width, query), query.new_full((height, width), -1.0)
    sight = _sight(radius, query)
    for some in torch.split(wanted.nonzero(), max(1, HELD // sight.numel())):
        cells, found, largest = _matches_of(query, key, some * BLOCK, shift[some[:, 0], some[:, 1]].long(), sight)
        seen = found[..., 2] > 0
        sums, mass = found[seen].split_with_sizes((2, 1), 1)
        place.view(-1, 2)[cells[seen]] = sums / mass
        similarity.view(-1)[cells[seen]] = ((largest[seen] + mass.log()) / SCALE)[:, 0]
    return Matches(place, similarity)


def _matches_of(query: Tensor, key: Tensor, first: Tensor, shift: Tensor, sight: Tensor) -> tuple[Tensor, ...]:
    """Matches of blocks by their first cells and their windows' shifts, [k 2] each.

    Returns:
        Numbers of the cells [k q], with q = BLOCK^2; sums of weight * (y, x, 1) over their matches [k q 3], 0 for what
        lies beyond the frame; and the logarithm of what the weights are to be multiplied by [k q 1].
    """
    height, width = query.shape[:2]
    side = math.isqrt(sight.shape[2])
    steps, taps = (torch.arange(n, device=query.device) for n in (BLOCK, side))
    y, x = (first[:, axis, None] + steps for axis in (0, 1))
    low = first + shift - (side - BLOCK) // 2
    rows, columns = (low[:, axis, None] + taps for axis in (0, 1))
    cells, exists = _cells(y, x, height, width)
    keys, inside = _cells(rows, columns, height, width)
    scores = torch.baddbmm(sight, query.flatten(0, 1)[cells], key.flatten(0, 1)[keys].mT, alpha=SCALE)
    if not bool(inside.all()):
        scores.masked_fill_(~inside[:, None], -torch.inf)
    largest = scores.amax(2, keepdim=True).clamp_(min=-SCALE)
    weights = scores.sub_(largest).exp_()
    at = torch.stack([keys // width, keys % width, torch.ones_like(keys)], -1)
    return cells, (weights @ at.to(weights.dtype)) * exists[..., None], largest


def _cells(rows: Tensor, columns: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Numbers of the cells in these rows [k m] and columns [k n] of a frame, and whether they are there: [k m*n]."""
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    number = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    return number.flatten(1), inside.flatten(1)


def _sight(radius: int, like: Tensor) -> Tensor:
    """What windows add to the scores of a block's cells and all their keys: 0 in the window, else -inf; [1 q k]."""
    side = torch.arange(BLOCK + 2 * radius, device=like.device)
    off = side - torch.arange(BLOCK, device=like.device)[:, None]
    seen = (off >= 0) & (off <= 2 * radius)  # [BLOCK side]
    both = seen[:, None, :, None] & seen[None, :, None, :]
    return torch.where(both, 0.0, -torch.inf).to(like.dtype).view(1, BLOCK**2, -1)


def mean_in_blocks(x: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of x [h w v] over each block [m n v]; weight [h w 1]; 0 where it is 0 throughout."""
    return _pooled(F.avg_pool2d, x * weight) / _pooled(F.avg_pool2d, weight).clamp(min=1e-9)


def near_objects(share: Tensor) -> Tensor:
    """The blocks that have a share of an object, and those beside them [m n]; share [h w 1]."""
    held = _pooled(F.max_pool2d, share)
    return F.max_pool2d(held.permute(2, 0, 1)[None], 3, 1, 1)[0, 0] > LEAST


def to_cells(blocks: Tensor, size: tuple[int, int], side: int = BLOCK) -> Tensor:
    """Values of blocks [m n v] as those of each of their cells [h w v]."""
    return blocks.repeat_interleave(side, 0).repeat_interleave(side, 1)[: size[0], : size[1]]


def _pooled(pool: Callable[..., Tensor], x: Tensor) -> Tensor:
    """x [h w v] pooled over blocks [m n v]; what they lack at the far edges counts 0."""
    padded = F.pad(x.permute(2, 0, 1)[None], (0, -x.shape[1] % BLOCK, 0, -x.shape[0] % BLOCK))
    pooled: Tensor = pool(padded, BLOCK)
    return pooled[0].permute(1, 2, 0)
