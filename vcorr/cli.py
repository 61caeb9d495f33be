"""The command line: parses and prints, computes nothing. Results on stdout; progress and errors on stderr.

Exit codes: 0 ok, 1 internal error, 2 usage, 3 input unreadable or invalid, 4 output cannot be written, 5 some of
several videos failed, 75 stopped by a signal after saving (run the command again to go on), 130 Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vcorr.bench.commands import app as bench_app
from vcorr.errors import Stopped, UsageError, VcorrError

if TYPE_CHECKING:
    from vcorr.training.loop import Progress as TrainProgress

app = typer.Typer(
    help="Label one frame of a video, get every frame labelled; train on raw video.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
evaluate_app = typer.Typer(help="Official scores of the benchmarks.", no_args_is_help=True)
app.add_typer(evaluate_app, name="evaluate")
recipes_app = typer.Typer(invoke_without_command=True)
app.add_typer(recipes_app, name="recipes")
app.add_typer(bench_app, name="bench")
stderr = Console(stderr=True, highlight=False, soft_wrap=True)

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto is the GPU if there is one.")]


def main() -> None:
    """Run the command; every error a user can mend is one line on stderr and an exit code."""
    debug = "--debug" in sys.argv[1:]
    try:
        app(args=[a for a in sys.argv[1:] if a != "--debug"])
    except VcorrError as error:
        if debug:
            raise
        if error.shared and not _first_rank():
            sys.exit(error.exit_code)
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped by Ctrl-C; run the same command to go on", 130)
    except Exception as error:
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {error}; run again with --debug and report what it prints", 1)


def _first_rank() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _fail(line: str, code: int) -> None:
    print(f"vcorr: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        from vcorr.machine import versions

        typer.echo("\n".join(f"{name} {value}" for name, value in versions().items()))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Versions and device.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options before the command; ``main`` reads --debug anywhere."""


@app.command()
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
    with _stoppable(out), _bar("labelling") as progress:
        summary = propagate_to(request, say=_say, progress=progress)
    if as_json:
        typer.echo(json.dumps(summary.to_json()))
    else:
        typer.echo(f"{summary.frames} masks in {out / 'masks'}, overlay in {out / 'overlay.mp4'}")


