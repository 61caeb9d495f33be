"""The output folder: what it holds, whose it is, and that a stopped run goes on to the same bytes."""

from __future__ import annotations

import csv
import dataclasses
import gc
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.media.films import encode
from tests.toys import HEIGHT, WIDTH, model, save_mask, scene
from vcorr.errors import InputError, OutputError, UsageError
from vcorr.files import held
from vcorr.labels import mask_set
from vcorr.labels.masks import read_mask, write_mask
from vcorr.media.video import open_video
from vcorr.model.inference import Inference
from vcorr.model.weights import load_weights, save_tensors, save_weights
from vcorr.propagation import resume
from vcorr.propagation.run import Request, propagate_to


def files(out: Path) -> dict[str, bytes]:
    found = [*out.rglob("*.png"), *out.glob("confidence.csv")]
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(found)}


def cut_short(path: Path) -> None:
    """A picture that says its size, and does not decode."""
    path.write_bytes(path.read_bytes()[:70])


def test_the_folder(request_for: Callable[..., Request], mask: Path) -> None:
    lines: list[str] = []
    counts: list[tuple[int, int]] = []
    request = request_for()
    summary = propagate_to(request, say=lines.append, progress=lambda done, total: counts.append((done, total)))
    out = request.out
    results = ["confidence.csv", "frames.csv", "manifest.json", "masks", "overlay.mp4", "review.html"]
    assert sorted(p.name for p in out.iterdir()) == results
    assert sorted(p.name for p in (out / "masks").iterdir()) == [f"{k:05d}.png" for k in range(8)]
    np.testing.assert_array_equal(read_mask(out / "masks" / "00000.png").ids, read_mask(mask).ids)
    with open_video(out / "overlay.mp4") as video:
        assert (len(video), video.height, video.width) == (8, HEIGHT, WIDTH)
    rows = list(csv.DictReader((out / "frames.csv").read_text().splitlines()))
    assert [row["index"] for row in rows] == [str(k) for k in range(8)]
    assert float(rows[5]["seconds"]) == pytest.approx(5 / 25)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert manifest["objects"] == [1, 2]
    assert len(manifest["inputs"]["weights"]) == 64
    assert counts == [(k, 8) for k in range(1, 9)]
    assert any("8 frames of 64x48" in line and "2 objects" in line and "about" in line for line in lines)
    assert (summary.frames, summary.labelled_now) == (8, 8)


@pytest.mark.parametrize("stop_after", [1, 3, 7])
@pytest.mark.parametrize("labelled", ["first", "middle", "damaged", "repeated", "enlarged"])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    request_for: Callable[..., Request], frames: Path, tmp_path: Path, stop_after: int, labelled: str
) -> None:
    changes: dict[str, object] = {}
    if labelled == "damaged":
        for step in (3, 6):
            cut_short(frames / f"{step:05d}.png")
    if labelled == "repeated":
        for first, again in ((0, 1), (2, 3), (2, 4)):
            shutil.copy(frames / f"{first:05d}.png", frames / f"{again:05d}.png")
    if labelled == "enlarged":
        changes["read"] = ("zoom=1.0", "focus=4", "pieces=0.5", "follow=0.05")
    if labelled == "middle":  # then the run walks backwards first
        folder = tmp_path / "given"
        folder.mkdir()
        save_mask(folder / "3.png", scene(3)[1])
        changes["labels"] = folder
    whole, broken = request_for("whole", **changes), request_for("broken", **changes)
    propagate_to(whole)

    def interrupt(done: int, total: int) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        propagate_to(broken, progress=interrupt)
    assert json.loads((broken.out / "manifest.json").read_text())["complete"] is False
    counts: list[int] = []
    summary = propagate_to(broken, progress=lambda done, total: counts.append(done))
    assert files(broken.out) == files(whole.out)
    assert counts == list(range(stop_after + 1, 9))  # no frame is labelled twice
    assert summary.labelled_now == 8 - stop_after
    assert not (broken.out / resume.STATE).exists()


