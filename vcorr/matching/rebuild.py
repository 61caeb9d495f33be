"""From features and values of reference frames to the values of a query frame.

The affinity is computed between feature cells; values live on pixels. Four conventions say how the two meet, with
stride D = 4 pixels a cell (``alignment``):

- ``"cell"``: the value of cell i is the mean of its pixels Di .. Di+D-1, and pixel p reads the cells at
  (p + 1/2) / D - 1/2: both speak of cell centres. Default for new work.
- ``"sampled"``: the value of cell i is that of pixel Di, and pixel p reads (p + 1/2) w / W - 1/2: what MAST's code
  does, 1.5 pixels apart from itself.
- ``"bilinear"``: the value of cell i is sampled bilinearly at its centre, Di + (D-1)/2, which for D = 4 is the mean of
  its four middle pixels, and pixel p reads the cells as in ``"cell"``: what CorrFlow's code does.
- ``"corner"``: the value of cell i is that of pixel Di, and pixel p reads p / D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from vcorr.kernels import memory_read

Alignment = Literal["cell", "sampled", "bilinear", "corner"]


def shrink(values: Tensor, stride: int, *, alignment: Alignment) -> Tensor:
    """Values on pixels [b v H W] to values of cells [b h w v] with h = ceil(H / stride), w likewise."""
    _check(alignment)
    if alignment in ("cell", "bilinear"):
        height, width = values.shape[-2:]
        padded = F.pad(values, (0, -width % stride, 0, -height % stride), mode="replicate")
        if alignment == "cell":
            return F.avg_pool2d(padded, stride).permute(0, 2, 3, 1)
        size = (padded.shape[-2] // stride, padded.shape[-1] // stride)
        return F.interpolate(padded, size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    return values[..., ::stride, ::stride].permute(0, 2, 3, 1)


def enlarge(cells: Tensor, stride: int, size: tuple[int, int], *, alignment: Alignment) -> Tensor:
    """Values of cells [b h w v] to values on pixels [b v H W], bilinearly; size = (H, W)."""
    _check(alignment)
    x = cells.permute(0, 3, 1, 2)
    height, width = size
    if alignment == "sampled":
        return F.interpolate(x, size, mode="bilinear", align_corners=False)
    h, w = x.shape[-2] * stride, x.shape[-1] * stride
    if alignment in ("cell", "bilinear"):
        x = F.interpolate(x, (h, w), mode="bilinear", align_corners=False)
    else:  # one more row and column, so that the last cell's pixels have a neighbour to blend with
        x = F.interpolate(F.pad(x, (0, 1, 0, 1), mode="replicate"), (h + 1, w + 1), mode="bilinear", align_corners=True)
    return x[..., :height, :width]


def rebuild(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    radius: int | None,
    stride: int,
    scale: float | None = None,
    border: Literal["mask", "zeros"] = "mask",
    alignment: Alignment = "cell",
) -> Tensor:
    """Rebuild the query frame's values from those of reference frames, read jointly (MAST, eq. 1-3).

    Args:
        query: features [b h w c]; keys: features of each reference [b h w c].
        values: what is copied, per reference, on pixels [b v H W].
        radius: of the window, in cells; None is the whole frame.
        stride: pixels a cell.
        scale: of the logits; None is 1 / sqrt(c).

    Returns:
        [b v H W].
    """
    cells = [shrink(v, stride, alignment=alignment) for v in values]
    read = memory_read(query, keys, cells, radius=radius, scale=scale, border=border)
    size = (values[0].shape[-2], values[0].shape[-1])
    return enlarge(read, stride, size, alignment=alignment)


def _check(alignment: str) -> None:
    if alignment not in get_args(Alignment):
        raise ValueError(f"alignment must be one of {', '.join(get_args(Alignment))}, got {alignment!r}")
