"""J, F and their statistics: values worked out by hand, an oracle of explicit loops, and laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vcorr.evaluation.metrics.masks import (
    Mask,
    Statistics,
    boundary,
    boundary_f,
    dilate,
    jaccard,
    statistics,
    tolerance_radius,
)

EMPTY, FULL = np.zeros((60, 80), dtype=bool), np.ones((60, 80), dtype=bool)
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = SIZES.flatmap(lambda size: arrays(bool, size))
PAIRS = SIZES.flatmap(lambda size: st.tuples(arrays(bool, size), arrays(bool, size)))


def rectangle(top: int, left: int, height: int, width: int, frame: tuple[int, int] = (60, 80)) -> Mask:
    mask = np.zeros(frame, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def drawn(*rows: str) -> Mask:
    return np.array([[c == "#" for c in row] for row in rows])


def slow_boundary(mask: Mask) -> set[tuple[int, int]]:
    height, width = mask.shape
    found = set()
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if any(a < height and b < width and mask[a, b] != mask[y, x] for a, b in neighbours):
                found.add((y, x))
    return found


def slow_f(mask: Mask, truth: Mask, tolerance: float) -> float:
    found, wanted = slow_boundary(mask), slow_boundary(truth)
    height, width = mask.shape
    radius = math.ceil(tolerance * math.sqrt(height**2 + width**2))

    def near(these: set[tuple[int, int]], those: set[tuple[int, int]]) -> float:
        hits = [any((a - y) ** 2 + (b - x) ** 2 <= radius**2 for a, b in those) for y, x in these]
        return sum(hits) / len(hits)

    if not found and not wanted:
        return 1.0
    precision = near(found, wanted) if found else 1.0
    recall = near(wanted, found) if wanted else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def test_jaccard_of_a_rectangle_moved_aside():
    # 10 x 20 moved by one column: 19 columns shared, 21 covered.
    assert jaccard(rectangle(5, 5, 10, 20), rectangle(5, 6, 10, 20)) == pytest.approx(19 / 21)
    # By two rows and five columns: 8 x 15 shared of 2 x 200 - 120.
    assert jaccard(rectangle(5, 5, 10, 20), rectangle(7, 10, 10, 20)) == pytest.approx(120 / 280)


def test_jaccard_of_empty_and_full():
    thing = rectangle(5, 5, 10, 20)
    assert jaccard(EMPTY, EMPTY) == 1
    assert jaccard(EMPTY, thing) == jaccard(thing, EMPTY) == 0
    assert jaccard(FULL, FULL) == 1
    assert jaccard(FULL, thing) == pytest.approx(200 / 4800)


def test_boundary_drawn_by_hand():
    mask = drawn(
        ".....",
        "..##.",
        "..##.",
        ".....",
    )
    # Left column and upper row lie just outside the object, right column and lower row on it.
    expected = drawn(
        ".###.",
        ".#.#.",
        ".###.",
        ".....",
    )
    assert np.array_equal(boundary(mask), expected)


def test_boundary_at_the_frame_edge():
    mask = drawn(
        "..##",
        "..##",
        "...#",
    )
    # (1, 2) differs from the pixel below; (2, 2) from the one to the right; the last column is all object;
    # the last corner never counts.
    expected = drawn(
        ".#..",
        ".##.",
        "..#.",
    )
    assert np.array_equal(boundary(mask), expected)
    # Last column: its lower neighbour alone. Last row: its right neighbour alone.
    assert np.array_equal(boundary(drawn("#", "#", ".", ".")), drawn(".", "#", ".", "."))
    assert np.array_equal(boundary(drawn("##..")), drawn(".#.."))
    assert np.array_equal(boundary(drawn("..", ".#")), drawn("##", "#."))
    assert not boundary(drawn("#")).any()


def test_boundary_of_a_rectangle_is_a_ring():
    # A ring of outer size (a + 1) x (b + 1): 2 (a + b) pixels.
    assert np.count_nonzero(boundary(rectangle(5, 5, 10, 20))) == 2 * (10 + 20)
    assert not boundary(FULL).any()
    assert not boundary(EMPTY).any()


@pytest.mark.parametrize(
    ("height", "width", "radius"),
    [
        (480, 854, 8),
        (480, 910, 9),
        (480, 1152, 10),
        (60, 80, 1),
        (1, 1, 1),
        (300, 400, 4),
        (375, 500, 5),
        (300, 401, 5),
    ],
)
def test_tolerance_radius(height, width, radius):
    assert tolerance_radius(height, width) == radius


def test_tolerance_radius_is_rounded_up_and_zero_only_for_zero():
    assert tolerance_radius(480, 854, 0.0) == 0
    assert tolerance_radius(30, 40, 0.02) == 1
    assert tolerance_radius(30, 40, 0.021) == 2


def test_boundary_f_within_tolerance_is_one():
    # 60 x 80: radius 1. 480 x 854: radius 8.
    assert boundary_f(rectangle(20, 20, 10, 20), rectangle(20, 21, 10, 20)) == 1
    frame = (480, 854)
    assert boundary_f(rectangle(100, 100, 90, 70, frame), rectangle(100, 108, 90, 70, frame)) == 1
    assert boundary_f(rectangle(100, 100, 90, 70, frame), rectangle(100, 109, 90, 70, frame)) < 1


@pytest.mark.parametrize(("a", "b"), [(10, 20), (20, 10), (6, 31)])
def test_boundary_f_of_a_rectangle_moved_past_the_tolerance(a, b):
    # Radius 1, moved by 3 columns. Of the 2 (a + b) pixels of the ring, the upper and the lower row each agree over the
    # b + 1 - 3 shared columns and one more beyond, and on the left side one more pixel next to each row does:
    # 2 (b - 1) + 2 = 2 b. The same for the other ring, mirrored: P = R = F = b / (a + b).
    assert boundary_f(rectangle(20, 20, a, b), rectangle(20, 23, a, b)) == pytest.approx(b / (a + b))


def test_boundary_f_with_unequal_precision_and_recall():
    # Two equal rectangles far apart, one of them found: all that is found is right, half of what is wanted is found.
    one, other = rectangle(5, 5, 10, 20), rectangle(40, 50, 10, 20)
    assert boundary_f(one, one | other) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert boundary_f(one | other, one) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert boundary_f(one, other) == 0


def test_boundary_f_without_a_contour():
    thing = rectangle(5, 5, 10, 20)
    assert boundary_f(EMPTY, thing) == boundary_f(thing, EMPTY) == 0
    assert boundary_f(FULL, thing) == boundary_f(thing, FULL) == 0
    assert boundary_f(EMPTY, EMPTY) == boundary_f(FULL, FULL) == boundary_f(EMPTY, FULL) == 1


@given(PAIRS, st.sampled_from([0.0, 0.008, 0.15, 0.3, 1.5]))
def test_boundary_f_is_the_loops(pair, tolerance):
    assert boundary_f(*pair, tolerance=tolerance) == pytest.approx(slow_f(*pair, tolerance), abs=1e-12)


@given(MASKS)
def test_boundary_is_the_loops(mask):
    assert set(zip(*(a.tolist() for a in boundary(mask).nonzero()), strict=True)) == slow_boundary(mask)


@given(MASKS, st.integers(0, 20))
def test_dilation_is_the_disk(mask, radius):
    y, x = np.indices(mask.shape)
    expected = np.zeros_like(mask)
    for a, b in np.argwhere(mask):
        expected |= (y - a) ** 2 + (x - b) ** 2 <= radius**2
    before = mask.copy()
    assert np.array_equal(dilate(mask, radius), expected)
    assert np.array_equal(mask, before)


@given(PAIRS)
def test_laws(pair):
    mask, truth = pair
    for measure in (jaccard, boundary_f):
        assert measure(mask, truth) == measure(truth, mask)
        assert 0 <= measure(mask, truth) <= 1
        assert measure(mask, mask) == 1
    assert (jaccard(mask, truth) == 1) == np.array_equal(mask, truth)


# N frames; the first quarter ends at round(1 + (N-1)/4) - 1; the last begins at round(1 + 3(N-1)/4) - 1; halves go up.
QUARTERS = [
    (1, 0, 0),
    (2, 0, 1),
    (3, 1, 2),
    (4, 1, 2),
    (5, 1, 3),
    (6, 1, 4),
    (7, 2, 5),
    (8, 2, 5),
    (9, 2, 6),
    (10, 2, 7),
    (11, 3, 8),
    (12, 3, 8),
    (88, 22, 65),
    (258, 64, 193),
    (300, 75, 224),
    (1025, 256, 768),
]


@pytest.mark.parametrize(("frames", "first", "last"), QUARTERS)
def test_decay_quarters(frames, first, last):
    for index in {0, first, min(first + 1, frames - 1), max(last - 1, 0), last, frames - 1}:
        values = [float(i == index) for i in range(frames)]
        early, late = (index <= first) / (first + 1), (index >= last) / (frames - last)
        assert statistics(values).decay == pytest.approx(early - late)


def test_mean_and_recall():
    # A score of exactly 0.5 is not above 0.5. Quarters of 4 frames: 0..1 and 2..3.
    scores = statistics([0.9, 0.5, 0.7, 0.1])
    assert scores.mean == pytest.approx(0.55)
    assert scores.recall == 0.5
    assert scores.decay == pytest.approx(0.7 - 0.4)
    assert all(type(x) is float for x in (scores.mean, scores.recall, scores.decay))


def test_average_of_statistics():
    both = Statistics.average([Statistics(0.2, 0.0, -0.2), Statistics(0.6, 1.0, 0.4)])
    assert (both.mean, both.recall, both.decay) == pytest.approx((0.4, 0.5, 0.1))


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [[0.5, 0.5]]])
def test_statistics_refuses(values):
    with pytest.raises(ValueError, match="values must be one finite number a frame"):
        statistics(values)


@pytest.mark.parametrize("measure", [jaccard, boundary_f])
def test_measures_refuse(measure):
    with pytest.raises(ValueError, match=r"mask and truth must be of one size, got \(60, 80\) and \(60, 79\)"):
        measure(EMPTY, EMPTY[:, 1:])
    with pytest.raises(TypeError, match=r"truth must be bool.*got uint8"):
        measure(EMPTY, EMPTY.astype(np.uint8))
    with pytest.raises(ValueError, match=r"mask must be \[h w\], got shape \(60,\)"):
        measure(EMPTY[:, 0], EMPTY)


def test_sizes_and_tolerances_are_checked():
    with pytest.raises(ValueError, match="radius must be at least 0, got -1"):
        dilate(EMPTY, -1)
    for tolerance in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="tolerance must be a finite share of the diagonal"):
            boundary_f(EMPTY, EMPTY, tolerance=tolerance)
