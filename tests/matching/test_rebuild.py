"""Where cells meet pixels, and what the reconstruction must do (checks 1 to 5 of the methods' list)."""

from __future__ import annotations

import pytest
import torch

from vcorr import rng
from vcorr.matching.rebuild import enlarge, rebuild, shrink

D = 4
ALIGNMENTS = ["cell", "sampled", "bilinear", "corner"]


def ramp(h, w):
    """A picture [1 2 h w] whose channels are its own coordinates (y, x)."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([y, x]).double()[None]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=rng.generator(seed, "test"), dtype=torch.float64)


# --- shrink and enlarge ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("h", "w"), [(16, 24), (17, 22), (3, 4), (1, 1), (5, 31)])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_shapes_at_any_size(h, w, alignment):
    cells = shrink(ramp(h, w), D, alignment=alignment)
    assert cells.shape == (1, -(-h // D), -(-w // D), 2)
    assert enlarge(cells, D, (h, w), alignment=alignment).shape == (1, 2, h, w)


def test_a_cell_is_the_mean_of_its_pixels():
    picture = noise(2, 3, 8, 12)
    cells = shrink(picture, D, alignment="cell")
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(cells[:, i, j], picture[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean((2, 3)))


def test_a_cell_cut_by_the_edge_repeats_the_last_pixels():
    cells = shrink(ramp(6, 5), D, alignment="cell")
    assert cells[0, :, 0, 0].tolist() == [1.5, (4 + 5 + 5 + 5) / 4]
    assert cells[0, 0, :, 1].tolist() == [1.5, 4]


def test_a_bilinear_cell_is_the_mean_of_its_four_middle_pixels():
    """Of the picture with its last rows and columns repeated, where the edge cuts a cell."""
    picture = noise(2, 3, 10, 13)
    cells = shrink(picture, D, alignment="bilinear")
    padded = torch.cat([picture, picture[:, :, -1:].expand(-1, -1, 2, -1)], 2)
    padded = torch.cat([padded, padded[..., -1:].expand(-1, -1, -1, 3)], 3)
    assert cells.shape == (2, 3, 4, 3)
    for i in range(3):
        for j in range(4):
            middle = padded[:, :, 4 * i + 1 : 4 * i + 3, 4 * j + 1 : 4 * j + 3]
            torch.testing.assert_close(cells[:, i, j], middle.mean((2, 3)))


@pytest.mark.parametrize("alignment", ["sampled", "corner"])
def test_the_other_two_take_the_first_pixel_of_a_cell(alignment):
    picture = noise(1, 2, 9, 14)
    assert torch.equal(shrink(picture, D, alignment=alignment), picture[..., ::4, ::4].permute(0, 2, 3, 1))


@pytest.mark.parametrize(("h", "w"), [(32, 48), (33, 46), (30, 41)])
@pytest.mark.parametrize(("alignment", "shift"), [("cell", 0.0), ("bilinear", 0.0), ("corner", 0.0), ("sampled", -1.5)])
def test_a_ramp_comes_back_in_the_interior(h, w, alignment, shift):
    """Exactly, but for MAST's convention: it samples pixel 4i and reads the cells as if that were their centre."""
    if alignment == "sampled":  # elsewhere its scale is not 4 (next test)
        h, w = h - h % D, w - w % D
    picture = ramp(h, w)
    back = enlarge(shrink(picture, D, alignment=alignment), D, (h, w), alignment=alignment)
    inside = (..., slice(2 * D, h - 2 * D), slice(2 * D, w - 2 * D))
    torch.testing.assert_close(back[inside], picture[inside] + shift, rtol=0, atol=1e-9)


def test_the_shift_of_sampled_values_drifts_where_the_width_is_no_multiple():
    """854 pixels are 214 cells: the shift goes from -0.375 of a cell to +0.125 (in pixels: -1.5 to +0.5)."""
    w = 854
    back = enlarge(shrink(ramp(8, w), D, alignment="sampled"), D, (8, w), alignment="sampled")[0, 1, 0]
    for p in (100, 427, 800):
        assert float(back[p]) == pytest.approx(4 * ((p + 0.5) * 214 / w - 0.5), abs=1e-9)
    assert float(back[5] - 5) == pytest.approx(-1.5, abs=0.05)
    assert float(back[846] - 846) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_beyond_the_outermost_centres_the_edge_is_repeated(alignment):
    back = enlarge(shrink(ramp(16, 16), D, alignment=alignment), D, (16, 16), alignment=alignment)[0, 1, 0]
    first, last = {"sampled": (0, 12), "corner": (0, 12)}.get(alignment, (1.5, 13.5))
    assert float(back[0]) == first and float(back[-1]) == last


