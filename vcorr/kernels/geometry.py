"""The geometry of windows: their taps, and the number of taps outside the frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

UNRESTRICTED = -1
MEASURED = 2**24  # taps; counting those of a larger disk takes too long
BEYOND = 2**61  # cells; a sum of a few such numbers is an int64


@dataclass(frozen=True)
class Window:
    """The window of a query cell in one reference.

    ``radius`` is in taps (``UNRESTRICTED``: every key of the frame), ``dilation`` in cells between taps; ``scale``
    multiplies the dot products; ``precision`` is that of matrix products on a GPU.
    """

    radius: int
    dilation: int
    shape: str
    border: str
    scale: float
    precision: str = "ieee"

    @property
    def zeros(self) -> bool:
        """Whether taps outside the frame count."""
        return self.border == "zeros" and self.radius != UNRESTRICTED


class Reference(NamedTuple):
    """One reference frame: key [b h w c], value [b h w v], and possibly offset [b h w 2] and key mask [b h w]."""

    key: Tensor
    value: Tensor
    offset: Tensor | None
    mask: Tensor | None
    window: Window

    def part(self, *index: slice | int) -> Reference:
        """The same cells or images of every tensor."""
        offset = None if self.offset is None else self.offset[index]
        mask = None if self.mask is None else self.mask[index]
        return Reference(self.key[index], self.value[index], offset, mask, self.window)

    def readable(self) -> Reference:
        """The reference with zeros for masked keys that are NaN or infinite."""
        return self._replace(key=readable(self.key, self.mask))


def readable(features: Tensor, mask: Tensor | None) -> Tensor:
    """Features [b h w c] with zeros for masked ones that are NaN or infinite: 0 times these is not 0.

    They are rare, so that features are seldom copied.
    """
    if mask is None:
        return features
    odd = ~features.sum(-1, dtype=working_type(features)).isfinite() & ~mask
    return features.masked_fill(odd[..., None], 0.0) if bool(odd.any()) else features


def taps(radius: int, shape: str) -> list[tuple[int, int]]:
    """The taps (dy, dx) of a window in row-major order; those of a disk are closer to the centre than the radius."""
    span = range(-radius, radius + 1)
    return [(dy, dx) for dy in span for dx in span if shape == "square" or dy * dy + dx * dx < radius * radius]


def tap_count(radius: int, shape: str, height: int, width: int) -> int:
    """The number of taps of a window; an unrestricted one has a tap for each cell of the frame."""
    if radius == UNRESTRICTED:
        return height * width
    return (2 * radius + 1) ** 2 if shape == "square" else _disk(radius)


@lru_cache
def _disk(radius: int) -> int:
    """The number of taps of a disk; from MEASURED on its area, whose relative error is below 1e-10."""
    if radius >= MEASURED:
        return round(math.pi * radius**2)
    # A tap lies in the rows or in the columns up to ``most`` from the centre, or in both: the square that just fits in.
    most = math.isqrt((radius**2 - 1) // 2)
    rows = 2 * radius - 1
    for first in range(1, most + 1, 2**20):
        dy = torch.arange(first, min(first + 2**20, most + 1), dtype=torch.float64, device="cpu")
        rows += 2 * int((2 * (radius**2 - 1 - dy**2).sqrt().floor() + 1).sum())  # exact for numbers below 2**52
    return 2 * rows - (2 * most + 1) ** 2


def half_width(dy: int, radius: int, shape: str) -> int:
    """The half-width of row ``dy`` of the window; -1 if the row is empty."""
    if abs(dy) > radius or (shape == "disk" and abs(dy) == radius):
        return -1
    return radius if shape == "square" else math.isqrt(radius**2 - dy**2 - 1)


def taps_outside(height: int, width: int, radius: int, shape: str) -> Tensor:
    """The number of taps outside the frame for each cell's window: float64 [height width]."""
    x = torch.arange(width, device="cpu")
    inside = torch.zeros(height, width, dtype=torch.float64, device="cpu")
    for dy in range(-min(radius, height - 1), min(radius, height - 1) + 1):
        reach = min(half_width(dy, radius, shape), width - 1)
        if reach >= 0:
            rows = slice(max(0, -dy), min(height, height - dy))
            inside[rows] += (x + reach).clamp(max=width - 1) - (x - reach).clamp(min=0) + 1
    return float(tap_count(radius, shape, height, width)) - inside


def taps_outside_at(window: Window, height: int, width: int, y: Tensor, x: Tensor) -> Tensor:
    """The number of taps outside the frame for windows centred on whole cells (y, x), [n] each: float64 [n]."""

    def between(centre: Tensor, size: int, reach: Tensor | int) -> Tensor:
        """How many of the taps up to ``reach`` to either side lie in so many rows or columns."""
        first = -centre.div(window.dilation, rounding_mode="floor").clamp(max=reach)
        last = (size - 1 - centre).div(window.dilation, rounding_mode="floor").clamp(max=reach)
        return (last - first + 1).clamp(min=0).double()

    every = float(tap_count(window.radius, window.shape, height, width))
    if window.shape == "square":
        return every - between(y, height, window.radius) * between(x, width, window.radius)
    inside = torch.zeros(y.shape, dtype=torch.float64, device=y.device)
    for row in range(height):
        tap = (row - y).div(window.dilation, rounding_mode="floor")
        seen = (tap * window.dilation == row - y) & (tap.abs() < window.radius)
        tap = torch.where(seen, tap, 0)
        reach = (window.radius**2 - 1 - tap.double() ** 2).sqrt().floor().long()
        reach -= (reach**2 + tap**2 >= window.radius**2).long()  # for squares beyond float64
        inside += torch.where(seen, between(x, width, reach), 0.0)
    return every - inside


def near(offset: Tensor) -> Tensor:
    """Clamps offsets to the range of int64; a window that is farther off sees no more of the frame."""
    return offset.clamp(-BEYOND, BEYOND)


def whole(offset: Tensor) -> bool:
    """Whether all offsets are whole cells."""
    return not offset.is_floating_point() or bool((offset == offset.round()).all())


def sub_images(height: int, width: int, dilation: int) -> list[tuple[slice, slice]]:
    """The interleaved images of every dilation-th row and column, whose cells see only one another."""
    rows, columns = range(min(dilation, height)), range(min(dilation, width))
    return [(slice(y, None, dilation), slice(x, None, dilation)) for y in rows for x in columns]


def working_type(tensor: Tensor) -> torch.dtype:
    """The type of sums: float64 for float64, else float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def carried_type(value: Tensor) -> torch.dtype:
    """The type of the readout: that of the values; float32 for integers and booleans."""
    return value.dtype if value.dtype.is_floating_point else torch.float32
