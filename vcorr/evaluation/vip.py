"""VIP, Video Instance-level Parsing (Zhou et al. 2018): its protocol for label propagation, and its table.

The frames are every 25th of a video, and the annotation of the first is given. Mean IoU of the 20 classes comes from
one confusion matrix over all pixels of all annotated frames, including the given ones, as in the papers (Li et al.
2019; Jabri et al. 2020). Instance AP is the mean, over the 19 parts and the thresholds 0.1 to 0.9, of the average
precision of the parts of persons. Both are also reported without the given frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vcorr.errors import InputError
from vcorr.evaluation import pool
from vcorr.evaluation.metrics.semantic import Detection, Matrix, average_precision, confusion, ious, mean_iou
from vcorr.evaluation.objects import results
from vcorr.evaluation.task import Task
from vcorr.evaluation.vip_layout import (
    CLASSES,
    Video,
    read_categories,
    read_instances,
    read_lines,
    refuse_unlisted,
    videos,
)
from vcorr.labels.raw_ids import Ids, read_ids
from vcorr.media.video import open_video

if TYPE_CHECKING:
    from vcorr.evaluation.page import Shot

THRESHOLDS = tuple(k / 10 for k in range(1, 10))
READ = (560, 560)  # (height, width) in pixels at which frames are read; ignores proportions
INSTANCES = "instance_part"  # the folder of a video's instance results


@dataclass(frozen=True)
class FrameScores:
    """The contribution of one frame to the scores.

    Args:
        name: of the frame.
        matrix: the confusion matrix of the classes.
        detections: parts of the result with their classes; None if instances are not scored.
        truths: the number of parts of each class in the annotation.
    """

    name: str
    matrix: Matrix
    detections: tuple[tuple[int, Detection], ...] | None
    truths: tuple[int, ...]


@dataclass(frozen=True)
class VideoScores:
    """The frames of one video, the given one first."""

    name: str
    frames: tuple[FrameScores, ...]

    @property
    def mean_iou(self) -> float:
        """From the confusion matrix of this video."""
        return mean_iou(_sum(self.frames))


@dataclass(frozen=True)
class VipScores:
    """The scores of videos, in the order of the list."""

    columns: ClassVar[tuple[str, ...]] = ("class", "IoU", "AP")

    videos: tuple[VideoScores, ...]

    def frames(self, *, given: bool = True) -> list[FrameScores]:
        """All frames, with or without the given ones."""
        return [frame for video in self.videos for frame in video.frames[0 if given else 1 :]]

    @property
    def mean_iou(self) -> float:
        """The mean over classes, over all pixels of all frames: the score of the benchmark."""
        return mean_iou(_sum(self.frames()))

    def ap(self, *, once: bool = False, given: bool = True) -> np.ndarray | None:
        """Average precision [19 parts, 9 thresholds], NaN for parts that no annotation has; None without instances.

        Args:
            once: see `average_precision`; the script of the papers counts again.
            given: with the frames that were given.
        """
        frames = self.frames(given=given)
        if any(frame.detections is None for frame in frames):
            return None
        table = np.full((len(CLASSES) - 1, len(THRESHOLDS)), np.nan)
        for c in range(1, len(CLASSES)):
            found = [d for frame in frames for k, d in frame.detections or () if k == c]
            truths = sum(frame.truths[c] for frame in frames)
            table[c - 1] = [average_precision(found, truths, t, once=once) for t in THRESHOLDS]
        return table

    def rows(self) -> list[tuple[str, ...]]:
        """A table under `columns`, scores times 100: the classes, their mean, and that without the given frames."""
        classes, table = ious(_sum(self.frames())), self.ap()
        aps = [None] * len(CLASSES) if table is None else [None, *table.mean(1)]
        listed: list[tuple[str, ...]] = [
            (name, _percent(iou), _percent(ap)) for name, iou, ap in zip(CLASSES, classes, aps, strict=True)
        ]
        listed.append(("mean", _percent(self.mean_iou), _percent(_mean(table))))
        rest = self.frames(given=False)
        if rest:
            bare = mean_iou(_sum(rest)), _mean(self.ap(given=False))
            listed.append(("mean without the given frames", *map(_percent, bare)))
        return listed

    def csv(self) -> list[tuple[object, ...]]:
        """A header, and one row for each video; scores in [0, 1], empty for a class that the video lacks."""
        rows: list[tuple[object, ...]] = [("video", "frames", "mean IoU", *CLASSES)]
        for video in self.videos:
            found = ["" if np.isnan(x) else float(x) for x in ious(_sum(video.frames))]
            rows.append((video.name, len(video.frames), video.mean_iou, *found))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Mean IoU and AP, with and without the given frames, by class and by video; None if undefined."""
        rest = self.frames(given=False)
        bare = _sum(rest) if rest else None
        table = self.ap()
        aps = [None] * len(CLASSES) if table is None else [None, *table.mean(1).tolist()]
        return {
            "mean_iou": _number(self.mean_iou),
            "mean_iou_without_given": None if bare is None else _number(mean_iou(bare)),
            "instance_ap": _number(_mean(table)),
            "instance_ap_without_given": _number(_mean(self.ap(given=False))) if rest else None,
            "instance_ap_each_truth_once": _number(_mean(self.ap(once=True))),
            "frames": len(self.frames()),
            "classes": [
                {"id": k, "name": name, "iou": _number(iou), "ap": _number(ap)}
                for k, (name, iou, ap) in enumerate(zip(CLASSES, ious(_sum(self.frames())), aps, strict=True))
            ],
            "videos": [{"name": v.name, "frames": len(v.frames), "mean_iou": _number(v.mean_iou)} for v in self.videos],
        }


