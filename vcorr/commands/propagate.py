"""``vcorr propagate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vcorr.commands.console import bar, say
from vcorr.commands.options import Device
from vcorr.commands.signals import stoppable
from vcorr.errors import UsageError


def propagate(
    video: Annotated[str, typer.Argument(help="A video file, a folder of frames, or a quoted glob.")],
    labels: Annotated[
        Path, typer.Argument(help="A mask of the first frame (of --start), or a folder of masks named by frame index.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the results; continued if it holds a stopped run of the same inputs.")
    ] = Path("vcorr-out"),
    at: Annotated[
        list[str] | None, typer.Option(metavar="K=FILE", help="A mask of frame K: a correction; as often as needed.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="weights.safetensors of a training; default: those that come with vcorr.")
    ] = None,
    size: Annotated[
        int,
        typer.Option(
            min=32, help="Videos with a larger short side are read at this one; masks come back at full size."
        ),
    ] = 480,
    start: Annotated[int, typer.Option(min=0, help="First frame to label.")] = 0,
    end: Annotated[int | None, typer.Option(help="Frame to stop before; default: to the end.")] = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Label every frame of a video from masks of one or some of its frames."""
    from vcorr.machine import pick_device
    from vcorr.propagation.run import Request, propagate_to

    more = dict(_labelled(pair) for pair in at or [])
    request = Request(video, labels, out, more, weights, size, start, end, str(pick_device(device)))
    with stoppable(out), bar("labelling") as progress:
        summary = propagate_to(request, say=say, progress=progress)
    if as_json:
        typer.echo(json.dumps(summary.to_json()))
    else:
        typer.echo(f"{summary.frames} masks in {out / 'masks'}, overlay in {out / 'overlay.mp4'}")


def _labelled(pair: str) -> tuple[int, Path]:
    """``K=FILE``"""
    index, equals, path = pair.partition("=")
    if not equals or not index.isdigit() or not path:
        raise UsageError(f"--at {pair}", "is not K=FILE", "write the frame's index and its mask: --at 40=mask40.png")
    return int(index), Path(path)
