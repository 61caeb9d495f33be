"""Frames between two labelled ones: reached from both sides, blended by distance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.toys import HEIGHT, WIDTH, model, scene
from vcorr.evaluation.metrics.masks import jaccard
from vcorr.labels.keypoints import KeypointLabels, Points
from vcorr.labels.label import MaskLabels
from vcorr.labels.raw_ids import Ids
from vcorr.matching.cells import Grid
from vcorr.model.encoder import Model
from vcorr.propagation.plan import spans
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import Pictures
from vcorr.propagation.video import label_plan

CPU = torch.device("cpu")
LAST = 7
GRID = Grid(4, "cell", (HEIGHT, WIDTH), (HEIGHT, WIDTH))


def shown(frames: list[np.ndarray]) -> Pictures:
    return lambda indices: ((k, frames[k]) for k in indices)


def labels() -> MaskLabels:
    return MaskLabels(np.array([0, 1, 2], np.uint8), (HEIGHT, WIDTH), CPU)


def label(frames: list[np.ndarray], given: Mapping[int, Ids], how: Model | None = None) -> dict[int, Ids]:
    propagator = Propagator(how or model(), labels())
    return dict(label_plan(shown(frames), spans(list(given), 0, len(frames)), given, propagator))


FRAMES = [scene(k)[0] for k in range(LAST + 1)]
GIVEN = {0: scene(0)[1], LAST: scene(LAST)[1]}


def read(order: range, feedback: str) -> dict[int, Tensor]:
    """Values of the frames by index, read from the first of them alone."""
    propagator = Propagator(model(feedback=feedback), labels())
    values = {}
    for k in order:
        propagator.step(FRAMES[k], GIVEN.get(k) if k == order[0] else None)
        assert propagator.values is not None
        values[k] = propagator.values
    return values


@pytest.mark.parametrize("feedback", ["soft", "hard"])
def test_scores_of_both_sides_are_blended_by_distance(feedback: str) -> None:
    got = label(FRAMES, GIVEN, model(feedback=feedback))
    assert list(got) == list(range(LAST + 1))
    forth, back = read(range(LAST), feedback), read(range(LAST, 0, -1), feedback)
    for k in range(1, LAST):
        cells = ((LAST - k) * forth[k] + k * back[k]) / LAST
        best = GRID.upsample(cells)[0].sort(0).values
        clear = (best[-1] - best[-2] > 0.01).numpy()  # what waits is rounded
        assert clear.mean() > 0.95
        np.testing.assert_array_equal(got[k][clear], labels().from_cells(cells, GRID)[clear])
    for k, ids in GIVEN.items():
        np.testing.assert_array_equal(got[k], ids)


def test_a_video_is_labelled_alike_from_either_end() -> None:
    forth = label(FRAMES, GIVEN)
    back = label(FRAMES[::-1], {LAST - k: ids for k, ids in GIVEN.items()})
    for k in range(LAST + 1):
        np.testing.assert_array_equal(forth[k], back[LAST - k])


def test_an_object_that_only_a_later_frame_has_goes_back_half_way() -> None:
    """A labelled frame states the whole of it: in frame 0 there is no object 2."""
    first = np.where(GIVEN[0] == 1, 1, 0).astype(np.uint8)
    got = label(FRAMES, {0: first, LAST: GIVEN[LAST]})
    assert jaccard(got[5] == 2, scene(5)[1] == 2) > 0.6
    assert not (got[1] == 2).any()
    for k in range(1, LAST):
        assert jaccard(got[k] == 1, scene(k)[1] == 1) > 0.6


def test_neighbouring_labelled_frames_and_only_their_own_spans_count() -> None:
    """What is labelled beyond a labelled frame changes nothing on this side of it."""
    given = {k: scene(k)[1] for k in (2, 3, 6)}
    got = label(FRAMES, given)
    wrong = np.full_like(given[6], 2)
    other = label(FRAMES, given | {7: wrong})
    assert sorted(got) == sorted(other) == list(range(LAST + 1))
    for k in range(LAST):
        np.testing.assert_array_equal(got[k], other[k])
    np.testing.assert_array_equal(other[7], wrong)
    alone = label(FRAMES, {2: given[2]})
    for k in range(2):
        np.testing.assert_array_equal(got[k], alone[k])


def test_shares_that_wait_are_of_equal_sum() -> None:
    """Readings that sum to more or less than 1 (borders of zeros, LIIR's peaks) weigh no more or less for it."""
    values = torch.rand(1, *GRID.shape, 3)
    for factor in (0.25, 3.0):
        np.testing.assert_allclose(
            labels().side(values, GRID, GIVEN[0]), labels().side(factor * values, GRID, GIVEN[0]), atol=1
        )


# --- keypoints ------------------------------------------------------------------------------------------------------

POINTS = KeypointLabels(["a", "b"], (HEIGHT, WIDTH), CPU)
NONE = (np.nan, np.nan)


def side(*places: tuple[float, float], sure: tuple[float, ...] = (0.9, 0.9), known: tuple[bool, bool] = (True, True)):
    """As ``KeypointLabels.side`` keeps it."""
    return np.column_stack([np.array(places), np.where(known, sure, np.nan)])


def test_points_are_blended_by_distance_and_confidence() -> None:
    near = side((10, 10), (30, 30), sure=(0.9, 0.6))
    far = side((14, 10), (30, 34), sure=(0.9, 0.2))
    got = POINTS.blend(near, far, 0.25, GRID)
    np.testing.assert_allclose(got.xy, [(11, 10), (30, 30 + 4 * (0.25 * 0.2) / (0.25 * 0.2 + 0.75 * 0.6))], atol=0.01)
    np.testing.assert_allclose(got.confidence, [0.9, 0.75 * 0.6 + 0.25 * 0.2], atol=0.006)


def test_a_point_of_one_end_comes_from_that_end_alone() -> None:
    near = side((10, 10), NONE, sure=(0.8, 0.0), known=(True, False))
    far = side(NONE, (30, 30), sure=(0.0, 0.7), known=(False, True))
    got = POINTS.blend(near, far, 0.9, GRID)
    np.testing.assert_array_equal(got.xy, [(10, 10), (30, 30)])
    np.testing.assert_array_equal(got.confidence, [0.8, 0.7])


def test_a_point_that_one_side_lost_is_less_sure_and_one_that_both_lost_has_no_place() -> None:
    near = side(NONE, NONE, sure=(0.04, 0.04))
    far = side((20, 20), NONE, sure=(0.8, 0.04))
    got = POINTS.blend(near, far, 0.5, GRID)
    np.testing.assert_array_equal(got.xy, [(20, 20), NONE])
    np.testing.assert_allclose(got.confidence, [0.42, 0.04])
    assert not POINTS.blend(near, far, 0.05, GRID).present.any()


def test_points_follow_from_both_ends_and_a_missing_one_is_known_by_the_other() -> None:
    places = {k: np.array([(11.5 + 2 * k, 15.5), (47.5 - 2 * k, 35.5)]) for k in range(LAST + 1)}
    last = places[LAST].copy()
    last[1] = np.nan
    given = {0: Points.given(places[0]), LAST: Points.given(last)}
    plan = spans([0, LAST], 0, LAST + 1)
    got = dict(label_plan(shown(FRAMES), plan, given, Propagator(model(), POINTS)))
    alone = dict(label_plan(shown(FRAMES), spans([0], 0, LAST), given, Propagator(model(), POINTS)))
    assert got[0] == given[0] and got[LAST] == given[LAST]
    for k in range(1, LAST):
        np.testing.assert_allclose(got[k].xy[0], places[k][0], atol=4)
        np.testing.assert_array_equal(got[k].xy[1], alone[k].xy[1])
        assert got[k].confidence[1] == alone[k].confidence[1]


def test_sides_with_cells_of_two_sizes_are_blended_on_those_of_the_near_one() -> None:
    """The frame was read with cells of 4 pixels from one side, and of 2 from the other, where the object is thin."""
    kind, fine = labels(), Grid(2, "cell", (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    near, far = (kind.side(kind.to_cells(GIVEN[0], grid), grid, GIVEN[0]) for grid in (GRID, fine))
    assert near.shape != far.shape
    for one, other, grid in ((near, far, GRID), (far, near, fine)):
        alone, both = kind.blend(one, one, 0.5, grid), kind.blend(one, other, 0.5, grid)
        assert (alone != GIVEN[0]).mean() < 0.02
        assert (both != GIVEN[0]).mean() < 0.02
        np.testing.assert_array_equal(kind.blend(one, other, 0.0, grid), alone)
