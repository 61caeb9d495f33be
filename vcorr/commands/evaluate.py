"""``vcorr evaluate``: a command for each benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from vcorr.commands.console import say, table
from vcorr.commands.options import weights_file
from vcorr.commands.signals import stoppable
from vcorr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vcorr.evaluation.page import Shot
    from vcorr.evaluation.task import PointTask, Task

app = typer.Typer(help="Score results by the official protocols of the benchmarks.", no_args_is_help=True)

Weights = Annotated[Path | None, typer.Option(help="Label the videos first, with this weights file or 'default'.")]
Out = Annotated[Path | None, typer.Option(help="With --weights: keep the results in this folder.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default: one for each available core.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")]
Page = Annotated[
    Path | None, typer.Option(help="Write an HTML page: the table, drift, best and worst sequences as pictures.")
]
Attributes = Annotated[
    Path | None,
    typer.Option(help='With --page: group sequences by attributes; lines "NAME: OCC MB", or JSON {NAME: [OCC, MB]}.'),
]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write the scores of every object to this file.")]


class ScoreTable(Protocol):
    """What every benchmark's scores can be shown as."""

    @property
    def columns(self) -> tuple[str, ...]: ...
    def rows(self) -> list[tuple[str, ...]]: ...
    def csv(self) -> list[tuple[object, ...]]: ...
    def to_json(self) -> dict[str, Any]: ...


@app.command()
def davis(
    root: Annotated[Path, typer.Option(help="Dataset: ROOT/Annotations/480p/SEQUENCE/00000.png.")],
    pred: Annotated[Path | None, typer.Option(help="Results to score: PRED/SEQUENCE/00000.png.")] = None,
    weights: Weights = None,
    out: Out = None,
    sequence: Annotated[
        list[str] | None, typer.Option(help="Take this sequence alone; repeat for several. Default: the listed ones.")
    ] = None,
    workers: Workers = None,
    csv: Csv = None,
    page: Page = None,
    attributes: Attributes = None,
    as_json: AsJson = False,
) -> None:
    """DAVIS-2017, semi-supervised: J, F, recall and decay by the official protocol."""
    from vcorr.evaluation.davis import check_davis, evaluate_davis, shots

    grouped = _attributes(page, attributes)

    def tasks(folder: Path) -> list[Task]:
        from vcorr.evaluation.sequences import davis_tasks

        check_davis(root, sequences=sequence)
        return davis_tasks(root, folder, names=sequence)

    with _results(pred, weights, out, tasks, workers) as folder:
        scores = evaluate_davis(root, folder, sequences=sequence, workers=workers)
        _write_page(page, "DAVIS-2017", "J&F", root, scores, lambda: shots(scores, root, folder), grouped)
        _show(scores, as_json, csv)


@app.command()
def youtube_vos(
    root: Annotated[Path, typer.Option(help="Dataset: ROOT/meta.json, ROOT/Annotations/VIDEO/00000.png.")],
    pred: Annotated[
        Path | None, typer.Option(help="Results to score: PRED/VIDEO/00000.png, or in PRED/Annotations.")
    ] = None,
    weights: Weights = None,
    out: Out = None,
    images: Annotated[
        Path | None, typer.Option(help="With --weights: images to read instead of ROOT/JPEGImages, such as all frames.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Annotations of all listed frames, if ROOT has only the given ones.")
    ] = None,
    seen: Annotated[
        Path | None, typer.Option(help="Seen categories: meta.json of the training set, or one name a line.")
    ] = None,
    count_given: Annotated[bool, typer.Option(help="Also count the frame in which an object begins.")] = False,
    workers: Workers = None,
    csv: Csv = None,
    page: Page = None,
    attributes: Attributes = None,
    as_json: AsJson = False,
) -> None:
    """YouTube-VOS: J and F of seen and unseen categories. Without annotations: check a submission."""
    from vcorr.evaluation.youtube_vos import check_submission, evaluate_youtube_vos, shots, tasks
    from vcorr.evaluation.youtube_vos_layout import SEEN, is_annotated, read_seen, videos

    grouped = _attributes(page, attributes)
    categories = SEEN if seen is None else read_seen(seen)
    annotated = is_annotated(videos(root, annotations=annotations))
    if not annotated and weights is not None and out is None:
        raise UsageError("--out", "there are no annotations to score against", "say where the results go")
    with _results(pred, weights, out, lambda folder: tasks(root, folder, images=images), workers) as folder:
        if not annotated:
            say("there are no annotations to score against; the results are checked as the server reads them")
            frames = check_submission(root, folder)
            typer.echo(json.dumps({"frames": frames}) if as_json else f"{frames} frames, ready to submit: {folder}")
            return
        scores = evaluate_youtube_vos(
            root, folder, annotations=annotations, seen=categories, given=count_given, workers=workers
        )
        made = partial(shots, scores, root, folder, images=images)
        _write_page(page, "YouTube-VOS", "J&F", root, scores, made, grouped)
        _show(scores, as_json, csv)


@app.command()
def vip(
    root: Annotated[Path, typer.Option(help="Dataset: ROOT/Annotations/Category_ids/VIDEO/000000000001.png.")],
    pred: Annotated[
        Path | None, typer.Option(help="Results to score: PRED/VIDEO/FRAME.png, and instance_part/ there.")
    ] = None,
    weights: Weights = None,
    out: Out = None,
    listed: Annotated[Path | None, typer.Option("--list", help="Videos; default: ROOT/lists/val_id.txt.")] = None,
    workers: Workers = None,
    csv: Csv = None,
    page: Page = None,
    attributes: Attributes = None,
    as_json: AsJson = False,
) -> None:
    """VIP: mean IoU of 20 classes, and average precision of body parts."""
    from vcorr.evaluation.vip import evaluate_vip, shots, tasks

    grouped = _attributes(page, attributes)
    with _results(pred, weights, out, lambda folder: tasks(root, folder, listed=listed), workers) as folder:
        scores = evaluate_vip(root, folder, listed=listed, workers=workers)
        made = partial(shots, scores, root, folder, listed=listed)
        _write_page(page, "VIP", "mean IoU", root, scores, made, grouped)
        _show(scores, as_json, csv)


