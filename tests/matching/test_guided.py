"""Upsampling guided by colours: bilinear where there is nothing to follow, exact where shares are linear in colour."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from vcorr import rng
from vcorr.matching.cells import downsample, upsample
from vcorr.matching.guided import upsample_guided

STRIDE = 4


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=rng.generator(seed, "test"), dtype=dtype)


def cells_of(shares):
    return downsample(shares, STRIDE, alignment="cell")


def masks(object_):
    return torch.stack([~object_, object_]).double()[None]


def test_a_line_thinner_than_a_cell_comes_back():
    line = torch.zeros(48, 64, dtype=torch.bool)
    line[:, 30] = True
    picture = torch.where(line, 0.9, 0.2).double().expand(1, 3, -1, -1)
    shares = masks(line)
    assert not (upsample(cells_of(shares), STRIDE, (48, 64), alignment="cell").argmax(1) == 1).any()
    assert torch.equal(upsample_guided(cells_of(shares), picture, STRIDE).argmax(1)[0] == 1, line)


@pytest.mark.parametrize("size", [(40, 56), (41, 58), (3, 5), (1, 1)])
def test_on_a_flat_picture_it_is_bilinear_but_for_what_is_given_back(size):
    cells = noise(1, -(-size[0] // 4), -(-size[1] // 4), 3).softmax(-1)
    flat = torch.full((1, 3, *size), 0.4, dtype=torch.float64)
    shares = upsample(cells, STRIDE, size, alignment="cell")
    for _ in range(2):
        shares = shares.clamp(0, 1) + upsample(cells - cells_of(shares), STRIDE, size, alignment="cell")
    torch.testing.assert_close(upsample_guided(cells, flat, STRIDE), shares)


def test_values_that_do_not_change_stay_as_they_are():
    cells = torch.tensor([0.25, 0.75]).double().expand(1, 10, 14, 2)
    got = upsample_guided(cells, noise(1, 3, 40, 56), STRIDE)
    torch.testing.assert_close(got, torch.tensor([0.25, 0.75]).double()[None, :, None, None].expand(1, 2, 40, 56))


@examples(30)
@given(st.integers(0, 1000), st.integers(2, 30), st.integers(2, 30))
def test_an_object_keeps_its_area_in_every_cell(seed, top, left):
    """Whatever the picture: the mean of the shares over a cell is near the cell's value, nearer than bilinear is."""
    object_ = torch.zeros(48, 64, dtype=torch.bool)
    object_[top : top + 13, left : left + 18] = True
    cells = cells_of(masks(object_))
    picture = noise(1, 3, 48, 64, seed=seed) * 0.3 + 0.6 * object_
    guided = (cells_of(upsample_guided(cells, picture, STRIDE)) - cells).abs().max()
    bilinear = (cells_of(upsample(cells, STRIDE, (48, 64), alignment="cell")) - cells).abs().max()
    assert guided < 0.5 * bilinear


@examples(20)
@given(st.integers(0, 1000))
def test_the_box_around_edges_changes_nothing(seed):
    object_ = torch.zeros(64, 96, dtype=torch.bool)
    object_[20:33, 41:58] = True
    cells, picture = cells_of(masks(object_)), noise(1, 3, 64, 96, seed=seed)
    speck = cells.clone()
    speck[0, 0, 0], speck[0, -1, -1] = 0.5, 0.5  # now the box is the frame
    whole = upsample_guided(speck, picture, STRIDE)
    torch.testing.assert_close(upsample_guided(cells, picture, STRIDE)[..., 16:40, 36:64], whole[..., 16:40, 36:64])


def test_two_classes_stay_shares_of_one():
    object_ = noise(48, 64) > 0.5
    got = upsample_guided(cells_of(masks(object_)), noise(1, 3, 48, 64, seed=1), STRIDE)
    torch.testing.assert_close(got.sum(1), torch.ones(1, 48, 64, dtype=torch.float64))


def test_a_flipped_picture_gives_flipped_shares():
    object_, picture = noise(48, 64) > 0.7, noise(1, 3, 48, 64, seed=1)
    got = upsample_guided(cells_of(masks(object_)), picture, STRIDE)
    flipped = upsample_guided(cells_of(masks(object_.flip(1))), picture.flip(3), STRIDE)
    torch.testing.assert_close(flipped, got.flip(3))
