"""A second view of a frame: known places, and the losses that ask for them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vcorr import rng
from vcorr.matching.cells import downsample
from vcorr.training.losses import two_views
from vcorr.training.losses.two_views import ViewConfig

STILL = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])


def features(seed, b=2, h=3, w=4, c=5, dtype=torch.float64):
    return torch.randn(b, h, w, c, generator=rng.generator(seed, "test"), dtype=dtype)


def ramps(height, width):
    """A picture whose two channels are x and y of each pixel's centre, in cells of 4 pixels as `positions` counts."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((torch.stack([x, y]) + 0.5) / 4 - 0.5)[None]


def inside(at):
    limit = torch.tensor([at.shape[2] - 1, at.shape[1] - 1])
    return ((at >= 0) & (at <= limit)).all(-1)


def landing(at, height, width):
    """Bilinear weights [h*w, n] of every cell of the frame for one position, by the tent function."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    tent = [(1 - (at[k] - grid).abs()).clamp(min=0) for k, grid in enumerate((x, y))]
    return (tent[0] * tent[1]).flatten()


def test_a_view_that_changes_nothing_is_the_frame():
    image = torch.rand(1, 3, 16, 24)
    torch.testing.assert_close(two_views.view(image, STILL), image)
    at = two_views.positions(STILL, 4, 6)
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    torch.testing.assert_close(at[0], torch.stack([x, y], -1))


@given(st.integers(0, 10_000), st.sampled_from([(32, 32), (24, 40)]))
def test_positions_are_where_the_view_was_taken(sample, size):
    matrices = two_views.draw(ViewConfig(), [sample], seed=0)
    shown = downsample(two_views.view(ramps(*size), matrices), 4, alignment="cell")
    at = two_views.positions(matrices, size[0] // 4, size[1] // 4)
    # A cell's mean is what its centre shows where none of its pixels looks over the edge.
    reach = 1.5 * math.exp(ViewConfig().scale + ViewConfig().aspect)
    far = (at > reach).all(-1) & (at < torch.tensor([size[1] // 4, size[0] // 4]) - 1 - reach).all(-1)
    torch.testing.assert_close(shown[far], at[far], atol=1e-4, rtol=0)


def test_draws_follow_the_sample_and_stay_in_range():
    cfg = ViewConfig(scale=0, aspect=0, turn=0.4, shear=0, shift=0.25)
    both = two_views.draw(cfg, [5, 9], seed=1)
    assert torch.equal(both[1], two_views.draw(cfg, [9], seed=1)[0])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(both, two_views.draw(cfg, [5, 9], seed=2))
    many = two_views.draw(cfg, range(200), seed=0)
    torch.testing.assert_close(many[:, :, :2].det(), torch.ones(200))  # turns alone
    angle = torch.atan2(many[:, 1, 0], many[:, 0, 0]).abs()
    assert 0.3 < angle.max() <= 0.4 and 0.2 < many[:, :, 2].abs().max() <= 0.25


def test_impossible_strengths_are_refused():
    with pytest.raises(ValueError, match="strength"):
        ViewConfig(scale=-1)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_contrast_and_cycle_are_their_formulas(seed):
    view, between, frame = (features(seed + k) for k in range(3))
    at = two_views.positions(two_views.draw(ViewConfig(), [seed, seed + 1], seed=0), 3, 4).double()
    contrast, cycle = [], []
    for b in range(2):
        there = torch.softmax(0.7 * view[b].flatten(0, 1) @ between[b].flatten(0, 1).T, 1)
        back = torch.softmax(0.7 * between[b].flatten(0, 1) @ frame[b].flatten(0, 1).T, 1)
        direct = torch.log_softmax(0.7 * view[b].flatten(0, 1) @ frame[b].flatten(0, 1).T, 1)
        for n, (position, seen) in enumerate(zip(at[b].flatten(0, 1), inside(at)[b].flatten(), strict=True)):
            if seen:
                where = landing(position, 3, 4)
                contrast.append(-(where * direct[n]).sum())
                cycle.append(-torch.log((where * (there @ back)[n]).sum() + two_views.EPSILON))
    for loss, costs in (
        (two_views.contrast(view, frame, at, scale=0.7), contrast),
        (two_views.cycle(view, between, frame, at, scale=0.7), cycle),
    ):
        torch.testing.assert_close(loss, torch.stack(costs).mean() if costs else torch.zeros_like(loss))


def test_a_frame_that_is_told_apart_costs_nothing():
    frame = torch.eye(12).reshape(1, 3, 4, 12)
    at = two_views.positions(STILL, 3, 4)
    assert float(two_views.contrast(frame, frame, at, scale=50.0)) < 1e-4
    assert float(two_views.cycle(frame, frame, frame, at, scale=50.0)) < 1e-4
    elsewhere = frame.flatten(1, 2).roll(1, 1).view_as(frame)
    assert float(two_views.contrast(elsewhere, frame, at, scale=50.0)) > 40


def test_a_view_of_nothing_in_the_frame_costs_nothing():
    view = features(0).requires_grad_()
    at = torch.full((2, 3, 4, 2), -5.0, dtype=torch.float64)
    loss = two_views.contrast(view, features(1), at, scale=1.0) + two_views.cycle(
        view, features(2), features(1), at, scale=1.0
    )
    loss.backward()
    assert loss.item() == 0 and view.grad.abs().max().item() == 0


def test_gradients():
    view, between, frame = (features(k, b=1, h=2, w=3, c=3).requires_grad_() for k in range(3))
    at = two_views.positions(two_views.draw(ViewConfig(), [3], seed=0), 2, 3).double()
    assert torch.autograd.gradcheck(lambda a, b: two_views.contrast(a, b, at, scale=0.8), (view, frame))
    assert torch.autograd.gradcheck(lambda a, b, c: two_views.cycle(a, b, c, at, scale=0.8), (view, between, frame))


def test_autocast_does_not_move_positions():
    matrices = two_views.draw(ViewConfig(), [0], seed=0)
    exact = two_views.positions(matrices, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(two_views.positions(matrices, 32, 32), exact)
        frame = features(0, b=1, h=32, w=32, c=4, dtype=torch.float32)
        near = two_views.contrast(frame, frame, exact, scale=1.0)
    torch.testing.assert_close(near, two_views.contrast(frame, frame, exact, scale=1.0))


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_contrast_among_all_frames_is_its_formula(seed):
    view, frames = features(seed, h=2, w=3), features(seed + 1)
    at = two_views.positions(two_views.draw(ViewConfig(), [seed, seed + 1], seed=0), 3, 4).double()[:, ::2, 1:]
    everything = 0.7 * view.flatten(1, 2) @ frames.flatten(0, 2).T  # [b n, all cells of all frames]
    costs = []
    for b in range(2):
        own = 0.7 * view[b].flatten(0, 1) @ frames[b].flatten(0, 1).T
        for n, (x, y) in enumerate(at[b].flatten(0, 1).tolist()):
            if 0 <= x <= 3 and 0 <= y <= 2:
                costs.append(everything[b, n].logsumexp(0) - landing(torch.tensor([x, y]).double(), 3, 4) @ own[n])
    got = two_views.contrast_all(view, frames, at, scale=0.7)
    torch.testing.assert_close(got, torch.stack(costs).mean() if costs else torch.zeros_like(got))


def test_contrast_among_all_frames_has_its_gradients():
    view, frames = features(0, h=2, w=3, c=3).requires_grad_(), features(1, c=3).requires_grad_()
    at = two_views.positions(two_views.draw(ViewConfig(), [3, 4], seed=0), 3, 4).double()[:, ::2, 1:]
    assert torch.autograd.gradcheck(lambda a, b: two_views.contrast_all(a, b, at, scale=0.8), (view, frames))
