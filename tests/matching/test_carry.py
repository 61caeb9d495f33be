"""Places carried along: a patch that wanders out of the window's reach is still found where it came from."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vcorr import rng
from vcorr.matching.carry import best_match, carried, follow, places

H, W, C = 12, 40, 16


def features(seed, h=H, w=W):
    return torch.nn.functional.normalize(torch.randn(h, w, C, generator=rng.generator(seed, "test")), dim=-1)


def scene(left, patch, ground):
    """A patch of 4 x 4 cells on a ground that stays, from (4, left) on."""
    frame = ground.clone()
    frame[4:8, left : left + 4] = patch
    return frame[None]


def test_the_best_match_is_the_patch_wherever_it_went():
    patch, ground = features(0, 4, 4), features(1)
    product, moved = best_match(scene(9, patch, ground), scene(5, patch, ground), radius=5)
    assert (moved[0, 4:8, 9:13] == torch.tensor([0.0, -4.0])).all()
    torch.testing.assert_close(product[0, 4:8, 9:13], torch.ones(4, 4))
    assert (moved[0, :3] == 0).all()


@pytest.mark.parametrize("stride", [1, 3])
def test_a_patch_that_wanders_off_is_followed(stride):
    """Six windows' widths away, it is still read from the first frame; the ground from its own place."""
    patch, ground, radius = features(0, 4, 4), features(1), 4
    first = last = scene(2, patch, ground)
    offset = torch.zeros(1, H, W, 2)
    for left in range(2 + stride, W - 4, stride):
        now = scene(left, patch, ground)
        _, step = best_match(now, last, radius=radius)
        window, offset = follow(now, first, offset, step, radius=radius, near=2, margin=0.0)
        assert (window[0, 4:8, left : left + 4] == torch.tensor([0.0, 2.0 - left])).all()
        last = now
    assert left > 30
    untouched = torch.ones(H, W, dtype=torch.bool)
    untouched[4:8] = False
    assert (window[0, untouched] == 0).all()


def test_where_the_carried_place_is_no_better_the_cells_own_stands():
    patch, ground = features(0, 4, 4), features(1)
    frame = scene(10, patch, ground)
    astray = torch.full((1, H, W, 2), 3.0)
    window, offset = follow(frame, frame, astray, torch.zeros_like(astray), radius=4, near=0, margin=0.0)
    assert (window == 0).all() and (offset == 0).all()


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(0, 9))
def test_places_stay_within_the_frame(seed, reach):
    generator = rng.generator(seed, "test")
    offset, step = (torch.randint(-reach, reach + 1, (2, 5, 7, 2), generator=generator).float() for _ in range(2))
    place, limit = places(5, 7, offset), torch.tensor([4.0, 6.0])
    step = (place + step).clamp(min=0).minimum(limit) - place
    at = place + carried(offset, step)
    assert ((at >= 0) & (at <= limit)).all() and (at == at.round()).all()
    for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(5), torch.arange(7)).tolist():
        there = (place[y, x] + step[b, y, x]).long()
        wanted = (there + offset[b, there[0], there[1]]).clamp(min=0).minimum(limit)
        assert (at[b, y, x] == wanted).all()
