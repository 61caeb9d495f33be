"""Pictures of more than 8 bits: one scale for a whole video, by which what is in them can be seen."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.media.films import number, numbered
from tests.media.stacks import write_tiff
from vcorr.errors import InputError
from vcorr.media.image import read_rgb
from vcorr.media.levels import WHOLE, Scale, scale_of
from vcorr.media.video import open_video
from vcorr.training.clips.dataset import Frames, scan
from vcorr.training.prepare.videos import prepare

Kind = tuple[np.ndarray, Scale]


def grey(k: int) -> np.ndarray:
    return numbered(k)[:, :, 0]


KINDS = {
    "16 bits": (lambda g: g.astype(np.uint16) * 257, "png", WHOLE),
    "14 bits": (lambda g: g.astype(np.uint16) * 64, "tif", Scale(0, 16383)),
    "12 bits": (lambda g: g.astype(np.uint16) * 16, "png", Scale(0, 4095)),
    "10 bits, big-endian": (lambda g: g.astype(">u2") * 4, "tif", Scale(0, 1023)),
    "8 bits in 16": (lambda g: g.astype(np.uint16), "tif", Scale(0, 255)),
    "8 bits in 32": (lambda g: g.astype(np.int32), "tif", Scale(0, 255)),
    "20 bits in 32": (lambda g: g.astype(np.int32) * 4096, "tif", Scale(0, 2**20 - 1)),
    "signed": (lambda g: g.astype(np.int32) * 16 - 1024, "tif", Scale(-1024, 3056)),
    "a narrow range, as of thermal cameras": (lambda g: g.astype(np.uint16) * 4 + 29000, "tif", Scale(29000, 30020)),
    "fractions": (lambda g: (g / 255).astype(np.float32), "tif", Scale(0, 1)),
    "small fractions": (lambda g: (g / 255 / 100).astype(np.float32), "tif", Scale(0, 1 / 64)),
    "fractions up to 255": (lambda g: g.astype(np.float32), "tif", Scale(0, 255)),
}


def save(path: Path, levels: np.ndarray) -> None:
    Image.fromarray(levels).save(path)


@pytest.fixture(params=KINDS, ids=str)
def deep(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Scale]:
    make, suffix, scale = KINDS[request.param]
    folder = tmp_path / "videos" / "deep"
    folder.mkdir(parents=True)
    for k in range(12):
        save(folder / f"{k}.{suffix}", make(grey(k)))
    return folder, scale


def test_every_frame_is_read_by_one_scale(deep: tuple[Path, Scale]) -> None:
    folder, scale = deep
    with open_video(folder) as video:
        frames = [rgb for _, rgb in video.frames()]
        assert [number(rgb) for rgb in frames] == list(range(12))
        background = {rgb[50:, :].tobytes() for rgb in frames}
        assert len(background) == 1 and len(np.unique(frames[0])) > 60
        for k in (11, 3, 7):
            np.testing.assert_array_equal(video.frame(k), frames[k])
        note = f"{folder}: more than 8 bits a channel: {scale.black:g} is read as black and {scale.white:g} as white"
        assert video.notes == (() if scale == WHOLE else (f"{note} in every frame",))


def test_training_and_prepare_read_what_propagate_reads(deep: tuple[Path, Scale], tmp_path: Path) -> None:
    folder, _ = deep
    with open_video(folder) as video:
        wanted = [rgb for _, rgb in video.frames(short_side=48)]
    sources = scan(folder.parent).sources
    for k, rgb in enumerate(Frames(sources, 48, 10**9).get(0, range(12))):
        np.testing.assert_array_equal(rgb, wanted[k])
    summary = prepare(folder.parent, tmp_path / "out")
    with open_video(tmp_path / "out" / "deep") as video:
        for k, rgb in video.frames(short_side=48):
            assert np.abs(rgb.astype(int) - wanted[k]).max() < 12
    assert [note for note in summary.notes.values() if "in every frame" in note] == list(summary.notes.values())


def test_a_dim_start_and_a_hot_pixel_do_not_set_the_scale(tmp_path: Path) -> None:
    for k in range(12):
        levels = grey(k).astype(np.uint16) * (16 if k > 6 else 1)
        levels[5, 5] = 65535
        save(tmp_path / f"{k}.png", levels)
    with open_video(tmp_path) as video:
        assert "4095 as white" in video.notes[0]
        assert np.ptp(video.frame(0)[50:]) < 20 < 100 < np.ptp(video.frame(11)[50:])


def test_frames_of_8_bits_beside_deeper_ones_stay(tmp_path: Path) -> None:
    for k in range(40):
        save(tmp_path / f"{k}.png", grey(k).astype(np.uint16) * 16 if k == 33 else grey(k))
    with open_video(tmp_path) as video:
        assert [number(rgb) for _, rgb in video.frames()] == list(range(40))
        assert video.frame(33)[50:].max() > 190 and "4095 as white" in video.notes[0]
        np.testing.assert_array_equal(video.frame(0)[:, :, 0], grey(0))


def write_deep_colour(path: Path, levels: np.ndarray, pixels: str) -> None:
    """A still of 16 bits a channel, which Pillow cannot write."""
    context = av.CodecContext.create("png" if path.suffix == ".png" else "tiff", "w")
    context.height, context.width, context.pix_fmt, context.time_base = *levels.shape[:2], pixels, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(levels, format="gray16le" if levels.ndim == 2 else "rgb48le")
    packets = [*context.encode(frame.reformat(format=pixels)), *context.encode(None)]
    path.write_bytes(b"".join(map(bytes, packets)))


@pytest.mark.parametrize(
    ("suffix", "pixels"), [("png", "rgb48be"), ("png", "rgba64be"), ("png", "ya16be"), ("tif", "rgb48le")]
)
def test_colours_of_12_bits_in_files_of_16(tmp_path: Path, suffix: str, pixels: str) -> None:
    for k in range(3):
        picture = numbered(k).astype(np.uint16) * 16
        if "rgb" in pixels:
            picture[..., 2] //= 2
        write_deep_colour(tmp_path / f"{k}.{suffix}", picture[:, :, 0] if "ya" in pixels else picture, pixels)
    with open_video(tmp_path) as video:
        assert [number(rgb) for _, rgb in video.frames()] == [0, 1, 2]
        wanted = np.round(picture * (255 / 4095)).astype(int)
        assert np.abs(video.frame(2) - wanted).max() <= 1 and "4095 as white" in video.notes[0]


@pytest.mark.parametrize("top", [300, 1023, 4095])
@pytest.mark.parametrize("kind", ["P2", "P5", "P3", "P6"])
def test_a_pixmap_says_its_white(tmp_path: Path, kind: str, top: int) -> None:
    """A dark film stays dark."""
    for k in range(2):
        shown = numbered(k) // 5
        levels = np.round(shown[:, :, : 1 if kind in ("P2", "P5") else 3] / 255 * top).astype(">u2")
        text = " ".join(map(str, levels.ravel())).encode()
        head = f"{kind} {shown.shape[1]} {shown.shape[0]} {top}\n".encode()
        (tmp_path / f"{k}.ppm").write_bytes(head + (text if kind in ("P2", "P3") else levels.tobytes()))
    with open_video(tmp_path) as video:
        assert video.notes == () and np.abs(video.frame(1).astype(int) - shown).max() <= 1


def test_colours_of_12_bits_in_other_files_of_16(tmp_path: Path) -> None:
    pictures = [numbered(k).astype(np.uint16) * 16 for k in range(4)]
    (tmp_path / "ppm").mkdir()
    for k, picture in enumerate(pictures):
        (tmp_path / "ppm" / f"{k}.ppm").write_bytes(b"P6\n160 96\n65535\n" + picture.astype(">u2").tobytes())
    for path in (tmp_path / "ppm", write_tiff(tmp_path / "stack.tif", pictures)):
        with open_video(path) as video:
            assert [number(rgb) for _, rgb in video.frames()] == [0, 1, 2, 3]
            assert "4095 as white" in video.notes[0]


def test_numbers_of_64_bits_are_refused_with_a_way_out(tmp_path: Path) -> None:
    write_tiff(tmp_path / "0.tif", [grey(0) / 255.0])
    with pytest.raises(InputError, match=r"such as float64 or other.*; save it as float32"):
        open_video(tmp_path)


def test_bytes_with_a_sign_are_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "0.tif", [np.full((8, 9), -1, np.int8)])
    with pytest.raises(InputError, match=r"int8.*; save it as uint8 or int16"):
        open_video(tmp_path)


def test_huge_and_tiny_levels_bring_no_warning(tmp_path: Path) -> None:
    for factor in (1e36, 1e-40):
        save(tmp_path / "0.tif", grey(5).astype(np.float32) * np.float32(factor))
        with open_video(tmp_path) as video:
            assert number(video.frame(0)) == 5


def test_a_deep_picture_may_hold_nothing_or_no_number(tmp_path: Path) -> None:
    levels = np.full((8, 9), np.nan, np.float32)
    save(tmp_path / "nan.tif", levels)
    assert read_rgb(tmp_path / "nan.tif").max() == 0
    levels[2:6, 2:6], levels[3, 3], levels[4, 4] = 0.5, np.inf, -np.inf
    levels[2, 2] = 0.25
    save(tmp_path / "some.tif", levels)
    read = read_rgb(tmp_path / "some.tif")
    assert read[2, 2, 0] == 128 and read[2, 3, 0] == 255 == read[3, 3, 0] and read[0, 0, 0] == 0 == read[4, 4, 0]
    save(tmp_path / "zero.png", np.zeros((8, 9), np.uint16))
    assert read_rgb(tmp_path / "zero.png").max() == 0


def test_white_is_zero_in_some_tiffs(tmp_path: Path) -> None:
    for name, levels in (("8.tif", grey(5)), ("16.tif", grey(5).astype(np.uint16) * 257)):
        Image.fromarray(levels).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        tag, inverted = (b"\x06\x01\x03\x00\x01\x00\x00\x00" + bytes([value]) for value in (1, 0))
        assert content.count(tag) == 1
        (tmp_path / name).write_bytes(content.replace(tag, inverted))
    assert np.abs(read_rgb(tmp_path / "8.tif").astype(int) - (255 - numbered(5))).max() == 0
    assert np.corrcoef(read_rgb(tmp_path / "16.tif").ravel(), 255.0 - numbered(5).ravel())[0, 1] > 0.999


@given(st.lists(st.integers(0, 2**16 - 1), min_size=6, max_size=6), st.sampled_from([np.uint16, np.int32, np.float32]))
def test_order_is_kept_and_all_of_8_bits_is_used(values: list[int], kind: type) -> None:
    levels = np.array(values, kind).reshape(2, 3)
    scale = scale_of([levels])
    read = scale.to_8_bits(levels).ravel()
    order = np.argsort(levels.ravel(), kind="stable")
    assert (np.diff(read[order].astype(int)) >= 0).all()
    assert scale.black <= levels.min() and levels.max() <= scale.white
    spread = float(levels.max()) - float(levels.min())
    assert read.max() - int(read.min()) >= math.floor(min(spread, 255 / 8)) - 1


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "factor", "white"),
    [
        ("16.mkv", "ffv1", "gray16le", 257, None),
        ("12in16.mkv", "ffv1", "gray16le", 16, 4095),
        ("12in16.nut", "rawvideo", "gray16be", 16, 4095),
        ("12.mkv", "ffv1", "gray12le", 16, None),
        ("10in12.mkv", "ffv1", "gray12le", 4, 16383),
        ("colour.mov", "png", "rgb48be", 16, 4095),
    ],
)
def test_video_files_of_machine_cameras(
    tmp_path: Path, name: str, codec: str, pixels: str, factor: int, white: int | None
) -> None:
    """FFmpeg stretches 12 bits to 16 as it hands them out."""
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 160, pixels
        for k in range(10):
            levels = (numbered(k) if "rgb" in pixels else grey(k)).astype(np.uint16) * factor
            as_is = pixels if "12" in pixels else "rgb48le" if "rgb" in pixels else "gray16le"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(levels, format=as_is).reformat(format=pixels)))
        container.mux(stream.encode(None))
    with open_video(tmp_path / name) as video:
        frames = [rgb for _, rgb in video.frames()]
        assert [number(rgb) for rgb in frames] == list(range(10))
        assert np.abs(frames[3][50:].astype(int) - numbered(3)[50:]).max() <= 1
        np.testing.assert_array_equal(video.frame(3), frames[3])
        assert video.frame(3, short_side=48).shape == (48, 80, 3)
        assert [f"{white} as white" in note for note in video.notes] == ([] if white is None else [True])
