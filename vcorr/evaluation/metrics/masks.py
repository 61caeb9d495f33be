"""Measures of video object segmentation: region similarity J, contour accuracy F, and their statistics over a sequence.

J and F are those of Perazzi et al., "A benchmark dataset and evaluation methodology for video object segmentation",
CVPR 2016, section 4; the protocol over several objects is that of Pont-Tuset et al., "The 2017 DAVIS challenge on video
object segmentation", 2017. The edge cases are those of the official toolkit, whose numbers these are.

A mask is bool [h w], one object in one frame, True on the object. Scores lie in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def jaccard(mask: Mask, truth: Mask) -> float:
    """Region similarity J, intersection over union (Perazzi et al. 2016); 1 if both are empty.

    J = |M ∩ G| / (|M| + |G| - |M ∩ G|).

    Args:
        mask: bool [h w], the result M.
        truth: bool [h w], the annotation G.

    Raises:
        TypeError: an argument is no bool array.
        ValueError: an argument is not [h w], or their sizes differ.

    >>> truth = np.array([[True, True, False]])
    >>> jaccard(np.array([[True, False, False]]), truth)
    0.5
    """
    mask, truth = _pair(mask, truth)
    union = np.count_nonzero(mask | truth)
    return float(np.count_nonzero(mask & truth) / union) if union else 1.0


def boundary(mask: Mask) -> Mask:
    """The contour of a mask, one pixel wide: where a pixel differs from its right, lower or lower-right neighbour.

    In the last row only the right neighbour counts, in the last column only the lower one; the last corner is never
    on the contour. So the frame's edge is no contour, and a mask that fills the frame has none.

    Args:
        mask: bool [h w].

    Returns:
        bool [h w].

    >>> boundary(np.array([[False, False, False], [False, False, True]])).astype(int)
    array([[0, 1, 1],
           [0, 1, 0]])
    """
    mask = _checked("mask", mask)
    edge = np.zeros_like(mask)
    right, below = mask[:, :-1] ^ mask[:, 1:], mask[:-1] ^ mask[1:]
    edge[:, :-1] |= right
    edge[:-1] |= below
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def dilate(mask: Mask, radius: int) -> Mask:
    """True wherever a True pixel of `mask` lies in the disk {(dy, dx): dy² + dx² <= radius²} around.

    Exact, by rows of the disk from its poles to its equator: the mask is widened along x as the rows get longer, and
    each row of the disk costs two shifted unions, so 4·radius unions replace the π·radius² of the definition.

    Args:
        mask: bool [h w].
        radius: in pixels, at least 0.

    Returns:
        bool [h w].
    """
    mask = _checked("mask", mask)
    if radius < 0:
        raise ValueError(f"radius must be at least 0, got {radius}")
    height, width = mask.shape
    grown, wide, reach = np.zeros_like(mask), mask.copy(), 0
    for dy in range(min(radius, height), -1, -1):
        while reach < min(width, math.isqrt(radius * radius - dy * dy)):
            reach += 1
            wide[:, reach:] |= mask[:, :-reach]
            wide[:, :-reach] |= mask[:, reach:]
        grown[dy:] |= wide[: height - dy]
        grown[: height - dy] |= wide[dy:]
    return grown


def tolerance_radius(height: int, width: int, tolerance: float = 0.008) -> int:
    """How far apart two contours may lie and still agree, in pixels: ceil(tolerance · √(h² + w²)).

    Args:
        height: of the frame, in pixels.
        width: of the frame, in pixels.
        tolerance: share of the frame's diagonal, at least 0.

    >>> tolerance_radius(480, 854)
    8
    """
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be a finite share of the diagonal, at least 0, got {tolerance}")
    return math.ceil(tolerance * math.sqrt(height * height + width * width))


def boundary_f(mask: Mask, truth: Mask, *, tolerance: float = 0.008) -> float:
    """Contour accuracy F = 2PR / (P + R) (Perazzi et al. 2016), with the disk for the bipartite matching.

    With b the contours (`boundary`) and D the dilation by a disk of `tolerance_radius` (`dilate`),

        P = |b(M) ∩ D(b(G))| / |b(M)|,    R = |b(G) ∩ D(b(M))| / |b(G)|.

    Where M alone has no contour P = 1 and R = 0, where G alone has none P = 0 and R = 1: F = 0. Where neither has,
    F = 1; a mask that fills the frame has no contour.

    Args:
        mask: bool [h w], the result M.
        truth: bool [h w], the annotation G.
        tolerance: share of the frame's diagonal; 0.008 in DAVIS.

    Raises:
        TypeError: an argument is no bool array.
        ValueError: an argument is not [h w], their sizes differ, or `tolerance` is negative or not finite.

    >>> truth = np.eye(5, dtype=bool)
    >>> boundary_f(truth, truth)
    1.0
    """
    mask, truth = _pair(mask, truth)
    height, width = mask.shape
    radius = tolerance_radius(height, width, tolerance)
    window = _around(mask | truth)
    found, wanted = boundary(mask[window]), boundary(truth[window])
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = np.count_nonzero(found & dilate(wanted, radius)) / np.count_nonzero(found)
    recall = np.count_nonzero(wanted & dilate(found, radius)) / np.count_nonzero(wanted)
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


@dataclass(frozen=True)
class Statistics:
    """A measure over the frames of a sequence: `mean`, `recall` and `decay` as `statistics` defines them."""

    mean: float
    recall: float
    decay: float

    @classmethod
    def average(cls, several: Iterable[Statistics]) -> Statistics:
        """The mean of each statistic over several objects (at least one)."""
        rows = [(s.mean, s.recall, s.decay) for s in several]
        mean, recall, decay = np.mean(rows, axis=0).tolist()
        return cls(mean, recall, decay)


def statistics(values: Sequence[float]) -> Statistics:
    """Mean, recall and decay of a measure over the frames of one object (Perazzi et al. 2016).

    Recall is the share of frames above 0.5; decay is the mean over the first quarter of the frames minus the mean
    over the last. The quarters of N frames meet at frames e_k = ⌊k·(N-1)/4 + 1/2⌋, k = 0..4, counted from 0; a quarter
    includes both its ends.

    Args:
        values: one score a frame, in order; at least one.

    Returns:
        mean and recall in [0, 1], decay in [-1, 1] for scores in [0, 1].

    Raises:
        ValueError: `values` is empty, or not a row of finite numbers.

    >>> statistics([1.0, 1.0, 0.5, 0.0, 0.0])
    Statistics(mean=0.5, recall=0.4, decay=1.0)
    """
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or row.size == 0 or not np.isfinite(row).all():
        raise ValueError(f"values must be one finite number a frame, at least one, got {row.shape} {row}")
    # Whole numbers: the official float formula rounds halves up as well, but its edges wrap beyond 256 frames.
    first, last = ((k * (row.size - 1) + 2) // 4 for k in (1, 3))
    decay = row[: first + 1].mean() - row[last:].mean()
    return Statistics(float(row.mean()), float((row > 0.5).mean()), float(decay))


def _around(mask: Mask) -> tuple[slice, slice]:
    """The box of a mask and one pixel on each side, within the frame.

    It holds the whole contour, and `boundary` gives there what it gives in the frame, since each side of the box is the
    frame's edge or free of the object.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(0), slice(0)
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _pair(mask: Any, truth: Any) -> tuple[Mask, Mask]:
    mask, truth = _checked("mask", mask), _checked("truth", truth)
    if mask.shape != truth.shape:
        raise ValueError(f"mask and truth must be of one size, got {mask.shape} and {truth.shape}")
    return mask, truth


def _checked(name: str, mask: Any) -> Mask:
    array = np.asarray(mask)
    if array.dtype != np.bool_:
        raise TypeError(f"{name} must be bool, one object in one frame (ids == k), got {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name} must be [h w], got shape {array.shape}")
    return array
