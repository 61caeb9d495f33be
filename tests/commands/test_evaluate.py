"""`vcorr evaluate` from the command line: the scores in all forms, and what there is nothing to score for."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import made_up_sets
from tests.evaluation.test_youtube_vos import FRAMES, box, filmed, root, save  # noqa: F401 (fixtures)
from vcorr.cli import app
from vcorr.errors import InputError, UsageError
from vcorr.model.weights import default_weights

run = CliRunner().invoke


def test_scores_are_told_in_three_forms(root, tmp_path) -> None:  # noqa: F811
    for frame in FRAMES:
        save(tmp_path / f"pred/park/{frame}.png", box((1, (10, 10, 10, 20))))
    command = ["evaluate", "youtube-vos", "--root", str(root), "--pred", str(tmp_path / "pred"), "--workers", "1"]
    told = run(app, command, catch_exceptions=False).output.splitlines()
    assert [line.split()[-1] for line in told] == ["J&F", "100.0", "0.0", "50.0", "50.0"]
    as_json = run(app, [*command, "--json", "--csv", str(tmp_path / "scores.csv")], catch_exceptions=False)
    assert json.loads(as_json.stdout)["overall"] == 0.5
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert [(row["object"], row["category"], float(row["J mean"])) for row in rows] == [
        ("1", "dog", 1),
        ("7", "spider", 0),
    ]


def test_one_sequence_of_davis_alone(tmp_path) -> None:
    made_up_sets.SETS["davis"](tmp_path / "root", tmp_path / "pred", np.random.default_rng(0))
    (tmp_path / "pred/fall").rename(tmp_path / "elsewhere")
    command = ["evaluate", "davis", "--root", str(tmp_path / "root"), "--pred", str(tmp_path / "pred"), "--json"]
    told = run(app, [*command, "--sequence", "slide", "--workers", "1"], catch_exceptions=False)
    assert [s["name"] for s in json.loads(told.stdout)["sequences"]] == ["slide"]
    with pytest.raises(InputError, match="no annotation of this sequence; did you mean slide"):
        run(app, [*command, "--sequence", "slides"], catch_exceptions=False)


def test_results_without_annotations_are_a_submission(filmed, weights, tmp_path) -> None:  # noqa: F811
    command = ["evaluate", "youtube-vos", "--root", str(filmed), "--weights", str(weights), "--workers", "1"]
    with pytest.raises(UsageError, match="--out: there are no annotations to score against; say where the results go"):
        run(app, command, catch_exceptions=False)
    done = run(app, [*command, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert done.stdout.startswith("4 frames, ready to submit")
    again = run(app, [*command[:-4], "--pred", str(tmp_path / "out"), "--json"], catch_exceptions=False)
    assert json.loads(again.stdout) == {"frames": 4}


def test_one_of_results_and_weights(root) -> None:  # noqa: F811
    for more in ([], ["--pred", str(root), "--weights", str(default_weights())]):
        with pytest.raises(UsageError, match="give exactly one of them"):
            run(app, ["evaluate", "youtube-vos", "--root", str(root), *more], catch_exceptions=False)


def test_labelled_and_scored(filmed, weights, tmp_path) -> None:  # noqa: F811
    for k in (2, 6):
        save(filmed / f"Annotations/squares/{k:05d}.png", np.zeros((48, 64), np.uint8))
    command = ["evaluate", "youtube-vos", "--root", str(filmed), "--weights", str(weights), "--workers", "1", "--json"]
    told = json.loads(run(app, command, catch_exceptions=False).stdout)
    assert [(o["id"], o["frames"]) for o in told["videos"][0]["objects"]] == [(1, 3), (9, 1)]
