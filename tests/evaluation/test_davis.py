"""The DAVIS protocol on small data sets with scores worked out by hand, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vcorr.errors import InputError
from vcorr.evaluation.davis import evaluate_davis

SIZE = (60, 80)  # contours agree within one pixel: ceil(0.008 * 100)


def ids(*boxes, size=SIZE):
    """Object k is the k-th box (top, left, height, width), or absent where it is None."""
    mask = np.zeros(size, dtype=np.uint8)
    for k, box in enumerate(boxes, start=1):
        if box is not None:
            top, left, height, width = box
            mask[top : top + height, left : left + width] = k
    return mask


def write(folder, masks, start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i, mask in enumerate(masks, start):
        Image.fromarray(mask).save(folder / f"{i:05d}.png")


def data_set(tmp_path, **sequences):
    for name, masks in sequences.items():
        write(tmp_path / "root/Annotations/480p" / name, masks)
    return tmp_path / "root", tmp_path / "pred"


ONE, OTHER = (10, 10, 10, 20), (35, 40, 12, 15)


def moved(box, columns):
    return (box[0], box[1] + columns, *box[2:])


def test_annotations_against_themselves(tmp_path):
    masks = [ids(moved(ONE, i), OTHER) for i in range(6)]
    root, pred = data_set(tmp_path, pair=masks)
    write(pred / "pair", masks)
    scores = evaluate_davis(root, pred, workers=1)
    assert scores.overall.j_and_f == 1
    assert (scores.overall.j.recall, scores.overall.f.recall) == (1, 1)
    assert (scores.overall.j.decay, scores.overall.f.decay) == (0, 0)
    assert scores.sequences[0].frames == 4


def test_statistics_by_hand(tmp_path):
    # Scored are frames 1..5. Results: true, moved by 1, moved by 3, empty, empty.
    root, pred = data_set(tmp_path, thing=[ids(ONE)] * 7)
    write(pred / "thing", [ids(ONE), ids(moved(ONE, 1)), ids(moved(ONE, 3)), ids(), ids()], start=1)
    scores = evaluate_davis(root, pred, workers=1).overall
    # J of a 10 x 20 box moved by s columns: (20 - s) / (20 + s). F: 1 within the tolerance, b / (a + b) at 3 columns.
    j, f = [1, 19 / 21, 17 / 23, 0, 0], [1, 1, 20 / 30, 0, 0]
    assert scores.j.mean == pytest.approx(sum(j) / 5)
    assert scores.f.mean == pytest.approx(sum(f) / 5)
    assert scores.j.recall == scores.f.recall == pytest.approx(3 / 5)
    # Quarters of 5 frames: 0..1 and 3..4.
    assert scores.j.decay == pytest.approx((1 + 19 / 21) / 2)
    assert scores.f.decay == pytest.approx(1)
    assert scores.j_and_f == pytest.approx((sum(j) + sum(f)) / 10)


def test_first_and_last_frame_do_not_count(tmp_path):
    root, pred = data_set(tmp_path, thing=[ids(ONE)] * 4)
    write(pred / "thing", [np.full(SIZE, 9, dtype=np.uint8), ids(ONE), ids(ONE), ids()])
    assert evaluate_davis(root, pred, workers=1).overall.j_and_f == 1


def test_mean_is_over_objects_not_sequences(tmp_path):
    root, pred = data_set(tmp_path, pair=[ids(ONE, OTHER)] * 3, single=[ids(ONE)] * 3)
    write(pred / "pair", [ids(ONE, OTHER)], start=1)
    write(pred / "single", [ids()], start=1)
    scores = evaluate_davis(root, pred, workers=1)
    assert scores.overall.j.mean == scores.overall.f.mean == pytest.approx(2 / 3)
    assert [s.overall.j_and_f for s in scores.sequences] == [1, 0]


def test_missing_object_is_empty(tmp_path):
    root, pred = data_set(tmp_path, pair=[ids(ONE, OTHER)] * 4)
    write(pred / "pair", [ids(ONE), ids(ONE)], start=1)
    first, second = evaluate_davis(root, pred, workers=1).sequences[0].objects
    assert (first.j_and_f, second.j_and_f) == (1, 0)


def test_object_that_leaves_must_leave(tmp_path):
    root, pred = data_set(tmp_path, thing=[ids(ONE), ids(ONE), ids(), ids(), ids()])
    write(pred / "thing", [ids(ONE), ids(), ids(ONE)], start=1)
    scores = evaluate_davis(root, pred, workers=1).overall
    assert scores.j.mean == scores.f.mean == pytest.approx(2 / 3)


def test_a_mask_that_fills_the_frame(tmp_path):
    # No contour on either side: F = 1 against itself and 0 against a box.
    full = ids((0, 0, *SIZE))
    root, pred = data_set(tmp_path, full=[full] * 4)
    write(pred / "full", [full, ids(ONE)], start=1)
    scores = evaluate_davis(root, pred, workers=1).overall
    assert scores.j.mean == pytest.approx((1 + 200 / 4800) / 2)
    assert scores.f.mean == pytest.approx(1 / 2)


def test_void_and_late_objects_are_background(tmp_path):
    marked = ids(ONE)
    marked[40:, 40:] = 255
    late = ids(ONE, OTHER)
    root, pred = data_set(tmp_path, thing=[marked, marked, late, marked])
    write(pred / "thing", [ids(ONE), ids(ONE)], start=1)
    scores = evaluate_davis(root, pred, workers=1)
    assert len(scores.sequences[0].objects) == 1
    assert scores.overall.j_and_f == 1


def test_annotations_on_some_frames(tmp_path):
    root, pred = tmp_path / "root", tmp_path / "pred"
    for i in (0, 10, 20, 30):
        write(root / "Annotations/480p/plane", [ids(ONE)], start=i)
    write(pred / "plane", [ids(ONE if i in (10, 20) else OTHER) for i in range(31)])
    scores = evaluate_davis(root, pred, workers=1)
    assert scores.sequences[0].frames == 2
    assert scores.overall.j_and_f == 1


def test_results_in_an_output_tree(tmp_path):
    root, pred = data_set(tmp_path, thing=[ids(ONE)] * 3)
    write(pred / "thing/masks", [ids(ONE)], start=1)
    assert evaluate_davis(root, pred, workers=1).overall.j_and_f == 1


@pytest.fixture
def three(tmp_path):
    """Three sequences with results of every kind."""
    rng = np.random.default_rng(0)
    truths = {name: [ids(moved(ONE, i), OTHER) for i in range(5 + n)] for n, name in enumerate(("ant", "bee", "cow"))}
    root, pred = data_set(tmp_path, **truths)
    for name, masks in truths.items():
        write(pred / name, [np.where(rng.random(SIZE) < 0.2, 0, mask) for mask in masks])
    return root, pred


@pytest.mark.slow
def test_scores_do_not_depend_on_the_processes(three):
    seen = []
    alone = evaluate_davis(*three, workers=1)
    assert evaluate_davis(*three, workers=2, progress=lambda s: seen.append(s.name)) == alone
    assert evaluate_davis(*three) == alone
    assert seen == ["ant", "bee", "cow"]


def test_sequences_are_chosen(three):
    scores = evaluate_davis(*three, sequences=["cow", "ant"], workers=1)
    assert [s.name for s in scores.sequences] == ["cow", "ant"]


def test_json(three):
    scores = evaluate_davis(*three, workers=1)
    told = json.loads(json.dumps(scores.to_json()))
    assert list(told) == ["j_and_f", "j", "f", "objects", "frames", "sequences"]
    assert (told["objects"], told["frames"]) == (6, 3 + 4 + 5)
    assert told["j"] == {
        "mean": scores.overall.j.mean,
        "recall": scores.overall.j.recall,
        "decay": scores.overall.j.decay,
    }
    bee = told["sequences"][1]
    assert list(bee) == ["name", "frames", "j_and_f", "j", "f", "objects"]
    assert (bee["name"], bee["frames"], [o["id"] for o in bee["objects"]]) == ("bee", 4, [1, 2])
    assert bee["objects"][1]["f"]["mean"] == scores.sequences[1].objects[1].f.mean
    assert bee["j"]["mean"] == pytest.approx(np.mean([o["j"]["mean"] for o in bee["objects"]]))


def test_rows(tmp_path):
    root, pred = data_set(tmp_path, thing=[ids(ONE)] * 4)
    write(pred / "thing", [ids(ONE), ids()], start=1)
    scores = evaluate_davis(root, pred, workers=1)
    numbers = ("1", "50.0", "50.0", "50.0", "100.0", "50.0", "50.0", "100.0")
    assert scores.rows() == [("thing", *numbers), ("mean over objects", *numbers)]
    assert all(len(row) == len(scores.columns) for row in scores.rows())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_failure_is_told(three, workers):
    root, pred = three
    for name in ("bee", "cow"):
        (pred / name / "00002.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"bee/00002.png: not a readable PNG") as caught:
        evaluate_davis(root, pred, workers=workers)
    assert caught.value.where == str(pred / "bee/00002.png")


def test_results_that_are_refused(tmp_path):
    root, pred = data_set(tmp_path, thing=[ids(ONE)] * 5)
    with pytest.raises(InputError, match="pred/thing: no results of this sequence"):
        evaluate_davis(root, pred, workers=1)
    write(pred / "thing", [ids(ONE)], start=2)
    with pytest.raises(InputError, match=r"thing/00001.png: no such file, 2 of 3 results of thing are missing"):
        evaluate_davis(root, pred, workers=1)
    write(pred / "thing", [ids(ONE), 255 * ids(ONE), ids(ONE)], start=1)
    with pytest.raises(InputError, match=r"thing/00002.png: id 255 where the first annotation has ids up to 1"):
        evaluate_davis(root, pred, workers=1)
    write(pred / "thing", [ids(ONE), ids(ONE), ids(ONE, size=(60, 81))], start=1)
    with pytest.raises(InputError, match=r"thing/00003.png: 81x60 pixels where 80x60 are wanted"):
        evaluate_davis(root, pred, workers=1)


def test_data_sets_that_are_refused(tmp_path):
    root, pred = data_set(tmp_path, short=[ids(ONE)] * 2, binary=[255 * ids(ONE)] * 3, uneven=[ids(ONE)] * 3)
    write(root / "Annotations/480p/uneven", [ids(ONE, size=(30, 40))], start=1)
    for name in ("short", "binary", "uneven"):
        write(pred / name, [ids(ONE)] * 3)
    with pytest.raises(InputError, match=r"480p/short: 2 annotated frame\(s\), and the first and the last are not"):
        evaluate_davis(root, pred, sequences=["short"], workers=1)
    with pytest.raises(InputError, match=r"binary/00000.png: no object in the first annotation; .*DAVIS-2016"):
        evaluate_davis(root, pred, sequences=["binary"], workers=1)
    with pytest.raises(InputError, match=r"480p/uneven/00001.png: 40x30 pixels where 80x60 are wanted"):
        evaluate_davis(root, pred, sequences=["uneven"], workers=1)


def test_workers_are_checked(three):
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        evaluate_davis(*three, workers=0)


INTERRUPTED = """
import signal, sys, time
from vcorr.evaluation.davis import evaluate_davis

def wait(scores):
    print("going", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    try:
        evaluate_davis(sys.argv[1], sys.argv[2], workers=2, progress=wait)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="process groups and SIGINT")
def test_an_interrupt_ends_all_processes_in_silence(three, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    command = [sys.executable, script, *three]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, start_new_session=True, env=os.environ | path, **pipes) as process:
        try:
            assert process.stdout.readline() == "going\n"
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()  # one that hangs must not hang the tests
    assert (process.returncode, errors) == (130, "")
