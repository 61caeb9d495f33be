"""Measures of semantic segmentation and of the instances of its classes: mean IoU and average precision.

Mean IoU is that of one confusion matrix over all pixels of all frames (Long et al. 2015; Zhou et al. 2018 on VIP), not
a mean over frames. Average precision is that of PASCAL VOC over all points (Everingham et al. 2015), with regions in
place of boxes (Hariharan et al. 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.int64]
Numbers = NDArray[np.float64]


def confusion(truth: NDArray[Any], result: NDArray[Any], classes: Sequence[int]) -> Matrix:
    """How many pixels of each class were given to each class.

    Args:
        truth, result: ids [h w] of any integer type, of one size.
        classes: ids that count, ascending. Pixels whose truth is no class are left out; results that are no class count
            as missed.

    Returns:
        [n, n + 1]: row = class of the truth, column = class of the result, the last is none of them.

    Raises:
        ValueError: sizes that differ, or classes that do not ascend.

    >>> confusion(np.array([[0, 1, 1, 9]]), np.array([[0, 0, 1, 1]]), [0, 1])
    array([[1, 0, 0],
           [1, 1, 0]])
    """
    if truth.shape != result.shape:
        raise ValueError(f"truth and result must be of one size, got {truth.shape} and {result.shape}")
    known = np.asarray(classes, dtype=np.int64)
    if known.size == 0 or not (np.diff(known) > 0).all():
        raise ValueError(f"classes must ascend, got {classes}")
    rows, columns = _place(truth, known), _place(result, known)
    counted = rows < known.size
    wide = known.size + 1
    flat = np.bincount(rows[counted] * wide + columns[counted], minlength=known.size * wide)
    return flat.astype(np.int64).reshape(known.size, wide)


def ious(matrix: Matrix) -> Numbers:
    """IoU of each class, TP / (truth + result - TP); NaN for a class that neither has."""
    n = len(matrix)
    hit = np.diagonal(matrix)
    union = matrix.sum(1) + matrix[:, :n].sum(0) - hit
    found: Numbers = np.divide(hit, union, out=np.full(n, np.nan), where=union > 0)
    return found


def mean_iou(matrix: Matrix) -> float:
    """The mean over the classes that the truth or the result has.

    >>> mean_iou(confusion(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 0, 1]]), [0, 1, 2]))
    0.5833333333333333
    """
    found = ious(matrix)
    return float(np.nanmean(found)) if not np.isnan(found).all() else float("nan")


@dataclass(frozen=True)
class Detection:
    """One region of a result, matched with the annotation of its frame.

    Args:
        score: how sure it is.
        iou: with the region of the same class that it overlaps best; 0 where there is none.
        match: names that region, across all frames.
    """

    score: float
    iou: float
    match: tuple[object, ...] = ()


def average_precision(detections: Sequence[Detection], truths: int, threshold: float, *, once: bool) -> float:
    """Area under the curve of precision over recall, precision made falling, over all points.

    Detections come in order of their scores, equal ones in the order given. One is right where its IoU is above the
    threshold.

    Args:
        detections: of one class, in all frames.
        truths: regions of this class in all annotations.
        threshold: in [0, 1).
        once: a region of the annotation counts once, and what overlaps it again is wrong, as in PASCAL VOC. The script
            that papers use for VIP counts it again, so that recall can pass 1.

    Returns:
        NaN where the annotations have no such region.

    >>> found = [Detection(0.9, 0.8, ("a",)), Detection(0.8, 0.1), Detection(0.7, 0.6, ("b",))]
    >>> round(average_precision(found, 2, 0.5, once=True), 6)
    0.833333
    """
    if truths == 0:
        return float("nan")
    ranked = sorted(detections, key=lambda d: -d.score)  # stable
    taken: set[tuple[object, ...]] = set()
    right = np.zeros(len(ranked))
    for i, detection in enumerate(ranked):
        if detection.iou > threshold and not (once and detection.match in taken):
            right[i] = 1
            taken.add(detection.match)
    hits = np.cumsum(right)
    recall = hits / truths
    precision = np.maximum.accumulate((hits / np.arange(1, len(ranked) + 1))[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _place(ids: NDArray[Any], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of each id among the known ones, ascending; their number for an unknown one."""
    flat = ids.reshape(-1).astype(np.int64)
    at = np.minimum(np.searchsorted(known, flat), known.size - 1)
    return np.where(known[at] == flat, at, known.size)
