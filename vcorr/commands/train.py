"""``vcorr train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vcorr.commands.console import first_rank, say
from vcorr.commands.options import Device
from vcorr.errors import UsageError

if TYPE_CHECKING:
    from vcorr.training.loop import Progress as TrainProgress


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (see vcorr recipes).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Change values of its configuration.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of video files and folders of frames, at any depth.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; a stopped run is resumed. Default: runs/RECIPE.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Start from a weights file, or from 'default', the shipped weights."),
    ] = None,
    device: Device = "auto",
    save_every: Annotated[float, typer.Option(help="Seconds between saved states.")] = 300.0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Threads that prepare clips; default: chosen by the device.")
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(metavar="DAVIS", help="Validation clips in DAVIS's layout, labelled and scored while training."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the configuration and the number of parameters, then exit.")
    ] = False,
) -> None:
    """Train a recipe on a folder of videos. The same command resumes a stopped run; OUT/report.html shows it."""
    from vcorr.config import flatten
    from vcorr.training import recipe as recipes

    experiment = recipes.load(recipe, overrides)
    if show:
        typer.echo("\n".join(f"{k}={v}" for k, v in flatten(experiment.config).items()))
        typer.echo(f"parameters: {experiment.parameters:,}")
        return
    if data is None:
        raise UsageError("--data", "is missing", "give a folder of videos and/or folders of frames")
    from vcorr.model.weights import default_weights
    from vcorr.training.loop import TrainOptions
    from vcorr.training.loop import train as run

    options = TrainOptions(save_every=save_every, validation=validation, workers=workers)
    weights = run(
        experiment,
        data,
        out or Path("runs") / experiment.name,
        device=device,
        init=default_weights() if str(init) == "default" else init,
        options=options,
        say=say,
        report=_tell,
    )
    if first_rank():
        typer.echo(weights)


def _tell(progress: TrainProgress) -> None:
    left = int(progress.seconds_left)
    say(
        f"{progress.stage} {progress.step}/{progress.steps}  loss {progress.loss:.4f}  "
        f"{progress.clips_per_second:.1f} clips/s  data {progress.data_share:.0%}  "
        f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
    )
