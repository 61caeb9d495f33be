"""The comparison of two revisions: what it counts and measures."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks import revisions


def test_lines_are_those_of_rooms(tmp_path: Path) -> None:
    for name, lines in (("vcorr/a/b/c.py", 3), ("vcorr/a/d.py", 2), ("vcorr/e.py", 1), ("vcorr/a/text.md", 9)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x\n" * lines)
    assert revisions.lines_of(tmp_path) == {"a": 5, "e": 1}
    assert "| a | 5 | 5 | +0 |\n" in revisions.compare_lines([tmp_path, tmp_path])


def test_every_operator_runs_and_is_measured() -> None:
    for work in revisions.cases(small=True).values():
        assert revisions.cpu_ms(work) >= 0 and not revisions.extra_mb(work) < 0


def test_memory_is_that_of_the_call() -> None:
    found = revisions.extra_mb(lambda: bytearray(64 << 20))
    assert math.isnan(found) or 60 < found < 80
