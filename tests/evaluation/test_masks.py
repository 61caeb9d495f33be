"""Masks in any folders: values by hand, a second implementation, names and ids of all kinds, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tests.evaluation.metrics.test_masks import slow_f
from tests.evaluation.metrics.test_semantic import slow_mean_iou
from vcorr.errors import InputError
from vcorr.evaluation.masks import evaluate_masks


def save(folder: Path, **masks: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in masks.items():
        Image.fromarray(ids).save(folder / f"{name.lstrip('_')}.png")
    return folder


def strip(*ids: int, kind=np.uint8) -> np.ndarray:
    return np.array([ids] * 40, kind)


def test_by_hand_with_gaps_any_ids_and_an_object_that_begins_late(tmp_path) -> None:
    truth = save(tmp_path / "truth/a", _7=strip(300, 0, 0, kind=np.uint16), _9=strip(300, 0, 8, kind=np.uint16),
                 _30=strip(300, 0, 8, kind=np.uint16))  # fmt: skip
    save(tmp_path / "pred/a/masks", _00009=strip(300, 300, 8, kind=np.uint16), _00030=strip(300, 0, 0, kind=np.uint16))
    scores = evaluate_masks(truth.parent, tmp_path / "pred", workers=1)
    late, early = scores.sequences[0].objects
    assert (late.id, late.frames, late.js) == (8, ("30",), (0,))
    assert (early.id, early.frames, early.js) == (300, ("9", "30"), (0.5, 1))
    # Background: 1 of 3, id 8: 1 of 2, id 300: 2 of 3 columns.
    assert scores.mean_iou == pytest.approx((1 / 3 + 1 / 2 + 2 / 3) / 3)
    assert scores.rows()[0][:2] == ("a", "2") and {len(r) for r in scores.rows()} == {len(scores.columns)}
    assert [row[1] for row in scores.csv()[1:]] == [8, 300] and scores.to_json()["mean_iou"] == scores.mean_iou
    assert evaluate_masks(truth, tmp_path / "pred/a", workers=1) == scores


def test_void_and_the_only_id(tmp_path) -> None:
    save(tmp_path / "root/Annotations/480p/void", _0=strip(1, 255, 0), _1=strip(1, 255, 0))
    save(tmp_path / "root/Annotations/480p/white", _0=strip(255, 0), _1=strip(255, 0))
    save(tmp_path / "pred/void", _1=strip(1, 0, 0))
    save(tmp_path / "pred/white", _1=strip(255, 0))
    scores = evaluate_masks(tmp_path / "root", tmp_path / "pred", workers=1)
    assert [[o.id for o in s.objects] for s in scores.sequences] == [[1], [255]]
    assert (scores.overall.j_and_f, scores.mean_iou) == (1, 1)


SMALL = arrays(np.uint16, (4, 6), elements=st.sampled_from([0, 2, 700]))


@settings(max_examples=30)
@given(st.lists(st.tuples(SMALL, SMALL), min_size=2, max_size=4))
def test_the_second_implementation_agrees(tmp_path_factory, drawn) -> None:
    tmp_path = tmp_path_factory.mktemp("set")
    drawn[0][0][0, 0], drawn[0][0][0, 1] = 2, 700  # both begin in the first
    save(tmp_path / "truth", **{f"_{k}": t for k, (t, _) in enumerate(drawn)})
    save(tmp_path / "pred", **{f"_{k}": r for k, (_, r) in enumerate(drawn)})
    scores = evaluate_masks(tmp_path / "truth", tmp_path / "pred", workers=1)
    js, fs = [], []
    for k in (2, 700):
        pairs = [(r == k, t == k) for t, r in drawn[1:]]
        js.append(np.mean([(m & g).sum() / (m | g).sum() if (m | g).any() else 1 for m, g in pairs]))
        fs.append(np.mean([slow_f(m, g, 0.008) for m, g in pairs]))
    assert scores.overall.j_and_f == pytest.approx((np.mean(js) + np.mean(fs)) / 2, abs=1e-6)
    assert scores.mean_iou == pytest.approx(slow_mean_iou(drawn[1:], [0, 2, 700]), abs=1e-6)


def test_odd_files_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        evaluate_masks(tmp_path / "nowhere", tmp_path, workers=1)
    truth = save(tmp_path / "truth", _0=strip(1, 0), _1=strip(1, 0), _2=strip(1, 0))
    pred = save(tmp_path / "pred", _1=strip(1, 0))
    with pytest.raises(InputError, match=r"pred/2.png: no such file, 1 of 2 results are missing"):
        evaluate_masks(truth, pred, workers=1)
    save(pred, _2=strip(1, 3))
    with pytest.raises(InputError, match=r"2.png: id 3, which no annotation shows; write 0 and the ids 1"):
        evaluate_masks(truth, pred, workers=1)
    save(pred, _2=strip(1))
    with pytest.raises(InputError, match=r"2.png: 1x40 pixels where 2x40 are wanted"):
        evaluate_masks(truth, pred, workers=1)
    save(truth, _002=strip(1, 0))
    with pytest.raises(InputError, match=r"truth: 002.png and 2.png are two masks of one frame"):
        evaluate_masks(truth, pred, workers=1)
    with pytest.raises(InputError, match="no object, nothing to score"):
        evaluate_masks(save(tmp_path / "empty", _0=strip(0, 0), _1=strip(0, 0)), pred, workers=1)