@pytest.mark.parametrize(
    ("stop_after", "killed"),
    [(1, True), (2, False), (4, True), (5, False), (6, True), (8, False), (9, True), (12, True), (12, False)],
)
def test_a_run_stopped_between_two_labelled_frames_goes_on_to_the_same_bytes(
    request_for: Callable[..., Request],
    frames: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
    killed: bool,
) -> None:
    """A killed one saves nothing at its end; frames 2 and 3 repeat frame 1."""
    for again in (2, 3):
        shutil.copy(frames / "00001.png", frames / f"{again:05d}.png")
    later = save_mask(tmp_path / "later.png", scene(6)[1])
    whole, broken = request_for("whole", at={6: later}), request_for("broken", at={6: later})
    propagate_to(whole)
    np.testing.assert_array_equal(read_mask(whole.out / "masks" / "00006.png").ids, scene(6)[1])
    stopped = False

    def save(*content: Any) -> None:
        if not (stopped and killed):
            save_tensors(*content)

    def stop(done: int, total: int) -> None:
        nonlocal stopped
        assert total == 5 + 6 + 2
        if done == stop_after:
            stopped = True
            raise KeyboardInterrupt

    monkeypatch.setattr(resume, "SAVE_EVERY", 2)
    monkeypatch.setattr(resume, "save_tensors", save)
    with pytest.raises(KeyboardInterrupt):
        propagate_to(broken, progress=stop)
    stopped = False
    counts: list[int] = []
    propagate_to(broken, progress=lambda done, total: counts.append(done))
    assert counts[0] <= stop_after + 1 and counts[-1] == 13
    if not killed:
        assert counts[0] == stop_after + 1
    assert files(broken.out) == files(whole.out)
    names = [sorted(p.relative_to(o).as_posix() for p in o.rglob("*")) for o in (whole.out, broken.out)]
    assert names[0] == names[1]


def test_what_waits_for_the_other_side_is_read_again_where_it_is_damaged(
    request_for: Callable[..., Request], tmp_path: Path
) -> None:
    later = save_mask(tmp_path / "later.png", scene(6)[1])
    whole, broken = request_for("whole", at={6: later}), request_for("broken", at={6: later})
    propagate_to(whole)

    def stop(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        propagate_to(broken, progress=stop)
    waiting = broken.out / resume.WAITING
    assert sorted(p.name for p in waiting.iterdir()) == [f"{k:05d}.npz" for k in range(1, 6)]
    (waiting / "00002.npz").unlink()
    (waiting / "00004.npz").write_bytes((waiting / "00004.npz").read_bytes()[:-40])
    propagate_to(broken)
    assert files(broken.out) == files(whole.out)
    assert not waiting.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("bad", "told"), [(6, "1 damaged frame"), (0, "damaged"), (11, "1 damaged frame")])
def test_a_damaged_film_stopped_anywhere_is_labelled_as_if_it_had_not_been(
    request_for: Callable[..., Request], tmp_path: Path, bad: int, told: str
) -> None:
    """Within a group of frames, at its key frame, at the end; a stopped run tells of the damage once it is done."""
    film = encode(tmp_path / "film.mp4", frames=12, size=(HEIGHT, WIDTH), group=5)
    with av.open(str(film)) as container:
        packets = sorted((p.pts, p.pos, p.size) for p in container.demux(video=0) if p.size)
    content, (_, start, size) = bytearray(film.read_bytes()), packets[bad]
    content[start : start + size] = bytes(size)
    film.write_bytes(content)

    def label(out: str, stop_after: int = 0) -> tuple[dict[str, bytes], list[str]]:
        request, lines = request_for(out, video=str(film)), []

        def interrupt(done: int, total: int) -> None:
            if done == stop_after:
                raise KeyboardInterrupt

        if stop_after:
            with pytest.raises(KeyboardInterrupt):
                propagate_to(request, progress=interrupt)
        propagate_to(request, say=lines.append)
        return files(request.out), [line for line in lines if "damaged" in line]

    whole = label("whole")
    assert any(told in line and str(bad) in line for line in whole[1])
    for stop_after in (1, 7, 11):
        assert label(f"stopped{stop_after}", stop_after) == whole


def test_other_conditions_are_said_and_noted(request_for: Callable[..., Request]) -> None:
    request = request_for()

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        propagate_to(request, progress=interrupt)
    path = request.out / "manifest.json"
    manifest = json.loads(path.read_text())
    here = manifest["machine"]
    there = here | {"processor": "an old CPU, SSE", "threads": 7}
    path.write_text(json.dumps(manifest | {"machine": there}))
    lines: list[str] = []
    propagate_to(request, say=lines.append)
    said = (
        f"processor: an old CPU, SSE before, {here['processor']} now; the last bits will differ from an unbroken run's"
    )
    assert said in lines and any(line.startswith(f"threads: 7 before, {here['threads']} now") for line in lines)
    assert json.loads(path.read_text())["machine"] == here | {"earlier": [there]}
    (request.out / "overlay.mp4").unlink()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": there}))
    lines.clear()
    propagate_to(request, say=lines.append)  # the masks are left as they were made
    assert not any("before, " in line for line in lines)
    assert json.loads(path.read_text())["machine"] == there


