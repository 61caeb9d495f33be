"""Folders of frames and patterns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media.films import encode, number, numbered
from vcorr.errors import InputError, UsageError
from vcorr.media.video import open_video


def save(folder: Path, names: list[str], **options: object) -> Path:
    folder.mkdir(exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(numbered(k)).save(folder / name, **options)
    return folder


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [f"shot2_frame{k}.png" for k in (1, 2, 9, 10, 11, 100)]
    with open_video(save(tmp_path / "f", names)) as video:
        assert [(k, number(rgb)) for k, rgb in video.frames()] == [(k, k) for k in range(6)]
        assert video.names == [name[:-4] for name in names]
        assert len(video) == 6 and video.pts is None and (video.height, video.width) == (96, 160)
        assert video.seconds(5) == pytest.approx(5 / video.fps)
        assert number(video.frame(4)) == 4 and video.frame(4, short_side=48).shape == (48, 80, 3)
        assert [(k, number(rgb)) for k, rgb in video.frames(2, 4, short_side=48)] == [(2, 2), (3, 3)]
        with pytest.raises(UsageError):
            video.frame(6)


def test_digits_of_any_script_are_numbers(tmp_path: Path) -> None:
    names = [
        f"\u7b2c{k}\u30b3\u30de.png".translate({48 + d: 0xFF10 + d for d in range(10)}) for k in (1, 2, 10)
    ]  # full width
    with open_video(save(tmp_path / "f", names)) as video:
        assert [number(rgb) for _, rgb in video.frames()] == [0, 1, 2]


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    folder = save(tmp_path / "f", ["0.JPG", "1.JPG"])
    for name in ("Thumbs.db", ".DS_Store", "._0.JPG", "notes.txt"):
        (folder / name).write_bytes(b"no picture")
    (folder / "masks").mkdir()
    assert len(open_video(folder)) == 2


def test_a_pattern_chooses_files(tmp_path: Path) -> None:
    folder = save(tmp_path / "f", ["0.jpg", "1.jpg", "10.jpg"])
    save(folder, ["0.png", "1.png"])
    assert len(open_video(str(folder / "*.jpg"))) == 3
    assert [number(rgb) for _, rgb in open_video(f"{folder}/*.jpg").frames()] == [0, 1, 2]
    with pytest.raises(InputError, match=r"0\.(jpg|png) and 0\.(jpg|png), two files for one frame; .*quoted pattern"):
        open_video(folder)


def test_a_pattern_may_name_one_video(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", frames=3)
    assert len(open_video(tmp_path / "*.mp4")) == 3


def test_a_pattern_passes_over_what_a_folder_does(tmp_path: Path) -> None:
    folder = save(tmp_path / "f", ["0.png", "1.png"])
    for name in ("Thumbs.db", "desktop.ini", ".hidden.png", "notes.txt", "film.mp4"):
        (folder / name).write_bytes(b"no picture")
    (folder / "masks.png").mkdir()
    assert open_video(folder / "*").names == open_video(folder).names == ["0", "1"]
    for name in ("0.png", "1.png"):
        (folder / name).unlink()
    encode(folder / "film.mp4", frames=3)
    assert len(open_video(folder / "*")) == 3
    encode(folder / "other.mkv", frames=3)
    with pytest.raises(InputError, match=r"matches 2 videos or folders, among them film\.mp4 and other\.mkv; give one"):
        open_video(folder / "*.m*")


@pytest.mark.parametrize(
    "pattern", ["take[1]/*.png", "take[1]/sub [a-b]/f/*.png", "*/sub [a-b]/f/?.png", "take[1]/x[2]_*.png"]
)
def test_a_pattern_below_a_folder_with_brackets(tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "take[1]" / "sub [a-b]").mkdir(parents=True)
    names = ["x[2]_0.png", "x[2]_1.png"] if "x[2]" in pattern else ["0.png", "1.png"]
    save((tmp_path / pattern).parent if "*/" not in pattern else tmp_path / "take[1]" / "sub [a-b]" / "f", names)
    assert len(open_video(tmp_path / pattern)) == 2
    monkeypatch.chdir(tmp_path)
    assert len(open_video(pattern)) == 2


@pytest.mark.parametrize(
    ("frames", "odd"),
    [
        ([f"{k:05d}.png" for k in range(5)], ["mask.png"]),
        ([f"IMG_{k}.png" for k in range(1, 6)], ["frame_00000.png"]),  # which comes first, and would move all others
        ([f"{k}.png" for k in range(3)], ["mask_0.png", "mask_2.png"]),
        ([f"{k:03d}.png" for k in range(3)], ["001_mask.png"]),
    ],
)
def test_files_named_unlike_all_others_are_no_frames(tmp_path: Path, frames: list[str], odd: list[str]) -> None:
    folder = save(tmp_path / "f", [*frames, *odd])
    with pytest.raises(
        InputError, match=rf"holds {', '.join(odd)} among {len(frames)} frames .*; .*pattern, "
    ) as refused:
        open_video(folder)
    with open_video(str(refused.value).rpartition("pattern, '")[2].rstrip("'")) as video:
        assert video.names == [name[:-4] for name in frames]
    with open_video(folder, apart=[folder / name for name in odd]) as video:
        assert video.names == [name[:-4] for name in frames]


def test_ways_of_naming(tmp_path: Path) -> None:
    """Names without a rule, or by two rules, are frames all the same."""
    for name, files in {
        "words": ["a.png", "b.png", "c.png", "d1.png"],
        "clips": [*(f"a_{k}.png" for k in range(3)), *(f"b_{k}.png" for k in range(3))],
        "case": ["IMG_1.png", "img_2.png", "Img_3.png", "img_4.png"],
        "two": ["0.png", "first.png"],
    }.items():
        assert len(open_video(save(tmp_path / name, files))) == len(files)


def test_masks_apart_are_found_under_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "f", ["0.png", "1.png", "2.png", "mask.png"])
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for video, mask in ((folder, "mask.png"), (".", folder / "mask.png"), ("*.png", "../link/mask.png")):
        with open_video(video, apart=[Path(mask), Path("none.png")]) as source:
            assert source.names == ["0", "1", "2"]
    with pytest.raises(InputError, match="holds no image files but the masks"):
        open_video(folder, apart=list(folder.iterdir()))


def test_a_mask_named_as_a_frame_is_asked_about(tmp_path: Path) -> None:
    """It may have been painted over the frame; without it, the frames after it would move."""
    folder = save(tmp_path / "f", ["0.png", "1.png", "2.png"])
    for video in (folder, folder / "*.png"):
        with pytest.raises(InputError, match=r"0\.png: is given as a mask, but .* like 1\.png; put the mask elsewhere"):
            open_video(video, apart=[folder / "0.png"])
    save(folder, ["0.bmp"])  # beside the frame of its name
    with open_video(folder, apart=[folder / "0.bmp"]) as video:
        assert video.names == ["0", "1", "2"]


def test_two_files_for_a_frame_name_the_pattern_of_the_most(tmp_path: Path) -> None:
    folder = save(tmp_path / "f", ["0.jpg", "1.jpg", "2.jpg", "1.png"])
    with pytest.raises(InputError, match=r"two files for one frame; .*\*\.jpg"):
        open_video(folder)


def test_what_would_be_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "f", ["0.jpg", "1.jpg"])
    monkeypatch.chdir(folder)
    encode(tmp_path / "a.mp4", frames=3)
    for video, path, held in (
        (folder, "x.png", True),
        (".", folder / "0.jpg", True),
        (folder, "../x.png", False),
        (folder, "x.txt", False),
        ("*.jpg", "x.jpg", True),
        (folder / "*.jpg", "x.png", False),
        (tmp_path / "a.mp4", "../x.png", False),
    ):
        with open_video(video) as source:
            assert source.would_hold(Path(path)) == held, (video, path)


def test_brackets_in_a_name_are_no_pattern(tmp_path: Path) -> None:
    assert len(open_video(encode(tmp_path / "take[1].mp4", frames=3))) == 3
    assert len(open_video(save(tmp_path / "take[2]", ["0.png"]))) == 1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "I;16", "CMYK", "webp"])
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    if mode == "I;16":
        grey = np.asarray(Image.fromarray(numbered(5)).convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(folder / "0.png")
    elif mode == "webp":
        Image.fromarray(numbered(5)).save(folder / "0.webp")
    else:
        Image.fromarray(numbered(5)).convert(mode).save(folder / ("0.tif" if mode == "CMYK" else "0.png"))
    rgb = open_video(folder).frame(0)
    assert rgb.shape == (96, 160, 3) and rgb.dtype == np.uint8 and number(rgb) == 5


ORIENTED = {
    "0.png": {},
    "0.webp": {"lossless": True},
    "0.tif": {},
    "0.tiff": {"compression": "tiff_lzw"},
}


@pytest.mark.parametrize("name", ORIENTED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path: Path, orientation: int, name: str) -> None:
    """The tag says at which sides of the upright picture the first row and the first column of the file lie."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = numbered(0)
    upright = stored.swapaxes(0, 1) if orientation > 4 else stored
    upright = upright[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]
    with open_video(save(tmp_path / "f", [name], exif=exif, **ORIENTED[name])) as video:
        assert (video.height, video.width) == upright.shape[:2]
        np.testing.assert_array_equal(video.frame(0), upright)


