"""``vcorr batch``: many videos, and what becomes of those that fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vcorr.cli import app
from vcorr.errors import InputError, UsageError
from vcorr.machine import free_memory
from vcorr.propagation.batch import read_jobs, sized


def table(folder: Path, *rows: str) -> Path:
    path = folder / "jobs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_rows_become_jobs(tmp_path: Path) -> None:
    path = table(tmp_path, "video;labels;options;out", "a b.mp4;m.png;--size 240 --at '3=x y.png';", "c.mp4;c.csv;;d/e")
    first, second = read_jobs(path, Path("results"))
    assert first.out == Path("results/a b") and second.out == tmp_path / "d/e"
    assert first.command[:4] == ["vcorr", "propagate", str(tmp_path / "a b.mp4"), str(tmp_path / "m.png")]
    assert first.options == ("--size", "240", "--at", "3=x y.png")
    assert second.log == tmp_path / "d/e.log"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["video,mask", "a,b"], "has the columns video, mask; write video,labels,out,options"),
        (["video,labels", "a.mp4"], "line 2: has 1 cells, not 2"),
        (["video,labels", ",b"], "line 2: names no video"),
        (["video,labels"], "holds no job"),
        (["video,labels,options", "a,b,--at '"], "line 2: has options that cannot be read"),
        (["video,labels", "*,b"], "line 2: .* names no folder for the results; fill in out"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path: Path, rows: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_jobs(table(tmp_path, *rows), Path("out"))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["video,labels", "a/x.mp4,b", "b/x.mp4,b"], "line 3: writes to .*x, as line 2 does"),
        (["video,labels,options", "a,b,--out=c"], "line 2: gives --out=c, which a batch gives itself"),
    ],
)
def test_jobs_that_do_not_go_together(tmp_path: Path, rows: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_jobs(table(tmp_path, *rows), Path("out"))


def test_processes_fit_cores_and_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vcorr.propagation.batch.cores", lambda: 8)
    monkeypatch.setattr("vcorr.propagation.batch.free_memory", lambda: 4_000_000_000)
    assert sized(500) == (2, 4)
    assert sized(1) == (1, 8)
    assert sized(500, workers=4) == (4, 2)
    assert sized(500, threads=1) == (2, 1)
    monkeypatch.setattr("vcorr.propagation.batch.free_memory", lambda: None)
    assert sized(500) == (8, 1)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2 kB\n")
    assert free_memory(tmp_path) == 2048
    assert free_memory(tmp_path / "none") is None


@pytest.mark.slow
def test_one_that_fails_stops_no_other_and_the_rest_is_not_done_again(
    frames: Path, mask: Path, weights: Path, tmp_path: Path
) -> None:
    rows = [
        f"{frames.name},{mask.name},good,--weights {weights} --end 3",
        f"none.mp4,{mask.name},bad,",
        f"{frames.name},{mask.name},again,--weights {weights} --end 2",
    ]
    path = table(tmp_path, "video,labels,out,options", *rows)
    result = CliRunner().invoke(app, ["batch", str(path), "--workers", "3"])
    assert result.exit_code == 5
    assert "2 of 3 videos are labelled" in result.stdout
    assert f"line 3, {tmp_path / 'none.mp4'}: " in result.stdout and "none.mp4: does not exist" in result.stdout
    assert len(list((tmp_path / "good/masks").iterdir())) == 3
    assert not (tmp_path / "bad").exists() and "none.mp4" in (tmp_path / "bad.log").read_text()
    stood = {p: p.stat().st_mtime_ns for p in (tmp_path / "good").rglob("*")}
    shutil.copytree(frames, tmp_path / "none.mp4")
    rows[1] = f"none.mp4,{mask.name},bad,--weights {weights} --end 2"
    table(tmp_path, "video,labels,out,options", *rows)
    result = CliRunner().invoke(app, ["batch", str(path), "--workers", "3", "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert [one["labelled_now"] for one in found] == [0, 2, 0]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "good").rglob("*")} == stood
