"""``vcorr propagate``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from vcorr.commands.console import bar, say
from vcorr.commands.export import FORMS
from vcorr.commands.options import Device, weights_file
from vcorr.commands.signals import stoppable
from vcorr.errors import UsageError
from vcorr.phrases import duration, file_size

if TYPE_CHECKING:
    from vcorr.propagation.adapt import Adaptation
    from vcorr.propagation.run import Request


def propagate(
    video: Annotated[str, typer.Argument(help="A video file, a folder of frames, or a quoted glob.")],
    labels: Annotated[
        Path,
        typer.Argument(
            help="A mask of the first frame (--start), a folder of masks named by frame index or like the frames, "
            "a keypoint file (CSV, DeepLabCut, COCO), or an array of values (.npy)."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the results. A stopped run of the same inputs is resumed.")
    ] = Path("vcorr-out"),
    kind: Annotated[
        Literal["masks", "keypoints", "soft"] | None,
        typer.Option(help="Kind of labels; default: taken from the files."),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="K=FILE", help="Labels of frame K, such as a correction. Repeat as needed."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Correct the results in --out: label anew only what new labels change.")
    ] = False,
    without: Annotated[
        list[int] | None,
        typer.Option(metavar="K", min=0, help="With --update: take the label of frame K back; as often as needed."),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="With --update: new labels state only what they show; the rest stays as it is."),
    ] = False,
    named_by: Annotated[
        Literal["index", "frame"] | None,
        typer.Option(help="Whether ambiguous file names mean frame indices or frame files."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="weights.safetensors of a training run; default: the shipped weights.")
    ] = None,
    check: Annotated[
        Literal["cycle"] | None,
        typer.Option(
            help="Also label the masks back, to see which are lost: confidences take it in. Once more the time."
        ),
    ] = None,
    method: Annotated[
        Literal["mast", "momentum", "liir", "walk"] | None,
        typer.Option(help="Read labels by a paper's protocol; default: as the weights say (docs/propagation.md)."),
    ] = None,
    read: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Change a setting of reading, such as radius=8. Repeat as needed."),
    ] = None,
    short_side: Annotated[
        int,
        typer.Option(
            "--size",
            min=32,
            help="Largest short side at which frames are read, in pixels. Labels come back at full size.",
        ),
    ] = 480,
    start: Annotated[int, typer.Option(min=0, help="First frame to label.")] = 0,
    end: Annotated[int | None, typer.Option(help="Frame to stop before; default: the end.")] = None,
    adapt: Annotated[
        Literal["full", "light"] | None,
        typer.Option(
            help="Then fit a network to this video, whose masks are the result: full (the default; for a GPU) or "
            "light (for a laptop)."
        ),
    ] = None,
    interleave: Annotated[
        bool, typer.Option("--interleave", help="With --adapt: learn from the frames in their order.")
    ] = False,
    soft: Annotated[
        bool, typer.Option("--soft", help="Also write each object's score map to OUT/scores, a file a frame.")
    ] = False,
    device: Device = "auto",
    export: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"Also export the results to OUT/export: {FORMS}. Repeat as needed."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print frames, time, memory and disk space that it would take. Write nothing."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Label every frame of a video from masks or keypoints of one or more frames."""
    from vcorr.labels.given import kind_of
    from vcorr.propagation.export import check_form
    from vcorr.propagation.export import export as write
    from vcorr.propagation.run import Request, propagate_to

    forms = [check_form(name, kind or kind_of(labels)) for name in export or []]

    request = Request(
        video,
        labels,
        out,
        _labelled(at or []),
        weights and weights_file(weights),
        short_side,
        start,
        end,
        device,
        named_by,
        kind,
        update,
        frozenset(without or ()),
        _adaptation(adapt, interleave),
        soft,
        partial,
        method,
        tuple(read or ()),
        check,
    )
    if dry_run:
        _foretell(request, as_json)
        return
    with stoppable(out), bar("labelling") as progress:
        summary = propagate_to(request, say=say, progress=progress)
    exported = [write(out, form) for form in forms]
    if update and (others := _other_exports(out, exported)):
        say(f"exported before this update: {', '.join(others)}; `vcorr export {out} --to NAME` makes them again")
    if as_json:
        typer.echo(json.dumps(summary.to_json()))
    else:
        drawn = f", overlay in {out / 'overlay.mp4'}" if summary.overlay else ""
        what = {"masks": "masks", "keypoints": "frames' keypoints", "soft": "value layers"}[summary.kind]
        also = "".join(f", {path}" for path in exported)
        typer.echo(f"{summary.frames} {what} in {summary.labels}{drawn}{also}")
        if summary.look:
            typer.echo(f"{summary.look}; see {out / 'review.html'}")


class Propagate(TyperCommand):
    """The command, whose ``--adapt`` may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for i, word in enumerate(args):
            if word == "--":
                break
            if word == "--adapt" and args[i + 1 : i + 2] not in (["full"], ["light"]):
                args[i] = "--adapt=full"
        return super().parse_args(ctx, args)


def _adaptation(form: Literal["full", "light"] | None, interleave: bool) -> Adaptation | None:
    from vcorr.propagation.adapt import Adaptation

    if form is None and interleave:
        raise UsageError("--interleave", "speaks of an adaptation", "say --adapt as well")
    return None if form is None else Adaptation.of(form, interleaved=interleave)


def _foretell(request: Request, as_json: bool) -> None:
    """Print what a request would take."""
    from vcorr.propagation.forecast import forecast

    with stoppable(None):
        found = forecast(request, say=say)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    what = f"{found.objects} {'object' if found.kind == 'masks' else 'point'}{'s' * (found.objects != 1)}"
    more = "the adaptation and " if request.adapt else ""
    memory = "unknown" if found.memory is None else f"about {file_size(found.memory)}"
    rows = {
        "frames": f"{found.frames}, {found.frames - found.left} of them labelled already",
        "size": f"{found.width}x{found.height}, read at {found.read_width}x{found.read_height}; {what}",
        "time": f"about {duration(found.seconds)} on {found.device}, without {more}drawing the overlay",
        "memory": memory,
        "disk": f"about {file_size(found.disk)}; {file_size(found.free)} are free",
    }
    for name, text in rows.items():
        typer.echo(f"{name:8}{text}")


def _other_exports(out: Path, exported: list[Path]) -> list[str]:
    """What lies in the folder of exports beside what was written now."""
    folder = out / "export"
    return sorted(p.name for p in folder.iterdir() if p not in exported) if folder.is_dir() else []


def _labelled(pairs: list[str]) -> dict[int, Path]:
    """The files of ``K=FILE`` pairs by K."""
    files: dict[int, Path] = {}
    for pair in pairs:
        index, _, path = pair.partition("=")
        if not re.fullmatch("[0-9]{1,18}", index) or not path:
            advice = "write the frame's index and its mask: --at 40=mask40.png"
            raise UsageError(f"--at {pair}", "is not K=FILE", advice)
        if int(index) in files:
            what = f"frame {int(index)} is labelled by {files[int(index)]} already"
            raise UsageError(f"--at {pair}", what, "give one of the two")
        files[int(index)] = Path(path)
    return files
