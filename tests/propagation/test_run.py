"""The output folder: what it holds, whose it is, and that a stopped run goes on to the same bytes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.toys import HEIGHT, WIDTH, save_mask, scene
from vcorr.errors import InputError, OutputError
from vcorr.labels.masks import read_mask
from vcorr.media.video import open_video
from vcorr.propagation import run as results
from vcorr.propagation.run import Request, propagate_to


@pytest.fixture
def request_for(frames: Path, mask: Path, weights: Path, tmp_path: Path) -> Callable[..., Request]:
    def make(out: str = "out", **changes: object) -> Request:
        given: dict[str, object] = {"video": str(frames), "labels": mask, "out": tmp_path / out, "weights": weights}
        return Request(**(given | changes))  # type: ignore[arg-type]

    return make


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.png"))}


def test_the_folder(request_for: Callable[..., Request], mask: Path) -> None:
    lines: list[str] = []
    counts: list[tuple[int, int]] = []
    request = request_for()
    summary = propagate_to(request, say=lines.append, progress=lambda done, total: counts.append((done, total)))
    out = request.out
    assert sorted(p.name for p in out.iterdir()) == ["frames.csv", "manifest.json", "masks", "overlay.mp4"]
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


@pytest.mark.parametrize("stop_after", [1, 2, 6, 7])
@pytest.mark.parametrize("labelled", ["first", "middle"])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    request_for: Callable[..., Request], tmp_path: Path, stop_after: int, labelled: str
) -> None:
    changes: dict[str, object] = {}
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
    # the frame in hand when it was stopped is labelled again, no other
    assert counts[0] == stop_after
    assert summary.labelled_now == 8 - stop_after + 1
    assert not (broken.out / results.STATE).exists()


def test_a_damaged_state_starts_over(request_for: Callable[..., Request]) -> None:
    request = request_for()

    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        propagate_to(request, progress=interrupt)
    (request.out / results.STATE).write_bytes(b"half a fi")
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


def test_more_than_255_ids_are_written_in_16_bits(request_for: Callable[..., Request], tmp_path: Path) -> None:
    from PIL import Image

    ids = scene(0)[1].astype(np.uint16) * 200
    path = tmp_path / "deep.png"
    Image.fromarray(ids).save(path)
    request = request_for(labels=path, end=3)
    propagate_to(request)
    written = np.asarray(Image.open(request.out / "masks" / "00000.png"))
    np.testing.assert_array_equal(written, ids)
    assert set(np.unique(np.asarray(Image.open(request.out / "masks" / "00002.png")))) <= {0, 200, 400}
