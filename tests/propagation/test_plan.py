"""Which frames are labelled from which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcorr.errors import UsageError
from vcorr.propagation.plan import spans


@given(labelled=st.sets(st.integers(0, 30), min_size=1), start=st.integers(0, 30), length=st.integers(1, 30))
def test_every_frame_is_yielded_once(labelled: set[int], start: int, length: int) -> None:
    end = start + length
    if not any(start <= k < end for k in labelled):
        with pytest.raises(UsageError, match="no labelled frame"):
            spans(list(labelled), start, end)
        return
    plan = spans(list(labelled), start, end)
    yielded = [k for s in plan if not s.waits for k in s.frames[s.first :]]
    assert sorted(yielded) == list(range(start, end))
    assert all(len(s) == len(s.frames[s.first :]) for s in plan)
    assert all(s.frames[0] in labelled for s in plan)
    assert all(s.until is None or (s.until in labelled and s.until == s.frames[-1] + s.frames.step) for s in plan)


@given(labelled=st.sets(st.integers(0, 30), min_size=1))
def test_frames_between_two_labelled_ones_are_gone_through_both_ways_one_span_at_a_time(labelled: set[int]) -> None:
    plan = spans(list(labelled), 0, 31)
    between = [k for k in range(min(labelled), max(labelled)) if k not in labelled]
    waiting = [k for s in plan if s.waits for k in s.frames[s.first :]]
    assert sorted(waiting) == between
    for number, span in enumerate(plan):
        if span.waits:
            then = plan[number + 1]
            assert list(then.frames[1:]) == list(span.frames[:0:-1]) and then.until == span.frames[0]
