"""Randomness is a function of (seed, purpose, step)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcorr import rng

KEYS = st.tuples(st.integers(-(2**70), 2**70), st.sampled_from(["init", "clip", "clip.1", "order"]), st.integers(0, 9))


def draws(key):
    return torch.rand(4, generator=rng.generator(*key)).tolist()


@given(KEYS, KEYS)
def test_equal_keys_and_only_they_draw_alike(a, b):
    assert (draws(a) == draws(b)) == (a == b)


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    rng.integer(0, 9, rng.generator(0, "test"))
    assert torch.equal(torch.random.get_rng_state(), before)


STREAM = [905, 992, 577, 123, 774]


def test_streams_stay_as_they_are():
    """Another stream would make every old run impossible to continue: these numbers must never change."""
    assert [rng.integer(0, 1000, rng.generator(0, "clip", k)) for k in range(5)] == STREAM


@given(st.integers(-5, 5), st.integers(1, 5), st.integers(0, 99))
def test_integers_fill_a_half_open_range(low, width, seed):
    generator = rng.generator(seed, "test")
    assert {rng.integer(low, low + width, generator) for _ in range(200)} == set(range(low, low + width))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, -1.0), (128.0, 480.0)])
def test_uniform_numbers_have_the_mean_and_spread_of_their_range(low, high):
    generator = rng.generator(0, "test")
    drawn = torch.tensor([rng.uniform(low, high, generator) for _ in range(4000)], dtype=torch.float64)
    assert low <= drawn.min() and drawn.max() < high
    assert abs(float(drawn.mean()) - (low + high) / 2) < 0.02 * (high - low)
    assert abs(float(drawn.std()) - (high - low) / 12**0.5) < 0.02 * (high - low)
