"""Rows as text, as the tables of the documentation, and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vcorr.bench.cases import Case
from vcorr.bench.operators import OURS, OperatorRow

Machine = Mapping[str, str | int]
SCHEMA = 1  # of the JSON: raised when a key changes its meaning or goes


def text(name: str, case: Case, rows: Sequence[OperatorRow]) -> Iterable[str]:
    """Lines for the eye, a method each."""
    rates = _rates(rows)
    yield f"{name}: {case}{f'; product {rates}' if rates else ''}"
    for row in rows:
        if row.ms is None:
            yield f"  {row.method:22} {row.note}"
            continue
        memory = "" if row.extra_mb is None else f"{row.extra_mb:9.1f} MB"
        launch = "" if row.host_ms is None else f"  launched in {row.host_ms:.3f} ms"
        yield (
            f"  {row.method:22} {row.ms:10.3f} ms {row.gflops:9.1f} GFLOP/s {row.over_floor:7.2f} x floor"
            f" {row.over_vcorr:7.2f} x vcorr{memory}{launch}"
        )


def markdown(
    command: str, machine: Machine, measured: Mapping[str, tuple[Case, Sequence[OperatorRow]]]
) -> Iterable[str]:
    """One table, a case a line: vcorr, and how many times as long each peer takes."""
    reached = _rates([row for _, rows in measured.values() for row in rows])
    yield from preface(command, machine, f"matrix products reach {reached or '0 GFLOP/s'}")
    yield "| case | size | vcorr | useful GFLOP/s | over the floor | extra memory | peers: times vcorr, extra memory |"
    yield "|---|---|---|---|---|---|---|"
    for name, (case, rows) in measured.items():
        ours = next(row for row in rows if row.method == OURS)
        if ours.ms is None:
            yield f"| {name} | {case} | {ours.note} | | | | |"
            continue
        others = ", ".join(
            f"{row.method} {_ratio(row)}{_memory(row, ' ({})')}" for row in rows if row is not ours and row.ms
        )
        yield (
            f"| {name} | {case} | {_time(ours)} | {ours.gflops:.0f} | {ours.over_floor:.1f} | {_memory(ours, '{}')} "
            f"| {others} |"
        )


def _rates(rows: Sequence[OperatorRow]) -> str:
    """From the least to the most that matrix products reached, as torch takes them and by oneDNN; "" where unknown."""
    found = []
    for column, more in (("product_gflops", ""), ("onednn_gflops", "by oneDNN ")):
        rates = sorted(getattr(row, column) for row in rows if getattr(row, column) is not None)
        if rates:
            ends = dict.fromkeys([f"{rates[0]:.0f}", f"{rates[-1]:.0f}"])
            found.append(f"{more}{' to '.join(ends)} GFLOP/s")
    return ", ".join(found)


def preface(command: str, machine: Machine, more: str) -> Iterable[str]:
    """What a table of measurements needs above it: the command, the machine, versions and the day."""
    yield f"From `{command}`, {machine['date']}:"
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    yield f"{machine['device']}; {threads}; torch {machine['torch']}; {more}."
    yield ""


def document(kind: str, machine: Machine, options: Mapping[str, Any], rows: Iterable[Any]) -> dict[str, Any]:
    """What ``--json`` prints."""
    listed = [dataclasses.asdict(row) for row in rows]
    return {"schema": SCHEMA, "kind": kind, "machine": dict(machine), "options": dict(options), "rows": listed}


def _time(row: OperatorRow) -> str:
    assert row.ms is not None
    return f"{1e3 * row.ms:.0f} us" if row.ms < 1 else f"{row.ms:.3g} ms" if row.ms < 1e3 else f"{row.ms / 1e3:.2f} s"


def _ratio(row: OperatorRow) -> str:
    assert row.over_vcorr is not None
    return f"{row.over_vcorr:.0f}x" if row.over_vcorr >= 10 else f"{row.over_vcorr:.1f}x"


def _memory(row: OperatorRow, form: str) -> str:
    return "" if row.extra_mb is None else form.format(f"{row.extra_mb:.0f} MB")
