"""Tiles over the cells that are read."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from vcorr import rng
from vcorr.kernels.cpu.cover import TILE, cover


@given(st.integers(0, 999), st.integers(1, 30), st.integers(1, 30), st.sampled_from([0.0, 0.01, 0.2, 1.0]))
def test_tiles_hold_each_cell_once_and_cross_no_multiple_of_their_size(seed, height, width, share):
    read = torch.rand(height, width, generator=rng.generator(seed, "test")) < share
    counts = torch.zeros(height, width, dtype=torch.int64)
    for tile in itertools.chain.from_iterable(cover(read, height, width)):
        counts[tile.place] += 1
        part = read[tile.place]
        assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
        for first, size in ((tile.top, tile.rows), (tile.left, tile.columns)):
            assert first // TILE == (first + size - 1) // TILE
    assert counts.max() <= 1 and (counts[read] == 1).all()


def test_without_a_mask_all_cells_are_read():
    tiles = list(itertools.chain.from_iterable(cover(None, 17, 9)))
    assert sum(tile.cells for tile in tiles) == 17 * 9
