"""Sequences labelled in processes: stopped at once, gone with the caller, and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.toys import save_mask, scene
from vcorr.errors import InputError, OutputError
from vcorr.evaluation.pool import WorkerLost, outcomes
from vcorr.evaluation.sequences import label_sequences, trained
from vcorr.files import held

posix = pytest.mark.skipif(os.name != "posix", reason="process groups and signals")


def data_set(root: Path, frames: int) -> Path:
    """Three sequences in DAVIS's layout; beyond the first frames, links."""
    for name in "abc":
        images, masks = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for k in range(frames):
            file = images / f"{k:05d}.png"
            Image.fromarray(scene(k)[0]).save(file) if k < 8 else os.link(images / f"{k % 8:05d}.png", file)
        for k in range(4):
            save_mask(masks / f"{k:05d}.png", scene(k)[1])
    return root


def written(out: Path) -> list[Path]:
    return sorted(out.glob("*/*.png"))


@pytest.fixture
def labelling(tmp_path: Path, weights: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that labels far more frames than there is time for, caught at work in two processes."""
    root, out = data_set(tmp_path / "root", 1000), tmp_path / "out"
    command = [sys.executable, "-m", "vcorr", "evaluate", "davis", "--root", root, "--weights", weights, "--out", out]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*map(str, command), "--workers", "2"], start_new_session=True, **pipes) as process:
        try:
            while len({path.parent for path in written(out)}) < 2:
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):  # whatever is left of the group
                try:
                    os.killpg(process.pid, number)
                except ProcessLookupError:
                    break


def is_quiet(out: Path) -> bool:
    """Whether nobody writes there any more."""
    before = written(out)
    time.sleep(1)
    return written(out) == before


@pytest.mark.slow
@posix
def test_an_interrupt_ends_the_labelling_at_once_and_in_one_line(labelling, tmp_path) -> None:
    os.killpg(labelling.pid, signal.SIGINT)  # as a terminal does
    _, errors = labelling.communicate(timeout=100)
    assert labelling.returncode == 130, errors
    assert len(errors.splitlines()) == 1 and "run the same command to resume" in errors
    assert is_quiet(tmp_path / "out")
    with held(tmp_path / "out"):
        pass


@pytest.mark.slow
@posix
def test_the_processes_do_not_outlive_the_caller(labelling, tmp_path) -> None:
    labelling.kill()
    labelling.wait()
    time.sleep(1)
    assert is_quiet(tmp_path / "out")


def test_a_result_that_is_no_longer_whole_is_made_again(tmp_path, weights) -> None:
    root, out = data_set(tmp_path / "root", 5), tmp_path / "out"
    model, about = trained(weights)
    assert [done.frames for done in label_sequences(root, out, model, about, workers=1)] == [5, 5, 5]
    before = {path: path.read_bytes() for path in written(out)}
    (out / "b/00003.png").write_bytes(b"")
    (out / "c/00002.png").write_bytes((out / "c/00002.png").read_bytes()[:-1])
    again = label_sequences(root, out, model, about, workers=1)
    assert {done.name for done in again if done.seconds} == {"b", "c"}
    assert {path: path.read_bytes() for path in written(out)} == before
    (out / "made_by.json").unlink()
    with pytest.raises(OutputError, match="is not empty and holds no labelled sequences"):
        list(label_sequences(root, out, model, about, workers=1))


def test_damaged_frames_are_told(tmp_path, weights) -> None:
    root = data_set(tmp_path / "root", 5)
    frame = root / "JPEGImages/480p/b/00002.png"
    frame.write_bytes(frame.read_bytes()[:70])
    told = {done.name: done.damaged for done in label_sequences(root, tmp_path / "out", *trained(weights), workers=1)}
    assert told == {"a": (), "b": (2,), "c": ()}


def test_what_cannot_be_labelled_is_refused_before_anything_is(tmp_path, weights) -> None:
    root, out = data_set(tmp_path / "root", 5), tmp_path / "out"
    save_mask(root / "Annotations/480p/c/00000.png", np.ones((8, 8), np.uint8))
    with pytest.raises(InputError, match="8x8 pixels where 64x48 are wanted"):
        list(label_sequences(root, out, *trained(weights), workers=1))
    Image.fromarray(np.full((48, 64), 255, np.uint8)).save(root / "Annotations/480p/c/00000.png")
    with pytest.raises(InputError, match="no object in the first annotation"):
        list(label_sequences(root, out, *trained(weights), workers=1))
    assert not out.exists()


def test_one_process_at_a_time_labels_into_a_folder(tmp_path, weights) -> None:
    root, out = data_set(tmp_path / "root", 5), tmp_path / "out"
    with held(out), pytest.raises(OutputError, match="another process works in it"):
        list(label_sequences(root, out, *trained(weights), workers=1))


def dies(job: int) -> int:
    os._exit(9) if job == 1 else time.sleep(0.01)
    return job


@pytest.mark.slow
def test_a_process_that_is_killed_is_told(tmp_path) -> None:
    with pytest.raises(WorkerLost, match=r"one of 2 processes was killed, .*; give fewer --workers"):
        list(outcomes(dies, [0, 1, 2], 2))
