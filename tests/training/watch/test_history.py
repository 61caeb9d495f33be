"""A log is read whatever became of it: what can be used is, the rest is counted."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcorr.training.watch import history
from vcorr.training.watch.history import Series, smoothed, thinned

STAGES = {"pairs": (0, 100), "memory": (100, 50)}


def logged(tmp_path, *lines: object):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(x if isinstance(x, bytes) else json.dumps(x).encode() + b"\n" for x in lines))
    return history.read(path, STAGES)


def test_steps_are_of_the_whole_run_and_the_last_line_of_a_step_counts(tmp_path) -> None:
    found = logged(
        tmp_path,
        {"stage": "pairs", "step": 10, "loss": 3.0},
        {"stage": "pairs", "step": 20, "loss": 2.0, "own": 1},
        {"stage": "pairs", "step": 10, "loss": 4.0},  # taken again after a resume
        {"phase": "memory", "step": 5, "loss": 1.0},  # as early runs call it
        {"stage": "pairs", "step": 20, "probe": 0.5},  # likewise
    )
    assert found.damaged == 0
    assert found.series["loss"].steps.tolist() == [10, 20, 105]
    assert found.series["loss"].values.tolist() == [4, 2, 1]
    assert found.series["own"].last == 1 and found.series["validation"].steps.tolist() == [20]


HOSTILE = [
    b"\xff\xfe\x00 no text\n",
    b'{"stage": "pairs", "step": 7, "lo',
    b"\n[1, 2]\n",
    b"[" * 60_000 + b"\n",
    b'{"stage": "pairs"}\n',
    b'{"stage": "other", "step": 1, "loss": 1}\n',
    b'{"stage": ["pairs"], "step": 1, "loss": 1}\n',
    b'{"stage": "pairs", "step": true, "loss": 1}\n',
    b'{"stage": "pairs", "step": 0, "loss": 1}\n',
    b'{"stage": "pairs", "step": 101, "loss": 1}\n',
    b'{"stage": "pairs", "step": 1e3, "loss": 1}\n',
    b'{"stage": "pairs", "step": ' + b"9" * 5000 + b', "loss": 1}\n',
    b'{"stage": "pairs", "step": 1, "loss": "' + b"x" * 200_000 + b'"}\n',
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_damaged_lines_are_counted(tmp_path, line) -> None:
    whole = {"stage": "pairs", "step": 50, "loss": 1.5}
    found = logged(tmp_path, whole, line + (b"" if line.endswith(b"\n") else b"\n"), whole)
    assert found.damaged >= 1
    assert found.series["loss"].values.tolist() == [1.5]


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", "null", "true", '"5"', "{}", "1" + "0" * 400]
)
def test_what_is_no_number_is_left_out(tmp_path, value) -> None:
    found = logged(tmp_path, b'{"stage": "pairs", "step": 1, "loss": %s, "lr": 2}\n' % value.encode())
    assert found.series.keys() == {"lr"} and found.damaged == 0


def test_names_are_bounded_in_number_and_length(tmp_path) -> None:
    found = logged(tmp_path, {"stage": "pairs", "step": 1} | {f"{k}" + "<b>" * 100: 1 for k in range(150)})
    assert len(found.series) == history.SERIES
    assert max(map(len, found.series)) == history.NAME


def test_there_may_be_no_log(tmp_path) -> None:
    assert history.read(tmp_path / "none.jsonl", STAGES).series == {}


def test_a_line_without_end_takes_no_memory(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("wb") as file:
        file.seek(200 << 20)
        file.write(b'\n{"stage": "pairs", "step": 3, "loss": 1}\n')
    tracemalloc.start()
    history.read(path, STAGES)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_a_long_log_is_read_in_part(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(history, "LARGEST", 1000)
    found = logged(tmp_path, *({"stage": "pairs", "step": k, "loss": k} for k in range(1, 101)))
    steps = found.series["loss"].steps
    assert 15 <= len(steps) <= 40 and np.ptp(np.diff(steps)) == 0 and steps[-1] > 90


@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=300), st.floats(0.01, 1))
def test_a_running_mean_stays_within_its_values(values, share) -> None:
    mean = smoothed(np.array(values), share)
    room = 1e-9 * max(map(abs, values))
    assert len(mean) == len(values)
    assert min(values) - room * len(values) <= mean.min() and mean.max() <= max(values) + room * len(values)


def test_a_running_mean_is_centred() -> None:
    assert smoothed(np.arange(100.0), 0.1)[10:-10].tolist() == list(range(10, 90))
    assert smoothed(np.array([0.0, 0, 9, 0, 0]), 1.0).tolist() == [3, 9 / 4, 9 / 5, 9 / 4, 3]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=2000))
def test_thinning_keeps_peaks_and_order(values) -> None:
    series = thinned(Series(np.arange(len(values), dtype=float), np.array(values)), most=100)
    assert len(series.steps) <= 100 or len(values) <= 100
    assert (np.diff(series.steps) > 0).all()
    assert series.values.min() == min(values) and series.values.max() == max(values)
    assert all(values[int(k)] == v for k, v in zip(series.steps, series.values, strict=True))