@app.command()
def frame(
    video: Annotated[str, typer.Argument(help="A video file, a folder of frames, or a quoted glob.")],
    index: Annotated[int, typer.Argument(metavar="K", min=0, help="Frame index, from 0.")],
    out: Annotated[Path | None, typer.Argument(help="The image to write; default: frame_K.png here.")] = None,
) -> None:
    """Write frame K as an image, to paint a mask on."""
    from PIL import Image

    from vcorr.media.image import write_image
    from vcorr.media.video import open_video

    path = out or Path(f"frame_{index:05d}.png")
    with open_video(video) as source:
        if index >= len(source):
            raise UsageError(f"frame {index}", f"{video} has {len(source)} frames", f"give 0 to {len(source) - 1}")
        write_image(path, Image.fromarray(source.frame(index)))
    typer.echo(path)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (see vcorr recipes).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values of its configuration.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of videos and/or folders of frames.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run, continued if it holds this run; default: runs/RECIPE.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Start from these weights, or from 'default', those that come with vcorr: one's own footage."
        ),
    ] = None,
    device: Device = "auto",
    save_every: Annotated[float, typer.Option(help="Seconds between two saved states.")] = 300.0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Threads that make clips ahead of time; default: by the device.")
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(metavar="DAVIS", help="Labelled clips, in DAVIS's layout, to propagate and score on the way."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the configuration and the number of parameters, and stop.")
    ] = False,
) -> None:
    """Train a recipe on a folder of videos; the same command goes on with a stopped run. See OUT/report.html."""
    from vcorr.config import flatten
    from vcorr.machine import pick_device
    from vcorr.training import recipe as recipes

    experiment = recipes.load(recipe, overrides)
    if show:
        typer.echo("\n".join(f"{k}={v}" for k, v in flatten(experiment.config).items()))
        typer.echo(f"parameters: {experiment.parameters:,}")
        return
    if data is None:
        raise UsageError("--data", "is missing", "give a folder of videos and/or folders of frames")
    from vcorr.model import weights as checkpoint
    from vcorr.training.loop import Options
    from vcorr.training.loop import train as run

    options = Options(save_every=save_every, probe=probe, workers=workers)
    weights = run(
        experiment,
        data,
        out or Path("runs") / experiment.name,
        device=pick_device(device),
        init=checkpoint.default_weights() if str(init) == "default" else init,
        options=options,
        say=_say,
        report=_tell,
    )
    if _first_rank():
        typer.echo(weights)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of videos and/or folders of frames.")],
    out: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write; continued if it was made alike.")],
    size: Annotated[int, typer.Option(min=1, help="Frames with a larger short side are shrunk to this one.")] = 480,
    every: Annotated[int, typer.Option(metavar="K", min=1, help="Keep frames 0, K, 2K, ...")] = 1,
    png: Annotated[bool, typer.Option("--png", help="Lossless frames, several times the size of JPEG.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Videos at a time; default: one a core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Decode and shrink videos once, into frame folders: train with --data DST. The same command goes on."""
    from vcorr.training.prepare.frames import Options
    from vcorr.training.prepare.videos import prepare as run

    options = Options(size, every, "png" if png else "jpg")
    with _stoppable(out), _bar("preparing", "videos") as progress:
        summary = run(source, out, options, workers=workers, say=_say, progress=progress)
    for path, note in (summary.notes | summary.left_out | summary.failed).items():
        _say(f"{path}: {note}")
    if as_json:
        typer.echo(json.dumps(summary.to_json()))
    else:
        failed = f"; {len(summary.failed)} could not be read" if summary.failed else ""
        there = summary.videos - summary.made
        typer.echo(f"{summary.videos} videos, {summary.frames} frames in {out} ({there} were there){failed}")
    if summary.failed:
        raise typer.Exit(5)


@evaluate_app.command()
def davis(
    root: Annotated[Path, typer.Option(help="Data set: ROOT/Annotations/480p/SEQUENCE/00000.png.")],
    pred: Annotated[Path | None, typer.Option(help="Results to score: PRED/SEQUENCE/00000.png.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Propagate with these weights first, or 'default'.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --weights: keep the masks here.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """DAVIS-2017, semi-supervised: J, F, their recalls and decays, by the official protocol."""
    import tempfile

    from vcorr.evaluation.davis import evaluate_davis

    if (pred is None) == (weights is None):
        raise UsageError(
            "--pred and --weights",
            "give exactly one of them",
            "--pred DIR scores results, --weights FILE makes them first",
        )
    with tempfile.TemporaryDirectory(prefix="vcorr-") as scratch:
        if weights is not None:
            from vcorr.evaluation.sequences import label_sequences, trained

            pred = out or Path(scratch) / "results"
            model, about = trained(_weights(weights))
            for name, frames, seconds in label_sequences(root, pred, model, about, workers=workers):
                _say(f"{name}: {frames} frames, {seconds:.0f} s")
        assert pred is not None
        scores = evaluate_davis(root, pred, workers=workers)
    if as_json:
        typer.echo(json.dumps(scores.to_json(), indent=2))
    else:
        _table([scores.columns, *scores.rows()])


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the recipes that come with vcorr; ``copy`` one to change it."""
    if context.invoked_subcommand is None:
        from vcorr.training.recipe import shipped, summary

        for name, path in shipped().items():
            typer.echo(f"{name:13} {summary(path)}")


@recipes_app.command()
def copy(name: Annotated[str, typer.Argument(help="A shipped recipe.")]) -> None:
    """Put a recipe in the folder you stand in; ``vcorr train NAME.py`` trains the copy."""
    from vcorr.training.recipe import copy as copy_to

    typer.echo(copy_to(name, Path()))


@app.command()
def weights(
    file: Annotated[Path | None, typer.Argument(help="A weights file; default: the one that comes with vcorr.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Read labels otherwise: radius=8, feedback=hard."),
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write a copy in half precision, at half the size.")] = None,
) -> None:
    """Show where weights come from and how labels are read with them; write a copy."""
    from vcorr.config import flatten, override
    from vcorr.model import weights as checkpoint

    loaded = checkpoint.load_weights(file)
    loaded = dataclasses.replace(loaded, reader=override(loaded.reader, overrides or []))
    facts = {k: v for k, v in loaded.meta.items() if not isinstance(v, dict)}
    facts["parameters"] = sum(p.numel() for p in loaded.params.values())
    facts |= {f"reader.{k}": v for k, v in flatten(loaded.reader).items()}
    typer.echo("\n".join(f"{k}={v}" for k, v in facts.items()))
    if export is not None:
        checkpoint.save_weights(export, loaded, half=True)


def _labelled(pair: str) -> tuple[int, Path]:
    """``K=FILE``"""
    index, equals, path = pair.partition("=")
    if not equals or not index.isdigit() or not path:
        raise UsageError(f"--at {pair}", "is not K=FILE", "write the frame's index and its mask: --at 40=mask40.png")
    return int(index), Path(path)


def _weights(path: Path) -> Path | None:
    return None if str(path) == "default" else path


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        typer.echo(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )


def _say(line: str) -> None:
    stderr.print(line, markup=False)


def _tell(progress: TrainProgress) -> None:
    left = int(progress.seconds_left)
    _say(
        f"{progress.phase} {progress.step}/{progress.steps}  loss {progress.loss:.4f}  "
        f"{progress.clips_per_second:.1f} clips/s  data {progress.data_share:.0%}  "
        f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
    )


class _Signalled(BaseException):
    """Stopped, before it reaches the commands: whoever mends what a hostile file raises lets this one through."""


@contextmanager
def _stoppable(out: Path) -> Iterator[None]:
    """SIGTERM and Ctrl-C become errors of one line; the work done was saved on the way out."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Signalled(number)

    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Signalled as signalled:
        raise Stopped(out, *signalled.args) from None
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _bar(what: str, unit: str = "frames") -> Iterator[Callable[[int, int], None]]:
    """Takes (done, total): a bar with the rate and the time left on a terminal, ten lines elsewhere."""
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=stderr, disable=not stderr.is_terminal)
    task = bar.add_task(what, total=None, rate="")
    began: float | None = None
    first = 0

    def progress(done: int, total: int) -> None:
        nonlocal began, first
        if began is None:
            began, first = time.monotonic(), done
            bar.start()
        elapsed = time.monotonic() - began
        rate = f"{(done - first) / elapsed:.2f} {unit}/s" if elapsed else ""
        bar.update(task, completed=done, total=total, rate=rate)
        if bar.disable and done * 10 // total > (done - 1) * 10 // total:
            _say(f"{what} {done}/{total}  {rate}")

    try:
        yield progress
    finally:
        bar.stop()
