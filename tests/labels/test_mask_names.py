"""Which frame a mask of a folder labels: by index, or by the frame's name; never by a guess."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.examples import examples
from vcorr.errors import InputError, UsageError
from vcorr.labels.mask_names import NamedBy, label_files

FROM_1 = [f"{k:05d}.png" for k in range(1, 11)]
CAMERA = [f"IMG_{k:04d}.JPG" for k in range(1, 7)]


def read(
    folder: Path,
    masks: Sequence[str],
    frames: Sequence[str] | int = 10,
    named_by: NamedBy | None = None,
) -> dict[str, int]:
    """Mask -> frame."""
    folder.mkdir(exist_ok=True)
    for name in masks:
        (folder / name).touch()
    files = None if isinstance(frames, int) else [folder.parent / "frames" / name for name in frames]
    count = frames if isinstance(frames, int) else len(frames)
    found = label_files(folder, frames=count, frame_files=files, named_by=named_by)
    assert list(found) == sorted(found)
    return {file.name: k for k, file in found.items()}


@pytest.mark.parametrize(
    ("masks", "frames", "found"),
    [
        (["00000.png", "mask-7.png", "frame_00003.TIF"], 10, [0, 7, 3]),
        (["cam1_00003.png", "cam1_00007.png"], 10, [3, 7]),  # the number that differs
        (["2024-01-15_3.png", "2024-01-15_4.png"], 10, [3, 4]),
        (["00003_3.png"], 10, [3]),
        (["00003.png"], [f"{k:05d}.jpg" for k in range(10)], [3]),  # both ways the same
        (["3.png", "004.png"], [f"{k:05d}.jpg" for k in range(10)], [3, 4]),
        (["img_0001.png", "Img_0004.bmp"], CAMERA, [0, 3]),  # names compare without case
        (["img_1.png", "IMG_00004.png"], CAMERA, [0, 3]),  # and without leading zeros
        (["mask_img_0001.png", "IMG_0004_mask.png"], CAMERA, [0, 3]),
        (["00000.png", "00003.png", "00007.png"], FROM_1, [0, 3, 7]),  # no frame is called 00000
        (["00010.png", "00003.png"], FROM_1, [9, 2]),  # there is no frame of index 10
        (["0006.png"], CAMERA, [5]),
        (["a.png", "B.png"], ["A.jpg", "b.jpg", "c.jpg"], [0, 1]),
        (["cafe\u0301.png"], ["caf\u00e9.jpg", "x.jpg"], [0]),  # as file systems write it, one way or the other
        (["00003.jpg.png"], [f"{k:05d}.jpg" for k in range(1, 6)], [2]),
        (["cam2_00001.png"], [f"cam2_{k:05d}.jpg" for k in range(3)], [1]),
        (["10.png"], [f"{k}.png" for k in range(0, 100, 5)], [2]),  # every fifth frame, and fewer than that number
    ],
)
def test_read(tmp_path: Path, masks: list[str], frames: list[str] | int, found: list[int]) -> None:
    if found == [2]:
        frames = list(frames)[:10]  # type: ignore[arg-type]
    assert read(tmp_path / "m", masks, frames) == dict(zip(masks, found, strict=True))


@pytest.mark.parametrize(
    ("masks", "frames", "index", "frame"),
    [
        (["00003.png", "00007.png"], FROM_1, [3, 7], [2, 6]),  # result/masks corrected, or masks of the frames
        (["1.png"], FROM_1, [1], [0]),
        (["mask_0001.png", "mask_0004.png"], CAMERA, [1, 4], [0, 3]),
        (["0001.png", "0004.png"], CAMERA, [1, 4], [0, 3]),
        (["img_0001.png", "00004.png"], CAMERA, [1, 4], [0, 3]),
        (["frame_00001.png"], [f"frame_{k:05d}.jpg" for k in range(1, 4)], [1], [0]),  # as `vcorr frame` names it
        (["leafimg_0001.png"], CAMERA, [1], [0]),
    ],
)
def test_two_ways(tmp_path: Path, masks: list[str], frames: list[str], index: list[int], frame: list[int]) -> None:
    with pytest.raises(
        InputError, match=r"can be read two ways: by index .*; say --named-by index or --named-by frame"
    ):
        read(tmp_path / "m", masks, frames)
    assert read(tmp_path / "m", [], frames, "index") == dict(zip(masks, index, strict=True))
    assert read(tmp_path / "m", [], frames, "frame") == dict(zip(masks, frame, strict=True))


@pytest.mark.parametrize(
    ("masks", "frames", "what"),
    [
        ([], 5, "holds no mask files"),
        (["5.png"], 5, "labels frame 5, but the video has frames 0 to 4"),
        (["first.png"], 5, "does not name its frame"),
        (["\u0663.png", "\u00b2.png"], 5, "does not name its frame"),
        (["1.png", "01.png"], 5, "both label frame 1"),
        (["00000.png", "00004_v2.png"], 5, r"00004_v2\.png: has the numbers 4 and 2 in its name"),
        (["00000_v1.png", "00004_v2.png"], 5, r"has the numbers 0 and 1 in its name"),
        (["mask2-7.png"], 10, "has the numbers 2 and 7 in its name: .*; .*--at K=FILE"),
        (["3.5.png"], 10, "has the numbers 3 and 5"),
        (["-3.png"], 10, "names frame -3"),
        (["mask_-3.png"], 10, "names frame -3"),
        (
            ["00000.png", "00010.png"],
            FROM_1,
            r"00000\.png: names its frame by index, but 00010\.png by the frame's name",
        ),
        (["00002.png", "00003.jpg"], 10, r"00003\.jpg: is a JPG file among the masks"),
        (["00003.jpg"], 10, "is a JPG file"),
        (["00002.png", "00003.webp"], 10, "is a WEBP file"),
        (["9" * 200 + ".png"], 10, "labels frame 999"),
    ],
)
def test_refused(tmp_path: Path, masks: list[str], frames: list[str] | int, what: str) -> None:
    with pytest.raises(InputError, match=what):
        read(tmp_path / "m", masks, frames)


def test_what_is_no_mask_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for name in ("notes.txt", ".DS_Store", "._00003.png", "Thumbs.db", "00003.jpg"):  # the picture beside its mask
        (tmp_path / "m" / name).touch()
    (tmp_path / "m" / "00004.png").mkdir()
    assert read(tmp_path / "m", ["00003.png"]) == {"00003.png": 3}


def test_masks_among_the_frames(tmp_path: Path) -> None:
    """A mask beside a frame of its name labels that, whatever its number."""
    frames = [tmp_path / "f" / f"{k:05d}.jpg" for k in range(1, 5)]
    (tmp_path / "f").mkdir()
    for file in (*frames, tmp_path / "f" / "00002.png"):
        file.touch()
    assert list(label_files(tmp_path / "f", frames=4, frame_files=frames)) == [1]
    (tmp_path / "f" / "00002.png").unlink()
    with pytest.raises(InputError, match="holds no mask files beside the frames"):
        label_files(tmp_path / "f", frames=4, frame_files=frames)


def test_a_result_is_named_by_index(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text(json.dumps({"format": "vcorr-results-1"}))
    assert read(out / "masks", ["00003.png"], FROM_1) == {"00003.png": 3}
    files = [tmp_path / name for name in FROM_1]
    assert list(label_files(out, frames=10, frame_files=files)) == [3]
    (out / "manifest.json").write_text("[")
    with pytest.raises(InputError, match="two ways"):
        read(out / "masks", [], FROM_1)


def test_a_video_file_has_no_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no names"):
        read(tmp_path / "m", ["3.png"], 10, "frame")


@given(
    first=st.integers(0, 3),
    step=st.integers(1, 3),
    word=st.sampled_from(["", "IMG_", "a1_", "frame_"]),
    padding=st.integers(1, 6),
    mask_word=st.sampled_from(["", "mask_", "img_", "a1_", "frame_"]),
    mask_padding=st.integers(1, 6),
    chosen=st.sets(st.integers(0, 12), min_size=1, max_size=4),
)
@examples(200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mask_labels_the_frame_of_its_number_in_one_of_the_two_ways_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
    first: int,
    step: int,
    word: str,
    padding: int,
    mask_word: str,
    mask_padding: int,
    chosen: set[int],
) -> None:
    """And the same masks are refused or read in the same way, whatever is added: no file moves another."""
    numbers = [first + step * k for k in range(8)]
    frames = [f"{word}{n:0{padding}d}.png" for n in numbers]
    masks = {f"{mask_word}{n:0{mask_padding}d}.png": n for n in chosen}
    try:
        found = read(tmp_path_factory.mktemp("m"), list(masks), frames)
    except InputError:
        return
    by_index = {name: n for name, n in masks.items()}
    by_number = {name: numbers.index(n) for name, n in masks.items() if n in numbers}
    assert found in (by_index, by_number)
    if by_index != by_number and found == by_number and max(chosen) < 8:
        assert mask_word.casefold() == word.casefold() != ""
