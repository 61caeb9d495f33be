"""Where in a reference far back a cell is to be read: MAST's search for the region (Lai, Lu, Xie 2020, section 3.4).

What has moved further than the window reaches is looked for in two steps. Here, the first: taps d cells apart reach d
times as far, and the mean of their displacements under the softmax over them alone is where the window goes,

    o(x) = d * sum_t softmax_t(scale * <query(x), key(x + d t)>) * t,   t in [-R, R]^2.

The second is ``memory_read`` with these offsets, one softmax over the windows of all references.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vcorr.kernels import memory_read_lse
from vcorr.kernels.options import Border

WIDEST = 4  # taps are never further apart, in cells


def dilation(gap: int, search: int) -> int:
    """Cells between the taps of the search in a reference ``gap`` frames away: min(4, gap // search + 1).

    >>> [dilation(gap, 15) for gap in (16, 29, 30, -45, 500)]
    [2, 2, 3, 4, 4]
    """
    return min(WIDEST, abs(gap) // search + 1)


def offsets(
    query: Tensor,
    key: Tensor,
    gap: int,
    *,
    search: int,
    radius: int,
    scale: float | None = None,
    border: Border = "mask",
) -> Tensor:
    """Where each cell's window in a reference goes.

    Args:
        query, key: features [b h w c] of the query frame and of the reference.
        gap: frames from one to the other; ``search``: more than so many make the search wider by a cell a tap.
        radius: of the window, in taps.
        scale: of the logits; None is 1 / sqrt(c).
        border: taps outside the frame take no part (mask), or count with logit 0, their displacements too (zeros).

    Returns:
        [b h w 2] as (dy, dx) in cells, fractional; for inference, since ``memory_read`` gives offsets no gradient.
    """
    spread = dilation(gap, search)
    height, width = query.shape[1:3]
    y, x = (torch.arange(n, device=query.device, dtype=query.dtype) for n in (height, width))
    place = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)
    values = torch.cat([place, torch.ones_like(place[..., :1])], -1).expand(len(query), -1, -1, -1)
    readout, lse = memory_read_lse(query, [key], [values], radius=radius, dilation=spread, scale=scale, border=border)
    moved = readout[..., :2] - place * readout[..., 2:]  # the taps inside; those outside have value 0
    if border == "zeros":  # each outside has weight exp(0 - lse), and a window's displacements sum to 0
        (sum_y, count_y), (sum_x, count_x) = (_inside(n, radius, spread) for n in (height, width))
        inside = torch.stack([sum_y[:, None] * count_x, count_y[:, None] * sum_x], -1).to(moved)
        moved = moved - inside * torch.exp(-lse)[..., None]
    return moved


def _inside(cells: int, radius: int, dilation: int) -> tuple[Tensor, Tensor]:
    """Along one axis, the sum [cells] of the displacements of each window's taps inside the frame, and their number."""
    taps = dilation * torch.arange(-radius, radius + 1)
    position = torch.arange(cells)[:, None] + taps
    within = (position >= 0) & (position < cells)
    return (within * taps).sum(1), within.sum(1)
