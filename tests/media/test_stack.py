"""Files that hold several pictures are videos: frame k is picture k, read forwards, backwards or at random."""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media.films import number, numbered
from tests.media.stacks import REDUCED, write_tiff
from vcorr.errors import InputError
from vcorr.media import pages
from vcorr.media.video import open_video
from vcorr.training.clips.dataset import Frames, scan
from vcorr.training.prepare.videos import prepare

COUNT = 20


def pictures(count: int = COUNT) -> list[Image.Image]:
    return [Image.fromarray(numbered(k)) for k in range(count)]


def grey(k: int, kind: type = np.uint8) -> np.ndarray:
    return numbered(k)[:, :, 0].astype(kind)


def save_all(path: Path, images: list[Image.Image], **options: object) -> Path:
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    return path


STACKS = {
    "raw.tif": lambda p: save_all(p, pictures()),
    "lzw.tiff": lambda p: save_all(p, pictures(), compression="tiff_lzw"),
    "jpeg.tif": lambda p: save_all(p, pictures(), compression="jpeg"),
    "big.tif": lambda p: write_tiff(p, [numbered(k) for k in range(COUNT)], big=True),
    "motorola.tif": lambda p: write_tiff(p, [grey(k) for k in range(COUNT)], order=">"),
    "big-motorola.tif": lambda p: write_tiff(p, [grey(k) for k in range(COUNT)], big=True, order=">"),
    "strips.tif": lambda p: save_all(p, pictures(), compression="tiff_adobe_deflate", strip_size=1000),
    "modes.tif": lambda p: save_all(p, [im.convert("L") if k % 2 else im for k, im in enumerate(pictures())]),
    "12bit.tif": lambda p: write_tiff(p, [grey(k, np.uint16) * 16 for k in range(COUNT)]),
    "32bit.tif": lambda p: write_tiff(p, [grey(k, np.float32) / 255 for k in range(COUNT)], order=">"),
    "a.png": lambda p: save_all(p, pictures(), duration=40),
    "a.apng": lambda p: save_all(p, pictures(), duration=40, format="PNG"),
    "behind.png": lambda p: save_all(p, [pictures(1)[0], *pictures()], duration=40, default_image=True),
    "a.webp": lambda p: save_all(p, pictures(), duration=40, lossless=True),
    "key.webp": lambda p: save_all(p, pictures(), duration=40, quality=95, kmax=5),
}


@pytest.fixture(scope="module", params=STACKS, ids=str)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return STACKS[request.param](tmp_path_factory.mktemp("stacks") / request.param)


def test_frame_k_is_picture_k(stack: Path) -> None:
    with open_video(stack) as video:
        frames = list(video.frames())
        assert [k for k, _ in frames] == [number(rgb) for _, rgb in frames] == list(range(COUNT))
        assert (video.height, video.width, len(video), video.fps) == (96, 160, COUNT, pytest.approx(25))
        assert video.seconds(COUNT - 1) == pytest.approx((COUNT - 1) / 25)
        assert video.names is None and video.damaged == []
        assert (video.pts is None) == (stack.suffix in (".tif", ".tiff"))
        for k in [*range(COUNT - 1, -1, -1), *np.random.default_rng(0).permutation(COUNT).tolist()]:
            np.testing.assert_array_equal(video.frame(k), frames[k][1])
        for start in (1, 9, COUNT - 1):
            for k, rgb in video.frames(start):
                np.testing.assert_array_equal(rgb, frames[k][1])
        assert number(video.frame(7, short_side=48)) == 7
        assert ("as white in every frame" in "".join(video.notes)) == ("bit" in stack.name)


def test_two_iterators_do_not_disturb_each_other(stack: Path) -> None:
    with open_video(stack) as video:
        pairs = [
            (number(a), number(video.frame(COUNT - 1 - k)), number(b))
            for (k, a), (_, b) in zip(video.frames(), video.frames(5), strict=False)
        ]
    assert pairs == [(k, COUNT - 1 - k, k + 5) for k in range(COUNT - 5)]


