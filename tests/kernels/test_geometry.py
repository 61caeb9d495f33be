"""How many taps windows have, and how many of them lie outside the frame, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcorr.kernels import geometry, memory_topk, windowed_attention_lse
from vcorr.kernels.arguments import MOST_CELLS
from vcorr.kernels.geometry import half_width, tap_count, taps, taps_outside

SHAPES = st.sampled_from(["square", "disk"])


@given(radius=st.integers(1, 40), shape=SHAPES)
def test_taps_are_counted(radius, shape):
    every = taps(radius, shape)
    assert tap_count(radius, shape, 3, 4) == len(every)
    for dy in range(-radius - 1, radius + 2):
        assert half_width(dy, radius, shape) == max((dx for y, dx in every if y == dy), default=-1)


@given(height=st.integers(1, 12), width=st.integers(1, 12), radius=st.integers(1, 15), shape=SHAPES)
def test_taps_outside_are_counted(height, width, radius, shape):
    every = torch.tensor(taps(radius, shape))
    y, x = torch.arange(height)[:, None, None] + every[:, 0], torch.arange(width)[:, None] + every[:, 1]
    outside = (y < 0) | (y >= height) | (x < 0) | (x >= width)
    assert torch.equal(taps_outside(height, width, radius, shape), outside.sum(-1).double())


@given(radius=st.integers(1000, 5000) | st.integers(2**17, 2**17 + 9))
def test_large_disks_are_counted_exactly(radius):
    rows = (math.isqrt(radius**2 - dy**2 - 1) for dy in range(1, radius))
    assert tap_count(radius, "disk", 1, 1) == 2 * radius - 1 + 2 * sum(2 * reach + 1 for reach in rows)


@pytest.mark.parametrize("radius", [geometry.MEASURED - 2, geometry.MEASURED - 1])
def test_larger_ones_are_their_area(radius):
    assert tap_count(radius, "disk", 1, 1) == pytest.approx(math.pi * radius**2, rel=1e-10)
    assert tap_count(10**12, "disk", 1, 1) == pytest.approx(math.pi * 1e24)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("shape", ["square", "disk"])
def test_a_radius_of_any_size_costs_no_more_than_the_frame(shape):
    """Loops over such a radius would not end."""
    frame = torch.randn(1, 4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options = {"radius": MOST_CELLS, "window": shape}
    readout, lse = windowed_attention_lse(frame, frame, frame, border="zeros", **options)
    whole, inside = windowed_attention_lse(frame, frame, frame, radius=None)
    mass = torch.tensor(float(tap_count(MOST_CELLS, shape, 4, 5) - 20), dtype=torch.float64).log()
    torch.testing.assert_close(lse, torch.logaddexp(inside, mass))
    torch.testing.assert_close(readout, whole * (inside - lse).exp()[..., None])
    logits, cells, _ = memory_topk(frame, [frame], top_k=3, **options)
    torch.testing.assert_close((logits, cells), memory_topk(frame, [frame], top_k=3, radius=None)[:2])


def test_top_k_is_held_against_the_taps_of_large_windows_too():
    frame = torch.zeros(1, 2, 2, 1)
    with pytest.raises(ValueError, match="top_k must be at most the number of taps, 9, got 10"):
        memory_topk(frame, [frame, frame], top_k=10, radius=[MOST_CELLS, 2], window="disk")
