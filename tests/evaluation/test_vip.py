"""The protocol of VIP: values worked out by hand, a second implementation, what is refused, and labelling."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from typer.testing import CliRunner

from tests.evaluation.metrics.test_semantic import slow_ap, slow_mean_iou
from tests.toys import model, scene
from vcorr.cli import app
from vcorr.errors import InputError
from vcorr.evaluation import sequences
from vcorr.evaluation.metrics.semantic import Detection
from vcorr.evaluation.vip import INSTANCES, THRESHOLDS, evaluate_vip, tasks
from vcorr.evaluation.vip_layout import CLASSES, videos

NAMES = ["000000000001", "000000000026", "000000000051"]


def save(path: Path, ids: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return path


def annotate(root: Path, video: str, frame: str, ids: np.ndarray, classes: dict[int, int]) -> None:
    """Instances and, by their classes, categories of a frame."""
    kinds = np.zeros(ids.max() + 1, np.uint8)
    for k, c in classes.items():
        if k < len(kinds):
            kinds[k] = c
    save(root / f"Annotations/Category_ids/{video}/{frame}.png", kinds[ids])
    save(root / f"Annotations/Instance_ids/{video}/{frame}.png", ids)
    (root / f"Annotations/Instance_ids/{video}/{frame}.txt").write_text(
        "".join(f"{k} {c} 1\n" for k, c in classes.items())
    )


def result(pred: Path, video: str, frame: str, ids: np.ndarray, listed: list[tuple[int, float]]) -> None:
    """Instances with the classes and scores of ids 1, 2, ...; and the categories that they make."""
    kinds = np.array([0, *(c for c, _ in listed)], np.uint8)
    save(pred / video / f"{frame}.png", kinds[ids])
    save(pred / video / INSTANCES / f"{frame}.png", ids)
    (pred / video / INSTANCES / f"{frame}.txt").write_text("".join(f"{c} {s}\n" for c, s in listed))


def strip(*cells: int) -> np.ndarray:
    return np.array([cells], np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two hats (1, 3: class 1) and a face (2: class 13) in a row of ten pixels, in three frames."""
    for frame in NAMES:
        annotate(tmp_path / "root", "videos1", frame, strip(1, 1, 1, 1, 2, 2, 3, 3, 0, 0), {1: 1, 2: 13, 3: 1})
    return tmp_path / "root"


def test_scores_by_hand(root, tmp_path) -> None:
    right = strip(1, 1, 1, 1, 2, 2, 3, 3, 0, 0)
    result(tmp_path / "pred", "videos1", NAMES[1], right, [(1, 0.9), (13, 0.5), (1, 0.3)])
    # Half of the first hat, no face, and a hat where there is none.
    result(tmp_path / "pred", "videos1", NAMES[2], strip(1, 1, 0, 0, 0, 0, 0, 0, 2, 2), [(1, 0.8), (1, 0.7)])
    scores = evaluate_vip(root, tmp_path / "pred", workers=1)
    # Background: 2 + 2 + 0 right; truth 2 in each, result 2 + 2 + 6. Hats: 6 + 6 + 2; 18; 6 + 6 + 4. Face: 2 + 2; 6; 4.
    background, hat, face = 4 / (6 + 10 - 4), 14 / (18 + 16 - 14), 4 / 6
    assert scores.mean_iou == pytest.approx((background + hat + face) / 3)
    told = json.loads(json.dumps(scores.to_json()))
    assert told["mean_iou_without_given"] == pytest.approx((2 / (4 + 8 - 2) + 8 / (12 + 10 - 8) + 2 / 4) / 3)
    # Hats of all three frames: 1.0, 1.0 (given), 0.9, 0.3 right, 0.8 right up to IoU 1/2, 0.7 wrong; six in truth.
    table = scores.ap()
    assert table is not None
    low = slow_ap(
        [Detection(s, i) for s, i in [(1, 1), (1, 1), (0.9, 1), (0.8, 0.5), (0.7, 0), (0.3, 1)]], 6, 0.4, False
    )
    high = slow_ap(
        [Detection(s, i) for s, i in [(1, 1), (1, 1), (0.9, 1), (0.8, 0.5), (0.7, 0), (0.3, 1)]], 6, 0.5, False
    )
    assert table[0].tolist() == pytest.approx([low] * 4 + [high] * 5)
    assert table[12].tolist() == pytest.approx([2 / 3] * 9)
    assert np.isnan(table[1]).all()
    assert told["instance_ap"] == pytest.approx((np.mean(table[0]) + 2 / 3) / 2)
    assert [c["iou"] for c in told["classes"] if c["iou"] is not None] == pytest.approx([background, hat, face])
    rows = scores.rows()
    assert rows[1][:2] == ("hat", f"{100 * hat:.1f}") and rows[2] == ("hair", "-", "-") and rows[-2][0] == "mean"
    assert scores.csv()[1][:2] == ("videos1", 3)


