"""Videos become frame folders once: whole or not at all, whatever the files are and whenever the run is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tests.media.films import encode, number
from tests.toys import NOT_TEXT, takes_any_name
from vcorr import cli
from vcorr.errors import InputError, OutputError, UsageError
from vcorr.media.video import open_video
from vcorr.training.clips.cut import ClipConfig, Clips
from vcorr.training.clips.dataset import scan
from vcorr.training.prepare import frames as prepared
from vcorr.training.prepare.frames import RECORD, PrepareOptions
from vcorr.training.prepare.videos import prepare


def stills(folder, count=4, sizes=((20, 30),), suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.fromarray(np.full((*sizes[k % len(sizes)], 3), 9 * k, np.uint8)).save(folder / f"f{k}{suffix}")
    return folder


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    stills(root / "deep" / "frames")
    encode(root / "a.mp4", frames=12)
    encode(root / "deep" / "b.avi", "mpeg4", frames=7)
    (root / "readme.txt").write_text("about")
    return root


def tree(out):
    """Folder -> its frame files, of a prepared folder."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and path.name not in ("manifest.json", RECORD):
            found.setdefault(path.parent.relative_to(out).as_posix(), []).append(path.name)
    return found


def times(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("0*")}


def jpgs(count, every=1):
    return [f"{k:05d}.jpg" for k in range(0, count, every)]


# --- what is written ------------------------------------------------------------------------------------------------


def test_videos_become_frame_folders_of_the_same_tree(source, tmp_path):
    out, seen = tmp_path / "out", []
    summary = prepare(source, out, PrepareOptions(size=48), progress=lambda *counts: seen.append(counts))
    assert tree(out) == {"a": jpgs(12), "deep/b": jpgs(7), "deep/frames": jpgs(4)}
    assert (summary.videos, summary.frames, summary.made, summary.failed, summary.gone) == (3, 23, 3, {}, 0)
    assert sorted(seen) == [(1, 3), (2, 3), (3, 3)]
    pictures = [np.asarray(Image.open(out / "a" / name)) for name in jpgs(12)]
    assert [number(p) for p in pictures] == list(range(12)) and pictures[0].shape == (48, 80, 3)
    assert np.asarray(Image.open(out / "deep" / "frames" / "00003.jpg")).shape == (20, 30, 3)  # never enlarged


def test_training_reads_what_was_prepared(source, tmp_path):
    prepare(source, tmp_path / "out", PrepareOptions(size=48))
    found = scan(tmp_path / "out")
    assert [(s.path.name, s.frames) for s in found.sources] == [("a", 12), ("b", 7), ("frames", 4)]
    rgb, _ = Clips(found, ClipConfig(size=16, smallest=8), seed=0).batch(range(6))
    assert rgb.shape == (6, 2, 16, 16, 3)


def test_every_few_frames_keep_their_numbers(source, tmp_path):
    prepare(source, tmp_path / "out", PrepareOptions(every=5))
    assert tree(tmp_path / "out")["a"] == jpgs(12, 5)
    assert number(np.asarray(Image.open(tmp_path / "out" / "a" / "00010.jpg"))) == 10


