"""``vcorr doctor``: what it finds, and the exit code that says whether vcorr works."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

from vcorr import cli

PARTS = ["vcorr", "torch", "device", "threads", "operators", "triton", "codecs", "weights", "disk", "frame"]


def doctor(*options: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["vcorr", "doctor", "--device", "cpu", *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.slow
def test_a_machine_that_works(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("--json", monkeypatch=monkeypatch) == 0
    findings = json.loads(capsys.readouterr().out)
    assert [finding["part"] for finding in findings] == PARTS and all(finding["ok"] for finding in findings)
    assert "frames/s" in findings[-1]["text"]


@pytest.mark.slow
def test_a_part_that_fails_is_named_and_the_others_are_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert doctor(monkeypatch=monkeypatch) == 1
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == PARTS
    assert [line.split()[0] for line in out.splitlines() if line.split()[1] == "BAD"] == ["codecs", "disk"]
    assert err.splitlines()[-1].startswith("vcorr: vcorr doctor: 2 of 10 checks failed: codecs, disk")