def test_the_given_frame_needs_no_result_and_instances_may_lack(root, tmp_path) -> None:
    for frame in NAMES[1:]:
        save(tmp_path / f"pred/videos1/{frame}.png", strip(1, 1, 1, 1, 13, 13, 1, 1, 0, 0))
    scores = evaluate_vip(root, tmp_path / "pred", workers=1)
    assert (scores.mean_iou, scores.ap()) == (1, None)
    assert scores.to_json()["instance_ap"] is None
    assert scores.rows()[-2] == ("mean", "100.0", "-")


def test_results_as_the_authors_code_writes_them(root, tmp_path) -> None:
    for frame in NAMES[1:]:
        save(tmp_path / f"pred/videos1/gray/global_{frame}.png", strip(1, 1, 1, 1, 13, 13, 1, 1, 0, 0))
    assert evaluate_vip(root, tmp_path / "pred", workers=1).mean_iou == 1


def test_lists_name_videos_or_frames(root, tmp_path) -> None:
    for frame in NAMES:
        annotate(root, "videos2", frame, strip(1), {1: 1})
    assert [v.name for v in videos(root)] == ["videos1", "videos2"]
    (root / "lists").mkdir()
    (root / "lists/val_id.txt").write_text("videos2/000000000001\nvideos2/000000000026\n")
    assert [v.name for v in videos(root)] == ["videos2"]
    (tmp_path / "list").write_text("/data/VIP/Images/videos2\nvideos1\n")
    assert [v.name for v in videos(root, listed=tmp_path / "list")] == ["videos2", "videos1"]
    (tmp_path / "list").write_text("videos9\n")
    with pytest.raises(InputError, match=r"list: line 1: 'videos9' names no video with annotations"):
        videos(root, listed=tmp_path / "list")


SMALL = arrays(np.uint8, (4, 5), elements=st.integers(0, 3))
KINDS = st.lists(st.sampled_from([1, 1, 13]), min_size=3, max_size=3)


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.lists(st.tuples(SMALL, KINDS, SMALL, KINDS), min_size=1, max_size=2),
    st.lists(st.sampled_from([0.2, 0.5, 0.8]), min_size=3, max_size=3),
)
def test_the_second_implementation_agrees(tmp_path_factory, drawn, sure) -> None:
    tmp_path = tmp_path_factory.mktemp("vip")
    pairs, found, counts = [], {1: [], 13: []}, {1: 0, 13: 0}
    given_frame = (strip(1), [1, 1, 1], strip(1), [1, 1, 1])
    for frame, (truth, kinds, guess, guessed) in zip(NAMES, [given_frame, *drawn], strict=False):
        classes = dict(enumerate(kinds, start=1))
        annotate(tmp_path / "root", "v", frame, truth, classes)
        result(tmp_path / "pred", "v", frame, guess, list(zip(guessed, sure, strict=True)))
        sure_here = [1.0] * 3 if frame == NAMES[0] else sure
        look, seen = np.array([0, *kinds]), np.array([0, *guessed])
        pairs.append((look[truth], seen[guess]))
        for k in (1, 2, 3):
            counts[kinds[k - 1]] += bool((truth == k).any())
        for k in (1, 2, 3):
            if (guess == k).any():
                overlaps = [
                    ((guess == k) & (truth == t)).sum() / ((guess == k) | (truth == t)).sum()
                    if kinds[t - 1] == guessed[k - 1]
                    else 0
                    for t in (1, 2, 3)
                ]
                found[guessed[k - 1]].append(Detection(sure_here[k - 1], max(overlaps)))
    scores = evaluate_vip(tmp_path / "root", tmp_path / "pred", workers=1)
    assert scores.mean_iou == pytest.approx(slow_mean_iou(pairs, list(range(20))), abs=1e-6)
    parts = [np.mean([slow_ap(found[c], counts[c], t, False) for t in THRESHOLDS]) for c in (1, 13) if counts[c]]
    assert scores.to_json()["instance_ap"] == pytest.approx(float(np.mean(parts)), abs=1e-6)


