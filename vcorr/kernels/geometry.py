"""Which keys a query may see: the taps of a window, and how many of them fall outside the frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Border = Literal["mask", "zeros"]
Shape = Literal["square", "disk"]
Precision = Literal["ieee", "tf32x3", "tf32", "bf16"]
UNRESTRICTED = -1


@dataclass(frozen=True)
class Window:
    """What a query cell sees of one reference.

    ``radius`` is in taps (``UNRESTRICTED``: every key of the frame), ``dilation`` in cells between taps; ``scale``
    multiplies the dot products; ``precision`` is that of matrix products on a GPU.
    """

    radius: int
    dilation: int
    shape: str
    border: str
    scale: float
    precision: str = "ieee"


class Reference(NamedTuple):
    """One reference frame: key [b h w c], value [b h w v], and where given offset [b h w 2] and key mask [b h w]."""

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

    @property
    def carried(self) -> torch.dtype:
        """The type of what is read: the values' own; whole numbers and booleans count as float32."""
        return self.value.dtype if self.value.dtype.is_floating_point else torch.float32

    def readable(self) -> Reference:
        """The same with zeros for masked keys that are no finite numbers, of which 0 times is not 0; such are few, if
        any, so that keys are seldom copied.
        """
        if self.mask is None:
            return self
        odd = ~self.key.sum(-1, dtype=working_type(self.key)).isfinite() & ~self.mask
        return self._replace(key=self.key.masked_fill(odd[..., None], 0.0)) if bool(odd.any()) else self


def taps(radius: int, shape: str) -> list[tuple[int, int]]:
    """The taps (dy, dx) of a window in row-major order; a disk holds those closer to its centre than the radius."""
    span = range(-radius, radius + 1)
    return [(dy, dx) for dy in span for dx in span if shape == "square" or dy * dy + dx * dx < radius * radius]


def tap_count(radius: int, shape: str, height: int, width: int) -> int:
    """How many taps a window has; an unrestricted one has a tap for each cell of the frame."""
    if radius == UNRESTRICTED:
        return height * width
    if shape == "square":
        return (2 * radius + 1) ** 2
    return sum(2 * math.isqrt(radius**2 - dy**2 - 1) + 1 for dy in range(1 - radius, radius))


def half_width(dy: int, radius: int, shape: str) -> int:
    """How far row ``dy`` of the window reaches to either side; -1 where the row is empty."""
    if abs(dy) > radius:
        return -1
    if shape == "square":
        return radius
    reach = -1
    while (reach + 1) ** 2 + dy * dy < radius * radius:
        reach += 1
    return reach


def taps_outside(height: int, width: int, radius: int, shape: str) -> Tensor:
    """How many taps of each cell's window fall outside the frame: float64 [height width]."""
    x = torch.arange(width)
    inside = torch.zeros(height, width, dtype=torch.float64)
    total = 0
    for dy in range(-radius, radius + 1):
        reach = half_width(dy, radius, shape)
        total += 2 * reach + 1 if reach >= 0 else 0
        rows = slice(max(0, -dy), min(height, height - dy))
        if reach >= 0 and rows.start < rows.stop:
            inside[rows] += (x + reach).clamp(max=width - 1) - (x - reach).clamp(min=0) + 1
    return total - inside


def groups(references: Sequence[Reference]) -> list[list[int]]:
    """References that one pass can read: equal windows, and offsets or none; in order of first appearance."""
    members: dict[tuple[Window, bool], list[int]] = {}
    for position, reference in enumerate(references):
        members.setdefault((reference.window, reference.offset is not None), []).append(position)
    return list(members.values())


def sub_images(height: int, width: int, dilation: int) -> list[tuple[slice, slice]]:
    """Cells ``dilation`` apart see only one another: the interleaved images of every dilation-th row and column."""
    rows, columns = range(min(dilation, height)), range(min(dilation, width))
    return [(slice(y, None, dilation), slice(x, None, dilation)) for y in rows for x in columns]


def working_type(tensor: Tensor) -> torch.dtype:
    """The type sums are held in: float64 for float64, else float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
