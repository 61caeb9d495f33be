"""Errors of the operators by type, as a table and as JSON."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import accuracy

FEW = ("read:h=12,w=13,c=8,radius=2", "negatives:h=3,w=3,bank=20")


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["accuracy.py", "--device", "cpu", *args])
    accuracy.main()


@pytest.mark.slow
def test_errors_are_small(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, *FEW, "--json")
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "accuracy"
    rows = document["rows"]
    assert {row["result"] for row in rows} == {"readout", "logsumexp", "dquery", "dkey", "dvalue"}
    limits = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 2e-3}
    assert all(row["typical"] < limits[row["dtype"]] and row["largest"] < limits[row["dtype"]] for row in rows)


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "top-10:h=12,w=13,radius=2", "--dtype", "fp32")
    out = capsys.readouterr().out
    assert out.startswith("From `python -m benchmarks.accuracy --device cpu top-10:h=12,w=13,radius=2 --dtype fp32`")
    assert "| top-10:h=12,w=13,radius=2 | readout | " in out


def test_a_case_that_does_not_go_together(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "read:top_k=3")
    assert "top_k must be 0 in training, got 3" in capsys.readouterr().err
