"""Where cells meet pixels."""

from __future__ import annotations

import pytest
import torch

from vcorr import rng
from vcorr.matching.cells import downsample, upsample

D = 4
ALIGNMENTS = ["cell", "sampled", "bilinear", "corner"]


def ramp(h, w):
    """A picture [1 2 h w] whose channels are its own coordinates (y, x)."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([y, x]).double()[None]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=rng.generator(seed, "test"), dtype=torch.float64)


@pytest.mark.parametrize(("h", "w"), [(16, 24), (17, 22), (3, 4), (1, 1), (5, 31)])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_shapes_at_any_size(h, w, alignment):
    cells = downsample(ramp(h, w), D, alignment=alignment)
    assert cells.shape == (1, -(-h // D), -(-w // D), 2)
    assert upsample(cells, D, (h, w), alignment=alignment).shape == (1, 2, h, w)


def test_a_cell_is_the_mean_of_its_pixels():
    picture = noise(2, 3, 8, 12)
    cells = downsample(picture, D, alignment="cell")
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(cells[:, i, j], picture[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean((2, 3)))


def test_a_cell_cut_by_the_edge_repeats_the_last_pixels():
    cells = downsample(ramp(6, 5), D, alignment="cell")
    assert cells[0, :, 0, 0].tolist() == [1.5, (4 + 5 + 5 + 5) / 4]
    assert cells[0, 0, :, 1].tolist() == [1.5, 4]


def test_a_bilinear_cell_is_the_mean_of_its_four_middle_pixels():
    """Of the picture with its last rows and columns repeated, where the edge cuts a cell."""
    picture = noise(2, 3, 10, 13)
    cells = downsample(picture, D, alignment="bilinear")
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
    assert torch.equal(downsample(picture, D, alignment=alignment), picture[..., ::4, ::4].permute(0, 2, 3, 1))


@pytest.mark.parametrize(("h", "w"), [(32, 48), (33, 46), (30, 41)])
@pytest.mark.parametrize(("alignment", "shift"), [("cell", 0.0), ("bilinear", 0.0), ("corner", 0.0), ("sampled", -1.5)])
def test_a_ramp_comes_back_in_the_interior(h, w, alignment, shift):
    """Exactly, but for MAST's convention: it samples pixel 4i and reads the cells as if that were their centre."""
    if alignment == "sampled":  # elsewhere its scale is not 4 (next test)
        h, w = h - h % D, w - w % D
    picture = ramp(h, w)
    back = upsample(downsample(picture, D, alignment=alignment), D, (h, w), alignment=alignment)
    inside = (..., slice(2 * D, h - 2 * D), slice(2 * D, w - 2 * D))
    torch.testing.assert_close(back[inside], picture[inside] + shift, rtol=0, atol=1e-9)


def test_the_shift_of_sampled_values_drifts_where_the_width_is_no_multiple():
    """854 pixels are 214 cells: the shift goes from -0.375 of a cell to +0.125 (in pixels: -1.5 to +0.5)."""
    w = 854
    back = upsample(downsample(ramp(8, w), D, alignment="sampled"), D, (8, w), alignment="sampled")[0, 1, 0]
    for p in (100, 427, 800):
        assert float(back[p]) == pytest.approx(4 * ((p + 0.5) * 214 / w - 0.5), abs=1e-9)
    assert float(back[5] - 5) == pytest.approx(-1.5, abs=0.05)
    assert float(back[846] - 846) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_beyond_the_outermost_centres_the_edge_is_repeated(alignment):
    back = upsample(downsample(ramp(16, 16), D, alignment=alignment), D, (16, 16), alignment=alignment)[0, 1, 0]
    first, last = {"sampled": (0, 12), "corner": (0, 12)}.get(alignment, (1.5, 13.5))
    assert float(back[0]) == first and float(back[-1]) == last


def test_an_unknown_alignment_is_refused():
    with pytest.raises(ValueError, match="alignment must be one of cell, sampled, bilinear, corner, got 'centre'"):
        downsample(ramp(8, 8), D, alignment="centre")
    with pytest.raises(ValueError, match="alignment must be one of"):
        upsample(noise(1, 2, 2, 1), D, (8, 8), alignment="centre")