def test_frames_of_two_sizes_are_refused_by_name(tmp_path: Path) -> None:
    folder = save(tmp_path / "f", ["000.png", "001.png"])
    Image.new("RGB", (80, 60)).save(folder / "002.png")
    with pytest.raises(InputError, match=r"000\.png is 160x96, but 002\.png is 80x60"):
        open_video(folder)


def test_a_frame_that_does_not_decode_keeps_its_index(tmp_path: Path) -> None:
    folder = save(tmp_path / "f", [f"{k}.png" for k in range(5)])
    for k in (0, 3):
        content = (folder / f"{k}.png").read_bytes()
        (folder / f"{k}.png").write_bytes(content[: len(content) // 2])
    with open_video(folder) as video:
        assert [number(rgb) for _, rgb in video.frames()] == [1, 1, 2, 2, 4]
        assert [number(rgb) for _, rgb in video.frames(3)] == [2, 4]
        assert video.damaged == [0, 3]
        with pytest.raises(InputError, match=r"frame 3 \(3\) is damaged"):
            video.frame(3)


@pytest.mark.parametrize("content", [b"", b"<!doctype html><title>404 Not Found</title>", b"\x89PNG\r\n\x1a\n"])
@pytest.mark.parametrize("bad", [0, 2, 4])
def test_a_file_that_is_no_image_keeps_the_index_of_its_frame(tmp_path: Path, content: bytes, bad: int) -> None:
    folder = save(tmp_path / "f", [f"{k}.png" for k in range(5)])
    (folder / f"{bad}.png").write_bytes(content)
    with open_video(folder) as video:
        shown = [k if k != bad else max(1, k - 1) if k else 1 for k in range(5)]
        assert [number(rgb) for _, rgb in video.frames()] == shown
        assert video.damaged == [bad]
        assert video.notes == (f"{folder}: 1 of 5 frames are damaged, such as {bad}.png",)


def test_fingerprint_covers_names_bytes_and_order(tmp_path: Path) -> None:
    one = open_video(save(tmp_path / "a", ["0.png", "1.png"])).fingerprint()
    assert open_video(save(tmp_path / "b", ["0.png", "1.png"])).fingerprint() == one
    assert open_video(save(tmp_path / "c", ["0.png", "2.png"])).fingerprint() != one
    assert open_video(save(tmp_path / "d", ["1.png", "0.png"])).fingerprint() != one


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "0.png").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    for path, what in {
        "empty": "holds no image files",
        "missing.mp4": "does not exist",
        "none/*.png": "does not exist",
        "0.png": "is an empty file",
        "one.png": "is an image file, not a video; give a folder, or a quoted pattern .* of one file per frame",
        "0*.png": "is an empty file",
        "nul\0.mp4": "does not exist",
    }.items():
        with pytest.raises(InputError, match=what):
            open_video(tmp_path / path)


@pytest.mark.parametrize(("names", "refused"), [("0 1 mask", True), ("img_1 img_2 img", False), ("a b c", False)])
def test_a_word_beside_two_numbered_frames_is_asked_about(tmp_path: Path, names: str, refused: bool) -> None:
    for name in names.split():
        Image.fromarray(numbered(0)).save(tmp_path / f"{name}.png")
    if not refused:
        with open_video(tmp_path) as video:
            assert len(video) == 3
        return
    with pytest.raises(InputError, match=r"holds mask\.png among 2 frames"):
        open_video(tmp_path)
