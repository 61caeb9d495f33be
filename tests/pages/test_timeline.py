"""Timelines: as large for a long video as for a short one, and no dip is lost."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vcorr.pages.timeline import POINTS, TICKS, lowest, ticks, timeline


@given(st.integers(1, 5000), st.integers(0, 10**6), st.data())
def test_the_lowest_value_is_shown_where_it_is(count: int, first: int, data: st.DataObject) -> None:
    values = np.ones(count)
    k = data.draw(st.integers(0, count - 1))
    values[k] = 0.25
    shown = lowest(values, first)
    assert (first + k, 0.25) in shown and len(shown) == min(POINTS, count)
    assert [frame for frame, _ in shown] == sorted({frame for frame, _ in shown})


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_ticks_are_few_and_inside(first: int, count: int) -> None:
    found = ticks(first, count)
    assert len(found) <= TICKS + 1 and all(first <= k < first + count for k in found)


def test_a_drawing_is_well_formed_and_its_size_is_bounded() -> None:
    sizes = []
    for count in (1, 2, 480, 100_000):
        svg = timeline(
            np.linspace(1, 0, count),
            5,
            labelled=range(5, 5 + count),
            cuts=[6] * count,
            bands=[(5, 5, "<1>")],
            title="a&b",
        )
        assert ET.fromstring(svg).attrib["aria-label"] == "a&b"
        sizes.append(len(svg))
    assert sizes[-1] < 80_000
