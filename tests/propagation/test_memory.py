"""Which frames are read, and that none of them is forgotten too early."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcorr.model.inference import References
from vcorr.propagation import memory

REFERENCES = st.builds(
    References,
    st.lists(st.integers(0, 12), max_size=4).map(tuple),
    st.lists(st.integers(1, 12), max_size=4).map(tuple),
)


@pytest.mark.parametrize(
    ("t", "read"),
    [(1, (0,)), (3, (0, 2)), (4, (0, 1, 3)), (6, (0, 1, 3, 5)), (7, (0, 2, 4, 5, 6)), (10, (0, 5, 7, 9))],
)
def test_the_sets_of_mast(t, read):
    assert memory.read_at(t, References((0, 5), (1, 3, 5))) == read


def test_what_lies_before_the_labelled_frame_is_that_frame_again():
    held = memory.Memory(References((0,), (1, 2, 3), whole=True, repeat=True))
    for t in range(3):
        held.keep(t, memory.MemoryFrame(torch.full((1, 1, 1, 1), float(t)), torch.zeros(1, 1, 1, 1)))
    frames = [(int(frame.feature), frame.whole) for frame in held.read(2).values()]
    assert frames == [(0, False), (0, False), (0, True), (1, False)]
    assert [(int(f.feature), f.whole) for f in held.read(3).values()] == [(0, False), (0, True), (1, False), (2, False)]


@given(REFERENCES, st.integers(1, 40))
def test_only_earlier_positions_are_read_in_order_and_never_none(references, t):
    read = memory.read_at(t, references)
    assert read and list(read) == sorted(set(read))
    assert set(read) <= set(range(t))


@given(REFERENCES, st.integers(0, 30))
def test_what_is_kept_is_what_will_be_read(references, t):
    read_later = {p for later in range(t + 1, t + 40) for p in memory.read_at(later, references) if p <= t}
    kept = memory.kept_after(t, references)
    assert read_later <= kept
    assert kept - read_later <= {0}  # the labelled frame may stay longer than needed


@given(REFERENCES)
def test_a_span_that_forgets_always_has_what_it_reads(references):
    held = {0}
    for t in range(1, 40):
        assert set(memory.read_at(t, references)) <= held
        held = (held | {t}) & memory.kept_after(t, references)
        assert len(held) <= len(set(references.long)) + max(references.short, default=0) + 1