def test_png_keeps_every_pixel_and_jpeg_every_colour(source, tmp_path):
    prepare(source, tmp_path / "png", PrepareOptions(format="png"))
    with open_video(source / "a.mp4") as video:
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "png" / "a" / "00003.png")), video.frame(3))
    prepare(source, tmp_path / "jpg")
    with Image.open(tmp_path / "jpg" / "a" / "00003.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # no channel at half resolution


def test_the_manifest_says_what_each_folder_came_from(source, tmp_path):
    prepare(source, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["complete"] and manifest["options"] == {"size": 480, "every": 1, "format": "jpg"}
    film = manifest["videos"][0]
    with open_video(source / "a.mp4") as video:
        assert film["sha256"] == video.fingerprint()
    assert (film["folder"], film["source"], film["frames"], film["kept"]) == ("a", "a.mp4", 12, 12)
    assert film["stamp"]["bytes"] == (source / "a.mp4").stat().st_size
    assert json.loads((tmp_path / "out" / "a" / RECORD).read_text()) == {k: v for k, v in film.items() if k != "folder"}


def test_videos_of_one_name_get_folders_of_their_own(tmp_path):
    root = tmp_path / "source"
    stills(root / "clip")
    stills(root, 2)
    encode(root / "clip.avi", "mpeg4", frames=5)
    encode(root / "clip.mp4", frames=6)
    prepare(root, tmp_path / "out")
    found = tree(tmp_path / "out")
    assert found == {"clip": jpgs(4), "clip.avi": jpgs(5), "clip.mp4": jpgs(6), "frames": jpgs(2)}


# --- again ----------------------------------------------------------------------------------------------------------


def test_the_same_command_again_does_nothing(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out)
    before = times(out)
    os.utime(source / "a.mp4", ns=(1, 1))  # copied, say: the same bytes
    summary = prepare(source, out)
    assert (summary.videos, summary.made) == (3, 0)
    assert times(out) == before
    assert json.loads((out / "a" / RECORD).read_text())["stamp"]["modified"] == 1


@takes_any_name
def test_a_name_that_is_no_text_is_made_once(source, tmp_path):
    (source / "a.mp4").rename(source / f"{NOT_TEXT}.mp4")
    (source / "deep" / "frames").rename(source / "deep" / NOT_TEXT)
    assert prepare(source, tmp_path / "out").made == 3
    before = times(tmp_path / "out")
    assert prepare(source, tmp_path / "out").made == 0
    assert times(tmp_path / "out") == before and len(before) == 12 + 7 + 4


def test_files_of_file_managers_are_no_change(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").write_bytes(b"x")
    assert prepare(source, tmp_path / "out").made == 3
    for folder in ("a", "deep/b"):
        for name in (".DS_Store", "Thumbs.db", "._00000.jpg"):
            (tmp_path / "out" / folder / name).write_bytes(b"x")
    assert prepare(source, tmp_path / "out").made == 0


def test_only_what_is_new_or_changed_or_incomplete_is_made(source, tmp_path):
    out = tmp_path / "out"
    encode(source / "deep" / "c.mp4", frames=2)
    prepare(source, out)
    before = times(out)
    encode(source / "a.mp4", frames=5)
    encode(source / "new.mp4", frames=3)
    (out / "deep" / "b" / "00002.jpg").unlink()
    (out / "deep" / "c" / "00001.jpg").write_bytes(b"")
    summary = prepare(source, out)
    assert (summary.videos, summary.made) == (5, 4)
    assert tree(out) == {"a": jpgs(5), "deep/b": jpgs(7), "deep/c": jpgs(2), "deep/frames": jpgs(4), "new": jpgs(3)}
    assert (out / "deep" / "c" / "00001.jpg").stat().st_size
    assert all(times(out)[path] == then for path, then in before.items() if path.parent.name == "frames")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kept": "x"}', "\0" * 9])
def test_a_folder_whose_record_is_damaged_is_made_anew(source, tmp_path, text):
    prepare(source, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "a" / RECORD).read_text())
    (tmp_path / "out" / "a" / RECORD).write_text(
        text if text != '{"kept": "x"}' else json.dumps(record | {"kept": "x"})
    )
    summary = prepare(source, tmp_path / "out")
    assert (summary.videos, summary.made) == (3, 1)
    assert tree(tmp_path / "out") == {"a": jpgs(12), "deep/b": jpgs(7), "deep/frames": jpgs(4)}


def test_a_folder_of_another_is_never_replaced(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out)
    encode(source / "new.mp4", frames=3)
    stills(out / "new", 2)
    with pytest.raises(OutputError, match="new: is in the way, and was not made by vcorr prepare; move it away"):
        prepare(source, out)
    assert tree(out)["new"] == ["f0.png", "f1.png"]


def test_folders_outlive_their_source(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out)
    (source / "a.mp4").unlink()
    encode(source / "a.avi", "mpeg4", frames=3)
    summary = prepare(source, out)
    assert (summary.videos, summary.gone) == (3, 1)
    assert tree(out)["a"] == jpgs(12) and tree(out)["a.avi"] == jpgs(3)


def test_moved_videos_are_the_same_videos(source, tmp_path):
    prepare(source, tmp_path / "out")
    moved = source.rename(tmp_path / "moved")
    assert prepare(moved, tmp_path / "out").made == 0


def test_other_options_or_videos_are_refused_with_the_difference(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out)
    before = tree(out)
    with pytest.raises(OutputError, match="size 480 -> 240; every 1 -> 2; format jpg -> png"):
        prepare(source, out, PrepareOptions(240, 2, "png"))
    with pytest.raises(OutputError, match=r"source .*source -> .*deep"):
        prepare(source / "deep", out)
    assert tree(out) == before


def test_folders_of_others_are_left_alone(source, tmp_path):
    stills(tmp_path / "mine")
    with pytest.raises(OutputError, match="is not empty and holds no prepared videos"):
        prepare(source, tmp_path / "mine")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "manifest.json").write_text("[1]")
    with pytest.raises(OutputError, match=r"manifest\.json: is damaged, or not of vcorr"):
        prepare(source, tmp_path / "odd")
    with pytest.raises(UsageError, match="holds the source folder"):
        prepare(source, tmp_path)


def test_what_is_written_below_the_source_is_not_read_again(source):
    for _ in range(2):
        assert prepare(source, source / "small", PrepareOptions(size=32)).videos == 3


def test_one_process_at_a_time(source, tmp_path, monkeypatch):
    entered, leave = threading.Event(), threading.Event()
    save = prepared._save

    def slow(*args):
        entered.set()
        leave.wait(20)
        save(*args)

    monkeypatch.setattr(prepared, "_save", slow)
    first = threading.Thread(target=prepare, args=(source, tmp_path / "out"))
    first.start()
    try:
        assert entered.wait(20)
        with pytest.raises(OutputError, match="another process works in it"):
            prepare(source, tmp_path / "out")
    finally:
        leave.set()
        first.join()


# --- what cannot be read or written ---------------------------------------------------------------------------------


def test_hostile_files_are_told_by_name_and_the_others_made(source, tmp_path):
    whole = encode(tmp_path / "whole.mp4", frames=40, mux={"movflags": "+faststart"}).read_bytes()
    (source / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    (source / "text.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    (source / "empty.mkv").write_bytes(b"")
    (source / "dangling.mp4").symlink_to(source / "nowhere.mp4")
    (source / "itself.mp4").symlink_to(source / "itself.mp4")
    (source / "deep" / "loop").symlink_to(source)
    stills(source / "twins").joinpath("f0.jpg").write_bytes(b"x")
    mixed = stills(source / "mixed", 5, ((20, 30), (30, 20)))
    (mixed / "f2.png").write_bytes(b"")
    Image.new("P", (8, 8)).save(stills(source / "masks", 0) / "0.png")
    summary = prepare(source, tmp_path / "out", workers=3)
    reasons = {path.removeprefix(f"{source}/"): reason for path, reason in summary.failed.items()}
    assert reasons.keys() == {"text.mp4", "empty.mkv", "dangling.mp4", "itself.mp4", "twins"}
    assert "empty" in reasons["empty.mkv"] and "two files for one frame" in reasons["twins"]
    assert summary.left_out == {str(source / "masks"): "holds indexed pictures, which are masks"}
    found = tree(tmp_path / "out")
    assert found.keys() == {"a", "cut", "deep/b", "deep/frames", "mixed"}
    assert 0 < len(found["cut"]) < 40
    assert "frames" in summary.notes[str(source / "cut.mp4")]
    assert found["mixed"] == [name for name in jpgs(5) if name != "00002.jpg"]
    assert "1 of 5 frames cannot be decoded" in summary.notes[str(source / "mixed")]
    assert "differ in size" in summary.notes[str(source / "mixed")]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["failed"] == summary.failed
    (source / "text.mp4").unlink()
    encode(source / "text.mp4", frames=4)  # mended: made by the next call
    assert prepare(source, tmp_path / "out").made == 1


def test_damaged_frames_leave_a_gap_in_the_numbers(tmp_path):
    (tmp_path / "source").mkdir()
    path = encode(tmp_path / "source" / "film.mkv", "ffv1", frames=12, group=1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = b"\0" * 400
    path.write_bytes(data)
    summary = prepare(tmp_path / "source", tmp_path / "out")
    names = tree(tmp_path / "out")["film"]
    assert 0 < len(names) < 12 and "cannot be decoded" in summary.notes[str(path)]
    record = json.loads((tmp_path / "out" / "film" / RECORD).read_text())
    assert record["kept"] + record["damaged"] == record["frames"] and record["damaged"]
    assert len(names) == record["kept"] and int(names[-1][:5]) == record["frames"] - 1
    shown = [number(np.asarray(Image.open(tmp_path / "out" / "film" / name))) for name in names]
    assert shown == sorted(set(shown))


def test_nothing_at_all_to_prepare(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        prepare(tmp_path / "none", tmp_path / "out")
    (tmp_path / "source").mkdir()
    with pytest.raises(InputError, match="holds no videos or frame folders"):
        prepare(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "source" / "a.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of its 1 videos can be read \(.*a.mp4: is an empty file\)"):
        prepare(tmp_path / "source", tmp_path / "out")
    (tmp_path / "source" / "a.mp4").unlink()
    Image.new("P", (8, 8)).save(tmp_path / "source" / "0.png")
    with pytest.raises(InputError, match="holds indexed pictures, which are masks"):
        prepare(tmp_path / "source", tmp_path / "out")


def test_a_full_disk_leaves_whole_folders_and_no_rest(source, tmp_path, monkeypatch):
    left = [9]

    def full(self, *args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return save(self, *args, **options)

    save = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\); check the free space"):
        prepare(source, tmp_path / "out", workers=1)
    assert tree(tmp_path / "out") == {} and not (tmp_path / "out" / ".unfinished").exists()
    monkeypatch.undo()
    assert prepare(source, tmp_path / "out").made == 3


def test_options_out_of_range():
    for values in ({"size": 0}, {"every": 0}, {"format": "gif"}):
        with pytest.raises(UsageError):
            PrepareOptions(**values)


# --- killed at any time ---------------------------------------------------------------------------------------------

SLOWLY = """
import sys, time
from pathlib import Path
from vcorr.training.prepare import videos as prepare, frames as prepared

save = prepared._save
def slow(*args):
    time.sleep(0.01)
    save(*args)
prepared._save = slow
print("ready", flush=True)
prepare.prepare(Path(sys.argv[1]), Path(sys.argv[2]), workers=2, progress=lambda *n: print(n, flush=True))
"""


@pytest.mark.slow
def test_killed_at_any_time_and_run_again(tmp_path):
    """What is seen is whole each time, nothing is made twice, all comes in the end."""
    root, out = tmp_path / "source", tmp_path / "out"
    for k in range(14):
        stills(root / f"{k % 3}" / f"v{k:02d}", 8 + k)
    made: dict[str, int] = {}
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", SLOWLY, root, out], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        while line := process.stdout.readline():
            if int(line.strip("()\n").split(",")[0]) > len(made):  # in the midst of the next one
                time.sleep(0.02)
                break
        process.kill()
        process.communicate()
        for folder, names in tree(out).items():
            if not folder.startswith("."):
                assert names == jpgs(8 + int(folder[-2:]))
                born = (out / folder).stat().st_ino
                assert made.setdefault(folder, born) == born
    assert 0 < len(made) < 14
    summary = prepare(root, out)
    assert (summary.videos, summary.made) == (14, 14 - len(made))
    assert not (out / ".unfinished").exists()
    assert tree(out) == {f"{k % 3}/v{k:02d}": jpgs(8 + k) for k in range(14)}


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def vcorr(capsys, monkeypatch):
    def run(*args):
        monkeypatch.setattr(sys, "argv", ["vcorr", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


def test_the_command_and_its_exit_codes(vcorr, source, tmp_path):
    code, out, err = vcorr("prepare", source, tmp_path / "out", "--size", 48, "--every", 2)
    assert (code, out) == (0, f"3 videos, 12 frames in {tmp_path / 'out'} (0 were there)\n")
    assert "preparing 3/3" in err
    (source / "text.mp4").write_text("hello")
    code, out, err = vcorr("prepare", source, tmp_path / "out", "--size", 48, "--every", 2, "--json")
    assert code == 5 and f"{source / 'text.mp4'}: " in err
    summary = json.loads(out)
    assert (summary["videos"], summary["made"], list(summary["failed"])) == (3, 0, [str(source / "text.mp4")])
    code, _, err = vcorr("prepare", source, tmp_path / "out")
    assert code == 4 and "size 48 -> 480; every 2 -> 1" in err
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.mp4").write_text("hello")
    code, _, err = vcorr("prepare", tmp_path / "bad", tmp_path / "other")
    assert code == 3 and len(err.splitlines()) == 2  # the progress, and the reason
    assert vcorr("prepare", tmp_path / "none", tmp_path / "other")[0] == 3
    assert vcorr("prepare", source, tmp_path / "other", "--size", 0)[0] == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_stops_it_whole(vcorr, source, tmp_path, monkeypatch, number, code):
    save = prepared._save
    monkeypatch.setattr(prepared, "_save", lambda *args: (os.kill(os.getpid(), number), save(*args)))
    got, _, err = vcorr("prepare", source, tmp_path / "out", "--workers", 1)
    assert got == code and "run the same command to resume" in err
    assert not (tmp_path / "out" / ".unfinished").exists()
    monkeypatch.setattr(prepared, "_save", save)
    assert vcorr("prepare", source, tmp_path / "out")[0] == 0
