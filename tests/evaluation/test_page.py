"""The page of scores: drift worked out by hand, all in one file, pictures of the best and the worst."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.test_davis import ONE, data_set, ids, moved, write
from vcorr.evaluation.davis import evaluate_davis, write_page
from vcorr.evaluation.metrics.masks import statistics
from vcorr.evaluation.objects import ObjectScores
from vcorr.evaluation.page import Shot, drift


def scores(*js: float) -> ObjectScores:
    names = tuple(str(i) for i in range(len(js)))
    return ObjectScores(statistics(js), statistics(js), 1, names, js, js)


def test_drift_by_hand() -> None:
    nothing = lambda name: (None, np.zeros((1, 1), np.uint8))  # noqa: E731
    long, short = scores(*[1.0] * 10, *[0.5] * 10), scores(0.0, 1.0)
    found = drift([Shot("a", (long,), nothing), Shot("b", (short,), nothing)])
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 0.75, 0.5, 0.5, 0.5, 0.5])


def test_the_page_is_whole(tmp_path) -> None:
    root, pred = data_set(tmp_path, **{"good<1>": [ids(ONE)] * 6, "bad": [ids(ONE)] * 6})
    write(pred / "good<1>", [ids(ONE)] * 6)
    write(pred / "bad", [ids(moved(ONE, 9))] * 6)
    found = evaluate_davis(root, pred, workers=1)
    write_page(tmp_path / "page.html", found, root, pred)
    text = (tmp_path / "page.html").read_text()
    assert text.count("<img") == 8 and "<script" not in text and "http" not in text.replace("http-equiv", "")
    assert text.index("good&lt;1&gt;: 100.0") < text.index("bad: ") and "good<1>" not in text
