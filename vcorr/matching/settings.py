"""How two frames are compared, both in training and when labels are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypedDict

from vcorr.matching.cells import Alignment


class Window(TypedDict):
    """Arguments of the operators of ``vcorr.kernels``."""

    radius: int | None
    scale: float | None
    border: Literal["mask", "zeros"]


@dataclass(frozen=True)
class Matching:
    """How cells of two frames are compared, and how cells meet pixels.

    Attributes:
        radius: of the window, in cells; None compares with the whole frame.
        scale: of the logits; None is 1 / sqrt(features).
        border: whether cells outside the frame are left out (mask) or count as logit 0, value 0 (zeros).
        alignment: how cells and pixels meet, see ``cells``.
    """

    radius: int | None = 12
    scale: float | None = None
    border: Literal["mask", "zeros"] = "mask"
    alignment: Alignment = "cell"

    def __post_init__(self) -> None:
        if (self.radius or 0) < 0:
            raise ValueError(f"radius must be >= 0, got {self.radius}")
        if self.scale is not None and not math.isfinite(self.scale):
            raise ValueError(f"scale must be finite, got {self.scale}")

    @property
    def window(self) -> Window:
        """The arguments of an operator: ``memory_read(query, keys, values, **matching.window)``."""
        return {"radius": self.radius, "scale": self.scale, "border": self.border}
