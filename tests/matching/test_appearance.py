"""The model of what classes look like, against weighted least squares in numpy."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcorr import rng
from vcorr.matching.appearance import (
    FAINT,
    LEAST,
    LIMIT,
    RIDGE,
    LinearModel,
    at_context,
    corrected,
    fit,
    moments,
    scores,
)


def draw(seed, *shape):
    return torch.randn(*shape, generator=rng.generator(seed, str(shape)), dtype=torch.float64)


@given(st.integers(0, 999), st.integers(1, 8), st.integers(2, 4))
def test_it_is_the_ridge_regression_of_balanced_classes(seed, features, classes):
    context, shares = draw(seed, 5, 6, features), draw(seed, 5, 6, classes).softmax(-1)
    model = fit(moments(context, shares))
    x, y = context.reshape(30, -1).numpy(), shares.reshape(30, -1).numpy()
    weight = (y / np.maximum(y.sum(0), LEAST)).sum(1)
    weight /= weight.sum()
    mean, share = weight @ x, weight @ y
    ridge = RIDGE * (weight @ (x - mean) ** 2).mean()
    # Least squares with rows of its own for the penalty.
    rows = np.concatenate([np.sqrt(weight)[:, None] * (x - mean), np.sqrt(ridge) * np.eye(features)])
    right = np.concatenate([np.sqrt(weight)[:, None] * (y - share), np.zeros((features, classes))])
    wanted = np.linalg.lstsq(rows, right, rcond=None)[0]
    np.testing.assert_allclose(model.weight.numpy(), wanted, atol=1e-8)
    predicted = x @ model.weight.numpy() + model.bias.numpy()
    np.testing.assert_allclose(weight @ predicted, 0, atol=1e-8)


def test_a_small_object_counts_as_much_as_the_background():
    """The score changes its sign half way between the means, however many cells there are of each."""
    context = torch.zeros(10, 10, 1, dtype=torch.float64)
    shares = torch.zeros(10, 10, 2, dtype=torch.float64)
    shares[..., 0] = 1
    context[0, :4, 0], shares[0, :4] = 1, torch.tensor([0.0, 1.0], dtype=torch.float64)
    model = fit(moments(context, shares))
    halfway = scores(model, torch.full((1, 1, 1), 0.5, dtype=torch.float64), (1, 1))
    torch.testing.assert_close(halfway, torch.zeros_like(halfway))
    object_like = scores(model, torch.ones(1, 1, 1, dtype=torch.float64), (1, 1))[0, 0]
    assert object_like[1] > 0.3 and object_like[0] < -0.3


def test_a_class_that_is_nowhere_is_neither_here_nor_there():
    context, shares = draw(0, 4, 4, 3), draw(0, 4, 4, 2).softmax(-1)
    absent = torch.cat([shares, torch.zeros(4, 4, 1, dtype=torch.float64)], -1)
    found = scores(fit(moments(context, absent)), context, (4, 4))
    assert found.isfinite().all() and (found[..., 2] == 0).all()


def test_features_that_do_not_differ_say_nothing():
    context, shares = torch.ones(4, 4, 3), torch.eye(2)[torch.arange(16) % 2].view(4, 4, 2)
    found = scores(fit(moments(context, shares)), context, (8, 8))
    torch.testing.assert_close(found, torch.zeros(8, 8, 2), atol=1e-3, rtol=0)


@given(st.integers(1, 9), st.integers(1, 9))
def test_scores_lie_on_the_cells_of_the_readout(height, width):
    """Context cells are two readout cells wide: their centres lie between those."""
    context = torch.arange(-(-height // 2) * -(-width // 2), dtype=torch.float32).view(
        -(-height // 2), -(-width // 2), 1
    )
    model = LinearModel(torch.tensor([[0.01]]), torch.tensor([0.0]))
    found = scores(model, context, (height, width))
    large = torch.nn.functional.interpolate(
        context[None, ..., 0][None] * 0.01, scale_factor=2, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(found[..., 0], large[0, 0, :height, :width].clamp(-LIMIT, LIMIT))
    assert at_context(found, (-(-height // 2), -(-width // 2))).shape == context.shape


def test_the_correction_is_a_factor_of_the_shares():
    values = torch.tensor([[[0.7, 0.3], [1.0, 0.0], [0.0, 1.0]]])
    scored = torch.tensor([[[-0.2, 0.2]]]).expand(1, 3, 2)
    found = corrected(values, scored, 3.0)
    odds = 0.3 / 0.7 * np.exp(3 * 0.4)
    torch.testing.assert_close(found[0, 0, 1], torch.tensor(odds / (1 + odds)).float())
    assert (found[0, 1] == values[0, 1]).all()  # nothing but background was read
    torch.testing.assert_close(found[0, 2, 0], torch.tensor(FAINT / (FAINT + np.exp(1.2))).float())
    assert (corrected(values, scored, 0.0)[0, 0] - values[0, 0]).abs().max() < 1e-6
