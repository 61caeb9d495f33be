"""What commands print with: results on stdout; lines, bars and errors on stderr."""

from __future__ import annotations

import codecs
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """A line on stderr."""
    stderr.print(line, markup=False)


def print_any_name() -> None:
    """A file's name need not be text, nor have letters that the terminal knows; no work may end over printing it."""

    def as_it_is(error: UnicodeError) -> tuple[str | bytes, int]:
        try:
            return codecs.lookup_error("surrogateescape")(error)  # the name's own bytes, for a script to use
        except UnicodeError:
            return codecs.lookup_error("backslashreplace")(error)

    codecs.register_error("vcorr", as_it_is)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="vcorr")


def fail(line: str, code: int) -> None:
    """End the process with an exit code and the reason in one line."""
    print(f"vcorr: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(code)


def first_rank() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def table(rows: list[tuple[str, ...]]) -> None:
    """Rows of equal length on stdout, in columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        typer.echo(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )


@contextmanager
def bar(what: str, unit: str = "frames") -> Iterator[Callable[[int, int], None]]:
    """Takes (done, total): a bar with the rate and the time left on a terminal, ten lines elsewhere."""
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=stderr, disable=not stderr.is_terminal)
    task = shown.add_task(what, total=None, rate="")
    began: float | None = None
    first = 0

    def progress(done: int, total: int) -> None:
        nonlocal began, first
        if began is None:
            began, first = time.monotonic(), done
            shown.start()
        elapsed = time.monotonic() - began
        rate = f"{(done - first) / elapsed:.2f} {unit}/s" if elapsed else ""
        shown.update(task, completed=done, total=total, rate=rate)
        if shown.disable and done * 10 // total > (done - 1) * 10 // total:
            say(f"{what} {done}/{total}  {rate}")

    try:
        yield progress
    finally:
        shown.stop()
