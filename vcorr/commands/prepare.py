"""``vcorr prepare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vcorr.commands.console import bar, say
from vcorr.commands.signals import stoppable


def prepare(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Folder of video files and folders of frames, at any depth.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="DST", help="Folder to write. A stopped run with the same options is resumed.")
    ],
    size: Annotated[int, typer.Option(min=1, help="Largest short side of a frame, in pixels.")] = 480,
    every: Annotated[int, typer.Option(metavar="K", min=1, help="Keep frames 0, K, 2K, ...")] = 1,
    png: Annotated[bool, typer.Option("--png", help="Write PNG: lossless, several times the size of JPEG.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Videos decoded at a time; default: one for each core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Decode and shrink videos once, into frame folders for `vcorr train --data DST`."""
    from vcorr.training.prepare.frames import PrepareOptions
    from vcorr.training.prepare.videos import prepare as run

    options = PrepareOptions(size, every, "png" if png else "jpg")
    with stoppable(out), bar("preparing", "videos") as progress:
        summary = run(source, out, options, workers=workers, say=say, progress=progress)
    for path, note in (summary.notes | summary.left_out | summary.failed).items():
        say(f"{path}: {note}")
    if as_json:
        typer.echo(json.dumps(summary.to_json()))
    else:
        failed = f"; {len(summary.failed)} could not be read" if summary.failed else ""
        there = summary.videos - summary.made
        typer.echo(f"{summary.videos} videos, {summary.frames} frames in {out} ({there} were there){failed}")
    if summary.failed:
        raise typer.Exit(5)
