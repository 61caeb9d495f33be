"""The Huber loss by its formula."""

from __future__ import annotations

import pytest
import torch

from vcorr import losses, rng


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
