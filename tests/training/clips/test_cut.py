"""Training samples are a function of (seed, epoch, sample), and cut as the configuration says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from tests.media.films import encode
from vcorr.errors import InputError, UsageError
from vcorr.training.clips.cut import ClipConfig, Clips
from vcorr.training.clips.dataset import scan

PLAIN = ClipConfig(size=8, frames=2, gaps=(1,), crop="frame", flip=False, reverse=False, cache=64)


def cut_batch(clips, step, size):
    """Clips of one step [size t h w 3]."""
    return clips.batch(range(step * size, (step + 1) * size))[0].numpy()


def grey(rgb):
    """[... h w 3] -> [... h w]"""
    return rgb[..., 0]


def video(folder, pictures):
    folder.mkdir(parents=True)
    for k, picture in enumerate(pictures):
        Image.fromarray(np.repeat(np.asarray(picture, np.uint8)[..., None], 3, -1)).save(folder / f"{k:03d}.png")


def flat(level, size=(12, 16)):
    return np.full(size, level)


def numbered(root, **lengths):
    """Videos whose frames are of one grey each, all different: the first video's from 0 on, the next one's after it."""
    level = 0
    for name, length in lengths.items():
        video(root / name, [flat(level + k) for k in range(length)])
        level += length
    return scan(root)


def drawn(clips, samples, size=1):
    """Grey level at the middle of each frame of samples, [samples t]."""
    first, last = samples.start // size, samples.stop // size
    return np.concatenate([grey(cut_batch(clips, k, size))[:, :, 4, 4] for k in range(first, last)])


def all_equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def mixed(tmp_path):
    """Frame folders of several sizes, nested, a film, an unreadable file and a text."""
    noise = np.random.default_rng(0)
    video(tmp_path / "a", noise.integers(0, 256, (7, 20, 34)))
    video(tmp_path / "deep" / "b", noise.integers(0, 256, (5, 41, 24)))
    encode(tmp_path / "deep" / "film.mp4", frames=9)
    (tmp_path / "deep" / "broken.mp4").write_bytes(b"\7" * 50)
    (tmp_path / "readme.txt").write_text("about")
    return scan(tmp_path)


CUT = ClipConfig(size=16, gaps=(1, 2), smallest=10, read=32, cache=64)


# --- order ----------------------------------------------------------------------------------------------------------


def test_a_sample_hangs_on_seed_epoch_and_its_number_alone(mixed):
    """Not on what was read before, how much is kept in memory, or how many come at once."""
    clips = Clips(mixed, CUT, seed=3)
    in_order = [cut_batch(clips, k, 4) for k in range(2 * len(clips) // 4)]
    assert len(clips) == (7 + 5 + 9) - 3 and clips.skipped.keys() == mixed.skipped.keys()
    other = Clips(mixed, dataclasses.replace(CUT, cache=0), seed=3)
    backwards = [cut_batch(other, k, 4) for k in reversed(range(len(in_order)))][::-1]
    assert all_equal(in_order, backwards)
    by_two = [cut_batch(Clips(mixed, CUT, seed=3), k, 2) for k in range(2)]
    np.testing.assert_array_equal(np.concatenate(by_two), in_order[0])
    assert not np.array_equal(cut_batch(Clips(mixed, CUT, seed=4), 0, 4), in_order[0])


def test_batches_say_which_videos_they_were_cut_from(tmp_path):
    found = numbered(tmp_path, a=6, b=1, c=9)
    rgb, videos = Clips(found, PLAIN, seed=0).batch(range(13))
    assert rgb.shape == (13, 2, 8, 8, 3) and rgb.dtype == torch.uint8
    assert videos == tuple(0 if level < 6 else 2 for level in grey(rgb)[:, 0, 4, 4])
    assert set(videos) == {0, 2}  # counted in the footage, whatever is long enough for this stage


def test_every_start_comes_once_an_epoch_in_a_new_order(tmp_path):
    clips = Clips(numbered(tmp_path, a=6, b=2, c=9), PLAIN, seed=0)
    starts = [0, 1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15]  # 5 and 7 are last frames
    assert len(clips) == len(starts)
    epochs = [drawn(clips, range(e * len(clips), (e + 1) * len(clips))) for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch[:, 0]) == starts
        np.testing.assert_array_equal(epoch[:, 1], epoch[:, 0] + 1)
    assert len({tuple(epoch[:, 0]) for epoch in epochs} | {tuple(starts)}) == 4


# --- gaps -----------------------------------------------------------------------------------------------------------


def test_a_gap_that_does_not_fit_is_never_drawn(tmp_path):
    found = numbered(tmp_path, a=8, b=3)
    clips = Clips(found, dataclasses.replace(PLAIN, frames=3, gaps=(1, 3, 9)), seed=0)
    pairs = drawn(clips, range(60 * len(clips)))
    first, gap = pairs[:, 0], pairs[:, 1].astype(int) - pairs[:, 0]
    np.testing.assert_array_equal(pairs[:, 2].astype(int) - pairs[:, 1], gap)
    assert set(zip(first.tolist(), gap.tolist(), strict=True)) == {
        *((k, 1) for k in range(6)),
        *((k, 3) for k in range(2)),
        (8, 1),
    }


def test_gaps_come_with_their_odds(tmp_path):
    found = numbered(tmp_path, a=60)
    cfg = dataclasses.replace(PLAIN, gaps=(1, 2, 5), weights=(0.6, 0.0, 0.2))
    pairs = drawn(Clips(found, cfg, seed=0), range(10 * 59)).astype(int)
    inside = pairs[pairs[:, 0] < 55]
    gaps = inside[:, 1] - inside[:, 0]
    assert set(gaps) == {1, 5}
    assert abs((gaps == 1).mean() - 0.75) < 0.06


def test_a_video_needs_room_for_a_gap_that_can_be_drawn(tmp_path):
    cfg = dataclasses.replace(PLAIN, gaps=(1, 4), weights=(0.0, 1.0))
    clips = Clips(numbered(tmp_path, a=4, b=6), cfg, seed=0)
    assert clips.skipped == {str(tmp_path / "a"): "4 frames, a clip needs 5"}
    assert sorted(map(tuple, drawn(clips, range(len(clips))))) == [(4, 8), (5, 9)]


# --- cuts -----------------------------------------------------------------------------------------------------------


def test_crop_and_flip_are_those_of_the_whole_clip(tmp_path):
    """A picture that stands still: every frame of a clip is cut alike, clips are not."""
    picture = np.random.default_rng(0).integers(0, 256, (40, 60))
    video(tmp_path / "still", [picture] * 30)
    cfg = ClipConfig(size=16, frames=3, gaps=(1, 2), smallest=10, read=40)
    clips = Clips(scan(tmp_path), cfg, seed=0)
    rgb = cut_batch(clips, 0, len(clips))
    np.testing.assert_array_equal(np.broadcast_to(rgb[:, :1], rgb.shape), rgb)
    assert len({clip.tobytes() for clip in rgb[:, 0]}) == len(clips)


@pytest.mark.slow
def test_squares_lie_in_the_frame_and_have_every_side_from_smallest_to_the_short_one(tmp_path):
    y, x = np.mgrid[:100, :150]
    video(tmp_path / "x", [x] * 201)
    video(tmp_path / "y", [y] * 201)
    cfg = ClipConfig(size=50, gaps=(1,), smallest=40, read=100, flip=False)
    cut = grey(cut_batch(Clips(scan(tmp_path), cfg, seed=0), 0, 400))[:, 0].astype(int)
    across = cut[:, 25, -1] > cut[:, 25, 0]  # 50 cells from centre to centre of the outermost: 49/50 of the side
    spans = np.concatenate(
        [(cut[across, 25, -1] - cut[across, 25, 0]), (cut[~across, -1, 25] - cut[~across, 0, 25])]
    ) * (50 / 49)
    assert 38 <= spans.min() < 44 and 96 < spans.max() <= 102
    assert abs(np.median(spans) - 70) < 5
    lows, highs = cut[across, 25, 0], cut[across, 25, -1]
    assert lows.min() <= 3 and highs.max() >= 146


def test_small_frames_are_cut_too(tmp_path):
    video(tmp_path / "small", [flat(k, (6, 9)) for k in range(4)])
    assert cut_batch(Clips(scan(tmp_path), ClipConfig(size=32), seed=0), 0, 3).shape == (3, 2, 32, 32, 3)


def test_the_whole_frame_is_squeezed_into_the_square(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (24, 40)).astype(np.uint8)
    video(tmp_path / "v", [picture] * 2)
    got = grey(cut_batch(Clips(scan(tmp_path), PLAIN, seed=0), 0, 1))[0, 0]
    wanted = np.asarray(Image.fromarray(picture).resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(got.astype(int), wanted.astype(int), atol=1)


def test_flips_and_reversals_come_half_of_the_time(tmp_path):
    ramp = np.broadcast_to(np.arange(0, 160, 4), (20, 40))
    video(tmp_path / "v", [ramp + k for k in range(60)])
    cut = grey(cut_batch(Clips(scan(tmp_path), dataclasses.replace(PLAIN, flip=True, reverse=True), 0), 0, 236))
    cut = cut.astype(int)
    flipped = cut[:, 0, 4, 0] > cut[:, 0, 4, -1]
    np.testing.assert_array_equal(flipped, cut[:, 1, 4, 0] > cut[:, 1, 4, -1])
    backwards = cut[:, 0].mean((1, 2)) > cut[:, 1].mean((1, 2))
    for share in (flipped.mean(), backwards.mean(), (flipped ^ backwards).mean()):
        assert 0.4 < share < 0.6


def test_frames_are_kept_at_the_short_side_asked_for(tmp_path):
    video(tmp_path / "v", [np.indices((60, 90)).sum(0) % 2 * 255] * 2)  # a chequerboard of single pixels
    cut = grey(cut_batch(Clips(scan(tmp_path), dataclasses.replace(PLAIN, size=60, read=15), seed=0), 0, 1))
    assert cut.std() < 10  # averaged before it was enlarged again


# --- what cannot be used --------------------------------------------------------------------------------------------


def test_videos_that_are_too_short_are_left_out_and_said(tmp_path):
    found = numbered(tmp_path, long=5, short=2, one=1)
    clips = Clips(found, dataclasses.replace(PLAIN, frames=3, gaps=(2, 1)), seed=0)
    assert [s.path.name for s in clips.sources] == ["long"]
    assert clips.skipped[str(tmp_path / "short")] == "2 frames, a clip needs 3"
    assert clips.skipped[str(tmp_path / "one")] == "1 frames, a clip needs 3"
    with pytest.raises(InputError, match="a clip needs 6 frames, the longest has 5"):
        Clips(found, dataclasses.replace(PLAIN, gaps=(5,)), seed=0)


def test_another_sample_stands_in_for_one_that_cannot_be_read(tmp_path):
    found = numbered(tmp_path, a=9)
    for k in (3, 4):
        (tmp_path / "a" / f"00{k}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    clips = Clips(found, PLAIN, seed=0)
    pairs = drawn(clips, range(2 * len(clips)))
    assert len(pairs) == 16 and not set(pairs.flatten()) & {3, 4}
    assert set(clips.unreadable) == {str(tmp_path / "a" / f"00{k}.png") for k in (3, 4)}
    assert clips.skipped == {}
    again = drawn(Clips(found, dataclasses.replace(PLAIN, cache=0), seed=0), range(2 * len(clips)))
    np.testing.assert_array_equal(again, pairs)


def test_a_folder_of_pictures_of_several_sizes_is_no_video(tmp_path):
    video(tmp_path / "album", [flat(9, (10 + k, 20)) for k in range(12)])
    numbered(tmp_path, v=40)
    clips = Clips(scan(tmp_path), PLAIN, seed=0)
    clips.batch(range(len(clips)))
    assert clips.unreadable == {str(tmp_path / "album"): "its frames differ in size"}


@pytest.mark.parametrize(("cache", "said"), [(1, False), (0, True)])
def test_films_that_do_not_fit_in_memory_are_said(tmp_path, cache, said):
    numbered(tmp_path, a=5)
    assert Clips(scan(tmp_path), dataclasses.replace(PLAIN, cache=cache), seed=0).notes == ()
    encode(tmp_path / "film.mp4", frames=9)
    notes = Clips(scan(tmp_path), dataclasses.replace(PLAIN, cache=cache), seed=0).notes
    assert [
        note.startswith("1 video files are decoded again for every clip: all frames take 1 MiB") for note in notes
    ] == ([True] * said)


def test_nothing_readable_at_all_ends_the_run(tmp_path):
    found = numbered(tmp_path, a=14)
    for still in (tmp_path / "a").iterdir():
        still.write_bytes(b"")
    with pytest.raises(InputError, match="10 samples in a row cannot be read; check the training videos"):
        Clips(found, PLAIN, seed=0).batch([0])


def test_odds_must_match_the_gaps(tmp_path):
    with pytest.raises(UsageError, match="2 weights for 1 gaps"):
        Clips(numbered(tmp_path, a=4), dataclasses.replace(PLAIN, weights=(1.0, 1.0)), seed=0)
