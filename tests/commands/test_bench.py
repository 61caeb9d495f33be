"""``vcorr bench`` as a user meets it: what --json holds, one line for an error, and its exit code."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydantic import ConfigDict, TypeAdapter

from vcorr import cli
from vcorr.bench import operators, propagation

TINY = "negatives:h=6,w=5,c=8,bank=40"
QUICK = ("--device", "cpu", "--rounds", 1, "--no-memory")
STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass
class Document:
    __pydantic_config__ = STRICT
    schema: int
    kind: str
    machine: dict[str, str | int]
    options: dict[str, str | int | float | bool]
    rows: list[dict[str, object]]


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vcorr", "bench", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


def rows_of(out: str, kind: str, row_type: type) -> list:
    """The rows of a document whose keys and types are those of the dataclass, and no others."""
    document = TypeAdapter(Document).validate_json(out)
    assert (document.schema, document.kind) == (1, kind)
    assert document.machine.keys() == {"device", "threads", "torch", "python", "date"}
    return [TypeAdapter(row_type).validate_json(json.dumps(row), extra="forbid", strict=True) for row in document.rows]


@pytest.mark.slow
def test_operators_as_json(bench) -> None:
    code, out, err = bench("operators", TINY, "--device", "cpu", "--rounds", 2, "--json")
    assert code == 0, err
    rows = rows_of(out, "operators", operators.OperatorRow)
    assert {row.case for row in rows} == {TINY}
    assert rows[0].method == "vcorr"
    assert rows[0].error < 1e-5
    assert "timing" in err


@pytest.mark.slow
def test_operators_as_text_and_table(bench) -> None:
    common = ("operators", TINY, "top-10:h=5,w=6,c=8,radius=2,r=2,top_k=3", *QUICK)
    code, out, _ = bench(*common, "--dtype", "bf16")
    assert code == 0
    assert out.splitlines()[0].startswith(f"{TINY}: 30 queries, 40 negatives, 8 features; product ")
    assert out.count("x floor") == 2
    code, out, _ = bench(*common, "--markdown")
    assert code == 0
    first, _, _, header, line, *cases = out.splitlines()
    assert first.startswith("From `vcorr bench operators ")
    assert len(cases) == 2
    assert {text.count("|") for text in (header, line, *cases)} == {8}


def test_a_wrong_result_is_an_error(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "ours", lambda case, impl: lambda query, keys, values: query.sum(1))
    code, out, err = bench("operators", TINY, *QUICK)
    assert code == 1
    assert "wrong: relative error" in out
    assert err.splitlines()[-1].startswith(f"vcorr: {TINY}, vcorr: wrong")


@pytest.mark.slow
def test_propagation(bench, weights: Path) -> None:
    common = ("propagation", "480p:height=48,width=65,frames=4,objects=2", "--weights", weights, "--device", "cpu")
    code, out, err = bench(*common, "--json")
    assert code == 0, err
    (row,) = rows_of(out, "propagation", propagation.PropagationRow)
    assert (row.frames, row.objects, row.height, row.width) == (4, 2, 48, 64)
    assert row.shares.keys() == set(propagation.SHARES)
    assert row.frames_per_second > 0
    assert 100 < row.peak_mb < 2000


@pytest.mark.slow
def test_propagation_of_a_video(bench, frames: Path, mask: Path, weights: Path) -> None:
    common = ("propagation", "480p:frames=10", "--weights", weights, "--device", "cpu")
    code, out, err = bench(*common, "--video", frames, "--labels", mask, "--markdown")
    assert code == 0, err
    assert out.splitlines()[-1].startswith("| 64x48 | 2 | 10 | ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "wanted", "words"),
    [
        (("operators", "windows"), 2, "windows: is no case"),
        (("operators", "window-64:top_k=10000"), 2, "top_k must be at most the number of taps, 169, got 10000"),
        (("operators", "window-64:c=5000"), 2, "c must be at most 4096, got 5000"),
        (("operators", "top-10:radius=1,r=1"), 2, "top_k must be at most the number of taps, 9, got 10"),
        (("operators", TINY, "--device", "cpu", "--impl", "triton"), 2, "--impl triton: needs a GPU, got cpu"),
        (("operators", TINY, "--json", "--markdown"), 2, "give one of them"),
        (("operators", TINY, "--device", "abacus"), 2, "--device abacus"),
        (("propagation", "480p", "--video", "a.mp4"), 2, "one of them is missing"),
        (("propagation", "480p", "--video", "a.mp4", "--labels", "a.png"), 3, "a.mp4: there is no such file"),
        (("propagation", "480p:frames=x"), 2, "frames is 'x'"),
        (("propagation", "480p:height=32,width=32,frames=2", "--weights", __file__), 1, "vcorr propagate"),
    ],
)
def test_errors(bench, args: tuple[object, ...], wanted: int, words: str) -> None:
    code, out, err = bench(*args)
    assert (code, out) == (wanted, "")
    assert err.splitlines()[-1].startswith("vcorr: ")
    assert words in err.splitlines()[-1]


@pytest.mark.slow
def test_both_parts_run_unasked(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    row = propagation.PropagationRow("480p", 2, 1, 32, 40, None, 1.0, 2.0, dict.fromkeys(propagation.SHARES, 0.25))
    monkeypatch.setattr("vcorr.bench.cases.default", lambda device, full: [TINY])
    monkeypatch.setattr(operators, "_extra_bytes", lambda *_: {})
    monkeypatch.setattr(propagation, "measure", lambda *_: row)
    code, out, _ = bench()
    assert code == 0
    assert TINY in out
    assert "480p: 2 frames of 40x32, 1 object: 2.00 frames/s, peak memory unknown" in out


def test_the_film_shows_its_objects() -> None:
    film = propagation.Film(60, 90, frames=3, objects=4)
    pictures = list(propagation.draw(film))
    assert [p.shape for p in pictures] == [(60, 90, 3)] * 3
    assert set(np.unique(propagation.shapes(film, 2))) == {0, 1, 2, 3, 4}
    assert not np.array_equal(pictures[0], pictures[1])


def test_the_document_is_json(bench) -> None:
    _, out, _ = bench("operators", TINY, *QUICK, "--json")
    assert json.loads(out)["options"]["device"] == "cpu"
