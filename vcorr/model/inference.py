"""How labels are read with trained weights; it is saved with them, so that propagation needs no recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vcorr.matching.cells import Alignment
from vcorr.model import color


@dataclass(frozen=True)
class Reader:
    """How labels are read with the trained weights: all that propagation needs to know of an experiment.

    Attributes:
        radius: of the window, in cells; None reads from the whole frame.
        scale: of the logits; None is 1 / sqrt(features).
        border: whether cells outside the frame are left out (mask) or count as logit 0, value 0 (zeros).
        alignment: how cells and pixels meet, see ``matching.cells``.
        long, short: references kept: these frames counted from the labelled one, and these many frames back.
        feedback: labels of earlier frames are carried as scores (soft) or as one class a pixel (hard).
        top_k: softmax over so many largest logits of all references jointly, or over as many as there are; None is
            over all.
        space: what the network sees: normalised Lab, RGB, or gray.
        compactness: where a reference is matched surely, read from the so many best cells of it (``compactness.read``);
            0 reads from all.
        slow: encode references with the slow encoder, where the weights hold one (MAST-momentum).
        search: in references more than so many frames away, look for the region to read from first (``region``; MAST:
            15); 0 looks nowhere.
    """

    radius: int | None = 12
    scale: float | None = None
    border: Literal["mask", "zeros"] = "mask"
    alignment: Alignment = "cell"
    long: tuple[int, ...] = (0, 5)
    short: tuple[int, ...] = (1, 3, 5)
    feedback: Literal["soft", "hard"] = "soft"
    top_k: int | None = None
    space: color.Space = "lab"
    compactness: int = 0
    slow: bool = False
    search: int = 0

    def __post_init__(self) -> None:
        if (self.radius or 0) < 0 or min(self.long, default=0) < 0 or min(self.short, default=1) < 1:
            raise ValueError(f"radius and long must be >= 0, short >= 1, got {self.radius}, {self.long}, {self.short}")
        if self.scale is not None and not math.isfinite(self.scale):
            raise ValueError(f"scale must be finite, got {self.scale}")
        if self.compactness < 0 or (self.compactness and self.top_k):
            got = f"{self.compactness} with top_k {self.top_k}"
            raise ValueError(f"compactness must be >= 0, and 0 where there is a top_k, got {got}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, or None, got {self.top_k}")
        if self.search < 0 or (self.search and (self.radius is None or self.top_k or self.compactness)):
            got = f"{self.search} with radius {self.radius}, top_k {self.top_k}, compactness {self.compactness}"
            raise ValueError(f"search must be >= 0, and 0 without a radius or with top_k or compactness, got {got}")
