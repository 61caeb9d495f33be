"""PCK of JHMDB and of any keypoint files: values worked out by hand, what is refused, and labelling."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.toys import model, scene
from vcorr.cli import app
from vcorr.errors import InputError, UsageError
from vcorr.evaluation import sequences
from vcorr.evaluation.jhmdb import JOINTS, clips, evaluate_jhmdb, read_joints, tasks
from vcorr.evaluation.keypoints import evaluate_keypoints

scipy_io = pytest.importorskip("scipy.io")


def table(path: Path, xy: np.ndarray, names=JOINTS, first: int = 0) -> Path:
    """Points [t n 2] as a table of ours; NaN is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ["frame,point,x,y,confidence"]
    for t, frame in enumerate(xy, start=first):
        for name, (x, y) in zip(names, frame, strict=True):
            rows.append(f"{t},{name},,,0" if np.isnan(x) else f"{t},{name},{x},{y},1")
    path.write_text("\n".join(rows) + "\n")
    return path


def joints(path: Path, xy: np.ndarray) -> Path:
    """Points [t 15 2] from 0, as JHMDB writes them: from 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy_io.savemat(path, {"pos_img": xy.transpose(2, 1, 0) + 1, "scale": 1.0})
    return path


def grid(frames: int) -> np.ndarray:
    """Fifteen joints in a box of 30 x 40 pixels, the same in all frames: instance 30, max 40."""
    one = np.stack([np.linspace(10, 40, 15), np.linspace(20, 60, 15)], -1)
    return np.repeat(one[None], frames, 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for action, name in (("golf", "tee"), ("run", "dash"), ("run", "jog")):
        joints(root / f"joint_positions/{action}/{name}/joint_positions.mat", grid(3))
    (root / "splits").mkdir()
    (root / "splits/golf_test_split1.txt").write_text("tee.avi 2\n")
    (root / "splits/run_test_split1.txt").write_text("dash.avi 1\njog.avi 2\n")
    return root


def test_pck_by_hand(root, tmp_path) -> None:
    assert [(c.action, c.name) for c in clips(root)] == [("golf", "tee"), ("run", "jog")]
    found = grid(3)
    found[0] = 1e6  # frame 0 does not count
    found[1, 0, 0] += 3.5  # right by the larger side alone at 0.1
    found[2, 1] = np.nan  # passed over; the box stays, since others reach as far
    table(tmp_path / "pred/golf/tee.csv", np.minimum(found, 300))
    table(tmp_path / "pred/jog/keypoints.csv", grid(3))
    scores = evaluate_jhmdb(root, tmp_path / "pred")
    assert scores.counted == [4, 3, *[4] * 13]
    assert scores.pck(0.1, "instance") == pytest.approx((3 / 4 + 14) / 15)
    assert scores.pck(0.1, "max") == scores.pck(0.2, "instance") == 1
    told = json.loads(json.dumps(scores.to_json()))
    assert told["pck_instance@0.1"] == scores.pck(0.1, "instance") and told["points"][0]["counted"] == 4
    assert [v["frames"] for v in told["videos"]] == [2, 2]
    assert scores.rows()[0] == ("neck", "4", "75.0", "100.0", "100.0", "100.0")
    assert {len(row) for row in [*scores.rows(), scores.columns]} == {6} and len(scores.csv()) == 1 + 2 * 15


def test_a_pixel_off_by_one_is_seen(root) -> None:
    assert read_joints(clips(root)[0].joints)[0, 0].tolist() == [10, 20]


def test_lists_of_other_codes(root, tmp_path) -> None:
    listed = tmp_path / "list"
    listed.write_text(f"{root}/Rename_Images/run/dash {root}/joint_positions/run/dash/joint_positions.mat\n")
    assert [(c.action, c.name) for c in clips(root, listed=listed)] == [("run", "dash")]
    listed.write_text("one\n")
    with pytest.raises(InputError, match=r"list: line 1 is not a folder of images and a .mat file"):
        clips(root, listed=listed)


def test_odd_sets_and_results_are_refused(root, tmp_path) -> None:
    pred = tmp_path / "pred"
    with pytest.raises(InputError, match=r"pred/tee/keypoints.csv: no such file"):
        evaluate_jhmdb(root, pred)
    table(pred / "tee.csv", grid(2))
    with pytest.raises(InputError, match=r"tee.csv: has nothing of frame 2, 1 of 2 frames are missing"):
        evaluate_jhmdb(root, pred)
    table(pred / "tee.csv", grid(3), names=["nose", *JOINTS[1:]])
    with pytest.raises(InputError, match=r"tee.csv: names a point nose, which is none of neck"):
        evaluate_jhmdb(root, pred)
    table(pred / "golf/tee.csv", grid(3))
    with pytest.raises(InputError, match=r"golf/tee.csv: a second file of results of tee"):
        evaluate_jhmdb(root, pred)
    mat = root / "joint_positions/golf/tee/joint_positions.mat"
    scipy_io.savemat(mat, {"pos_img": np.zeros((2, 14, 3))})
    with pytest.raises(InputError, match=r"joint_positions.mat: pos_img is 2x14x3, not 2x15xframes"):
        read_joints(mat)
    scipy_io.savemat(mat, {"pos_world": np.zeros((2, 15, 3))})
    with pytest.raises(InputError, match="holds no pos_img"):
        read_joints(mat)
    mat.write_bytes(b"no matrix")
    with pytest.raises(InputError, match=r"not a readable \.mat file"):
        read_joints(mat)
    mat.unlink()
    with pytest.raises(InputError, match="no joints of tee, which split 1 tests"):
        clips(root)
    with pytest.raises(InputError, match="nowhere/joint_positions: no such folder"):
        clips(tmp_path / "nowhere")


def test_clips_are_labelled_and_scored(tmp_path) -> None:
    root, out, frames = tmp_path / "root", tmp_path / "out", 3
    xy = np.full((frames, 15, 2), 1000.0)  # outside the frame, but for the squares' corners
    for t in range(frames):
        ids = scene(t)[1]
        for j, k in enumerate((1, 2)):
            rows, columns = np.nonzero(ids == k)
            xy[t, 2 * j], xy[t, 2 * j + 1] = (columns.min(), rows.min()), (columns.max(), rows.max())
        folder = root / "Rename_Images/run/dash"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(t)[0]).save(folder / f"{t + 1:05d}.png")
    joints(root / "joint_positions/run/dash/joint_positions.mat", xy)
    done = list(sequences.label_videos(tasks(root, out), out, model, "toys", workers=1))
    assert [(d.name, d.frames) for d in done] == [("dash", frames)]
    scores = evaluate_jhmdb(root, out)
    assert min(scores.counted[:4]) >= 1 and scores.counted[4:] == [0] * 11
    assert scores.pck(0.2, "max") == 1
    before = (out / "dash/keypoints.csv").read_bytes()
    again = list(sequences.label_videos(tasks(root, out), out, model, "toys", workers=1))
    assert again[0].seconds == 0 and (out / "dash/keypoints.csv").read_bytes() == before


PARTS = ("nose", "tail")


def test_any_keypoint_file(tmp_path) -> None:
    truth = {
        "joint_names": list(PARTS),
        "frames": {
            "00002": {"xy": [[0, 0], [30, 40]], "visible": [1, 1]},
            "00007": {"xy": [[0, 0], [30, 40]], "visible": [1, 1]},
            "00012": {"xy": [[5, 5], [0, 0]], "visible": [1, 0]},
        },
    }
    file = tmp_path / "bear.json"
    file.write_text(json.dumps(truth))
    found = np.zeros((13, 2, 2))
    found[:, 1] = 30, 44
    found[7, 0], found[12, 0] = np.nan, (5, 5)
    pred = table(tmp_path / "out/keypoints.csv", found, PARTS)
    scores = evaluate_keypoints(file, pred)
    # Frame 7: nose lost and wrong, tail 4 pixels off, box 30 x 40. Frame 12: nose at its place, tail hidden.
    assert scores.counted == [2, 1]
    assert (scores.pck(0.1, "instance"), scores.pck(0.1, "max")) == (0.25, 0.75)
    assert evaluate_keypoints(file, tmp_path / "out").to_json() == scores.to_json()
    assert evaluate_keypoints(file, pred, count_given=True).counted == [3, 2]
    folder = tmp_path / "truths"
    folder.mkdir()
    file.rename(folder / "bear.json")
    pred.parent.rename(tmp_path / "bear")
    told = CliRunner().invoke(app, ["evaluate", "keypoints", "--truth", str(folder), "--pred", str(tmp_path), "--json"])
    assert json.loads(told.stdout) == scores.to_json()


def test_the_page_shows_the_joints(root, tmp_path) -> None:
    for clip in clips(root):
        table(tmp_path / f"pred/{clip.name}.csv", read_joints(clip.joints))
    command = ["evaluate", "jhmdb", "--root", root, "--pred", tmp_path / "pred", "--page", tmp_path / "page.html"]
    assert CliRunner().invoke(app, list(map(str, command)), catch_exceptions=False).exit_code == 0
    text = (tmp_path / "page.html").read_text()
    assert "PCK_instance@0.1 against the position" in text and "<h3>tee: 100.0</h3>" in text
    told = CliRunner().invoke(app, [*map(str, command[:-2]), "--attributes", "none.txt"])
    assert isinstance(told.exception, UsageError) and "add --page FILE" in str(told.exception)
