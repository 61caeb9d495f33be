"""``vcorr frame``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vcorr.commands.console import say
from vcorr.errors import UsageError


def frame(
    video: Annotated[str, typer.Argument(help="A video file, a folder of frames, or a quoted glob.")],
    index: Annotated[int, typer.Argument(metavar="K", min=0, help="Frame index, from 0.")],
    out: Annotated[
        Path | None, typer.Argument(help="Image to write; default: frame_0000K.png in the current folder.")
    ] = None,
) -> None:
    """Write frame K as an image to paint a mask on."""
    from PIL import Image

    from vcorr.media.image import write_image
    from vcorr.media.video import open_video

    path = out or Path(f"frame_{index:05d}.png")
    with open_video(video) as source:
        if index >= len(source):
            raise UsageError(f"frame {index}", f"{video} has {len(source)} frames", f"give 0 to {len(source) - 1}")
        if source.would_hold(path):
            what = "would be one more frame of the video, as it lies among its frames"
            there = shlex.join(["vcorr", "frame", video, str(index), f"../{path.name}"])
            raise UsageError(path, what, f"name another place: {there}")
        for note in source.notes:
            say(note)
        write_image(path, Image.fromarray(source.frame(index)))
    typer.echo(path)
