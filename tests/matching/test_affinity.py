"""Rows of the affinity agree with the operator that never writes them out; the two numbers with their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from vcorr.kernels import memory_read
from vcorr.matching import affinity
from vcorr.matching.affinity import Views
from vcorr.matching.settings import Matching

SIZE = (5, 7)


def features(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale


def every_cell() -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(SIZE[0]), torch.arange(SIZE[1]))


@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("radius", [0, 2, 9, None])
@pytest.mark.parametrize("references", [1, 3])
def test_rows_read_what_the_operator_reads(border, radius, references) -> None:
    query = features(2, *SIZE, 4)
    keys = [features(2, *SIZE, 4, seed=k + 1) for k in range(references)]
    values = [features(2, *SIZE, 3, seed=k + 9) for k in range(references)]
    read = memory_read(query, keys, values, radius=radius, scale=0.7, border=border)
    for sample in range(2):
        rows = affinity.rows(Views(query, keys, Matching(radius, 0.7, border)), sample, every_cell())
        own = torch.einsum("nrhw,rhwv->nv", rows.weights, torch.stack([v[sample] for v in values]))
        assert torch.allclose(own.view(*SIZE, 3), read[sample], atol=1e-12)
        mass = rows.weights.flatten(1).sum(1) + rows.outside * rows.beyond
        assert torch.allclose(mass, torch.ones_like(mass))
        if border == "zeros" and radius is not None:
            assert (rows.taps == references * (2 * radius + 1) ** 2).all()
        else:
            assert (rows.beyond == 0).all() and (rows.outside == 0).all()


def test_equal_features_look_everywhere_alike() -> None:
    same = torch.ones(1, 17, 17, 4)  # the grid keeps off the edge
    for border in ("mask", "zeros"):
        numbers = affinity.saturation(Views(same, [same, same], Matching(1, 0.0, border)))
        assert numbers == {"weight_max": pytest.approx(1 / (2 * 9)), "entropy": pytest.approx(1)}


def test_a_window_cut_by_the_frame_has_fewer_taps_or_taps_outside() -> None:
    same, corner = torch.ones(1, *SIZE, 4), torch.tensor([[0, 0]])
    masked = affinity.rows(Views(same, [same], Matching(1, 0.0, "mask")), 0, corner)
    assert masked.taps.tolist() == [4] and masked.largest.tolist() == pytest.approx([1 / 4])
    zeros = affinity.rows(
        Views(same, [same], Matching(1, -1.0, "zeros")), 0, corner
    )  # inside all logits are -4, outside 0
    mass = 4 * math.exp(-4) + 5
    assert zeros.taps.tolist() == [9] and zeros.beyond.tolist() == [5]
    assert zeros.largest.tolist() == pytest.approx([1 / mass])
    p = [math.exp(-4) / mass] * 4 + [1 / mass] * 5
    assert zeros.entropy.tolist() == pytest.approx([-sum(x * math.log(x) for x in p) / math.log(9)])


def test_large_logits_saturate() -> None:
    frame = torch.eye(35).view(1, *SIZE, 35)
    numbers = affinity.saturation(Views(frame, [frame], Matching(2, 1e3)))
    assert numbers == {"weight_max": pytest.approx(1), "entropy": pytest.approx(0, abs=1e-6)}


def test_one_tap_has_no_sharpness() -> None:
    same = torch.ones(1, *SIZE, 4)
    assert affinity.saturation(Views(same, [same], Matching(0))) == {}
    assert affinity.saturation(Views(same, [same, same], Matching(0))).keys() == {"weight_max", "entropy"}


def test_features_that_are_not_finite_give_numbers_that_are_not() -> None:
    same = torch.full((1, *SIZE, 4), float("nan"))
    assert all(math.isnan(x) for x in affinity.saturation(Views(same, [same], Matching(2))).values())


def test_half_precision_and_gradients_stay_outside() -> None:
    query = features(3, *SIZE, 4).bfloat16().requires_grad_()
    views = Views(query, [query, query], Matching(2)).first(2)
    assert views.query.shape[0] == 2 and not views.query.requires_grad and views.frames == (0, 1)
    rows = affinity.rows(views, 1, every_cell())
    assert rows.weights.dtype == torch.float32 and rows.weights.shape == (35, 2, *SIZE)


@pytest.mark.parametrize(
    ("keys", "references", "said"),
    [
        ([], None, "at least one, got 0 keys"),
        ([torch.ones(1, 5, 6, 4)], None, r"like query, \[1, 5, 7, 4\], at least one, got \[1, 5, 6, 4\]"),
        ([torch.ones(1, 5, 7, 4)], (0, 1), "references must be 1, one a key, got"),
    ],
)
def test_what_does_not_fit_is_refused(keys, references, said) -> None:
    with pytest.raises(ValueError, match=said):
        Views(torch.ones(1, 5, 7, 4), keys, Matching(2), references=references)
