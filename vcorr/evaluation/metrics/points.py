"""PCK, the percentage of correct keypoints (Yang & Ramanan 2013), as papers on label propagation count it on JHMDB.

A point is right within a distance that grows with the box around the true points of its frame:

    PCK_instance@a: |p - g| <= a * 0.6 * diagonal of the box        PCK_max@a: |p - g| <= a * max(width, height)

Shares are taken for each point over all frames of all videos, then their mean over the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Measure = Literal["instance", "max"]
INSTANCE = 0.6  # of the box's diagonal


@dataclass(frozen=True, eq=False)
class Errors:
    """How far points lie from the truth, in some frames of a video.

    Attributes:
        distance: float64 [t n] in pixels; NaN where a point does not count, infinite where it counts and was not found.
        box: float64 [t 2], width and height of the box around the true points that count.
    """

    distance: Numbers
    box: Numbers

    def right(self, alpha: float, measure: Measure) -> NDArray[np.bool_]:
        """Which points are right, bool [t n]; of no account where they do not count."""
        size = INSTANCE * np.hypot(*self.box.T) if measure == "instance" else self.box.max(1)
        near: NDArray[np.bool_] = np.less_equal(self.distance, alpha * size[:, None])
        return near

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which points count, bool [t n]."""
        return ~np.isnan(self.distance)


def errors(truth: Numbers, result: Numbers, *, lost: Literal["wrong", "skipped"]) -> Errors:
    """Compare points.

    Args:
        truth, result: float64 [t n 2], x and y in pixels; NaN where a point is not there.
        lost: a true point that the result does not have is wrong, or does not count, nor does the box reach for it (the
            scripts for JHMDB).

    Raises:
        ValueError: shapes that differ.

    >>> truth = np.array([[[0.0, 0.0], [3.0, 4.0]]])
    >>> errors(truth, truth + 1, lost="wrong").distance.round(3)
    array([[1.414, 1.414]])
    """
    if truth.shape != result.shape or truth.ndim != 3 or truth.shape[2] != 2:
        raise ValueError(f"truth and result must be [t n 2] alike, got {truth.shape} and {result.shape}")
    there: NDArray[np.bool_] = np.asarray(np.isfinite(truth).all(2))
    found: NDArray[np.bool_] = np.asarray(np.isfinite(result).all(2))
    counted = np.asarray(there & found if lost == "skipped" else there)
    distance = np.full(there.shape, np.nan)
    distance[counted] = np.inf
    both = np.asarray(counted & found)
    distance[both] = np.hypot(*(result - truth)[both].T)
    low = np.where(counted[:, :, None], truth, np.inf).min(1)
    high = np.where(counted[:, :, None], truth, -np.inf).max(1)
    box = np.zeros((len(truth), 2))
    np.subtract(high, low, out=box, where=np.isfinite(low))
    return Errors(distance, box)


def pck(videos: Sequence[Errors], alpha: float, measure: Measure) -> Numbers:
    """The share of right places of each point [n]; NaN for one that never counts."""
    right = sum((e.right(alpha, measure) & e.counted).sum(0) for e in videos)
    counted = sum(e.counted.sum(0) for e in videos)
    shares = np.full(np.shape(counted), np.nan)
    np.divide(right, counted, out=shares, where=np.greater(counted, 0))
    return shares
