"""Between pixels, where labels and colours live, and cells, between which frames are compared.

With D pixels a cell (the stride of the features), four conventions say how the two meet (``alignment``):

- ``"cell"``: the value of cell i is the mean of its pixels Di .. Di+D-1, and pixel p reads the cells at
  (p + 1/2) / D - 1/2: both speak of cell centres. Default for new work.
- ``"sampled"``: the value of cell i is that of pixel Di, and pixel p reads (p + 1/2) w / W - 1/2: what MAST's code
  does, 1.5 pixels apart from itself.
- ``"bilinear"``: the value of cell i is sampled bilinearly at its centre, Di + (D-1)/2, which for D = 4 is the mean of
  its four middle pixels, and pixel p reads the cells as in ``"cell"``: what CorrFlow's code does.
- ``"corner"``: the value of cell i is that of pixel Di, and pixel p reads p / D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Alignment = Literal["cell", "sampled", "bilinear", "corner"]


def downsample(values: Tensor, stride: int, *, alignment: Alignment) -> Tensor:
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


def upsample(cells: Tensor, stride: int, size: tuple[int, int], *, alignment: Alignment) -> Tensor:
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


@dataclass(frozen=True)
class Grid:
    """The cells of one frame, the pixels that it is read at, and the pixels of its labels.

    Attributes:
        stride: pixels a cell.
        alignment: how cells and pixels meet.
        read: (height, width) of the frame as the encoder sees it.
        full: (height, width) of its labels; a large video is read smaller than it is labelled.
        guide: its colours as it is read, [1 3 h w] in [0, 1], which shares of classes follow (``guided``); or None.
    """

    stride: int
    alignment: Alignment
    read: tuple[int, int]
    full: tuple[int, int]
    guide: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Cells (down, across)."""
        return -(-self.read[0] // self.stride), -(-self.read[1] // self.stride)

    def cells_at(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places (x, y) [n 2] in pixels of the labels -> (x, y) in cells; centres are whole numbers in both."""
        read, full = (np.array(size[::-1], np.float64) for size in (self.read, self.full))
        return ((xy + 0.5) * (read / full) - 0.5 - self._first) / self.stride

    def pixels_at(self, cells: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places (x, y) [n 2] in cells -> (x, y) in pixels of the labels."""
        read, full = (np.array(size[::-1], np.float64) for size in (self.read, self.full))
        return (cells * self.stride + self._first + 0.5) * (full / read) - 0.5

    @property
    def _first(self) -> float:
        """Where the place that cell 0 stands for lies, in pixels of the frame as it is read."""
        return (self.stride - 1) / 2 if self.alignment in ("cell", "bilinear") else 0.0

    def downsample(self, values: Tensor) -> Tensor:
        """Values at full size [b v H W] to values of cells [b h w v]."""
        if self.read != self.full:
            values = F.interpolate(values, self.read, mode="area")
        return downsample(values, self.stride, alignment=self.alignment)

    def upsample(self, cells: Tensor) -> Tensor:
        """Values of cells [b h w v] to values at full size [b v H W]."""
        return self.enlarge(upsample(cells, self.stride, self.read, alignment=self.alignment))

    def enlarge(self, values: Tensor) -> Tensor:
        """Values at the size that is read [b v h w] to values at full size [b v H W]."""
        if self.read != self.full:
            values = F.interpolate(values, self.full, mode="bilinear", align_corners=False)
        return values


def _check(alignment: str) -> None:
    if alignment not in get_args(Alignment):
        raise ValueError(f"alignment must be one of {', '.join(get_args(Alignment))}, got {alignment!r}")
