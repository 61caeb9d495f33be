"""The page of scores: drift and groups worked out by hand, all in one file, pictures of the best and the worst."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.test_davis import ONE, data_set, ids, moved, write
from vcorr.errors import InputError
from vcorr.evaluation.attributes import read_attributes
from vcorr.evaluation.davis import evaluate_davis, shots
from vcorr.evaluation.page import Shot, drift, groups, write_page


def shot(name: str, *series: tuple[float, ...]) -> Shot:
    nothing = lambda name: np.zeros((1, 1, 3), np.uint8)  # noqa: E731
    scores = tuple(float(np.nanmean(each)) for each in series)
    return Shot(name, scores, series, tuple(str(i) for i in range(len(series[0]))), nothing)


def test_drift_by_hand() -> None:
    long, short = (*[1.0] * 10, *[0.5] * 10), (0.0, 1.0)
    found = drift([shot("a", long), shot("b", short)])
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 0.75, 0.5, 0.5, 0.5, 0.5])


def test_what_does_not_count_does_not_drift() -> None:
    nothing = float("nan")
    found = drift([shot("a", (nothing, 1.0), (0.5, nothing))])
    assert [found[0], found[5]] == [0.5, 1.0] and np.isnan(found[1])


def test_groups_are_means_over_objects() -> None:
    three = [shot("a", (1.0,), (0.5,)), shot("b", (0.0,)), shot("c", (0.2,))]
    found = groups(three, {"a": ("OCC", "MB"), "b": ("OCC",), "other": ("SV",)})
    assert [row[:2] for row in found] == [("MB", 1), ("OCC", 2)]
    assert [row[2:] for row in found] == [pytest.approx((0.75, 0.1)), pytest.approx((0.5, 0.2))]


def test_attributes_of_either_form(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# name: attributes\nbear: OCC MB OCC\ncamel: \ngoat,SV,MB\n")
    (tmp_path / "a.json").write_text(json.dumps({"bear": ["OCC", "MB"], "camel": [], "goat": ["SV", "MB"]}))
    wanted = {"bear": ("OCC", "MB"), "camel": (), "goat": ("SV", "MB")}
    assert read_attributes(tmp_path / "a.txt") == read_attributes(tmp_path / "a.json") == wanted
    for name, text in (("b.txt", "bear"), ("b.json", "[1]"), ("b.json", '{"a": "OCC"}'), ("c.txt", "a: B\na: C")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=r"does not say the attributes|names a twice"):
            read_attributes(tmp_path / name)


def test_the_page_is_whole(tmp_path: Path) -> None:
    root, pred = data_set(tmp_path, **{"good<1>": [ids(ONE)] * 6, "bad": [ids(ONE)] * 6})
    write(pred / "good<1>", [ids(ONE)] * 6)
    write(pred / "bad", [ids(moved(ONE, 9))] * 6)
    found = evaluate_davis(root, pred, workers=1)
    made = partial(write_page, tmp_path / "page.html", "a <set>", "J&F", found)
    made(shots(found, root, pred), {"bad": ("OCC<2>",)})
    text = (tmp_path / "page.html").read_text()
    assert text.count("<img") == 8 and "<script" not in text and "http" not in text.replace("http-equiv", "")
    assert text.index("good&lt;1&gt;: 100.0") < text.index("bad: ") and "good<1>" not in text
    assert "<h1>a &lt;set&gt;</h1>" in text and "J&amp;F with it" in text and "OCC&lt;2&gt;" in text
    with pytest.raises(InputError, match="names none of the scored sequences; name sequences such as bad, good"):
        made(shots(found, root, pred), {"else": ("OCC",)})
