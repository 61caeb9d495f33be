"""Mean IoU and average precision: values by hand, and second implementations from the published descriptions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vcorr.evaluation.metrics.semantic import Detection, average_precision, confusion, ious, mean_iou

IDS = st.sampled_from([0, 1, 2, 7, 40_000])
PAIRS = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda size: st.tuples(arrays(np.uint16, size, elements=IDS), arrays(np.uint16, size, elements=IDS))
)


def slow_mean_iou(pairs: list[tuple[np.ndarray, np.ndarray]], classes: list[int]) -> float:
    """Pixels as sets: for each class, those where both say it over those where either does."""
    found = []
    for c in classes:
        truth = {(k, *at) for k, (t, _) in enumerate(pairs) for at in np.argwhere(t == c).tolist()}
        known = {(k, *at) for k, (t, _) in enumerate(pairs) for at in np.argwhere(np.isin(t, classes)).tolist()}
        result = {(k, *at) for k, (_, r) in enumerate(pairs) for at in np.argwhere(r == c).tolist()} & known
        if truth | result:
            found.append(len(truth & result) / len(truth | result))
    return math.fsum(found) / len(found) if found else math.nan


@given(st.lists(PAIRS, min_size=1, max_size=3), st.sampled_from([[0, 1, 2, 7, 40_000], [0, 1, 2], [7, 40_000]]))
def test_mean_iou_is_that_of_the_sets(pairs, classes) -> None:
    matrix = sum(confusion(t, r, classes) for t, r in pairs)
    assert mean_iou(matrix) == pytest.approx(slow_mean_iou(pairs, classes), abs=1e-6, nan_ok=True)


def test_mean_iou_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 2, 2, 9]])
    result = np.array([[0, 1, 1, 1], [0, 2, 5, 1]])
    matrix = confusion(truth, result, [0, 1, 2, 3])  # 9 in the truth is left out, 5 in the result is a miss
    assert matrix.tolist() == [[2, 1, 0, 0, 0], [0, 2, 0, 0, 0], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0]]
    assert ious(matrix)[:3].tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 2])
    assert np.isnan(ious(matrix)[3])  # a class that neither has is left out of the mean
    assert mean_iou(matrix) == pytest.approx((2 / 3 + 2 / 3 + 1 / 2) / 3)


def test_one_matrix_is_not_the_mean_of_frames() -> None:
    small, large = (np.array([[1]]), np.array([[0]])), (np.ones((3, 3), int), np.ones((3, 3), int))
    matrix = sum(confusion(t, r, [0, 1]) for t, r in (small, large))
    assert mean_iou(matrix) == pytest.approx((0 + 9 / 10) / 2)


def test_empty_full_and_absent() -> None:
    empty, full = np.zeros((4, 5), np.uint8), np.full((4, 5), 3, np.uint8)
    assert mean_iou(confusion(empty, empty, range(20))) == 1
    assert mean_iou(confusion(full, empty, range(20))) == 0
    assert math.isnan(mean_iou(confusion(full, full, [0, 1])))
    assert math.isnan(mean_iou(confusion(empty, full, [1])))


def test_confusion_refuses() -> None:
    with pytest.raises(ValueError, match=r"truth and result must be of one size, got \(1, 2\) and \(2, 1\)"):
        confusion(np.zeros((1, 2), int), np.zeros((2, 1), int), [0])
    for classes in ([], [1, 1], [2, 1]):
        with pytest.raises(ValueError, match="classes must ascend"):
            confusion(np.zeros((1, 1), int), np.zeros((1, 1), int), classes)


def slow_ap(detections: list[Detection], truths: int, threshold: float, once: bool) -> float:
    """The area under the highest precision at each recall or beyond, added up piece by piece."""
    points, right, seen = [(0.0, 1.0)], 0, set()
    for rank, d in enumerate(sorted(detections, key=lambda d: d.score, reverse=True), start=1):
        if d.iou > threshold and (not once or d.match not in seen):
            right += 1
            seen.add(d.match)
        points.append((right / truths, right / rank))
    area = 0.0
    for i in range(1, len(points)):
        area += (points[i][0] - points[i - 1][0]) * max(p for _, p in points[i:])
    return area


SCORES = st.sampled_from([0.0, 0.1, 0.5, 0.5, 0.9, 1.0])
DETECTIONS = st.lists(st.builds(Detection, SCORES, SCORES, st.tuples(st.integers(0, 4))), max_size=8)


@given(DETECTIONS, st.integers(1, 6), st.sampled_from([0.1, 0.5, 0.9]), st.booleans())
def test_average_precision_is_the_area(detections, truths, threshold, once) -> None:
    expected = slow_ap(detections, truths, threshold, once)
    assert average_precision(detections, truths, threshold, once=once) == pytest.approx(expected, abs=1e-6)


def test_average_precision_by_hand() -> None:
    # Right, wrong, right of two: precision 1 up to recall 1/2, then 2/3.
    found = [Detection(0.9, 0.8, ("a",)), Detection(0.8, 0.1), Detection(0.7, 0.6, ("b",))]
    assert average_precision(found, 2, 0.5, once=True) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert average_precision(found, 2, 0.8, once=True) == 0  # above the threshold, not at it
    assert average_precision([], 2, 0.5, once=True) == 0
    assert math.isnan(average_precision(found, 0, 0.5, once=True))


def test_one_truth_hit_twice() -> None:
    twice = [Detection(0.9, 0.8, ("a",)), Detection(0.8, 0.7, ("a",))]
    assert average_precision(twice, 1, 0.5, once=True) == 1
    assert average_precision(twice, 1, 0.5, once=False) == 2  # as the script of the papers counts
    assert average_precision(twice, 2, 0.5, once=True) == 0.5
