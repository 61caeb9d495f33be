"""Scene cuts: found where the scene changes, and not where it moves, flashes or gets another light."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vcorr.media.cuts import WINDOW, CutFinder

Picture = NDArray[np.uint8]


def cuts(pictures: Iterable[Picture], first: int = 0) -> list[int]:
    finder = CutFinder()
    for k, picture in enumerate(pictures, start=first):
        finder.see(k, picture)
    return finder.found()


def scene(seed: int, frames: int, step: int = 0) -> list[Picture]:
    """A few coloured fields that move ``step`` pixels a frame, 90x160."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (12, 3))
    field = rng.integers(0, 12, (6, 12)).repeat(15, 0).repeat(20, 1)
    noise = rng.integers(-6, 7, (90, 240, 3))
    wide = np.clip(colours[field] + noise, 0, 255).astype(np.uint8)
    return [np.roll(wide, -step * k, 1)[:, :160] for k in range(frames)]


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 9), st.integers(0, 500))
def test_a_cut_is_found_wherever_it_is(seed: int, before: int, after: int, first: int) -> None:
    pictures = scene(seed, before) + scene(seed + 1000, after)
    assert cuts(pictures, first) == [first + before]


def test_two_cuts_are_found() -> None:
    assert cuts(scene(1, 8) + scene(2, 6, step=5) + scene(3, 8)) == [8, 14]


@pytest.mark.parametrize("step", [0, 3, 20])
def test_motion_is_no_cut(step: int) -> None:
    assert cuts(scene(4, 30, step)) == []


@pytest.mark.parametrize("frames", range(1, WINDOW))
def test_a_flash_is_no_cut(frames: int) -> None:
    pictures = scene(5, 24, step=2)
    for k in range(10, 10 + frames):
        pictures[k] = np.full_like(pictures[k], 250)
    assert cuts(pictures) == []


def test_a_lamp_that_goes_on_is_no_cut() -> None:
    dark = [(0.4 * p).astype(np.uint8) for p in scene(6, 10, step=1)]
    assert cuts(dark + scene(6, 20, step=1)[10:]) == []


def test_a_frame_that_blends_two_scenes_makes_no_second_cut() -> None:
    a, b = scene(7, 8), scene(8, 8)
    half = ((a[0].astype(int) + b[0]) // 2).astype(np.uint8)
    assert len(cuts([*a, half, *b])) == 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (2000, 7), (48, 64)])
def test_frames_of_any_shape_and_of_one_colour_are_seen(shape: tuple[int, int]) -> None:
    black, white = (np.full((*shape, 3), value, np.uint8) for value in (0, 255))
    assert cuts([black] * 5 + [white] * 5) == [5]
    assert cuts([black]) == cuts([]) == []
