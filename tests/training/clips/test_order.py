"""Which clips an epoch has: starts, intervals, and the frames of memory clips."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.training.clips.test_cut import PLAIN, drawn, numbered
from vcorr.errors import InputError
from vcorr.training.clips.cut import ClipConfig, Clips
from vcorr.training.clips.order import Intervals, Starts

MEMORY = dataclasses.replace(PLAIN, frames=15, long=(0, 5), short=(5, 3, 1))


# --- intervals ------------------------------------------------------------------------------------------------------


def test_clips_of_an_interval_follow_one_another_and_share_no_frame(tmp_path):
    """CorrFlow: frames 0, 4, 8, ... in threes; a video's last frames that make no clip are dropped."""
    cfg = dataclasses.replace(PLAIN, frames=3, gaps=(4,), sampling="intervals")
    clips = Clips(numbered(tmp_path, a=40, b=9, c=8), cfg, seed=0)
    assert clips.skipped == {str(tmp_path / "c"): "8 frames, a clip needs 9"}
    wanted = [(0, 4, 8), (12, 16, 20), (24, 28, 32), (40, 44, 48)]
    assert len(clips) == len(wanted)
    epochs = [[tuple(c) for c in drawn(clips, range(4 * e, 4 * e + 4))] for e in range(4)]
    assert [sorted(epoch) for epoch in epochs] == [wanted] * 4
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_each_epoch_draws_an_interval_a_video_with_its_odds():
    """MAST: pairs 2, 5 or 8 apart, p = .4, .4, .2."""
    order, videos, length = Intervals([100] * 400, 2, (2, 5, 8), (0.4, 0.4, 0.2), seed=0), 400, 2
    clips = {2: 25, 5: 10, 8: 6}  # 50, 20 and 13 frames, in pairs
    seen: dict[int, list] = {}
    first = [order.place(k) for k in range(len(order))]
    for place in first:
        seen.setdefault(place.source, []).append(place)
    assert len(seen) == videos
    for places in seen.values():
        (gap,) = {place.gap for place in places}
        assert sorted(place.start for place in places) == [length * gap * k for k in range(clips[gap])]
    shares = [sum(places[0].gap == gap for places in seen.values()) / videos for gap in (2, 5, 8)]
    np.testing.assert_allclose(shares, (0.4, 0.4, 0.2), atol=0.08)
    later = {place.source: place.gap for place in (order.place(len(order) + k) for k in range(3000))}
    assert any(seen[source][0].gap != gap for source, gap in later.items())


@examples(30)
@given(
    frames=st.lists(st.integers(9, 60), min_size=1, max_size=5),
    length=st.integers(2, 4),
    seed=st.integers(0, 99),
    samples=st.lists(st.integers(0, 200), min_size=1, max_size=20),
)
def test_places_hang_on_the_sample_alone_and_lie_in_their_video(frames, length, seed, samples):
    """Whoever asks first for whichever sample, as ranks and a resumed run do."""

    def order():
        return Intervals(frames, length, (1, 2, 5, 40), (1.0, 1.0, 1.0, 1.0), seed)

    straight, jumping = order(), order()
    in_order = {k: straight.place(k) for k in range(201)}
    for k in samples:
        place = jumping.place(k)
        assert place == in_order[k]
        assert place.start + (length - 1) * place.gap < frames[place.source]


def test_another_clip_of_the_same_epoch_stands_in():
    for order in (Intervals([20, 30], 2, (1, 2), (1.0, 1.0), 0), Starts([19, 29], 0)):
        epoch = [order.place(k) for k in range(len(order))]
        assert [order.place(k, 3) for k in range(len(order))] == epoch[3:] + epoch[:3]


# --- memory clips ---------------------------------------------------------------------------------------------------


def test_memory_clips_hold_the_references_that_propagation_keeps(tmp_path):
    """0, 5, T-5, T-3, T-1, T of a piece of up to 15 frames, from every start that T = 6 fits after."""
    clips = Clips(numbered(tmp_path, a=20, b=6), MEMORY, seed=0)
    assert (len(clips), MEMORY.length) == (20 - 6, 6)
    assert clips.skipped == {str(tmp_path / "b"): "6 frames, a clip needs 7"}
    got = drawn(clips, range(40 * len(clips))).astype(int)
    start, last = got[:, 0], got[:, -1] - got[:, 0]
    np.testing.assert_array_equal(
        got - start[:, None], np.stack([last * 0, last * 0 + 5, last - 5, last - 3, last - 1, last], 1)
    )
    for first in range(14):
        assert set(last[start == first]) == set(range(6, min(14, 19 - first) + 1))


def test_memory_clips_keep_their_gap_and_run_backwards_whole(tmp_path):
    cfg = dataclasses.replace(MEMORY, gaps=(2,), reverse=True)
    got = drawn(Clips(numbered(tmp_path, a=40), cfg, seed=0), range(400)).astype(int)
    step = np.sign(got[:, -1] - got[:, 0])
    assert 0.4 < (step < 0).mean() < 0.6
    last = np.abs(got[:, -1] - got[:, 0]) // 2
    wanted = np.stack([last * 0, last * 0 + 5, last - 5, last - 3, last - 1, last], 1)
    np.testing.assert_array_equal((got - got[:, :1]) * step[:, None], 2 * wanted)


def test_memory_clips_batch_like_others(tmp_path):
    rgb, videos = Clips(numbered(tmp_path, a=12, b=9), MEMORY, seed=0).batch(range(4))
    assert rgb.shape == (4, 6, 8, 8, 3) and len(videos) == 4


def test_too_short_for_any_memory_clip(tmp_path):
    with pytest.raises(InputError, match="a clip needs 7 frames, the longest has 6"):
        Clips(numbered(tmp_path, a=6), MEMORY, seed=0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"frames": 6, "long": (0, 5)}, "frames must be above 6 for these references, got 6"),
        ({"frames": 9, "long": (-1,)}, "long must be >= 0"),
        ({"frames": 9, "short": (0,)}, "short >= 1"),
        ({"frames": 9, "short": (1,), "sampling": "intervals"}, "sampling must be starts"),
    ],
)
def test_impossible_clips_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        ClipConfig(**values)
