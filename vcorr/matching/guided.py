"""Upsampling that follows the frame's colours: thin parts and edges finer than a cell come back.

Bilinear upsampling shows nothing narrower than a cell. Within a few cells, though, what belongs to an object mostly has
its colour, so that a share of pixels is nearly linear in colour (He et al. 2013, guided filter), and a linear model
holds for the means over cells as it holds for pixels:

    a = (C + eps)^-1 c,   C: covariance of the cells' colours, c: with the values, both over 3 x 3 cells
    u = up(value) + <up(a), colour> - up(<a, mean colour>)

where ``up`` is bilinear. Where the picture is flat, or the values are, u is the bilinear one. Shares are cut to [0, 1],
and what their mean over a cell then lacks of the cell's value is added back, twice: the area of an object stays.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.matching.cells import downsample, upsample

EPSILON = 1e-4  # variance of colours in [0, 1] below which they guide nothing: noise of 2 levels of 255
ROUNDS = 2  # of giving back what is missing
MARGIN = 3  # cells around those of an edge: beyond them nothing differs from bilinear upsampling


def upsample_guided(cells: Tensor, picture: Tensor, stride: int) -> Tensor:
    """Shares of classes in cells to shares on pixels, guided by the picture.

    Args:
        cells: [b h w v] in [0, 1], each the mean over its pixels (alignment ``cell``).
        picture: [b 3 H W] in [0, 1], h = ceil(H / stride), w likewise.
        stride: pixels a cell.

    Returns:
        [b v H W], in [0, 1] up to what the last round gave back.
    """
    height, width = picture.shape[2:]
    shares = upsample(cells, stride, (height, width), alignment="cell")
    box = _edges(cells)
    if box is not None:
        rows, columns = box
        y, x = (slice(s.start * stride, s.stop * stride) for s in box)
        shares[..., y, x] = _guided(cells[:, rows, columns], picture[..., y, x], stride)
    return shares


def _guided(cells: Tensor, picture: Tensor, stride: int) -> Tensor:
    size = (picture.shape[2], picture.shape[3])

    def up(values: Tensor) -> Tensor:
        return upsample(values, stride, size, alignment="cell")

    def down(pixels: Tensor) -> Tensor:
        return downsample(pixels, stride, alignment="cell")

    colours = down(picture)
    slopes = _slopes(colours, cells)  # [b h w 3 v]
    fine = up(slopes.flatten(3)).reshape(len(cells), *slopes.shape[3:], *size)  # [b 3 v H W]
    level = cells - (slopes * colours[..., None]).sum(3)
    shares: Tensor = up(level) + (fine * picture[:, :, None]).sum(1)
    for _ in range(ROUNDS):
        shares = shares.clamp(0, 1)
        shares = shares + up(cells - down(shares))
    return shares


def _slopes(colours: Tensor, values: Tensor) -> Tensor:
    """How values [b h w v] change with colours [b h w 3] around each cell: [b h w 3 v]."""
    ones = torch.ones_like(colours[..., :1])
    count = _sum(ones)
    colour, value = _sum(colours) / count, _sum(values) / count
    inner = _sum((colours[..., :, None] * colours[..., None, :]).flatten(3)) / count
    covariance = inner.reshape(*colour.shape, 3) - colour[..., :, None] * colour[..., None, :]
    cross = _sum((colours[..., :, None] * values[..., None, :]).flatten(3)) / count
    cross = cross.reshape(*colour.shape, -1) - colour[..., :, None] * value[..., None, :]
    noise = EPSILON * torch.eye(3, dtype=colours.dtype, device=colours.device)
    slopes: Tensor = torch.linalg.solve(covariance + noise, cross)
    return slopes


def _sum(x: Tensor) -> Tensor:
    """Sum over 3 x 3 cells, of those inside, of [b h w n]."""
    return F.avg_pool2d(x.permute(0, 3, 1, 2), 3, 1, 1, divisor_override=1).permute(0, 2, 3, 1)


def _edges(cells: Tensor) -> tuple[slice, slice] | None:
    """Rows and columns of the box around all cells that differ from a neighbour, with a margin; None where none do."""
    high, wide = (cells.diff(dim=d).abs().amax((0, 3)) > 0 for d in (1, 2))
    rows = torch.cat([high.any(1), high.new_zeros(1)]) | wide.any(1)
    columns = torch.cat([wide.any(0), wide.new_zeros(1)]) | high.any(0)
    if not bool(rows.any()):
        return None
    box = []
    for some, size in ((rows, cells.shape[1]), (columns, cells.shape[2])):
        where = some.nonzero()
        first, last = int(where[0]), int(where[-1])
        box.append(slice(max(0, first - MARGIN), min(size, last + 2 + MARGIN)))
    return box[0], box[1]