def test_training_and_prepare_read_stacks_as_videos(stack: Path, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    (root / stack.name).symlink_to(stack)
    Image.fromarray(numbered(77)).save(root / "still.png")
    footage = scan(root)
    assert [(s.path.name, s.frames, s.stills is None) for s in footage.sources] == [
        ("videos", 1, False),
        (stack.name, COUNT, True),
    ]
    read = Frames(footage.sources, 96, 10**9)
    assert [number(rgb) for rgb in read.get(1, range(COUNT))] == list(range(COUNT))
    assert number(read.get(0, [0])[0]) == 77
    prepare(root, tmp_path / "out")
    with open_video(tmp_path / "out" / stack.stem) as video:
        assert [number(rgb) for _, rgb in video.frames()] == list(range(COUNT))


def test_times_of_each_frame(tmp_path: Path) -> None:
    durations, starts = [40, 100, 250, 20, 90], [0, 40, 140, 390, 410]
    for name in ("a.png", "a.webp"):
        with open_video(save_all(tmp_path / name, pictures(5), duration=durations)) as video:
            assert [round(1000 * video.seconds(k)) for k in range(5)] == starts
            assert video.fps == pytest.approx(4 / 0.41, rel=0.05)
        with open_video(save_all(tmp_path / f"none{name}", pictures(5), duration=0)) as video:
            assert [number(rgb) for _, rgb in video.frames()] == list(range(5)) and 1 < video.fps <= 100


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("seed", range(8))
def test_frames_of_an_animated_png_are_composed_by_the_specification(tmp_path: Path, seed: int) -> None:
    """Parts that replace what is there or lie over it, and go away as they came, or leave a hole."""
    rng = np.random.default_rng(seed)
    height, width, count = 12, 16, 7
    body, wanted, canvas = bytearray(), [], np.zeros((height, width, 4), np.uint8)
    sequence = 0
    if seed % 2:
        body += chunk(b"IDAT", zlib.compress(bytes(height * (1 + 4 * width))))  # shown by those who know no animation
    for k in range(count):
        x, y, w, h = (0, 0, width, height) if k == 0 else (*rng.integers(0, 8, 2), *rng.integers(1, 5, 2))
        part = rng.integers(0, 256, (h, w, 4)).astype(np.uint8)
        part[..., 3] = np.where(rng.random((h, w)) > 0.4, 255, 0)
        disposal, over = (int(rng.integers(k == 0, 3)) if k else 0), int(rng.integers(0, 2))
        body += chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, w, h, x, y, 40, 1000, disposal, over))
        data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in part))
        first = k == 0 and not seed % 2
        body += chunk(b"IDAT", data) if first else chunk(b"fdAT", struct.pack(">I", sequence + 1) + data)
        sequence += 1 if first else 2
        before, place = canvas.copy(), canvas[y : y + h, x : x + w]
        place[:] = np.where(part[..., 3:] > 0, part, place) if over else part
        wanted.append(canvas.copy())
        if disposal:
            canvas[y : y + h, x : x + w] = 0 if disposal == 1 else before[y : y + h, x : x + w]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    path = tmp_path / "a.png"
    announced = chunk(b"acTL", struct.pack(">II", count, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + announced + bytes(body) + chunk(b"IEND", b""))
    with open_video(path) as video:
        assert len(video) == count
        for k in (*range(count), 6, 2, 4, 0):
            seen = wanted[k][..., 3] > 0
            np.testing.assert_array_equal(video.frame(k)[seen], wanted[k][seen][:, :3])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pages_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    stored = [grey(k) for k in range(3)]
    path = write_tiff(tmp_path / "a.tif", stored, tags=[{274: orientation}] * 3)
    for k, upright in enumerate(stored):
        upright = upright.swapaxes(0, 1) if orientation > 4 else upright
        upright = upright[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]
        with open_video(path) as video:
            assert (video.height, video.width) == upright.shape
            np.testing.assert_array_equal(video.frame(k)[:, :, 0], upright)


class TestOnePicture:
    """A thumbnail, a pyramid or a mask of transparency beside a picture make no video of it."""

    @pytest.mark.parametrize("case", ["thumbnail", "pyramid", "mask", "unmarked", "old"])
    def test_with_smaller_copies_is_an_image(self, tmp_path: Path, case: str) -> None:
        big, half, quarter = grey(3), grey(3)[::2, ::2], grey(3)[::4, ::4]
        levels, tags = {
            "thumbnail": ([big, quarter], [{254: 0}, REDUCED]),
            "pyramid": ([big, half, quarter], [{}, REDUCED, REDUCED]),
            "mask": ([big, big], [{}, {254: 4}]),
            "unmarked": ([big, half, quarter], None),
            "old": ([big, big], [{255: 1}, {255: 2}]),
        }[case]
        path = write_tiff(tmp_path / "0.tif", levels, tags=tags)
        with pytest.raises(InputError, match="is an image file, not a video"):
            open_video(path)
        with open_video(tmp_path) as video:
            assert len(video) == 1 and number(video.frame(0)) == 3

    def test_stacks_with_thumbnails_keep_their_frames(self, tmp_path: Path) -> None:
        both = [page for k in range(6) for page in (grey(k), grey(k)[::4, ::4])]
        with open_video(write_tiff(tmp_path / "a.tif", both, tags=[{}, REDUCED] * 6)) as video:
            assert [number(rgb) for _, rgb in video.frames()] == list(range(6))
            assert [number(video.frame(k)) for k in (5, 0, 3)] == [5, 0, 3]

    def test_of_a_phone_that_hides_another_in_its_jpeg(self, tmp_path: Path) -> None:
        pictures(2)[0].save(tmp_path / "0.jpg", format="MPO", save_all=True, append_images=pictures(2)[1:])
        with open_video(tmp_path) as video:
            assert len(video) == 1 and number(video.frame(0)) == 0


class TestRefused:
    def test_pages_of_several_sizes(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", [grey(0), grey(1), grey(2)[:50]])
        with pytest.raises(InputError, match=r"picture 0 is 160x96, but picture 2 is 160x50; the frames of a video"):
            open_video(path)

    def test_stacks_among_frames(self, tmp_path: Path) -> None:
        for k in range(3):
            Image.fromarray(numbered(k)).save(tmp_path / f"{k}.png")
        stack = write_tiff(tmp_path / "3.tif", [grey(k) for k in range(3)])
        for path in (tmp_path, tmp_path / "*"):
            with pytest.raises(InputError, match=r"holds 3\.tif, which is a video of its own: .*; give .*3\.tif, or"):
                open_video(path)
        for k in range(3):
            (tmp_path / f"{k}.png").unlink()
        assert len(open_video(tmp_path)) == len(open_video(tmp_path / "*")) == len(open_video(stack)) == 3

    @pytest.mark.parametrize(
        ("description", "what"),
        [
            (b"ImageJ=1.54f\nimages=6\nchannels=2\nframes=3\nhyperstack=true\n", "holds 2 channels in turn"),
            (b'<?xml version="1.0"?><OME><Pixels SizeC="3" SizeT="2" SizeZ="1"/></OME>', "holds 3 channels in turn"),
            (b"ImageJ=1.54f\nimages=6\nslices=3\nframes=2\n", "holds 3 slices of each of 2 times"),
            (b"ImageJ=1.54f\nimages=6\nframes=6\nfinterval=0.1\n", None),
            (b"ImageJ=1.54f\nimages=6\nslices=6\n", None),
            (b'<?xml version="1.0"?><OME><Pixels SizeC="3" SizeT="6" SizeZ="1"/></OME>', None),
            (b"channels=2 of my telescope", None),
        ],
    )
    def test_channels_and_slices_are_no_frames(self, tmp_path: Path, description: bytes, what: str | None) -> None:
        path = write_tiff(tmp_path / "a.tif", [grey(k) for k in range(6)], tags=[{270: description}] + [{}] * 5)
        if what is None:
            assert len(open_video(path)) == 6
        else:
            with pytest.raises(InputError, match=what):
                open_video(path)

    def test_stacks_whose_pages_only_imagej_finds(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", [grey(0)], tags=[{270: b"ImageJ=1.54f\nimages=9000\nframes=9000\n"}])
        for source in (path, tmp_path):
            with pytest.raises(InputError, match="holds 9000 pictures in a form that ImageJ alone reads"):
                open_video(source)

    def test_more_pages_than_anyone_has(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pages, "MAX_PAGES", 5)
        with pytest.raises(InputError, match="has more than 5 pages"):
            open_video(write_tiff(tmp_path / "a.tif", [grey(k) for k in range(6)]))

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_a_pipe_among_the_files_of_a_training_folder(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "0.png")
        write_tiff(tmp_path / "a.tif", [grey(k) for k in range(3)])
        assert [s.frames for s in scan(tmp_path).sources] == [3]


class TestDamage:
    def test_a_recording_that_was_cut_off_says_so(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", [grey(k) for k in range(10)])
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 55 // 100])
        with open_video(path) as video:
            assert [number(rgb) for _, rgb in video.frames()] == list(range(5))
            assert video.notes == (f"{path}: the file ends early, after 5 pictures",)

    def test_a_page_that_does_not_decode_keeps_its_index(self, tmp_path: Path) -> None:
        path = save_all(tmp_path / "a.tif", pictures(6), compression="tiff_adobe_deflate")
        strips = [place for place in range(len(path.read_bytes())) if path.read_bytes()[place : place + 2] == b"x\x9c"]
        content = bytearray(path.read_bytes())
        with Image.open(path) as image:
            for k in (0, 3):
                image.seek(k)
                start = image.tag_v2[273][0]
                assert start in strips
                content[start : start + 30] = b"\xa5" * 30
        path.write_bytes(content)
        with open_video(path) as video:
            assert [number(rgb) for _, rgb in video.frames()] == [1, 1, 2, 2, 4, 5]
            assert [number(rgb) for _, rgb in video.frames(3)] == [2, 4, 5]
            assert video.damaged == [0, 3]

    @pytest.mark.parametrize("cut", [0.7, 0.95])
    def test_an_animated_png_that_was_cut_short(self, tmp_path: Path, cut: float) -> None:
        path = save_all(tmp_path / "a.png", pictures(10), duration=40)
        path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
        with open_video(path) as video:
            shown = [number(rgb) for k, rgb in video.frames() if k not in video.damaged]
            assert shown == list(range(len(shown))) and 2 < len(shown) < 10 and len(video) - 1 <= len(shown)

    @pytest.mark.parametrize("more", [0, 40], ids=["between pictures", "within a picture"])
    def test_an_animated_webp_that_was_cut_short(self, tmp_path: Path, more: int) -> None:
        path = save_all(tmp_path / "a.webp", pictures(10), duration=40, lossless=True)
        content = path.read_bytes()
        end = [found.start() for found in re.finditer(b"ANMF", content)][5] + more
        path.write_bytes(content[:end])
        with open_video(path) as video:
            assert [number(rgb) for _, rgb in video.frames()] == list(range(5)) and video.damaged == []
            assert number(video.frame(4)) == 4
            missing = f"{len(content) - end} bytes are missing"
            assert video.notes == (f"{path}: the file ends early, after 5 pictures: {missing}",)

    def test_circles_end(self, tmp_path: Path) -> None:
        path = write_tiff(tmp_path / "a.tif", [grey(k) for k in range(4)])
        content = path.read_bytes()
        path.write_bytes(content[:-4] + content[4:8])  # the last page is followed by the first
        with open_video(path) as video:
            assert [number(rgb) for _, rgb in video.frames()] == list(range(4))


def test_a_webp_cut_after_its_first_picture_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "cut.webp"
    save_all(path, pictures())
    whole = path.read_bytes()
    second = whole.index(b"ANMF", whole.index(b"ANMF") + 4)
    path.write_bytes(whole[:second])
    with pytest.raises(InputError, match=r"ends early.*; copy or export the video again"):
        open_video(path)
