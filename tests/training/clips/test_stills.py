"""Still images become clips by homographies: against known warps, and never from outside the picture."""

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
from vcorr import rng
from vcorr.errors import InputError
from vcorr.training.clips.cut import ClipConfig, Clips
from vcorr.training.clips.dataset import scan
from vcorr.training.clips.stills import UNIT, draw_quads, homographies, still_clip, warp

CLOUDS = np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8)
STILLS = ClipConfig(size=16, frames=3, source="stills", smallest=20, flip=False, reverse=False, read=40)


def where(height, width):
    """A picture whose two channels are the (x, y) of each pixel's centre."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])


def straightened(quad, size):
    """Points of the picture that a size x size view of a quad shows, by eight linear equations in float64."""
    rows, right = [], []
    for (u, v), (x, y) in zip(UNIT.numpy(), np.asarray(quad), strict=True):
        rows += [[u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y]]
        right += [x, y]
    h = np.append(np.linalg.solve(np.array(rows), right), 1).reshape(3, 3)
    v, u = (np.mgrid[:size, :size] + 0.5) / size
    points = np.einsum("ij,jhw->ihw", h, np.stack([u, v, np.ones_like(u)]))
    return points[:2] / points[2]


def box(left, top, width, height):
    return torch.tensor([left, top], dtype=torch.float64) + torch.tensor([width, height]) * UNIT


# --- warps ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_homography_takes_the_unit_square_to_the_quad():
    quads = torch.tensor([[[1.0, 2], [9, 1], [12, 8], [0, 11]], [[0, 0], [4, 0], [4, 4], [0, 4]]], dtype=torch.float64)
    corners = torch.cat([UNIT, torch.ones(4, 1, dtype=torch.float64)], 1)
    moved = corners @ homographies(quads).mT
    torch.testing.assert_close(moved[..., :2] / moved[..., 2:], quads)


def test_a_view_shows_the_points_that_its_homography_says():
    quad = torch.tensor([[6.0, 4], [30, 7], [34, 29], [3, 25]], dtype=torch.float64)
    got = warp(where(40, 56), quad[None], 24)[0]
    np.testing.assert_allclose(got.numpy(), straightened(quad, 24), atol=2e-3)  # pixels


def test_a_large_quad_is_averaged_not_thinned_out():
    """Four points a pixel: the mean of what they show, so a chequerboard of single pixels turns grey."""
    quad = torch.tensor([[1.0, 2], [38, 3], [37, 39], [2, 38]], dtype=torch.float64)
    got = warp(where(40, 40), quad[None], 19)[0].numpy()
    fine = straightened(quad, 38).reshape(2, 19, 2, 19, 2).mean((2, 4))
    np.testing.assert_allclose(got, fine, atol=2e-3)
    chequers = torch.from_numpy(np.indices((40, 40)).sum(0) % 2 * 255.0)[None].float()
    assert warp(chequers, box(0, 0, 40, 40)[None], 20).sub(127.5).abs().max() < 1e-2


def test_whole_pixels_are_copied_exactly():
    picture = torch.from_numpy(CLOUDS).movedim(-1, 0).float()
    views = warp(picture, torch.stack([box(0, 0, 16, 16), box(7, 5, 16, 16), box(40, 24, 16, 16)]), 16)
    for view, (x, y) in zip(views, [(0, 0), (7, 5), (40, 24)], strict=True):
        torch.testing.assert_close(view, picture[:, y : y + 16, x : x + 16], atol=1e-2, rtol=0)


def test_outside_the_picture_its_rim_is_repeated():
    picture = torch.from_numpy(CLOUDS).movedim(-1, 0).float()
    view = warp(picture, box(-4, -4, 16, 16)[None], 16)[0]
    torch.testing.assert_close(view[:, :4, 4:], picture[:, :1, :12].expand(3, 4, 12), atol=1e-2, rtol=0)
    torch.testing.assert_close(view[:, 4:, :4], picture[:, :12, :1].expand(3, 12, 4), atol=1e-2, rtol=0)


# --- drawn quads ----------------------------------------------------------------------------------------------------


@examples(100)
@given(
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    smallest=st.integers(1, 900),
    move=st.floats(0, 0.2499),
    seed=st.integers(0, 10**6),
)
def test_quads_lie_in_the_picture_and_never_fold(height, width, smallest, move, seed):
    first, last = draw_quads(height, width, smallest, move, rng.generator(seed, "test"))
    side = float(first[1, 0] - first[0, 0])
    largest = min(height, width) / (1 + 2 * move)
    assert min(smallest, largest) - 1e-9 <= side <= largest + 1e-9
    torch.testing.assert_close(first, first[0] + side * UNIT)
    assert (last - first).abs().max() <= move * side + 1e-9
    for share in (0.0, 0.5, 1.0):
        quad = first.lerp(last, share)
        assert quad.min() >= -1e-9 and (quad.max(0).values <= torch.tensor([width, height]) + 1e-9).all()
        along, back = quad.roll(-1, 0) - quad, quad.roll(1, 0) - quad
        assert (along[:, 0] * back[:, 1] - along[:, 1] * back[:, 0] > 0).all()


def test_a_clip_goes_from_a_plain_crop_to_the_moved_corners_in_equal_steps():
    x, y = np.meshgrid(np.arange(240) + 0.5, np.arange(200) + 0.5)
    picture = np.stack([x, y, 0 * x], -1).astype(np.uint8)  # x and y rounded down
    got = still_clip(torch.from_numpy(picture), (0, 0.5, 1), 100, 120, 0.12, rng.generator(5, "test")).numpy()
    first, last = draw_quads(200, 240, 120, 0.12, rng.generator(5, "test"))
    assert got.shape == (3, 100, 100, 3) and got.dtype == np.uint8
    for frame, share in zip(got, (0, 0.5, 1), strict=True):
        quad = (1 - share) * first + share * last
        np.testing.assert_allclose(np.moveaxis(frame[..., :2], -1, 0) + 0.5, straightened(quad, 100), atol=1.01)
    assert np.abs(got[2].astype(int) - got[0]).max() > 3


# --- a folder of stills ---------------------------------------------------------------------------------------------


def album(root, count=5, sizes=((40, 56), (30, 30), (64, 33))):
    root.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1)
    for k in range(count):
        Image.fromarray(noise.integers(0, 256, (*sizes[k % len(sizes)], 3)).astype(np.uint8)).save(root / f"{k}.png")
    return root


def test_every_image_comes_once_an_epoch(tmp_path):
    album(tmp_path / "a", 4)
    album(tmp_path / "deep" / "b", 3)
    clips = Clips(scan(tmp_path), STILLS, seed=0)
    assert len(clips) == 7
    rgb, videos = clips.batch(range(14))
    assert rgb.shape == (14, 3, 16, 16, 3)
    assert sorted(videos[:7]) == sorted(videos[7:]) == list(range(7)) and videos[:7] != videos[7:]
    assert len({clip.numpy().tobytes() for clip in rgb}) == 14  # another warp each time


def test_a_sample_hangs_on_seed_epoch_and_number_alone(tmp_path):
    found = scan(album(tmp_path))
    rgb, _ = Clips(found, STILLS, seed=3).batch(range(12))
    uncached = Clips(found, dataclasses.replace(STILLS, cache=0), seed=3)
    backwards = [uncached.batch([k])[0][0] for k in reversed(range(12))]
    assert torch.equal(torch.stack(backwards[::-1]), rgb)
    assert not torch.equal(Clips(found, STILLS, seed=4).batch(range(12))[0], rgb)


def test_without_a_warp_the_picture_stands_still(tmp_path):
    rgb, _ = Clips(scan(album(tmp_path)), dataclasses.replace(STILLS, warp=0.0), seed=0).batch(range(5))
    assert torch.equal(rgb, rgb[:, :1].expand_as(rgb))


def test_clips_run_backwards_and_mirrored_half_of_the_time(tmp_path):
    """The plain square is the first frame, or the last one; left is left, or right. Read off a ramp of colours."""
    y, x = np.mgrid[:200, :200]
    Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8)).save(tmp_path / "ramp.png")
    cfg = dataclasses.replace(STILLS, size=50, frames=2, smallest=100, read=200, flip=True, reverse=True)
    rgb = Clips(scan(tmp_path), cfg, seed=0).batch(range(200))[0].numpy().astype(int)
    plain = np.ptp(rgb[..., 1], axis=3).max(2) <= 1  # rows of one height throughout
    assert (plain.sum(1) == 1).mean() > 0.95
    assert 0.35 < plain[:, 1].mean() < 0.65
    assert 0.35 < (rgb[:, 0, 25, 0, 0] > rgb[:, 0, 25, -1, 0]).mean() < 0.65


def test_stills_make_memory_clips_too(tmp_path):
    cfg = dataclasses.replace(STILLS, frames=12, long=(0, 5), short=(5, 3, 1))
    rgb, _ = Clips(scan(album(tmp_path)), cfg, seed=0).batch(range(5))
    assert rgb.shape == (5, 6, 16, 16, 3)
    change = (rgb.float() - rgb[:, -1:]).abs().mean((2, 3, 4))
    assert (change[:, 0] > change[:, 4]).all() and not change[:, 5].any()


def test_what_is_no_image_is_left_out_or_counted(tmp_path):
    album(tmp_path / "a", 6)
    (tmp_path / "a" / "2.png").write_bytes(b"")
    encode(tmp_path / "film.mp4", frames=9)
    clips = Clips(scan(tmp_path), STILLS, seed=0)
    assert clips.skipped == {str(tmp_path / "film.mp4"): "is a video, not a still image"}
    _, videos = clips.batch(range(6))
    assert 2 not in videos and len(videos) == 6
    assert clips.unreadable == {str(tmp_path / "a" / "2.png"): "is an empty file"}


def test_only_films_are_no_stills(tmp_path):
    encode(tmp_path / "film.mp4", frames=9)
    with pytest.raises(InputError, match="holds no still images"):
        Clips(scan(tmp_path), STILLS, seed=0)


@pytest.mark.parametrize("warp", [-0.1, 0.25, float("nan")])
def test_a_warp_that_could_fold_is_refused(warp):
    with pytest.raises(ValueError, match="warp must be in"):
        ClipConfig(warp=warp)


def test_stills_and_videos_side_by_side(tmp_path):
    for folder, count in (("video", 5), ("deep/photos", 3)):
        (tmp_path / folder).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(np.full((40, 56, 3), 40 * k, np.uint8)).save(tmp_path / folder / f"{k}.png")
    cfg = dataclasses.replace(STILLS, source="video", stills=("photos",), frames=2, gaps=(1,))
    clips = Clips(scan(tmp_path), cfg, 0)
    assert len(clips) == 4 + 3  # a clip for each start in the video, and one for each photograph
    seen = [clips.clip(k) for k in range(7)]
    levels = sorted((int(clip[0].float().mean()), int(clip[1].float().mean())) for clip, _ in seen)
    assert levels == sorted([(0, 0), (40, 40), (80, 80), (0, 40), (40, 80), (80, 120), (120, 160)])
    assert len({video for _, video in seen}) == 1 + 3  # each photograph is a video of its own: a negative to the others
    with pytest.raises(ValueError, match="sampling must be starts"):
        dataclasses.replace(cfg, sampling="intervals")
