"""A finished output folder in the forms of other tools: ``OUT/export/``, made again whenever it is asked for.

Every frame of the range has its place in each form, also where nothing is in it, under its index in the video.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcorr.errors import InputError, OutputError, UsageError
from vcorr.files import replacing
from vcorr.labels.formats import coco_write, cvat, deeplabcut_write, labelme_write, yolo
from vcorr.labels.formats.objects import Named, box
from vcorr.labels.formats.points import COLUMNS
from vcorr.labels.given import Kind
from vcorr.labels.keypoint_set import TABLE, KeypointTable
from vcorr.labels.keypoints import Points
from vcorr.labels.raw_ids import Ids, read_ids
from vcorr.media.image import write_image
from vcorr.media.video import open_video
from vcorr.media.writer import ProResWriter, VideoWriter

Form = Literal["coco", "yolo", "labelme", "cvat", "objects", "alpha", "green", "csv", "deeplabcut"]

OF_KEYPOINTS = ("coco", "deeplabcut", "csv")
OF_MASKS = tuple(form for form in get_args(Form) if form != "deeplabcut")
GREEN = (0, 177, 64)
_AGAIN = "run the same `vcorr propagate` again"


@dataclass(frozen=True)
class Finished:
    """An output folder that is complete.

    Attributes:
        out: the folder. kind: of its labels. frames: their indices. size: (height, width) of the video. fps: of it.
        objects: ids and their names; none of keypoints. points: names of keypoints.
        video: where the video was. fingerprint: of it.
    """

    out: Path
    kind: Kind
    frames: range
    size: tuple[int, int]
    fps: float
    objects: Mapping[int, str]
    points: Sequence[str]
    video: str
    fingerprint: Any

    def masks(self) -> Iterator[tuple[int, Ids]]:
        """(frame, ids [h w]) of every frame."""
        for k in self.frames:
            yield k, read_ids(self.out / "masks" / f"{k:05d}.png", self.size)

    def named(self) -> Iterator[Named]:
        """The objects of every frame."""
        for k, ids in self.masks():
            found = {int(i) for i in np.unique(ids)}
            yield Named(k, self.size, [(i, name, ids == i) for i, name in self.objects.items() if i in found])

    def keypoints(self) -> Mapping[int, Points]:
        """The points of every frame."""
        table = KeypointTable(self.out / TABLE, tuple(self.points), self.size)
        if missing := table.missing(self.frames):
            raise InputError(self.out / TABLE, f"lacks frame {min(missing)}", _AGAIN)
        return {k: table.read(k) for k in self.frames}


def finished(out: Path) -> Finished:
    """What an output folder holds.

    Raises:
        InputError: it is none, or its labelling is not complete.
    """
    path = out / "manifest.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        options, video = data["options"], data["video"]
        kind: Kind = data["inputs"].get("kind", "masks")
        names = data.get("names", {})
        objects = {} if kind != "masks" else {int(i): str(names.get(str(i), i)) for i in data["objects"]}
        found = Finished(
            out,
            kind,
            range(int(options["start"]), int(options["end"])),
            (int(video["height"]), int(video["width"])),
            float(video["fps"]),
            objects,
            [str(name) for name in data["objects"]] if kind == "keypoints" else [],
            str(data["paths"]["video"]),
            data["inputs"]["video"],
        )
        complete = bool(data["complete"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(out, "is no output folder of `vcorr propagate`", "give the folder of its --out") from None
    if not complete:
        raise InputError(out, "is not complete", f"{_AGAIN} to resume")
    return found


def check_form(form: str, kind: Kind) -> Form:
    """The form of a name, which must hold a kind of label.

    Raises:
        UsageError: with those that do.
    """
    if kind == "soft":
        raise UsageError(form, "does not hold value layers", "read OUT/values by numpy.load")
    forms = OF_KEYPOINTS if kind == "keypoints" else OF_MASKS
    if form not in forms:
        what = f"does not hold {kind}" if form in get_args(Form) else "is no form to export to"
        raise UsageError(form, what, f"give one of {', '.join(forms)}")
    return cast(Form, form)


def export(out: Path, form: Form) -> Path:
    """Write a finished folder in another form.

    Returns:
        The file or folder that it is in.

    Raises:
        InputError: the folder is none or not complete, or the video is not there any more where it is needed.
        UsageError: the form does not hold this kind of label.
        OutputError: it cannot be written.
    """
    results = finished(out)
    check_form(form, results.kind)
    folder = out / "export"
    path, write = _POINT_FORMS[form] if results.kind == "keypoints" else _MASK_FORMS[form]
    try:
        folder.mkdir(exist_ok=True)
        if not Path(path).suffix:
            (folder / path).mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(folder, f"cannot be made ({error.strerror})", "check its rights") from error
    write(results, folder / path)
    return folder / path


def _coco(results: Finished, path: Path) -> None:
    _json(path, coco_write.video(results.named(), results.frames, results.objects, results.size))


def _coco_points(results: Finished, path: Path) -> None:
    _json(path, coco_write.keypoints(results.keypoints(), results.frames, results.points, results.size))


def _yolo(results: Finished, path: Path) -> None:
    for found in results.named():
        _text(path / f"{found.frame:05d}.txt", yolo.lines(found, list(results.objects)))
    _text(path / "classes.txt", "".join(f"{name}\n" for name in results.objects.values()))


def _labelme(results: Finished, path: Path) -> None:
    for found in results.named():
        _json(path / f"{found.frame:05d}.json", labelme_write.shapes(found))


def _cvat(results: Finished, path: Path) -> None:
    _text(path, cvat.tracks(results.named(), results.frames, results.objects, results.size))


def _objects(results: Finished, path: Path) -> None:
    for i in results.objects:
        (path / str(i)).mkdir(exist_ok=True)
    for k, ids in results.masks():
        for i in results.objects:
            write_image(path / str(i) / f"{k:05d}.png", Image.fromarray(np.where(ids == i, 255, 0).astype(np.uint8)))


def _table(results: Finished, path: Path) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["frame", "object", "name", "area", "x", "y", "width", "height", "centre_x", "centre_y"])
    for found in results.named():
        masks = {i: mask for i, _, mask in found.objects}
        for i, name in results.objects.items():
            if i not in masks:
                table.writerow([found.frame, i, name, 0, *[""] * 6])
                continue
            rows, columns = np.nonzero(masks[i])
            centre = (round(float(columns.mean()), 3), round(float(rows.mean()), 3))
            table.writerow([found.frame, i, name, len(rows), *box(masks[i]), *centre])
    _text(path, text.getvalue())


def _points(results: Finished, path: Path) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for k, points in results.keypoints().items():
        for name, xy, sure in zip(results.points, points.xy.tolist(), points.confidence.tolist(), strict=True):
            table.writerow([k, name, *("" if v != v else v for v in xy), sure])
    _text(path, text.getvalue())


def _deeplabcut(results: Finished, path: Path) -> None:
    _text(path, deeplabcut_write.table(results.keypoints(), results.frames, results.points))


def _alpha(results: Finished, path: Path) -> None:
    def cut(rgb: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
        return np.dstack([rgb, np.where(inside, 255, 0).astype(np.uint8)])

    _video(results, path, ProResWriter, cut)


def _green(results: Finished, path: Path) -> None:
    def cut(rgb: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
        return np.where(inside[..., None], rgb, np.array(GREEN, np.uint8))

    _video(results, path, VideoWriter, cut)


def _video(
    results: Finished,
    path: Path,
    writer: type[VideoWriter],
    cut: Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.uint8]],
) -> None:
    height, width = results.size
    with ExitStack() as stack:
        video = stack.enter_context(open_video(results.video))
        if video.fingerprint() != results.fingerprint:
            raise InputError(results.video, "is not the video that was labelled", "put that one back in its place")
        film = stack.enter_context(writer(path, height=height, width=width, fps=results.fps))
        frames = video.frames(results.frames.start, results.frames.stop)
        for (_, rgb), (_, ids) in zip(frames, results.masks(), strict=True):
            film.write(cut(rgb, ids > 0))


def _text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def _json(path: Path, data: Mapping[str, Any]) -> None:
    _text(path, json.dumps(data) + "\n")


_Writer = Callable[[Finished, Path], None]
_MASK_FORMS: dict[str, tuple[str, _Writer]] = {
    "coco": ("coco.json", _coco),
    "yolo": ("yolo", _yolo),
    "labelme": ("labelme", _labelme),
    "cvat": ("cvat.xml", _cvat),
    "objects": ("objects", _objects),
    "alpha": ("alpha.mov", _alpha),
    "green": ("green.mp4", _green),
    "csv": ("objects.csv", _table),
}
_POINT_FORMS: dict[str, tuple[str, _Writer]] = {
    "coco": ("coco.json", _coco_points),
    "deeplabcut": ("deeplabcut.csv", _deeplabcut),
    "csv": ("keypoints.csv", _points),
}
