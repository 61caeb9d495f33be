"""What a training folder holds, how it is told from another, and that frames are decoded once and rightly."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.media.films import encode, number
from vcorr.errors import InputError
from vcorr.media import folder as media_folder
from vcorr.media.video import open_video
from vcorr.training.clips import dataset as footage
from vcorr.training.clips.dataset import Frames, scan


def stills(folder, frames=5, size=(20, 30), suffix=".png", first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(first, first + frames):
        Image.fromarray(np.full((*size, 3), 7 * k, np.uint8)).save(folder / f"f{k}{suffix}")
    return folder


def told(folder):
    found = scan(folder)
    return {s.path.relative_to(folder).as_posix(): (s.frames, s.height, s.width) for s in found.sources}


# --- what is found --------------------------------------------------------------------------------------------------


def test_video_files_and_frame_folders_at_any_depth_in_one_order(tmp_path):
    stills(tmp_path / "b", 12)
    stills(tmp_path / "a" / "deep", 3, (8, 9), ".jpg")
    encode(tmp_path / "a" / "film.mp4", frames=10)
    encode(tmp_path / "B.GIF", "gif", frames=4, pixels="rgb8")
    (tmp_path / "notes.txt").write_text("no video")
    stills(tmp_path / ".thumbnails", 3)
    (tmp_path / "a" / "._film.mp4").write_bytes(b"resource fork")
    assert list(told(tmp_path).items()) == [
        ("B.GIF", (4, 96, 160)),
        ("a/film.mp4", (10, 96, 160)),
        ("a/deep", (3, 8, 9)),
        ("b", (12, 20, 30)),
    ]
    found = scan(tmp_path)
    assert found.skipped == {} and found.frames == 29
    folder = next(s for s in found.sources if s.path.name == "b")
    assert [p.name for p in folder.stills] == [f"f{k}.png" for k in range(12)]  # f2 before f10


def test_what_cannot_be_read_is_left_out_and_said(tmp_path):
    stills(tmp_path / "good", 3)
    (tmp_path / "noise.mp4").write_bytes(b"\1" * 999)
    (tmp_path / "empty.mkv").write_bytes(b"")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.png").write_bytes(b"\1" * 99)
    found = scan(tmp_path)
    assert [s.path.name for s in found.sources] == ["good"]
    assert {p.rpartition("/")[2] for p in found.skipped} == {"noise.mp4", "empty.mkv", "broken"}
    assert "empty file" in found.skipped[str(tmp_path / "empty.mkv")]
    assert "no frame can be read (0.png" in found.skipped[str(tmp_path / "broken")]


def test_a_folder_with_one_broken_frame_is_still_a_video(tmp_path):
    stills(tmp_path / "v", 3)
    (tmp_path / "v" / "f0.png").write_bytes(b"\1" * 99)
    assert told(tmp_path) == {"v": (3, 20, 30)}


def test_masks_are_not_taken_for_video(tmp_path):
    stills(tmp_path / "JPEGImages" / "cow", 3, suffix=".jpg")
    stills(tmp_path / "mixed", 3, suffix=".jpg")
    for folder in ("Annotations/cow", "mixed"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for k in range(3):
            mask = Image.fromarray(np.eye(20, 30, dtype=np.uint8), "P")
            mask.putpalette([0, 0, 0, 9, 9, 9])
            mask.save(tmp_path / folder / f"f{k}.png")
    assert told(tmp_path) == {"JPEGImages/cow": (3, 20, 30)}
    reasons = scan(tmp_path).skipped
    assert "which are masks" in reasons[str(tmp_path / "Annotations" / "cow")]
    assert "two files for one frame" in reasons[str(tmp_path / "mixed")]


def test_links_are_followed_but_not_in_circles(tmp_path):
    stills(tmp_path / "elsewhere" / "v", 3)
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "linked" / "v" / "up").symlink_to(root)
    (tmp_path / "elsewhere" / "self").symlink_to(tmp_path / "elsewhere")
    (root / "dangling.mp4").symlink_to(tmp_path / "nothing")
    assert told(root) == {"linked/v": (3, 20, 30)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda root: root.rmdir(), "no such folder", id="missing"),
        pytest.param(lambda root: None, r"nothing to train on \(no videos or frame folders\)", id="empty"),
        pytest.param(lambda root: (root / "a.txt").write_text(""), "no videos or frame folders", id="text"),
        pytest.param(lambda root: (root / "a.mp4").write_bytes(b"x"), r"nothing to train on \(.*a\.mp4: ", id="broken"),
    ],
)
def test_a_folder_without_videos_is_refused(tmp_path, make, message):
    root = tmp_path / "root"
    root.mkdir()
    make(root)
    with pytest.raises(InputError, match=message):
        scan(root)


# --- telling folders apart ------------------------------------------------------------------------------------------


@pytest.fixture
def films(tmp_path):
    root = tmp_path / "films"
    stills(root / "a", 4)
    stills(root / "b", 5)
    encode(root / "film.mp4", frames=6)
    return root


def test_a_moved_or_copied_folder_is_the_same(films, tmp_path):
    wanted = scan(films).fingerprint()
    shutil.copytree(films, tmp_path / "copy" / "again")
    assert scan(tmp_path / "copy" / "again").fingerprint() == wanted


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: (root / "a" / "f3.png").unlink(), id="frame-less"),
        pytest.param(lambda root: (root / "a" / "f3.png").rename(root / "a" / "f9.png"), id="frame-renamed"),
        pytest.param(lambda root: (root / "a").rename(root / "z"), id="video-renamed"),
        pytest.param(lambda root: stills(root / "c"), id="video-more"),
        pytest.param(lambda root: (root / "film.mp4").unlink(), id="video-less"),
        pytest.param(lambda root: encode(root / "film.mp4", frames=6, options={"crf": "40"}), id="video-encoded-again"),
    ],
)
def test_another_folder_is_told(films, change):
    before = scan(films).fingerprint()
    change(films)
    assert scan(films).fingerprint() != before


# --- frames ---------------------------------------------------------------------------------------------------------


def count_calls(monkeypatch, name, module=footage):
    calls = []
    real = getattr(module, name)

    def counted(*args, **options):
        calls.append(args)
        return real(*args, **options)

    monkeypatch.setattr(module, name, counted)
    return calls


@pytest.mark.parametrize("limit", [1 << 30, 300_000, 0], ids=["all-fit", "some-fit", "none-fits"])
def test_frames_of_a_film_are_those_of_the_film(tmp_path, limit):
    path = encode(tmp_path / "film.mp4", frames=30)
    frames = Frames(scan(tmp_path).sources, 64, limit)
    with open_video(path) as video:
        for clip in ([3, 5], [29, 27], [0, 0], [12, 4, 20], [28], [5, 3]):
            for k, got in zip(clip, frames.get(0, clip), strict=True):
                assert number(got) == k
                np.testing.assert_array_equal(got, video.frame(k, short_side=64))
            assert frames.bytes <= max(limit, len(set(clip)) * got.nbytes)


def test_where_all_fits_a_film_is_opened_and_a_still_is_read_once(films, monkeypatch):
    found = scan(films)
    opened, read = count_calls(monkeypatch, "open_video"), count_calls(monkeypatch, "read_pixels", media_folder)
    frames = Frames(found.sources, 64, 1 << 30)
    for _ in range(3):
        for source, video in enumerate(found.sources):
            for k in range(video.frames - 1):
                frames.get(source, [k, k + 1])
    assert (len(opened), len(read)) == (1, 4 + 5)


def test_where_not_all_fits_films_stay_open(tmp_path, monkeypatch):
    for k in range(footage.OPEN + 2):
        encode(tmp_path / f"{k:02d}.mp4", frames=6, size=(48, 64))
    found = scan(tmp_path)
    opened = count_calls(monkeypatch, "open_video")
    frames = Frames(found.sources, 64, 0)
    for k in (0, 4, 2):
        for source in range(footage.OPEN):
            frames.get(source, [k, k + 1])
    assert len(opened) == footage.OPEN
    for source in range(len(found.sources)):
        frames.get(source, [0])
    frames.get(0, [3])
    assert len(opened) == footage.OPEN + 2 + 1


def test_the_cache_forgets_what_was_used_longest_ago(films, monkeypatch):
    found = scan(films)
    source = next(k for k, s in enumerate(found.sources) if s.path.name == "b")
    frames = Frames(found.sources, 64, 3 * 20 * 30 * 3)
    read = count_calls(monkeypatch, "read_pixels", media_folder)
    for clip in ([0], [1], [2], [0], [3], [0], [2], [1]):
        frames.get(source, clip)
        assert frames.bytes <= 3 * 20 * 30 * 3
    assert [path.name for (path,) in read] == ["f0.png", "f1.png", "f2.png", "f3.png", "f1.png"]


def test_a_damaged_still_is_refused_every_time(films):
    found = scan(films)
    data = (films / "b" / "f2.png").read_bytes()
    (films / "b" / "f2.png").write_bytes(data[:-20])
    source = next(k for k, s in enumerate(found.sources) if s.path.name == "b")
    frames = Frames(found.sources, 64, 1 << 30)
    for _ in range(2):
        with pytest.raises(InputError, match=r"f2\.png: is damaged"):
            frames.get(source, [1, 2])
    assert len(frames.get(source, [1, 3])) == 2


@pytest.mark.parametrize("limit", [1 << 30, 0], ids=["all-fit", "none-fits"])
def test_damaged_frames_of_a_film_are_refused_and_the_others_given(tmp_path, limit):
    path = encode(tmp_path / "film.mkv", "ffv1", frames=12, pixels="yuv420p", group=1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = b"\0" * 400
    path.write_bytes(data)
    found = scan(tmp_path)
    frames = Frames(found.sources, 96, limit)
    good = []
    for k in range(found.frames):
        try:
            good.append(number(frames.get(0, [k])[0]))
        except InputError as error:
            assert "is damaged" in error.what
    assert good == sorted(set(good)) and 0 < len(good) < 12


def test_a_film_that_went_away_is_an_input_error(films):
    found = scan(films)
    (films / "film.mp4").unlink()
    with pytest.raises(InputError, match="does not exist"):
        Frames(found.sources, 64, 1 << 30).get(0, [0])
