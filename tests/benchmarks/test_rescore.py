"""Made-up sets in the official layouts are read and scored, and a second implementation finds the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import made_up_sets, rescore
from vcorr.evaluation.davis import evaluate_davis
from vcorr.evaluation.vip import evaluate_vip
from vcorr.evaluation.youtube_vos import evaluate_youtube_vos

ROOT = Path(__file__).parents[2]


def made(name: str, tmp_path: Path) -> tuple[Path, Path]:
    made_up_sets.SETS[name](tmp_path / "root", tmp_path / "pred", np.random.default_rng(0))
    return tmp_path / "root", tmp_path / "pred"


def test_davis(tmp_path: Path) -> None:
    root, pred = made("davis", tmp_path)
    # Of frames 1 to 6 three are a pixel off: of a box of 15 columns 14 of 16 are shared.
    assert evaluate_davis(root, pred, workers=1).overall.j.mean == pytest.approx((3 + 3 * 14 / 16) / 6)
    for k in range(made_up_sets.COUNT):  # empty, full, one pixel
        ids = np.zeros(made_up_sets.SIZE, np.uint8)
        ids[: (0, 48, 1)[k % 3], : (0, 64, 1)[k % 3]] = 1
        Image.fromarray(ids).save(pred / f"slide/{k:05d}.png")
    ours, theirs = rescore.davis(root, pred)
    assert ours == pytest.approx(theirs, abs=1e-6) and len(ours) == 2 * 2 * 6 + 1
    ours, theirs = rescore.masks(root, pred)
    assert ours == pytest.approx(theirs, abs=1e-6) and ours.keys() == {"slide", "fall", "mIoU"}


def test_what_propagate_wrote_of_one_video(tmp_path: Path) -> None:
    root, pred = made("davis", tmp_path)
    (tmp_path / "out").mkdir()
    (pred / "slide").rename(tmp_path / "out/masks")
    ours, theirs = rescore.davis(root, tmp_path / "out", ["slide"])
    assert ours == pytest.approx(theirs, abs=1e-6) and len(ours) == 2 * 6 + 1
    ours, theirs = rescore.masks(root / "Annotations/480p/slide", tmp_path / "out")
    assert ours == pytest.approx(theirs, abs=1e-6) and ours.keys() == {"slide", "mIoU"}


def test_youtube_vos(tmp_path: Path) -> None:
    scores = evaluate_youtube_vos(*made("youtube-vos", tmp_path), workers=1)
    seen, unseen = scores.group(True), scores.group(False)
    assert seen is not None and unseen is not None
    assert seen.j.mean == pytest.approx((3 + 4 * 14 / 16) / 7)  # frames 1 to 7
    assert unseen.j.mean == pytest.approx((2 + 2 * 14 / 16) / 4)  # frames 4 to 7


def test_vip(tmp_path: Path) -> None:
    scores = evaluate_vip(*made("vip", tmp_path), workers=1)
    face = (180 + 168 + 180 + 168) / (180 + 192 + 180 + 192)  # 12 x 15 pixels; frames 1 and 3 are a pixel off
    assert dict((name, iou) for name, iou, _ in scores.rows())["face"] == f"{100 * face:.1f}"


def test_jhmdb(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    from vcorr.evaluation.jhmdb import evaluate_jhmdb

    scores = evaluate_jhmdb(*made("jhmdb", tmp_path))  # a box of 30 x 28: limits 2.46 and 3 for a joint that is 3 off
    assert scores.pck(0.1, "instance") == pytest.approx(3 / 7) and scores.pck(0.2, "max") == 1


def test_points(tmp_path: Path) -> None:
    rows = ["frame,point,x,y", *(f"{k},{name},{x},{x}" for k in range(3) for name, x in (("a", 0), ("b", 10)))]
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    (tmp_path / "pred.csv").write_text("\n".join([*rows[:-2], "2,a,1,0", "2,b,,"]))  # one near, one lost
    ours, theirs = rescore.keypoints(tmp_path / "truth.csv", tmp_path / "pred.csv")
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert (ours["a pck_max@0.1"], ours["b pck_max@0.1"], ours["pck_max@0.1"]) == (1, 0.5, 0.75)


@pytest.mark.slow
def test_the_commands(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.made_up_sets", str(tmp_path / "sets")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 4
    davis = [str(tmp_path / "sets" / name) for name in ("davis", "results/davis")]
    command = [sys.executable, "-m", "benchmarks.rescore", "davis", *davis]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "25 numbers, largest difference" in done.stdout