def test_odd_files_are_refused(root, tmp_path) -> None:
    pred, ids = tmp_path / "pred/videos1", strip(1, 1, 1, 1, 2, 2, 3, 3, 0, 0)
    with pytest.raises(InputError, match="pred/videos1: no results of this video"):
        evaluate_vip(root, tmp_path / "pred", workers=1)
    result(tmp_path / "pred", "videos1", NAMES[1], ids, [(1, 1), (13, 1), (1, 1)])
    with pytest.raises(InputError, match=rf"{NAMES[2]}.png: no such file, 1 of 2 results of videos1 are missing"):
        evaluate_vip(root, tmp_path / "pred", workers=1)
    result(tmp_path / "pred", "videos1", NAMES[2], ids, [(1, 1), (13, 1), (1, 1)])
    (pred / INSTANCES / f"{NAMES[2]}.txt").write_text("1 1.0\n13 1.0\n")
    with pytest.raises(InputError, match=rf"{NAMES[2]}.png: id 3, of which {NAMES[2]}.txt does not tell the class"):
        evaluate_vip(root, tmp_path / "pred", workers=1)
    (pred / INSTANCES / f"{NAMES[2]}.txt").write_text("1 1.0\nface\n")
    with pytest.raises(InputError, match=rf"{NAMES[2]}.txt: line 2 is not a class and a score"):
        evaluate_vip(root, tmp_path / "pred", workers=1)
    save(pred / f"{NAMES[2]}.png", strip(*[20] * 10))
    with pytest.raises(InputError, match="class 20, and VIP has 0 to 19"):
        evaluate_vip(root, tmp_path / "pred", workers=1)
    save(pred / f"{NAMES[2]}.png", strip(0))
    with pytest.raises(InputError, match="1x1 pixels where 10x1 are wanted"):
        evaluate_vip(root, tmp_path / "pred", workers=1)


def test_odd_sets_are_refused(root, tmp_path) -> None:
    with pytest.raises(InputError, match=r"nowhere/Category_ids: no such folder; give a folder in the layout of VIP"):
        videos(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"Category_ids/zoo: no annotation of this video"):
        videos(root, names=["zoo"])
    (root / f"Annotations/Instance_ids/videos1/{NAMES[1]}.png").unlink()
    with pytest.raises(InputError, match=rf"{NAMES[1]}.png: no such file, 1 of 3 annotations of instances are missing"):
        _ = videos(root)[0].has_instances
    save(root / f"Images/videos1/{NAMES[0]}.jpg", strip(1))
    with pytest.raises(InputError, match=rf"{NAMES[1]}.png: no frame of this name in .*Images/videos1"):
        videos(root)


def test_videos_are_labelled_and_scored(tmp_path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    for k, frame in enumerate(NAMES):
        picture, ids = scene(k)
        save(root / f"Images/videos1/{frame}.png", picture)
        annotate(root, "videos1", frame, ids, {1: 5, 2: 5})  # two persons' upper clothes
    done = list(sequences.label_videos(tasks(root, out), out, model, "toys", workers=1))
    assert sorted((d.name, d.frames) for d in done) == [("videos1", 3), ("videos1 instances", 3)]
    listed = (out / f"videos1/{INSTANCES}/{NAMES[2]}.txt").read_text().split()
    assert listed[0::2] == ["5", "5"] and all(0.5 < float(sure) <= 1 for sure in listed[1::2])
    scores = evaluate_vip(root, out, workers=1)
    table = scores.ap()
    assert scores.mean_iou > 0.9 and table is not None and table[CLASSES.index("upper-clothes") - 1, :7].min() == 1
    assert math.isclose(scores.videos[0].mean_iou, scores.mean_iou)


def test_the_page_shows_the_videos(root, tmp_path) -> None:
    right = strip(1, 1, 1, 1, 2, 2, 3, 3, 0, 0)
    for frame in NAMES[1:]:
        result(tmp_path / "pred", "videos1", frame, right, [(1, 0.9), (13, 0.5), (1, 0.3)])
    (tmp_path / "a.txt").write_text("videos1: indoors")
    command = ["evaluate", "vip", "--root", root, "--pred", tmp_path / "pred", "--page", tmp_path / "page.html"]
    command += ["--attributes", tmp_path / "a.txt", "--workers", "1"]
    assert CliRunner().invoke(app, list(map(str, command)), catch_exceptions=False).exit_code == 0
    text = (tmp_path / "page.html").read_text()
    assert "<h3>videos1: 100.0</h3>" in text and text.count("<img") == 2 and "<td>indoors</td><td>1</td>" in text
