"""Which keys a query may see: the taps of a window, and how many of them fall outside the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Border = Literal["mask", "zeros"]
Shape = Literal["square", "disk"]
UNRESTRICTED = -1


@dataclass(frozen=True)
class Windows:
    """The windows of one reading, one radius and dilation for each reference.

    ``radii[r]`` is in taps (``UNRESTRICTED``: every key of the frame), ``dilations[r]`` in cells between taps;
    ``scale`` multiplies every dot product.
    """

    radii: tuple[int, ...]
    dilations: tuple[int, ...]
    scale: float
    border: str
    shape: str


def taps(radius: int, shape: str) -> list[tuple[int, int]]:
    """The taps (dy, dx) of a window in row-major order; a disk holds those closer to its centre than the radius."""
    span = range(-radius, radius + 1)
    return [(dy, dx) for dy in span for dx in span if shape == "square" or dy * dy + dx * dx < radius * radius]


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
