"""What the reconstruction must do (checks 1 to 5 of the methods' list)."""

from __future__ import annotations

import pytest
import torch

from vcorr import rng
from vcorr.matching.cells import downsample, upsample
from vcorr.matching.rebuild import rebuild
from vcorr.matching.settings import Matching

D = 4
ALIGNMENTS = ["cell", "sampled", "bilinear", "corner"]


def ramp(h, w):
    """A picture [1 2 h w] whose channels are its own coordinates (y, x)."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([y, x]).double()[None]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=rng.generator(seed, "test"), dtype=torch.float64)


def constant(h, w, c=8):
    return torch.ones(1, h, w, c, dtype=torch.float64)


@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_constant_features_average_the_window(border):
    """Outside cells have no share, or the share of a logit 0."""
    h, w, radius = 6, 7, 2
    values = noise(1, 1, h, w)
    features = constant(h, w) * 0.25
    got = rebuild(features, [features], [values], Matching(radius=radius, border=border, scale=1.0), stride=1)[0, 0]
    for i in range(h):
        for j in range(w):
            inside = values[0, 0, max(0, i - radius) : i + radius + 1, max(0, j - radius) : j + radius + 1]
            weight = torch.exp(torch.tensor(8 * 0.25**2, dtype=torch.float64))
            outside = 0 if border == "mask" else (2 * radius + 1) ** 2 - inside.numel()
            torch.testing.assert_close(got[i, j], weight * inside.sum() / (weight * inside.numel() + outside))


def test_identical_frames_at_a_large_scale_are_copied():
    features, values = noise(2, 5, 6, 64), noise(2, 3, 5, 6, seed=1)
    got = rebuild(features, [features], [values], Matching(radius=3, scale=1e3), stride=1)
    torch.testing.assert_close(got, values)


@pytest.mark.parametrize("alignment", ["cell", "bilinear", "corner"])
@pytest.mark.parametrize(("dy", "dx"), [(0, 1), (2, -3), (-3, 3)])
def test_a_translation_within_the_radius_is_undone(dy, dx, alignment):
    """Features and values move by whole cells; what is rebuilt stands where the query has it."""
    features = noise(1, 12, 14, 64)
    reference = features.roll((dy, dx), (1, 2))
    values = noise(1, 2, 12, 14, seed=1).repeat_interleave(D, 2).repeat_interleave(D, 3)
    moved = values.roll((D * dy, D * dx), (2, 3))
    got = rebuild(features, [reference], [moved], Matching(radius=3, scale=1e3, alignment=alignment), stride=D)
    wanted = upsample(downsample(values, D, alignment=alignment), D, (48, 56), alignment=alignment)
    inside = (..., slice(4 * D, -4 * D), slice(4 * D, -4 * D))
    torch.testing.assert_close(got[inside], wanted[inside])


def test_a_translation_beyond_the_radius_is_not():
    features, values = noise(1, 9, 16, 64), noise(1, 1, 9, 16, seed=1)
    got = rebuild(features, [features.roll(3, 2)], [values.roll(3, 3)], Matching(radius=2, scale=1e3), stride=1)
    assert (got - values)[..., 4:-4].abs().min() > 0


def test_copies_of_one_reference_are_one_reference():
    query, key, values = noise(2, 5, 6, 8), noise(2, 5, 6, 8, seed=1), noise(2, 3, 20, 24, seed=2)
    one = rebuild(query, [key], [values], Matching(radius=2), stride=D)
    torch.testing.assert_close(rebuild(query, [key] * 3, [values] * 3, Matching(radius=2), stride=D), one)


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("radius", [5, None])
def test_a_window_as_large_as_the_map_is_full_attention(scale, radius):
    query, key, values = noise(2, 4, 5, 9), noise(2, 4, 5, 9, seed=1), noise(2, 3, 4, 5, seed=2)
    got = rebuild(query, [key], [values], Matching(radius=radius, scale=scale), stride=1)
    logits = query.flatten(1, 2) @ key.flatten(1, 2).mT * (scale or 9**-0.5)
    wanted = (logits.softmax(-1) @ values.flatten(2).mT).mT.view(2, 3, 4, 5)
    torch.testing.assert_close(got, wanted)


def test_references_are_read_jointly():
    """One softmax over both: the reference that matches takes the mass from the one that does not."""
    features, other = noise(1, 5, 6, 64), noise(1, 5, 6, 64, seed=1)
    values = [noise(1, 1, 5, 6, seed=2), noise(1, 1, 5, 6, seed=3)]
    got = rebuild(features, [other, features], values, Matching(radius=1, scale=10.0), stride=1)
    torch.testing.assert_close(got, values[1])


def test_gradients_reach_query_and_keys():
    query, key = (noise(1, 4, 5, 6, seed=s).requires_grad_() for s in (0, 1))
    values = [noise(1, 1, 16, 20, seed=s) for s in (2, 3)]
    loss = rebuild(query, [key, key], values, Matching(radius=2), stride=D).square().sum()
    for gradient in torch.autograd.grad(loss, [query, key]):
        assert bool(torch.isfinite(gradient).all()) and bool((gradient != 0).any())
