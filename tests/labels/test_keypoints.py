"""Keypoints in cells and back: to a fraction of a cell, whatever the alignment and the size that a frame is read at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vcorr.labels.keypoints import LOST, KeypointLabels, Points
from vcorr.matching.cells import Alignment, Grid

NAMES = ("a", "b", "c")


def labels(size: tuple[int, int]) -> KeypointLabels:
    return KeypointLabels(NAMES, size, torch.device("cpu"))


@pytest.mark.parametrize("alignment", ["cell", "sampled", "bilinear", "corner"])
@pytest.mark.parametrize(("read", "full"), [((96, 120), (96, 120)), ((97, 121), (97, 121)), ((96, 120), (720, 902))])
def test_points_come_back_to_a_tenth_of_a_cell(
    alignment: Alignment, read: tuple[int, int], full: tuple[int, int]
) -> None:
    grid = Grid(4, alignment, read, full)
    scale = full[1] / read[1]
    xy = np.array([[31.3, 50.0], [70.0, 41.9], [90.6, 80.2]]) * scale
    cells = labels(full).to_cells(Points.given(xy), grid)
    assert cells.shape == (1, *grid.shape, 3)
    found = labels(full).from_cells(cells, grid)
    np.testing.assert_allclose(found.xy, xy, atol=0.4 * scale)
    assert (found.confidence > 0.95).all()


def test_a_heat_map_lies_where_its_point_does() -> None:
    grid = Grid(4, "cell", (96, 120), (96, 120))
    cells = labels((96, 120)).to_cells(Points.given(np.full((3, 2), 4 * 7 + 1.5)), grid)
    assert cells[0, 7, 7].tolist() == [1, 1, 1]
    assert float(cells[0, 7, 8, 0]) == pytest.approx(np.exp(-0.5))


def test_what_is_missing_has_no_heat_and_what_has_none_no_place() -> None:
    grid = Grid(4, "cell", (96, 120), (96, 120))
    xy = np.array([[30.0, 40.0], [np.nan, np.nan], [60.0, 50.0]])
    given = Points.given(xy)
    assert given.confidence.tolist() == [1, 0, 1]
    cells = labels((96, 120)).to_cells(given, grid)
    assert float(cells[..., 1].max()) == 0
    cells[..., 2] *= 0.9 * LOST
    found = labels((96, 120)).from_cells(cells, grid)
    assert found.present.tolist() == [True, False, False]
    assert found.confidence[1] == 0
    assert found.confidence[2] < LOST


def test_a_point_at_the_edge_stays_inside() -> None:
    grid = Grid(4, "cell", (96, 120), (96, 120))
    xy = np.array([[0.0, 0.0], [119.0, 95.0], [0.0, 95.0]])
    found = labels((96, 120)).from_cells(labels((96, 120)).to_cells(Points.given(xy), grid), grid)
    np.testing.assert_allclose(found.xy, xy, atol=3)
    assert (found.xy >= 0).all() and (found.xy <= [119, 95]).all()