def test_a_labelled_frame_that_is_damaged_has_the_picture_beside_it(
    request_for: Callable[..., Request], frames: Path, tmp_path: Path
) -> None:
    cut_short(frames / "00000.png")
    cut_short(frames / "00004.png")
    request = request_for(at={4: save_mask(tmp_path / "later.png", scene(4)[1])})
    lines: list[str] = []
    assert propagate_to(request, say=lines.append).labelled_now == 8
    assert "labelled and damaged: 0;" in lines[2]  # after the masks, before the work
    assert "2 damaged frames took the picture beside them: 0, 4" in lines
    assert any("labelled and damaged: 4;" in line for line in lines)


@pytest.mark.parametrize("left", [["masks"], [".manifest.7.part.json"], ["masks", "manifest.json.part"], [".DS_Store"]])
def test_a_folder_that_nobody_works_in_is_taken(request_for: Callable[..., Request], left: list[str]) -> None:
    """What a process killed in its first moments leaves, and what file managers write."""
    request = request_for()
    request.out.mkdir()
    for name in left:
        (request.out / name).mkdir() if name == "masks" else (request.out / name).write_bytes(b"{")
    assert propagate_to(request).labelled_now == 8
    assert not (request.out / ".manifest.7.part.json").exists()


def test_what_a_kill_left_half_written_is_cleared_away(request_for: Callable[..., Request]) -> None:
    request = request_for()
    whole = request_for("whole")
    propagate_to(request)
    propagate_to(whole)
    manifest = json.loads((request.out / "manifest.json").read_text())
    (request.out / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    for name in (
        ".frames.77.part.csv",
        "..resume.77.part.safetensors",
        ".overlay.77.part.mp4",
        "masks/.00002.77.part.png",
    ):
        (request.out / name).write_bytes(b"half a f")
    assert propagate_to(request).labelled_now == 0
    names = [sorted(p.relative_to(out).as_posix() for p in out.rglob("*")) for out in (request.out, whole.out)]
    assert names[0] == names[1]


def test_two_processes_do_not_work_in_one_folder(request_for: Callable[..., Request]) -> None:
    request = request_for()
    with (
        held(request.out),
        pytest.raises(OutputError, match=f"another process works in it .*{os.getpid()} on ") as told,
    ):
        propagate_to(request)
    assert told.value.where == str(request.out)
    assert propagate_to(request).labelled_now == 8


def test_a_full_disk_is_one_error(request_for: Callable[..., Request], monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask that cannot be written is told; that the state cannot either is no second error (nor a warning)."""
    request, whole = request_for(), request_for("whole")
    propagate_to(whole)

    used_up = False

    def limited(write: Callable[..., None], path: Path, *content: object) -> None:
        nonlocal used_up
        used_up |= path.stem == "00005"
        if used_up:
            raise OutputError(path, "cannot be written (No space left on device)", "check the free space")
        write(path, *content)

    with monkeypatch.context() as patch:
        patch.setattr(mask_set, "write_mask", partial(limited, write_mask))
        patch.setattr("vcorr.propagation.resume.save_tensors", partial(limited, save_tensors))
        with pytest.raises(OutputError, match=r"00005\.png: cannot be written"):
            propagate_to(request)
        gc.collect()  # a generator that fails at its end does so here, as a warning
    propagate_to(request)
    assert files(request.out) == files(whole.out)


def test_what_is_missing_of_a_complete_folder_is_made_again(request_for: Callable[..., Request]) -> None:
    request, whole = request_for(), request_for("whole")
    propagate_to(request)
    propagate_to(whole)
    masks = request.out / "masks"
    (masks / "00003.png").unlink()
    (masks / "00004.png").write_bytes(b"")
    cut = (masks / "00005.png").read_bytes()[:-5]
    (masks / "00005.png").write_bytes(cut)
    damaged = bytearray((masks / "00007.png").read_bytes())
    damaged[-40] ^= 1
    (masks / "00007.png").write_bytes(damaged)
    (request.out / "overlay.mp4").unlink()
    (request.out / "frames.csv").unlink()
    kept = (masks / "00006.png").stat().st_mtime_ns
    lines: list[str] = []
    assert propagate_to(request, say=lines.append).overlay
    assert any("labels of 4 frames are missing or damaged, and are made again: 3 to 5, 7" in line for line in lines)
    assert files(request.out) == files(whole.out)
    assert (masks / "00006.png").stat().st_mtime_ns == kept
    assert (request.out / "overlay.mp4").stat().st_size and (request.out / "frames.csv").exists()
    assert json.loads((request.out / "manifest.json").read_text())["complete"] is True


@pytest.mark.parametrize("name", ["overlay.mp4", "frames.csv"])
def test_what_is_cut_short_of_a_complete_folder_is_made_again(request_for: Callable[..., Request], name: str) -> None:
    request = request_for()
    propagate_to(request)
    path = request.out / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert propagate_to(request).labelled_now == 0
    assert len(path.read_bytes()) == len(whole)


def test_a_mask_that_was_edited_in_its_place_is_kept(request_for: Callable[..., Request]) -> None:
    """Though no overlay can be drawn with it, as programs save it in colour."""
    request = request_for()
    propagate_to(request)
    edited = request.out / "masks" / "00003.png"
    Image.open(edited).convert("RGB").save(edited)
    (request.out / "overlay.mp4").unlink()
    before, lines = files(request.out), list[str]()
    assert not propagate_to(request, say=lines.append).overlay
    assert any("there is no overlay" in line and "00003.png" in line for line in lines)
    assert files(request.out) == before
    assert json.loads((request.out / "manifest.json").read_text())["complete"] is True


def test_a_file_in_the_place_of_the_masks_is_told(request_for: Callable[..., Request]) -> None:
    request = request_for()
    propagate_to(request)
    (request.out / "masks").rename(request.out.with_name("moved"))
    (request.out / "masks").write_text("")
    with pytest.raises(OutputError, match=r"masks: cannot be made"):
        propagate_to(request)


def test_only_the_walk_of_a_missing_mask_is_gone_through(request_for: Callable[..., Request], tmp_path: Path) -> None:
    request = request_for(at={5: save_mask(tmp_path / "later.png", scene(5)[1])})
    propagate_to(request)
    before = files(request.out)
    (request.out / "masks" / "00006.png").unlink()
    assert propagate_to(request).labelled_now == 3  # frames 5 to 7
    assert files(request.out) == before
    (request.out / "masks" / "00002.png").unlink()
    counts: list[tuple[int, int]] = []
    summary = propagate_to(request, progress=lambda done, total: counts.append((done, total)))
    assert summary.labelled_now == 5 and counts == [(k, 12) for k in range(4, 13)]  # 4 steps back, 5 forth
    assert files(request.out) == before
    (request.out / "overlay.mp4").write_bytes(b"")
    assert propagate_to(request).labelled_now == 0
    assert (request.out / "overlay.mp4").stat().st_size
    (request.out / "frames.csv").unlink()
    assert propagate_to(request).labelled_now == 0
    assert (request.out / "frames.csv").stat().st_size


def test_a_video_that_no_overlay_holds_is_labelled_all_the_same(
    request_for: Callable[..., Request], tmp_path: Path
) -> None:
    """H.264 ends at 16384 pixels."""
    ids = np.zeros((16, 17000), np.uint8)
    ids[4:12, 100:300] = 1
    (tmp_path / "long").mkdir()
    for k in range(2):
        Image.fromarray(ids * np.uint8(200)).save(tmp_path / "long" / f"{k}.png")
    request = request_for(video=str(tmp_path / "long"), labels=save_mask(tmp_path / "long.png", ids))
    for labelled in (2, 0):
        lines: list[str] = []
        summary = propagate_to(request, say=lines.append)
        assert (summary.overlay, summary.labelled_now) == (False, labelled)
        why = "(frames of 17000x16, but H.264 ends at 16384 pixels a side)"
        assert any("there is no overlay: " in line and why in line for line in lines)
        assert json.loads((request.out / "manifest.json").read_text())["complete"] is True
    assert not list(request.out.glob("*overlay*"))


def test_a_damaged_state_starts_over(request_for: Callable[..., Request]) -> None:
    request = request_for()

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        propagate_to(request, progress=interrupt)
    (request.out / resume.STATE).write_bytes(b"half a fi")
    assert propagate_to(request).labelled_now == 8


def test_a_complete_folder_is_left_alone(request_for: Callable[..., Request]) -> None:
    request = request_for()
    propagate_to(request)
    before = {p: p.stat().st_mtime_ns for p in request.out.rglob("*")}
    lines: list[str] = []
    assert propagate_to(request, say=lines.append).labelled_now == 0
    assert "complete already" in lines[-1]
    assert {p: p.stat().st_mtime_ns for p in request.out.rglob("*")} == before


@pytest.mark.parametrize(
    ("changes", "named"), [({"end": 5}, "options.end 8 -> 5"), ({"short_side": 32}, "options.size 480 -> 32")]
)
def test_another_request_is_refused(
    request_for: Callable[..., Request], changes: dict[str, object], named: str
) -> None:
    request = request_for()
    propagate_to(request)
    before = files(request.out)
    with pytest.raises(OutputError, match=named):
        propagate_to(request_for(**changes))
    assert files(request.out) == before


def test_other_inputs_are_refused(request_for: Callable[..., Request], tmp_path: Path) -> None:
    propagate_to(request_for())
    other = save_mask(tmp_path / "other.png", np.where(scene(0)[1] == 1, 1, 0).astype(np.uint8))
    with pytest.raises(OutputError, match=r"inputs\.labels\.0"):
        propagate_to(request_for(labels=other))


def test_a_folder_of_something_else_is_refused(request_for: Callable[..., Request]) -> None:
    request = request_for()
    request.out.mkdir()
    (request.out / "thesis.txt").write_text("all of it")
    with pytest.raises(OutputError, match="holds no results"):
        propagate_to(request)
    assert [p.name for p in request.out.iterdir()] == ["thesis.txt"]
    (request.out / "manifest.json").write_text('{"inputs":')
    with pytest.raises(OutputError, match="is damaged"):
        propagate_to(request)


def test_bad_input_leaves_no_folder(request_for: Callable[..., Request], tmp_path: Path) -> None:
    empty = save_mask(tmp_path / "empty.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(InputError, match="no object"):
        propagate_to(request_for(labels=empty))
    assert not (tmp_path / "out").exists()


def test_a_request_from_python_is_checked_as_one_of_the_command(request_for: Callable[..., Request]) -> None:
    for changes, words in [
        ({"short_side": 0}, "--size 0: is too small"),
        ({"device": "abacus"}, "--device abacus"),
        ({"device": "meta"}, "--device meta"),
        ({"named_by": "name"}, "--named-by name"),
        ({"kind": "mask"}, "--kind mask: is not known; give masks or keypoints"),
        ({"named_by": "frame"}, "--named-by frame.* is the mask of frame 0"),
        ({"at": {5: Path("x.png")}, "end": 4}, "frames 0 to 3 are labelled"),
    ]:
        with pytest.raises(UsageError, match=words):
            propagate_to(request_for(**changes))
    assert not request_for().out.exists()
    request = request_for(device="auto")
    propagate_to(request)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert json.loads((request.out / "manifest.json").read_text())["options"]["device"] == device


def test_masks_outside_the_range_are_told(request_for: Callable[..., Request], tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    for k in (0, 3, 7):
        save_mask(tmp_path / "given" / f"{k}.png", scene(k)[1])
    lines: list[str] = []
    propagate_to(request_for(labels=tmp_path / "given", start=2, end=6), say=lines.append)
    assert "labels of frames 0, 7 are not used: frames 2 to 5 are labelled" in lines


def test_a_reader_beyond_the_taps_present(request_for: Callable[..., Request], weights: Path) -> None:
    loaded = load_weights(weights)
    save_weights(weights, dataclasses.replace(loaded, inference=Inference(radius=1, top_k=1000)))
    assert propagate_to(request_for()).labelled_now == 8


def test_more_than_255_ids_are_written_in_16_bits(request_for: Callable[..., Request], tmp_path: Path) -> None:
    ids = scene(0)[1].astype(np.uint16) * 200
    path = tmp_path / "deep.png"
    Image.fromarray(ids).save(path)
    request = request_for(labels=path, end=3)
    propagate_to(request)
    written = np.asarray(Image.open(request.out / "masks" / "00000.png"))
    np.testing.assert_array_equal(written, ids)
    assert set(np.unique(np.asarray(Image.open(request.out / "masks" / "00002.png")))) <= {0, 200, 400}


POINTS = "frame,point,x,y\n0,red,11.5,15.5\n0,blue,47.5,35.5\n0,unseen,,\n"


@pytest.fixture
def sharp(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours as the features of whatever weights are given, so that points can be found again."""
    monkeypatch.setattr("vcorr.propagation.run.Model.of", lambda weights, device: model())


def test_keypoints_follow_what_moves(request_for: Callable[..., Request], tmp_path: Path, sharp: None) -> None:
    (tmp_path / "points.csv").write_text(POINTS)
    request = request_for(labels=tmp_path / "points.csv")
    summary = propagate_to(request)
    out = request.out
    assert (summary.kind, summary.labels) == ("keypoints", out / "keypoints.csv")
    assert sorted(p.name for p in out.iterdir()) == [
        *["frames.csv", "keypoints.csv", "manifest.json", "overlay.mp4", "review.html"]
    ]
    rows = list(csv.reader((out / "keypoints.csv").read_text().splitlines()))
    assert rows[:4] == [
        ["frame", "point", "x", "y", "confidence"],
        ["0", "red", "11.5", "15.5", "1.0"],
        ["0", "blue", "47.5", "35.5", "1.0"],
        ["0", "unseen", "", "", "0.0"],
    ]
    assert [row[0] for row in rows[1:]] == [str(k) for k in range(8) for _ in range(3)]
    for frame, name, x, y, _ in rows[4:]:
        if name == "unseen":
            assert (x, y) == ("", "")
        else:
            step = 2 * int(frame) * (1 if name == "red" else -1)
            wanted = (11.5 + step, 15.5) if name == "red" else (47.5 + step, 35.5)
            assert (float(x), float(y)) == pytest.approx(wanted, abs=4)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["objects"] == ["red", "blue", "unseen"]
    with open_video(out / "overlay.mp4") as video:
        assert len(video) == 8
    before = (out / "keypoints.csv").read_bytes()
    assert propagate_to(request).labelled_now == 0
    (tmp_path / "points.csv").write_text(POINTS.replace("11.5", "11.25"))
    with pytest.raises(OutputError, match="holds the results of another run"):
        propagate_to(request)
    assert (out / "keypoints.csv").read_bytes() == before


@pytest.mark.parametrize("torn", [False, True])
def test_stopped_keypoints_go_on_to_the_same_bytes(
    request_for: Callable[..., Request], tmp_path: Path, sharp: None, torn: bool
) -> None:
    (tmp_path / "points.csv").write_text(POINTS.replace("\n0,", "\n3,"))  # then the run goes backwards first
    whole, request = request_for("whole", labels=tmp_path / "points.csv"), request_for(labels=tmp_path / "points.csv")
    propagate_to(whole)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        propagate_to(request, progress=stop)
    assert not (request.out / "keypoints.csv").exists()
    journal = request.out / ".keypoints.csv"
    assert journal.read_text().count("\n") == 15
    if torn:
        journal.write_text(journal.read_text()[:-5])
    assert (propagate_to(request).labelled_now > 3) == torn
    assert (request.out / "keypoints.csv").read_bytes() == (whole.out / "keypoints.csv").read_bytes()
    assert not journal.exists()
    table = request.out / "keypoints.csv"
    table.write_text(table.read_text().replace("\n6,blue", "\n6,bl"))
    assert propagate_to(request).labelled_now > 0
    assert table.read_bytes() == (whole.out / "keypoints.csv").read_bytes()


def test_a_point_that_leaves_the_frame_is_lost(
    tmp_path: Path, request_for: Callable[..., Request], sharp: None
) -> None:
    folder = tmp_path / "leaves"
    folder.mkdir()
    for step in range(8):
        picture = np.full((HEIGHT, WIDTH, 3), (30, 160, 60), np.uint8)
        left = 30 + 6 * step
        picture[16:32, left : left + 10] = 200, 30, 40
        Image.fromarray(picture).save(folder / f"{step:05d}.png")
    (tmp_path / "points.csv").write_text("frame,point,x,y\n0,red,34.5,23.5\n")
    request = request_for(video=str(folder), labels=tmp_path / "points.csv")
    propagate_to(request)
    rows = list(csv.reader((request.out / "keypoints.csv").read_text().splitlines()))[1:]
    assert all(float(row[4]) > 0.5 for row in rows[:4])
    assert all(row[2] == "" and float(row[4]) < 0.1 for row in rows[6:]), rows
