"""The fit of confidence to J, and what it reports."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.confidence import fitted, foretold, left_out, report, spearman
from vcorr.propagation.confidence import BIAS, SIGNALS, WEIGHTS, estimate

NAMES = list(WEIGHTS)


def test_the_fit_finds_the_coefficients_that_made_j() -> None:
    """But for the pull towards 0; and the formula of the package is that of the fit."""
    rng = np.random.default_rng(0)
    coefficients = np.array([BIAS, *WEIGHTS.values()])
    sequences = {}
    for name in "abc":
        found = rng.uniform(0.3, 1, (200, len(SIGNALS)))
        j = foretold(found, NAMES, coefficients)
        np.testing.assert_allclose(j, estimate(found.astype(np.float32)), atol=1e-5)
        sequences[name] = found, j
    np.testing.assert_allclose(fitted(list(sequences.values()), NAMES), coefficients, rtol=0.2)
    for confidence, j in left_out(sequences, NAMES).values():
        found = report(confidence, j)
        assert found["rank"] > 0.99 and found["worst tenth"] > 0.9
        assert found["difference"] < 0.05 and found["calibration"] < 0.05


def test_equal_values_share_their_rank() -> None:
    """Ranks 1.5, 1.5, 3, 4 and 1, 2, 3, 4."""
    x, y = np.array([1.5, 1.5, 3, 4]), np.array([1.0, 2, 3, 4])
    assert spearman(np.array([0.0, 0, 7, 9]), np.array([2.0, 3, 5, 8])) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert np.isnan(spearman(np.ones(3), np.arange(3.0)))


def test_the_worst_tenth_counts_frames_as_bad_as_its_best() -> None:
    j = np.r_[np.zeros(4), np.linspace(0.5, 1, 16)]
    assert report(j, j)["worst tenth"] == 1
    assert report(1 - j, j)["worst tenth"] == 0
