"""``vcorr ui``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vcorr.commands.console import say
from vcorr.commands.options import Device, weights_file


def ui(
    video: Annotated[str, typer.Argument(help="A video file, a folder of frames, or a quoted glob.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the labels and results: a new one, or one of `vcorr propagate`.")
    ] = Path("vcorr-out"),
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on; default: a free one.")] = None,
    host: Annotated[str, typer.Option(help="Interface to listen on. Others than 127.0.0.1 open it to the network.")] = (
        "127.0.0.1"
    ),
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    weights: Annotated[
        Path | None, typer.Option(help="weights.safetensors of a training run; default: the shipped weights.")
    ] = None,
    short_side: Annotated[
        int, typer.Option("--size", min=32, help="Largest short side at which frames are read, in pixels.")
    ] = 480,
    start: Annotated[int, typer.Option(min=0, help="First frame to label.")] = 0,
    end: Annotated[int | None, typer.Option(help="Frame to stop before; default: the end.")] = None,
    device: Device = "auto",
    kind: Annotated[
        Literal["masks", "keypoints"] | None, typer.Option(help="What to label in a new folder; default: masks.")
    ] = None,
) -> None:
    """Paint, propagate, correct and export labels in a browser, on this machine alone."""
    from vcorr.propagation.run import PAINTED, Request
    from vcorr.ui.server import serve

    options = (weights and weights_file(weights), short_side, start, end, device)
    request = Request(video, out / PAINTED, out, {}, *options, kind=kind)

    def ready(address: str) -> None:
        typer.echo(address)
        say("open this address in a browser; Ctrl-C ends it, and everything is saved already")

    serve(request, host=host, port=port, browser=browser, say=say, ready=ready)
