"""Charts: every point lies within its frame, axes hold their values, text is text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcorr.training.watch.curves import HEIGHT, LEFT, RIGHT, WIDTH, Axis, Curve, chart, show
from vcorr.training.watch.history import Series

numbers = st.floats(-1e100, 1e100).filter(lambda x: x == 0 or abs(x) > 1e-100)


def points(drawing: str) -> np.ndarray:
    lines = re.findall(r'class="line c\d" d="M([^"]*)"', drawing)
    return np.array([[float(x) for x in p.split()] for line in lines for p in line.split("L")])


@given(st.lists(numbers, min_size=1, max_size=50), st.booleans())
def test_any_numbers_can_be_drawn(values, smooth) -> None:
    series = Series(np.arange(1.0, len(values) + 1), np.array(values))
    drawing = chart("a", [Curve("b", series, smooth)], end=len(values))
    ET.fromstring(drawing)
    assert "nan" not in drawing and "inf" not in drawing
    at = points(drawing)
    assert len(at) == len(values)
    assert (at[:, 0] >= LEFT).all() and (at[:, 0] <= WIDTH - RIGHT).all()
    assert (at[:, 1] >= 0).all() and (at[:, 1] <= HEIGHT).all()


def test_a_curve_is_where_its_values_say() -> None:
    drawing = chart("a", [Curve("b", Series(np.array([0.0, 50, 100]), np.array([0.0, 1, 2])))], end=100, span=(0, 2))
    (x0, y0), (x1, y1), (x2, y2) = points(drawing)
    assert (x0, x2) == (LEFT, WIDTH - RIGHT) and x1 == pytest.approx((x0 + x2) / 2)
    assert y0 > y1 > y2 and y1 == pytest.approx((y0 + y2) / 2, abs=0.1)


@pytest.mark.parametrize("end", [7, 700, 3_000, 5_000, 200_000])
def test_the_step_at_the_end_is_written_whole(end) -> None:
    drawing = chart("a", [Curve("b", Series(np.array([0.0, end]), np.array([0.0, 1])))], end=end)
    labels = re.findall(r'<text x="([^"]*)" y="[^"]*" text-anchor="middle">([^<]*)<', drawing)
    assert len(labels) > 1
    assert all(float(x) + 7 * len(label) / 2 <= WIDTH + 0.1 for x, label in labels)


def test_wide_ranges_of_positive_values_are_logarithmic() -> None:
    axis = Axis.around(np.array([0.02, 30.0]), None)
    assert axis.log and axis.ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])
    heights = axis.place(np.array([0.01, 1, 100]))
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2)


@pytest.mark.parametrize("value", [0.0, 1e-3, -4.0, 1e6])
def test_a_constant_has_an_axis_of_round_values(value) -> None:
    axis = Axis.around(np.array([value, value]), None)
    assert axis.low <= min(value, 0) and axis.high > axis.low and axis.high >= value
    assert 3 <= len({show(t) for t in axis.ticks()}) == len(axis.ticks())


def test_one_spike_does_not_flatten_a_curve() -> None:
    values = np.linspace(1, 2, 1000)
    values[300] = 1e6
    at = points(chart("a", [Curve("b", Series(np.arange(1000.0), values))], end=1000))
    assert np.ptp(at[:200, 1]) > 10


def test_names_are_text() -> None:
    evil = '"><script>alert(1)</script>&'
    curve = Curve(evil, Series(np.array([1.0]), np.array([1.0])))
    drawing = chart(evil, [curve], end=2, marks=[(1, evil)], note=evil, limit=0.5)
    assert "<script" not in drawing
    ET.fromstring(drawing)
