"""A class is believed less where what is around a cell does not come from it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vcorr import rng
from vcorr.matching.carry import places
from vcorr.matching.origin import at_places, believed

HEIGHT, WIDTH, CHANNELS = 12, 20, 32  # coarse cells


def scene() -> tuple[Tensor, Tensor, Tensor]:
    """Coarse features of a labelled frame; its coarse labels: object 1 on the left; each cell's own place."""
    key = torch.nn.functional.normalize(
        torch.randn(1, HEIGHT, WIDTH, CHANNELS, generator=rng.generator(0, "test")), dim=-1
    )
    labelled = torch.zeros(1, HEIGHT, WIDTH, 2)
    labelled[..., :8, 1] = 1
    labelled[..., 0] = 1 - labelled[..., 1]
    return key, labelled, places(HEIGHT, WIDTH, key)


def readout(left: float, right: float) -> Tensor:
    """Shares of the object in the columns where it is labelled, and in a few further right."""
    values = torch.zeros(1, 2 * HEIGHT, 2 * WIDTH, 2)
    values[:, :, :16, 1], values[:, :, 24:26, 1] = left, right
    values[..., 0] = 1 - values[..., 1]
    return values


def doubted(share: float, strength: float) -> float:
    odds = share / (1 - share) * math.exp(-strength)
    return odds / (1 + odds)


def test_what_lies_on_the_background_is_doubted_and_what_lies_on_the_object_is_not() -> None:
    key, labelled, place = scene()
    found = believed(readout(0.9, 0.8), at_places(key, key, labelled, place), 2.0)[0, 10, :, 1]
    torch.testing.assert_close(found[:16], torch.full((16,), 0.9))
    torch.testing.assert_close(found[24:26], torch.full((2,), doubted(0.8, 2.0)))


def test_a_place_that_looks_different_proves_nothing() -> None:
    key, labelled, place = scene()
    other = torch.randn(key.shape, generator=rng.generator(1, "test")) - 2 * key
    origin = at_places(torch.nn.functional.normalize(other, dim=-1), key, labelled, place)
    torch.testing.assert_close(believed(readout(0.9, 0.8), origin, 2.0), readout(0.9, 0.8))


def test_an_object_that_has_lost_its_places_is_not_doubted() -> None:
    key, labelled, place = scene()
    origin = at_places(key, key, labelled.flip(2), place)
    torch.testing.assert_close(believed(readout(0.9, 0.1), origin, 2.0), readout(0.9, 0.1))


def test_what_is_thin_is_not_doubted_for_its_small_shares() -> None:
    key, labelled, place = scene()
    labelled[..., 1] *= 0.2
    labelled[..., 0] = 1 - labelled[..., 1]
    found = believed(readout(0.2, 0.15), at_places(key, key, labelled, place), 2.0)[0, 10, :, 1]
    torch.testing.assert_close(found[:16], torch.full((16,), 0.2))
    torch.testing.assert_close(found[24:26], torch.full((2,), doubted(0.15, 2.0)))


def test_the_class_counts_and_not_that_there_is_one() -> None:
    """Two objects side by side; cells of the first are said to be of the second."""
    key, labelled, place = scene()
    labels = torch.stack([torch.zeros_like(labelled[..., 0]), labelled[..., 1], labelled[..., 0]], -1)
    values = torch.tensor([0.05, 0.05, 0.9]).repeat(1, 2 * HEIGHT, 2 * WIDTH, 1)
    found = believed(values, at_places(key, key, labels, place), 3.0)[0, 10]
    assert (found[-10:, 2] > 0.9).all()
    assert (found[:10, 2] < 0.7).all()


@pytest.mark.parametrize("share", [0.0, 5e-4])
def test_background_stays_background(share: float) -> None:
    key, labelled, place = scene()
    values = readout(share, share)
    torch.testing.assert_close(believed(values, at_places(key, key, labelled, place), 2.0), values, rtol=0, atol=0)
