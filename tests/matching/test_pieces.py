"""What has come apart from the body of an object is background; an object in several pieces keeps them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vcorr import rng
from vcorr.matching.origin import Origin
from vcorr.matching.pieces import connected, in_one_piece, without_pieces

SIZE = (40, 60)
Box = tuple[int, int, int, int]


def shares(*boxes: tuple[int, Box], classes: int = 2) -> Tensor:
    """Cells where object k fills boxes (top, left, bottom, right), [1 h w v]."""
    values = torch.zeros(1, *SIZE, classes)
    values[..., 0] = 1
    for k, (top, left, bottom, right) in boxes:
        values[:, top:bottom, left:right] = torch.eye(classes)[k]
    return values


def flood(held: np.ndarray) -> np.ndarray:
    """Connected parts by a flood from each cell, the plain way."""
    number, count = np.zeros(held.shape, int), 0
    for start in zip(*np.nonzero(held), strict=True):
        if number[start]:
            continue
        count += 1
        todo = [start]
        while todo:
            y, x = todo.pop()
            if 0 <= y < held.shape[0] and 0 <= x < held.shape[1] and held[y, x] and not number[y, x]:
                number[y, x] = count
                todo += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return number


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.05, 0.95), st.integers(0, 10**6))
def test_connected_parts_are_those_of_a_flood(height: int, width: int, density: float, seed: int) -> None:
    held = torch.rand(height, width, generator=rng.generator(seed, "test")) < density
    found, expected = connected(held).numpy(), flood(held.numpy())
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert ((found == 0) == (expected == 0)).all()


def test_a_long_way_round_is_one_part() -> None:
    spiral = torch.zeros(31, 31, dtype=torch.bool)
    spiral[::2] = True
    spiral[1::4, -1] = True
    spiral[3::4, 0] = True
    assert connected(spiral).unique().numel() == 2


def test_a_small_piece_apart_goes_and_the_body_stays() -> None:
    body, leak = (1, (4, 4, 24, 24)), (1, (4, 44, 12, 52))
    assert in_one_piece(shares(body)).tolist() == [True]
    found = without_pieces(shares(body, leak), torch.tensor([True]), 0.5)
    torch.testing.assert_close(found, shares(body), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([(4, 44, 12, 52)], "the labelled frame shows several pieces"),
        ([(4, 40, 24, 56)], "it is nearly as heavy as the body"),
        ([(4, 26, 12, 34)], "the gap is small for the object's size"),
        ([], "there is one piece"),
    ],
)
def test_what_stays(pieces: list[Box], why: str) -> None:
    values = shares((1, (4, 4, 24, 24)), *((1, box) for box in pieces))
    whole = torch.tensor([why != "the labelled frame shows several pieces"])
    torch.testing.assert_close(without_pieces(values, whole, 0.5), values, rtol=0, atol=0)


def test_objects_that_touch_are_apart_for_themselves() -> None:
    """The second object is in two pieces by nature; a piece of the first one goes beside it."""
    first, second = (1, (4, 4, 16, 16)), [(2, (4, 16, 12, 24)), (2, (30, 4, 36, 12))]
    leak = (1, (30, 44, 36, 50))
    values = shares(first, *second, classes=3)
    whole = in_one_piece(values)
    assert whole.tolist() == [True, False]
    found = without_pieces(shares(first, *second, leak, classes=3), whole, 0.5)
    torch.testing.assert_close(found, values, rtol=0, atol=0)


def test_of_two_pieces_the_one_that_looks_like_the_object_is_the_body() -> None:
    right, left = (1, (4, 40, 16, 52)), (1, (4, 4, 18, 18))
    scored = torch.zeros(*SIZE, 2)
    scored[:, 30:, 1], scored[:, :30, 1] = 0.5, -0.5
    found = without_pieces(shares(left, right), torch.tensor([True]), 0.5, scored)
    torch.testing.assert_close(found, shares(right), rtol=0, atol=0)
    bare = without_pieces(shares(left, right), torch.tensor([True]), 0.99)
    torch.testing.assert_close(bare, shares(left), rtol=0, atol=0)


def test_a_piece_that_comes_from_a_part_of_its_own_stays() -> None:
    """As when a pole hides the middle of an object. A leak comes from where the body comes from."""
    body, piece = (1, (4, 4, 24, 24)), (1, (4, 40, 20, 50))
    values, whole = shares(body, piece), torch.tensor([True])
    own = torch.arange(20 * 30).view(20, 30)
    same = own - own[2, 20] + own[2, 2]
    labels = torch.ones(20, 30, 2)
    for place, label, trust, expected in (
        (own, 1.0, 1.0, values),
        (own, 0.0, 1.0, shares(body)),
        (own, 1.0, 0.0, shares(body)),
        (torch.where(own % 30 >= 19, same, own).clamp(min=0), 1.0, 1.0, shares(body)),
    ):
        origin = Origin(label * labels, torch.full((20, 30, 1), trust), place)
        torch.testing.assert_close(without_pieces(values, whole, 0.5, None, origin), expected, rtol=0, atol=0)


def test_an_object_that_is_gone_is_in_one_piece() -> None:
    assert in_one_piece(shares()).tolist() == [True]
    torch.testing.assert_close(without_pieces(shares(), torch.tensor([True]), 0.5), shares(), rtol=0, atol=0)
