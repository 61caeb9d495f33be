"""Places carried along, against loops in float64; and a patch that wanders off is found where it came from."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcorr import rng
from vcorr.matching import carry
from vcorr.matching.carry import BLOCK, SCALE, match_blocks, mean_in_blocks, near_objects, places, to_cells


def features(seed, *shape, dtype=torch.float64):
    drawn = torch.randn(*shape, 6, generator=rng.generator(seed, "test"), dtype=dtype)
    return torch.nn.functional.normalize(drawn, dim=-1)


def matches(query, key, shift, wanted, radius):
    """Place and similarity of each cell, from the definition."""
    height, width = query.shape[:2]
    place, similarity = np.zeros((height, width, 2)), np.full((height, width), -1.0)
    for y, x in np.ndindex(height, width):
        place[y, x] = y, x
        if not wanted[y // BLOCK, x // BLOCK]:
            continue
        dy, dx = shift[y // BLOCK, x // BLOCK].int().tolist()
        window = itertools.product(
            range(y + dy - radius, y + dy + radius + 1), range(x + dx - radius, x + dx + radius + 1)
        )
        seen = [(i, j) for i, j in window if 0 <= i < height and 0 <= j < width]
        weights = [math.exp(SCALE * float(query[y, x] @ key[i, j])) for i, j in seen]
        if seen:
            place[y, x] = np.average(seen, axis=0, weights=weights)
            similarity[y, x] = math.log(sum(weights)) / SCALE
    return place, similarity


@given(st.integers(0, 999), st.integers(1, 11), st.integers(1, 11), st.integers(0, 3), st.sampled_from([2**22, 1]))
def test_matches_are_those_of_the_definition(seed, height, width, radius, held):
    generator = rng.generator(seed, "test")
    query, key = features(seed, height, width), features(seed + 1, height, width)
    blocks = -(-height // BLOCK), -(-width // BLOCK)
    shift = torch.randint(-9, 10, (*blocks, 2), generator=generator).double()
    wanted = torch.rand(blocks, generator=generator) < 0.7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carry, "HELD", held)
        found = match_blocks(query, key, shift, wanted, radius=radius)
    place, similarity = matches(query, key, shift, wanted, radius)
    np.testing.assert_allclose(found.place.numpy(), place, atol=1e-9)
    np.testing.assert_allclose(found.similarity.numpy(), similarity, atol=1e-9)


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 9))
def test_means_over_blocks_leave_out_what_is_no_cell(seed, height, width):
    x, weight = (torch.rand(height, width, n, generator=rng.generator(seed, str(n))) for n in (2, 1))
    means, held = mean_in_blocks(x, weight), near_objects(weight)
    for i, j in np.ndindex(*held.shape):
        cut = slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK)
        torch.testing.assert_close(means[i, j], (x[cut] * weight[cut]).sum((0, 1)) / weight[cut].sum())
        around = [slice(max(0, k - 1) * BLOCK, (k + 2) * BLOCK) for k in (i, j)]
        assert held[i, j] == (weight[around[0], around[1]] > carry.LEAST).any()
    assert to_cells(means, (height, width)).shape == x.shape


def test_no_block_is_asked_for():
    frame = features(0, 5, 6)
    found = match_blocks(frame, frame, torch.zeros(2, 2, 2), torch.zeros(2, 2, dtype=torch.bool), radius=2)
    assert (found.place == places(5, 6, frame)).all() and (found.similarity == -1).all()


def test_a_window_beyond_the_frame_sees_nothing():
    frame = features(0, 4, 4)
    found = match_blocks(frame, frame, torch.full((1, 1, 2), 1e4), torch.ones(1, 1, dtype=torch.bool), radius=2)
    assert (found.similarity == -1).all()
