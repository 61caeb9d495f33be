"""The losses by their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from vcorr import rng
from vcorr.training.losses import reconstruction as losses


@pytest.mark.parametrize("error", [-0.3, -0.05, -0.01, 0.0, 0.02, 0.0499, 0.0501, 1.5])
def test_quadratic_up_to_a_twentieth_and_linear_beyond(error):
    scaled = 20 * abs(error)
    wanted = scaled**2 / 2 if abs(error) < 1 / 20 else scaled - 1 / 2
    truth = torch.full((2, 1, 3, 3), 0.25, dtype=torch.float64)
    assert float(losses.huber(truth + error, truth)) == pytest.approx(wanted, abs=1e-12)


def test_slope_grows_to_the_knee_and_stays():
    error = torch.tensor([0.01, 0.04, 0.06, 3.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(4 * losses.huber(error, torch.zeros_like(error)), error)
    torch.testing.assert_close(slope, torch.tensor([4.0, 16.0, 20.0, 20.0], dtype=torch.float64))


def test_mean_over_everything():
    a, b = torch.randn(2, 3, 1, 4, 5, generator=rng.generator(0, "test"))
    each = torch.stack([losses.huber(x, y) for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(losses.huber(a, b), each.mean())
    assert float(losses.huber(a, b, gain=1.0)) < float(losses.huber(a, b))


# --- cross entropy --------------------------------------------------------------------------------------------------


def test_cross_entropy_is_the_mean_over_pixels_of_the_true_class():
    p = torch.rand(2, 5, 3, 4, generator=rng.generator(0, "test"), dtype=torch.float64).softmax(1)
    labels = torch.randint(0, 5, (2, 3, 4), generator=rng.generator(1, "test"))
    each = [-math.log(p[b, labels[b, y, x], y, x] + 1e-8) for b in range(2) for y in range(3) for x in range(4)]
    assert float(losses.cross_entropy(p, labels)) == pytest.approx(sum(each) / len(each), rel=1e-12)


def test_a_class_that_was_ruled_out_costs_no_more_than_eighteen():
    p = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    p[:, 0] = 1
    p.requires_grad_()
    right, wrong = (losses.cross_entropy(p, torch.full((1, 1, 1), k)) for k in range(2))
    assert float(right.detach()) == pytest.approx(-math.log(1 + 1e-8), abs=1e-15)
    assert float(wrong.detach()) == pytest.approx(8 * math.log(10))
    (gradient,) = torch.autograd.grad(right + wrong, p)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([-1.0, -1e8], dtype=torch.float64))
