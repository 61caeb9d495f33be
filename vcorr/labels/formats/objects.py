"""The objects of one frame, as they are written in other tools' forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Named:
    """Attributes:
    frame: its index. size: (height, width). objects: (id, name, mask [h w]) of those that are there, by id.
    """

    frame: int
    size: tuple[int, int]
    objects: Sequence[tuple[int, str, Flags]]

    @property
    def picture(self) -> str:
        """The name that its picture has in files that must name one."""
        return picture_name(self.frame)


def picture_name(frame: int) -> str:
    """The name of a frame's picture, which says its index."""
    return f"{frame:05d}.png"


def box(mask: Flags) -> tuple[int, int, int, int]:
    """The box of a mask that is not empty: x, y, width, height in pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1
