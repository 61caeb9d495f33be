"""Batches made in the background are those that would be made on the spot, in time, and nothing is left running."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from tests.media.films import encode
from vcorr.errors import InputError
from vcorr.training.clips import dataset as footage
from vcorr.training.clips.ahead import DEPTH, ReadAhead, workers_for
from vcorr.training.clips.cut import ClipConfig, Clips
from vcorr.training.clips.dataset import Frames, scan

CUT = ClipConfig(size=16, frames=2, gaps=(1, 2), smallest=10, read=32, cache=64)
PLAN = [range(4 * k, 4 * k + 4) for k in range(12)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Frame folders and films."""
    root = tmp_path_factory.mktemp("videos")
    noise = np.random.default_rng(0)
    for name, length in {"a": 7, "b": 12}.items():
        (root / name).mkdir()
        for k in range(length):
            Image.fromarray(noise.integers(0, 256, (24, 36, 3)).astype(np.uint8)).save(root / name / f"{k}.png")
    for k in range(3):
        encode(root / f"film{k}.mp4", frames=9, size=(48, 64))
    return root


@pytest.fixture
def videos(root):
    return scan(root)


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    yield
    assert not [t.name for t in threading.enumerate() if t.name.startswith("clips")]


def same(a, b):
    return torch.equal(a[0], b[0]) and a[1] == b[1]


class Watched(Clips):
    """Notes which samples were asked for, and waits at a gate before each from ``hold`` on."""

    hold = 10**9

    def __init__(self, *args):
        super().__init__(*args)
        self.asked, self.gate = [], threading.Event()

    def clip(self, sample):
        self.asked.append(sample)
        if sample >= self.hold:
            self.gate.wait(20)
        return super().clip(sample)


# --- the same batches -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wanted(root):
    clips = Clips(scan(root), CUT, seed=1)
    return [clips.batch(samples) for samples in PLAN]


@pytest.mark.parametrize(("workers", "cache"), [(0, 64), (1, 0), (5, 64), (5, 0)])
def test_batches_do_not_hang_on_the_number_of_threads(videos, wanted, workers, cache):
    cfg = dataclasses.replace(CUT, cache=cache)
    with ReadAhead(Clips(videos, cfg, seed=1), PLAN, workers) as ahead:
        assert all(same(ahead.batch(samples), batch) for samples, batch in zip(PLAN, wanted, strict=True))


@pytest.mark.parametrize("source", ["video", "stills"])
def test_every_kind_of_clip_comes_whole(videos, source):
    cfg = dataclasses.replace(CUT, frames=7, long=(0,), short=(2, 1), source=source)
    with ReadAhead(Clips(videos, cfg, seed=1), PLAN[:3], 2) as ahead:
        pictures, _ = got = ahead.batch(PLAN[0])
    assert pictures.shape == (4, 4, 16, 16, 3)
    assert same(got, Clips(videos, cfg, seed=1).batch(PLAN[0]))


def test_batches_that_nobody_asks_for_are_passed_over(videos):
    """A step that ends early leaves some of its parts."""
    clips = Clips(videos, CUT, seed=1)
    with ReadAhead(Clips(videos, CUT, seed=1), PLAN, 2) as ahead:
        for samples in (PLAN[0], PLAN[5], PLAN[6], PLAN[2], range(200, 203), PLAN[11]):
            assert same(ahead.batch(samples), clips.batch(samples))


# --- in time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_the_next_batches_are_made_while_one_is_used(videos, workers):
    clips = Watched(videos, CUT, 1)
    clips.hold = 8
    with ReadAhead(clips, PLAN, workers) as ahead:
        ahead.batch(PLAN[0])
        for _ in range(2000):  # nobody asks for any more
            if 8 in clips.asked:
                break
            threading.Event().wait(0.01)
        assert set(range(9)) <= set(clips.asked)  # the second batch, and what comes after it up to the gate
        clips.gate.set()
        for samples in PLAN[1:4]:
            ahead.batch(samples)
        assert max(clips.asked) < 4 * (3 + 1 + DEPTH)  # not the whole plan: memory is bounded


def test_without_threads_nothing_is_made_ahead(videos):
    clips = Watched(videos, CUT, 1)
    with ReadAhead(clips, PLAN, 0) as ahead:
        ahead.batch(PLAN[0])
    assert clips.asked == list(PLAN[0])


