"""``vcorr batch``."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from vcorr.commands.console import say
from vcorr.commands.signals import stoppable

SOME_FAILED = 5


def batch(
    jobs: Annotated[Path, typer.Argument(metavar="JOBS.csv", help="Columns: video, labels, out, options.")],
    out: Annotated[Path, typer.Option(help="Folder for the results of rows without out.")] = Path("vcorr-out"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Videos at a time; default: what cores and memory allow.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for each; default: all cores, shared.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what became of each as JSON.")] = False,
) -> None:
    """Label many videos, each in a process of its own. The same command resumes a stopped batch."""
    from vcorr.phrases import duration
    from vcorr.propagation.batch import read_jobs, run_jobs, sized, told

    listed = read_jobs(jobs, out)
    count, each = sized(len(listed), workers, threads)
    say(f"{len(listed)} videos, {count} at a time, {each} thread{'s' * (each != 1)} each")
    ended = []
    with stoppable(jobs), closing(run_jobs(listed, count, each)) as running:
        for done in running:
            ended.append(done)
            say(told(done, len(ended), len(listed), duration))
    failed = [done for done in ended if done.code]
    if as_json:
        typer.echo(json.dumps([done.to_json() for done in sorted(ended, key=lambda done: done.job.line)]))
    else:
        typer.echo(f"{len(listed) - len(failed)} of {len(listed)} videos are labelled")
        for done in sorted(failed, key=lambda done: done.job.line):
            typer.echo(f"line {done.job.line}, {done.job.video}: {done.said}")
    if failed:
        raise typer.Exit(SOME_FAILED)
