"""Frames kept and cut on a device give the clips that Pillow cuts; here the device is the CPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.examples import examples
from tests.media.films import encode
from vcorr.errors import InputError, UsageError
from vcorr.training.clips.ahead import ReadAhead
from vcorr.training.clips.cut import ClipConfig, Clips
from vcorr.training.clips.dataset import scan
from vcorr.training.clips.device import resample

CUT = ClipConfig(size=16, frames=3, gaps=(1, 2), smallest=10, read=32, cache=64)
ON_DEVICE = dataclasses.replace(CUT, keep="device")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    noise = np.random.default_rng(0)
    for name, length in {"a": 7, "b": 12}.items():
        (root / name).mkdir()
        for k in range(length):
            Image.fromarray(noise.integers(0, 256, (24, 36, 3)).astype(np.uint8)).save(root / name / f"{k}.png")
    encode(root / "film.mp4", frames=9, size=(48, 64))
    encode(root / "turned.mp4", frames=9, size=(48, 64), rotation=90)
    return scan(root)


@examples(60)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(1, 60),
    corners=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_resampling_is_that_of_pillow(height, width, size, corners, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    (left, right), (top, bottom) = sorted(corners[:2]), sorted(corners[2:])
    box = (left * width, top * height, max(right * width, left * width + 0.5), max(bottom * height, top * height + 0.5))
    box = (box[0], box[1], min(box[2], width), min(box[3], height))
    if box[2] - box[0] < 0.1 or box[3] - box[1] < 0.1:
        return
    got = resample(torch.from_numpy(picture), size, box).numpy()
    wanted = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR, box))
    assert got.shape == wanted.shape and got.dtype == np.uint8
    assert np.abs(got.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("cfg", [ON_DEVICE, dataclasses.replace(ON_DEVICE, crop="frame", frames=5)], ids=str)
def test_clips_are_those_of_the_frames_in_memory(videos, cfg):
    plan = [range(8 * k, 8 * k + 8) for k in range(6)]
    wanted = Clips(videos, dataclasses.replace(cfg, keep="memory"), seed=1)
    with ReadAhead(Clips(videos, cfg, seed=1), plan, 3) as ahead:
        for samples in plan:
            (got, got_videos), (rgb, rgb_videos) = ahead.batch(samples), wanted.batch(samples)
            assert got_videos == rgb_videos and got.dtype == torch.uint8
            assert (got.int() - rgb.int()).abs().max() <= 1


def test_stills_are_cut_there_too(videos):
    cfg = dataclasses.replace(CUT, source="stills", read=24)
    wanted, _ = Clips(videos, cfg, seed=1).batch(range(8))
    got, _ = Clips(videos, dataclasses.replace(cfg, keep="device"), seed=1).batch(range(8))
    assert torch.equal(got, wanted)


def test_more_than_it_may_keep_is_refused(videos):
    with pytest.raises(UsageError, match=r"all frames take 1 MiB, clips.cache is 0; raise clips.cache"):
        Clips(videos, dataclasses.replace(ON_DEVICE, cache=0), seed=1)


def test_damaged_frames_are_refused_each_time(tmp_path):
    (tmp_path / "v").mkdir()
    for k in range(5):
        Image.fromarray(np.full((20, 30, 3), k, np.uint8)).save(tmp_path / "v" / f"{k}.png")
    (tmp_path / "v" / "2.png").write_bytes(b"")
    clips = Clips(scan(tmp_path), dataclasses.replace(ON_DEVICE, frames=1, reverse=False, gaps=(1,)), seed=1)
    rgb, _ = clips.batch(range(10))
    assert set(rgb[:, 0, 8, 8, 0].tolist()) == {0, 1, 3, 4}
    for _ in range(2):
        with pytest.raises(InputError, match="is an empty file"):
            clips._frames.get(0, [1, 2])
