"""PCK: values by hand, and a second implementation from the published description."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vcorr.evaluation.metrics.points import errors, pck

NAN = math.nan
VALUES = st.sampled_from([NAN, 0.0, 1.0, 2.5, 10.0, 12.0, 319.0])
XY = arrays(np.float64, (2, 3, 2), elements=VALUES)


def slow_pck(videos, alpha: float, measure: str, lost: str) -> list[float]:
    """Point by point: how many lie near enough, of how many that count."""
    tally = [[0, 0] for _ in range(3)]
    for truth, result in videos:
        for g, p in zip(truth.tolist(), result.tolist(), strict=True):
            counts = [j for j in range(3) if not any(map(math.isnan, g[j]))]
            if lost == "skipped":
                counts = [j for j in counts if not any(map(math.isnan, p[j]))]
            if not counts:
                continue
            xs, ys = [g[j][0] for j in counts], [g[j][1] for j in counts]
            width, height = max(xs) - min(xs), max(ys) - min(ys)
            limit = alpha * (0.6 * math.sqrt(width**2 + height**2) if measure == "instance" else max(width, height))
            for j in counts:
                away = math.dist(g[j], p[j])
                tally[j][1] += 1
                tally[j][0] += not math.isnan(away) and away <= limit
    return [right / all_ if all_ else NAN for right, all_ in tally]


@given(
    st.lists(st.tuples(XY, XY), min_size=1, max_size=3),
    st.sampled_from([0.1, 0.2, 0.5]),
    st.sampled_from(["instance", "max"]),
    st.sampled_from(["wrong", "skipped"]),
)
def test_pck_is_the_count(videos, alpha, measure, lost) -> None:
    found = [errors(truth, result, lost=lost) for truth, result in videos]
    assert pck(found, alpha, measure).tolist() == pytest.approx(
        slow_pck(videos, alpha, measure, lost), abs=1e-6, nan_ok=True
    )


def test_pck_by_hand() -> None:
    # A box of 30 x 40: instance 0.6 * 50 = 30, max 40. At 0.1: 3 and 4 pixels.
    truth = np.array([[[0.0, 0.0], [30.0, 40.0], [10.0, 10.0]]])
    result = truth + np.array([[3.0, 0.0], [0.0, 3.5], [4.1, 0.0]])
    found = errors(truth, result, lost="wrong")
    assert found.box.tolist() == [[30, 40]]
    assert pck([found], 0.1, "instance").tolist() == [1, 0, 0]
    assert pck([found], 0.1, "max").tolist() == [1, 1, 0]


def test_a_lost_point_is_wrong_or_passed_over() -> None:
    truth = np.array([[[0.0, 0.0], [30.0, 40.0], [NAN, NAN]]])
    result = np.array([[[0.0, 2.0], [NAN, NAN], [5.0, 5.0]]])
    wrong, skipped = (errors(truth, result, lost=lost) for lost in ("wrong", "skipped"))
    assert pck([wrong], 0.1, "instance").tolist() == pytest.approx([1, 0, NAN], nan_ok=True)
    # The box is that of one point: nothing but the very place is right.
    assert skipped.box.tolist() == [[0, 0]]
    assert pck([skipped], 0.1, "instance").tolist() == pytest.approx([0, NAN, NAN], nan_ok=True)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"truth and result must be \[t n 2\] alike"):
        errors(np.zeros((1, 3, 2)), np.zeros((1, 2, 2)), lost="wrong")