def evaluate_vip(
    root: str | PathLike[str],
    pred: str | PathLike[str],
    *,
    names: Iterable[str] | None = None,
    listed: str | PathLike[str] | None = None,
    workers: int | None = None,
    progress: Callable[[VideoScores], None] | None = None,
) -> VipScores:
    """Score results on a set in the layout of VIP (see the module).

    Videos are scored in parallel processes, as in `evaluate_davis`.

    Args:
        root: folder of the set; its images are not read.
        pred: folder of the results. Classes: PRED/<video>/<frame>.png, or gray/global_<frame>.png there, for every
            annotated frame but the first, which is given and may be there or not. Instances, where PRED/<video>/
            instance_part is there: <frame>.png, ids from 1 on, and <frame>.txt, whose line k has class and score of id
            k. They are scored if every video has them, and the set has their annotations.
        names, listed: as in `videos`.
        workers: number of processes, at least 1; one for each core that this process may use by default.
        progress: called with the scores of each video, in order, as they are there.

    Raises:
        InputError: the set or a result is missing or unreadable; a result has another size than its annotation, a class
            that VIP does not have, or an id without a class.
        ValueError: `workers` is below 1.
    """
    chosen = videos(root, names=names, listed=listed)
    pred = Path(pred)
    instances = all(video.has_instances and (pred / video.name / INSTANCES).is_dir() for video in chosen)
    jobs = [(video, *_results(pred / video.name, video, instances)) for video in chosen]
    return VipScores(pool.gather(_score, jobs, workers, progress))


def tasks(
    root: str | PathLike[str],
    out: Path,
    *,
    names: Iterable[str] | None = None,
    listed: str | PathLike[str] | None = None,
    instances: bool = True,
) -> list[Task]:
    """The videos as tasks for `label_videos`: classes into OUT/<video>, instances into OUT/<video>/instance_part.

    Frames are read at 560 x 560 pixels; labels are written at full size.

    Args:
        root, names, listed: as in `evaluate_vip`.
        instances: label these too, where the set has them.

    Raises:
        InputError: a frame or a given annotation is missing, unreadable, or of another size.
    """
    made = []
    for video in videos(root, names=names, listed=listed):
        made.append(_task(video, out / video.name, instances=False))
        if instances and video.has_instances:
            made.append(_task(video, out / video.name / INSTANCES, instances=True))
    return made


def shots(
    scores: VipScores,
    root: str | PathLike[str],
    pred: str | PathLike[str],
    *,
    listed: str | PathLike[str] | None = None,
) -> Iterator[Shot]:
    """The videos, scored by mean IoU, with their classes over the images, if there are any, for
    `vcorr.evaluation.page`; the given frame is not drawn.
    """
    from vcorr.evaluation.page import Shot

    known = {video.name: video for video in videos(root, listed=listed)}
    for scored in scores.videos:
        video, later = known[scored.name], scored.frames[1:]
        files = _results(Path(pred) / scored.name, video, instances=False)[0][1:]
        names = tuple(frame.name for frame in later)
        picture = partial(_drawn, video.images, dict(zip(names, files, strict=True)))
        yield Shot(scored.name, (scored.mean_iou,), (tuple(mean_iou(f.matrix) for f in later),), names, picture)


def _drawn(images: Path, files: Mapping[str, Path], name: str) -> np.ndarray:
    from vcorr.evaluation.page import on_picture
    from vcorr.media.image import read_rgb

    there = [images / f"{name}{suffix}" for suffix in (".jpg", ".png")]
    picture = next((read_rgb(file) for file in there if file.is_file()), None)
    return on_picture(picture, read_categories(files[name]))


