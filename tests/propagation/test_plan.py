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
    yielded = [k for s in plan for k in s.frames[s.first :]]
    assert sorted(yielded) == list(range(start, end))
    assert sum(map(len, plan)) == len(yielded)
    assert all(s.frames[0] in labelled for s in plan)
    assert all(s.until is None or (s.until in labelled and s.until == s.frames[-1] + 1) for s in plan)