def test_an_unknown_alignment_is_refused():
    with pytest.raises(ValueError, match="alignment must be one of cell, sampled, bilinear, corner, got 'centre'"):
        shrink(ramp(8, 8), D, alignment="centre")
    with pytest.raises(ValueError, match="alignment must be one of"):
        enlarge(noise(1, 2, 2, 1), D, (8, 8), alignment="centre")


# --- rebuild --------------------------------------------------------------------------------------------------------


def constant(h, w, c=8):
    return torch.ones(1, h, w, c, dtype=torch.float64)


@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_constant_features_average_the_window(border):
    """Outside cells have no share, or the share of a logit 0."""
    h, w, radius = 6, 7, 2
    values = noise(1, 1, h, w)
    features = constant(h, w) * 0.25
    got = rebuild(features, [features], [values], radius=radius, stride=1, border=border, scale=1.0)[0, 0]
    for i in range(h):
        for j in range(w):
            inside = values[0, 0, max(0, i - radius) : i + radius + 1, max(0, j - radius) : j + radius + 1]
            weight = torch.exp(torch.tensor(8 * 0.25**2, dtype=torch.float64))
            outside = 0 if border == "mask" else (2 * radius + 1) ** 2 - inside.numel()
            torch.testing.assert_close(got[i, j], weight * inside.sum() / (weight * inside.numel() + outside))


def test_identical_frames_at_a_large_scale_are_copied():
    features, values = noise(2, 5, 6, 64), noise(2, 3, 5, 6, seed=1)
    got = rebuild(features, [features], [values], radius=3, stride=1, scale=1e3)
    torch.testing.assert_close(got, values)


@pytest.mark.parametrize("alignment", ["cell", "bilinear", "corner"])
@pytest.mark.parametrize(("dy", "dx"), [(0, 1), (2, -3), (-3, 3)])
def test_a_translation_within_the_radius_is_undone(dy, dx, alignment):
    """Features and values move by whole cells; what is rebuilt stands where the query has it."""
    features = noise(1, 12, 14, 64)
    reference = features.roll((dy, dx), (1, 2))
    values = noise(1, 2, 12, 14, seed=1).repeat_interleave(D, 2).repeat_interleave(D, 3)
    moved = values.roll((D * dy, D * dx), (2, 3))
    got = rebuild(features, [reference], [moved], radius=3, stride=D, scale=1e3, alignment=alignment)
    wanted = enlarge(shrink(values, D, alignment=alignment), D, (48, 56), alignment=alignment)
    inside = (..., slice(4 * D, -4 * D), slice(4 * D, -4 * D))
    torch.testing.assert_close(got[inside], wanted[inside])


def test_a_translation_beyond_the_radius_is_not():
    features, values = noise(1, 9, 16, 64), noise(1, 1, 9, 16, seed=1)
    got = rebuild(features, [features.roll(3, 2)], [values.roll(3, 3)], radius=2, stride=1, scale=1e3)
    assert (got - values)[..., 4:-4].abs().min() > 0


def test_copies_of_one_reference_are_one_reference():
    query, key, values = noise(2, 5, 6, 8), noise(2, 5, 6, 8, seed=1), noise(2, 3, 20, 24, seed=2)
    one = rebuild(query, [key], [values], radius=2, stride=D)
    torch.testing.assert_close(rebuild(query, [key] * 3, [values] * 3, radius=2, stride=D), one)


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("radius", [5, None])
def test_a_window_as_large_as_the_map_is_full_attention(scale, radius):
    query, key, values = noise(2, 4, 5, 9), noise(2, 4, 5, 9, seed=1), noise(2, 3, 4, 5, seed=2)
    got = rebuild(query, [key], [values], radius=radius, stride=1, scale=scale)
    logits = query.flatten(1, 2) @ key.flatten(1, 2).mT * (scale or 9**-0.5)
    wanted = (logits.softmax(-1) @ values.flatten(2).mT).mT.view(2, 3, 4, 5)
    torch.testing.assert_close(got, wanted)


def test_references_are_read_jointly():
    """One softmax over both: the reference that matches takes the mass from the one that does not."""
    features, other = noise(1, 5, 6, 64), noise(1, 5, 6, 64, seed=1)
    values = [noise(1, 1, 5, 6, seed=2), noise(1, 1, 5, 6, seed=3)]
    got = rebuild(features, [other, features], values, radius=1, stride=1, scale=10.0)
    torch.testing.assert_close(got, values[1])


def test_gradients_reach_query_and_keys():
    query, key = (noise(1, 4, 5, 6, seed=s).requires_grad_() for s in (0, 1))
    loss = rebuild(query, [key, key], [noise(1, 1, 16, 20, seed=s) for s in (2, 3)], radius=2, stride=D).square().sum()
    for gradient in torch.autograd.grad(loss, [query, key]):
        assert bool(torch.isfinite(gradient).all()) and bool((gradient != 0).any())