def _task(video: Video, out: Path, *, instances: bool) -> Task:
    if not video.images.is_dir():
        raise InputError(video.images, "no images of this video", "add its frames, 000000000001.jpg ...")
    with open_video(video.images) as opened:
        size, index = (opened.height, opened.width), {name: k for k, name in enumerate(opened.names or [])}
    first = index[video.categories[0].stem]
    wanted = {k: name for name, k in index.items() if k >= first}
    if not instances:
        read_categories(video.categories[0], size)
        return Task(video.name, video.images, out, size, wanted, partial(_classes, video, size, first), READ)
    classes = read_instances(video.instances[0], size)[1]
    given = partial(_instances, video, size, first)
    return Task(f"{video.name} instances", video.images, out, size, wanted, given, READ, classes)


def _classes(video: Video, size: tuple[int, int], first: int) -> dict[int, Ids]:
    return {first: read_categories(video.categories[0], size)}


def _instances(video: Video, size: tuple[int, int], first: int) -> dict[int, Ids]:
    return {first: read_instances(video.instances[0], size)[0]}


Job = tuple[Video, list[Path], list[Path] | None]
"""A video; its results of classes, that of the given frame its annotation; those of the instances of later frames."""

Found = tuple[tuple[tuple[int, Detection], ...] | None, tuple[int, ...]]
"""Detections with their classes, None where they are not scored; and how many of each class the annotation has."""


def _results(folder: Path, video: Video, instances: bool) -> tuple[list[Path], list[Path] | None]:
    if not folder.is_dir():
        advice = "write the classes of each video to a folder of its name, or name the videos to score"
        raise InputError(folder, "no results of this video", advice)
    prefix = ""
    if (folder / "gray").is_dir():  # as the authors' code writes them
        folder, prefix = folder / "gray", "global_"
    names = [file.stem for file in video.categories]
    classes = [video.categories[0], *results(folder, video.name, [f"{prefix}{name}" for name in names[1:]])]
    if not instances:
        return classes, None
    return classes, results((folder.parent if prefix else folder) / INSTANCES, video.name, names[1:])


def _score(job: Job) -> VideoScores:
    video, classes, parts = job
    frames = []
    for k, (annotation, file) in enumerate(zip(video.categories, classes, strict=True)):
        truth = read_categories(annotation)
        size = truth.shape[0], truth.shape[1]
        matrix = confusion(truth, read_categories(file, size), range(len(CLASSES)))
        found: Found = (None, (0,) * len(CLASSES))
        if parts is not None:
            found = _detections(video.instances[k], parts[k - 1] if k else None, size)
        frames.append(FrameScores(annotation.stem, matrix, *found))
    return VideoScores(video.name, tuple(frames))


def _detections(annotation: Path, file: Path | None, size: tuple[int, int]) -> Found:
    """The parts of a result, matched with those of the annotation; for the given frame, those of the annotation."""
    truth, classes = read_instances(annotation, size)
    if file is None:
        result, listed = truth, {k: (kind, 1.0) for k, kind in classes.items()}
    else:
        result, listed = read_ids(file, size), _read_scores(file.with_suffix(".txt"))
        refuse_unlisted(file, result, listed, file.with_suffix(".txt"))
    present = [int(k) for k in np.unique(truth) if k]
    found = []
    for k in map(int, np.setdiff1d(result, 0)):
        kind, score = listed[k]
        region, best, match = result == k, 0.0, 0
        for t in present:
            if classes[t] == kind and (iou := _iou(region, truth == t)) > best:
                best, match = iou, t
        found.append((kind, Detection(score, best, (str(annotation), match))))
    counts = [sum(classes[t] == c for t in present) for c in range(len(CLASSES))]
    return tuple(found), tuple(counts)


def _read_scores(path: Path) -> dict[int, tuple[int, float]]:
    """Reads class and score of id k from line k.

    Raises:
        InputError: the file is missing or unreadable, or a line is something else.
    """
    listed = {}
    for k, (number, words) in enumerate(read_lines(path), start=1):
        try:
            listed[k] = int(words[0]), float(words[1])
        except (ValueError, IndexError):
            what = f"line {number} is not a class and a score"
            raise InputError(path, what, "write those of the id k in line k") from None
    return listed


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.count_nonzero(one & other) / np.count_nonzero(one | other))


def _sum(frames: Iterable[FrameScores]) -> Matrix:
    total: Matrix = np.sum([frame.matrix for frame in frames], axis=0)
    return total


def _mean(table: np.ndarray | None) -> float | None:
    """The mean over parts and thresholds; None if all are undefined."""
    return None if table is None or np.isnan(table).all() else float(np.nanmean(table))


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def _percent(value: float | None) -> str:
    number = _number(value)
    return "-" if number is None else f"{100 * number:.1f}"
