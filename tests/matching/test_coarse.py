"""Coarse cells, and which cells may hold an object by a reading at half the resolution."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcorr import rng
from vcorr.matching.coarse import MARGIN, coarse_features, coarse_values, screen, within


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 9))
def test_a_coarse_cell_is_the_mean_of_four(seed, height, width):
    cells = torch.rand(1, height, width, 3, generator=rng.generator(seed, "test"), dtype=torch.float64)
    found = coarse_values(cells)
    assert found.shape == (1, -(-height // 2), -(-width // 2), 3)
    for i, j in np.ndindex(*found.shape[1:3]):
        rows, columns = ([min(2 * k + a, n - 1) for a in (0, 1)] for k, n in ((i, height), (j, width)))
        torch.testing.assert_close(found[0, i, j], cells[0][rows][:, columns].mean((0, 1)))
    torch.testing.assert_close(coarse_features(cells).norm(dim=-1), torch.ones(found.shape[:3], dtype=torch.float64))


@given(st.integers(0, 999), st.integers(0, 4))
def test_within_is_the_square_window(seed, radius):
    cells = torch.rand(1, 7, 9, generator=rng.generator(seed, "test")) < 0.1
    found = within(cells, radius)
    for y, x in np.ndindex(7, 9):
        assert (
            found[0, y, x] == cells[0, max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1].any()
        )


def screened(labels, least, height=9, width=13, radius=2):
    """Of a frame that repeats its only reference, of cells that are like no other."""
    drawn = torch.randn(1, height, width, 64, generator=rng.generator(0, "test"))
    frame = torch.nn.functional.normalize(drawn, dim=-1)
    coarse = coarse_features(frame)
    how = dict(radius=radius, scale=200.0, least=least, size=(height, width))
    return screen(coarse, [coarse], [coarse_values(labels)], **how)[0]


def test_what_lies_near_the_object_is_kept_and_nothing_else():
    labels = torch.zeros(1, 9, 13, 2)
    labels[..., 1][0, 4, 6] = 1
    labels[..., 0] = 1 - labels[..., 1]
    wanted = torch.zeros(9, 13, dtype=torch.bool)
    wanted[2 * (2 - MARGIN) : 2 * (3 + MARGIN), 2 * (3 - MARGIN) : 2 * (4 + MARGIN)] = True
    assert (screened(labels, 0.01) == wanted).all()
    assert not screened(labels, 0.3).any()  # a quarter of its coarse cell


def test_without_a_label_nothing_is_kept():
    labels = torch.zeros(1, 9, 13, 2)
    labels[..., 0] = 1
    assert not screened(labels, 0.0).any()