# --- errors and ends ------------------------------------------------------------------------------------------------


def test_an_error_comes_with_the_batch_that_it_belongs_to(tmp_path):
    (tmp_path / "v").mkdir()
    for k in range(12):
        Image.fromarray(np.full((20, 30, 3), k, np.uint8)).save(tmp_path / "v" / f"{k:02d}.png")
    clips = Watched(scan(tmp_path), dataclasses.replace(CUT, cache=0), 1)
    clips.hold = 4
    with pytest.raises(InputError, match="10 samples in a row cannot be read"), ReadAhead(clips, PLAN, 2) as ahead:
        ahead.batch(PLAN[0])
        for still in (tmp_path / "v").iterdir():
            still.write_bytes(b"")
        clips.gate.set()
        ahead.batch(PLAN[1])
    assert clips.unreadable


def test_a_failing_thread_is_an_error_not_a_hang(videos):
    clips = Watched(videos, CUT, 1)
    clips.clip = lambda sample: 1 / 0 if sample == 6 else Clips.clip(clips, sample)
    with pytest.raises(ZeroDivisionError), ReadAhead(clips, PLAN, 2) as ahead:
        ahead.batch(PLAN[0])
        ahead.batch(PLAN[1])


def test_closing_ends_the_threads_and_drops_what_waits(videos):
    clips = Watched(videos, CUT, 1)
    clips.hold = 0
    ahead = ReadAhead(clips, PLAN, 2)
    asker = threading.Thread(target=ahead._fill)
    asker.start()
    asker.join()
    clips.gate.set()
    ahead.close()
    assert len(clips.asked) < 4 * DEPTH
    ahead.close()


def test_the_threads_of_training_are_left_as_they_are(videos):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ReadAhead(Clips(videos, CUT, seed=1), PLAN, 2) as ahead:
            ahead.batch(PLAN[0])
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the cores beside a GPU are free")
def test_the_threads_give_way_to_the_training(videos):
    clips, seen = Clips(videos, CUT, 1), []
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    cut = clips.clip
    clips.clip = lambda sample: (seen.append(os.getpriority(os.PRIO_PROCESS, 0)), cut(sample))[1]
    with ReadAhead(clips, PLAN[:2], 2) as ahead:
        ahead.batch(PLAN[0])
    assert set(seen) == {min(19, mine + 5)} and os.getpriority(os.PRIO_PROCESS, 0) == mine


def test_as_many_threads_as_the_device_can_use():
    assert workers_for(torch.device("cpu")) == 1
    assert 1 <= workers_for(torch.device("cuda"), processes=10**6) <= workers_for(torch.device("cuda")) <= 8


# --- frames for many threads ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1 << 30, 40_000, 0], ids=["all-fit", "some-fit", "none-fits"])
def test_frames_are_the_same_for_many_threads_at_once(videos, monkeypatch, limit):
    monkeypatch.setattr(footage, "OPEN", 2)
    alone, shared = Frames(videos.sources, 32, 1 << 30), Frames(videos.sources, 32, limit)
    draws = np.random.default_rng(0)
    asked = [
        (s := int(draws.integers(len(videos.sources))), list(draws.permutation(videos.sources[s].frames)[:3]))
        for _ in range(150)
    ]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda clip: shared.get(*clip), asked))
    for clip, pictures in zip(asked, got, strict=True):
        for a, b in zip(pictures, alone.get(*clip), strict=True):
            np.testing.assert_array_equal(a, b)
    assert shared.bytes == sum(p.nbytes for p in shared._kept.values())
    assert shared.bytes <= max(limit, 3 * 32 * 48 * 3) and len(shared._open) <= 2 + 6


def test_a_video_that_many_threads_want_is_decoded_once(videos, monkeypatch):
    opened = []
    monkeypatch.setattr(footage, "open_video", lambda path: (opened.append(path), footage_open(path))[1])
    frames = Frames(videos.sources, 32, 1 << 30)
    film = next(k for k, s in enumerate(videos.sources) if s.stills is None)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda k: frames.get(film, [k]), range(9)))
    assert len(opened) == 1


footage_open = footage.open_video