@app.command()
def jhmdb(
    root: Annotated[Path, typer.Option(help="Dataset: ROOT/joint_positions/CLASS/CLIP/joint_positions.mat.")],
    pred: Annotated[Path | None, typer.Option(help="Results to score: PRED/CLIP.csv or CLIP/keypoints.csv.")] = None,
    weights: Weights = None,
    out: Out = None,
    listed: Annotated[
        Path | None, typer.Option("--list", help="File with image folder and .mat file of one clip a line.")
    ] = None,
    split: Annotated[int, typer.Option(min=1, max=3, help="Test list of ROOT/splits.")] = 1,
    workers: Workers = None,
    csv: Csv = None,
    page: Page = None,
    attributes: Attributes = None,
    as_json: AsJson = False,
) -> None:
    """JHMDB: PCK of 15 joints, relative to the person's box (instance) and to its larger side (max)."""
    from vcorr.evaluation.jhmdb import evaluate_jhmdb, shots, tasks

    grouped = _attributes(page, attributes)
    make = partial(tasks, root, listed=listed, split=split)
    with _results(pred, weights, out, make, workers) as folder:
        scores = evaluate_jhmdb(root, folder, listed=listed, split=split)
        made = partial(shots, scores, root, folder, listed=listed, split=split)
        _write_page(page, "JHMDB", "PCK_instance@0.1", root, scores, made, grouped)
        _show(scores, as_json, csv)


@app.command()
def masks(
    truth: Annotated[
        Path, typer.Option(help="Annotations: a folder of masks, a folder of such folders, or DAVIS's layout.")
    ],
    pred: Annotated[Path, typer.Option(help="Results: PRED/NAME/7.png, or PRED/7.png for one folder.")],
    workers: Workers = None,
    csv: Csv = None,
    as_json: AsJson = False,
) -> None:
    """Your own masks: J and F of each object after its first annotation, and mean IoU."""
    from vcorr.evaluation.masks import evaluate_masks

    _show(evaluate_masks(truth, pred, workers=workers), as_json, csv)


@app.command()
def keypoints(
    truth: Annotated[Path, typer.Option(help="Annotated points: a file, or a folder with one file for each video.")],
    pred: Annotated[Path, typer.Option(help="Results: a file or output folder, or a folder with one for each video.")],
    count_given: Annotated[bool, typer.Option(help="Also count the first annotated frame.")] = False,
    csv: Csv = None,
    as_json: AsJson = False,
) -> None:
    """Your own keypoints: PCK on every annotated frame except the first."""
    from vcorr.evaluation.keypoints import evaluate_keypoints

    _show(evaluate_keypoints(truth, pred, count_given=count_given), as_json, csv)


@contextmanager
def _results(
    pred: Path | None,
    weights: Path | None,
    out: Path | None,
    tasks: Callable[[Path], Iterable[Task | PointTask]],
    workers: int | None,
) -> Iterator[Path]:
    """The folder of results: the one that was given, or one that is filled first, gone at the end unless kept."""
    import tempfile

    if (pred is None) == (weights is None):
        raise UsageError(
            "--pred and --weights",
            "give exactly one of them",
            "--pred DIR scores results, --weights FILE makes them first",
        )
    with stoppable(out), tempfile.TemporaryDirectory(prefix="vcorr-") as scratch:
        if weights is not None:
            from vcorr.evaluation.sequences import label_videos, trained

            pred = out or Path(scratch) / "results"
            load, about = trained(weights_file(weights))
            with closing(label_videos(tasks(pred), pred, load, about, workers=workers, say=say)) as labelled:
                for done in labelled:
                    say(f"{done.name}: {done.frames} frames, {done.seconds:.0f} s")
                    if done.damaged:
                        say(f"{done.name}: {len(done.damaged)} damaged frames took the picture before them")
        assert pred is not None
        yield pred


def _attributes(page: Path | None, file: Path | None) -> dict[str, tuple[str, ...]] | None:
    """The attributes of the sequences, read before any work."""
    if file is None:
        return None
    if page is None:
        raise UsageError("--attributes", "groups sequences on a page, and there is none", "add --page FILE")
    from vcorr.evaluation.attributes import read_attributes

    return read_attributes(file)


def _write_page(
    page: Path | None,
    protocol: str,
    measure: str,
    root: Path,
    scores: ScoreTable,
    shots: Callable[[], Iterable[Shot]],
    attributes: dict[str, tuple[str, ...]] | None,
) -> None:
    if page is not None:
        from vcorr.evaluation.page import write_page

        title = f"{root.resolve().name}: scores by the protocol of {protocol}"
        write_page(page, title, measure, scores, shots(), attributes)


def _show(scores: ScoreTable, as_json: bool, csv: Path | None) -> None:
    """The scores on stdout, and in a file for a table."""
    if csv is not None:
        import csv as writer
        import io

        from vcorr.files import replacing

        text = io.StringIO()
        writer.writer(text, lineterminator="\n").writerows(scores.csv())
        with replacing(csv) as file:
            file.write(text.getvalue().encode())
    if as_json:
        typer.echo(json.dumps(scores.to_json(), indent=2))
    else:
        table([scores.columns, *scores.rows()])
