"""YouTube-VOS (Xu et al. 2018): its protocol and its table.

The annotation in which an object begins is given; the frames that meta.json lists of it after that are scored. What
happens to it before does not count. J and F (`vcorr.evaluation.metrics.masks`) are averaged over the frames
of an object, then over the objects of the categories that the training set has too (seen) and over the others (unseen);
the score is the mean of these four numbers.

The annotations of the validation set are not public. `check_submission` checks that results for its server are
complete: one PNG for each frame that meta.json lists, PRED/Annotations/<video>/00000.png.
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
from vcorr.evaluation.objects import (
    OBJECT_CSV,
    MaskScores,
    ObjectScores,
    ScoredFrame,
    refuse_twins,
    results,
    results_folder,
    score,
)
from vcorr.evaluation.task import Task
from vcorr.evaluation.youtube_vos_layout import LAYOUT, SEEN, Video, given_ids, is_annotated, videos
from vcorr.labels.raw_ids import Ids, read_ids
from vcorr.media.video import open_video

if TYPE_CHECKING:
    from vcorr.evaluation.page import Shot


@dataclass(frozen=True)
class VideoScores:
    """The scores of one video.

    Args:
        name: of the video.
        categories: of its scored objects.
        objects: their scores, by id; without those that begin in the last frame that lists them.
    """

    name: str
    categories: tuple[str, ...]
    objects: tuple[ObjectScores, ...]


@dataclass(frozen=True)
class YoutubeVosScores:
    """The scores of a set of videos.

    Args:
        videos: in the order of meta.json.
        seen: the categories that count as seen.
    """

    columns: ClassVar[tuple[str, ...]] = ("categories", "objects", "J", "F", "J&F")

    videos: tuple[VideoScores, ...]
    seen: frozenset[str]

    def objects(self, seen: bool | None = None) -> tuple[ObjectScores, ...]:
        """Scores of the objects of seen or unseen categories, or of all."""
        return tuple(
            scores
            for video in self.videos
            for category, scores in zip(video.categories, video.objects, strict=True)
            if seen in (None, category in self.seen)
        )

    def group(self, seen: bool) -> MaskScores | None:
        """The mean over the objects of seen or unseen categories; None if there are none."""
        objects = self.objects(seen)
        return MaskScores.average(objects) if objects else None

    @property
    def overall(self) -> float | None:
        """The mean of J and F of seen and unseen categories: the score of the benchmark; None if a group is empty."""
        seen, unseen = self.group(True), self.group(False)
        return None if seen is None or unseen is None else (seen.j_and_f + unseen.j_and_f) / 2

    @property
    def gap(self) -> float | None:
        """J&F of seen minus J&F of unseen categories (the generalisation gap of Lai et al. 2020)."""
        seen, unseen = self.group(True), self.group(False)
        return None if seen is None or unseen is None else seen.j_and_f - unseen.j_and_f

    def rows(self) -> list[tuple[str, ...]]:
        """A table under `columns`, scores times 100: seen, unseen, all objects alike, and the score."""
        table = []
        everything = MaskScores.average(self.objects())
        for name, scores, count in (
            ("seen", self.group(True), len(self.objects(True))),
            ("unseen", self.group(False), len(self.objects(False))),
            ("all objects alike", everything, len(self.objects())),
        ):
            numbers = (scores.j.mean, scores.f.mean, scores.j_and_f) if scores else (None, None, None)
            table.append((name, str(count), *map(_percent, numbers)))
        table.append(("overall: mean of the four", "", "", "", _percent(self.overall)))
        return table

    def csv(self) -> list[tuple[object, ...]]:
        """A header, and one row for each object; scores in [0, 1]."""
        return [
            ("video", "object", "category", "seen", *OBJECT_CSV),
            *(
                (video.name, o.id, category, category in self.seen, *o.csv())
                for video in self.videos
                for category, o in zip(video.categories, video.objects, strict=True)
            ),
        ]

    def to_json(self) -> dict[str, Any]:
        """The scores of both groups, and under `videos` those of each object; None where a group is empty."""
        groups = {name: self.group(seen) for name, seen in (("seen", True), ("unseen", False))}
        return {
            "overall": self.overall,
            "generalisation_gap": self.gap,
            **{name: scores.to_json() if scores else None for name, scores in groups.items()},
            "objects": len(self.objects()),
            "videos": [
                {
                    "name": video.name,
                    "objects": [
                        {"id": o.id, "category": category, "seen": category in self.seen, "frames": len(o.frames)}
                        | o.to_json()
                        for category, o in zip(video.categories, video.objects, strict=True)
                    ],
                }
                for video in self.videos
            ],
        }


def evaluate_youtube_vos(
    root: str | PathLike[str],
    pred: str | PathLike[str],
    *,
    annotations: str | PathLike[str] | None = None,
    names: Iterable[str] | None = None,
    seen: Iterable[str] = SEEN,
    given: bool = False,
    workers: int | None = None,
    progress: Callable[[VideoScores], None] | None = None,
) -> YoutubeVosScores:
    """Score results on a set in the layout of YouTube-VOS (see the module).

    Videos are scored in parallel processes, as in `evaluate_davis`.

    Args:
        root: folder of the set; its images are not read.
        pred: folder of the results: PRED/<video>/00000.png or PRED/Annotations/<video>/00000.png, one id a pixel, for
            every scored frame. An object without pixels is empty.
        annotations: folder of annotations of all listed frames, where ROOT/Annotations holds but the given ones.
        names: videos, instead of all.
        seen: categories that count as seen.
        given: count the frame in which an object begins too.
        workers: number of processes, at least 1; one for each core that this process may use by default.
        progress: called with the scores of each video, in order, as they are there.

    Raises:
        InputError: the set or a result is missing or unreadable; a result has another size than its annotation, or an
            id that is no object of the video; there is no annotation to score against.
        ValueError: `workers` is below 1.
    """
    chosen = videos(root, names=names, annotations=annotations)
    if not is_annotated(chosen):
        what = "holds the given annotations alone, there is nothing to score against"
        raise InputError(chosen[0].annotations.parent, what, "submit the results to the benchmark's server")
    folder = submission(pred)
    jobs = [(video, results(results_folder(folder, video.name), video.name, list(counted)), counted)
            for video in chosen if (counted := video.counted(given=given))]  # fmt: skip
    if not jobs:
        raise InputError(Path(root) / "meta.json", "lists each object in one frame, which is given", LAYOUT)
    return YoutubeVosScores(pool.gather(_score, jobs, workers, progress), frozenset(seen))


def tasks(
    root: str | PathLike[str],
    out: Path,
    *,
    names: Iterable[str] | None = None,
    images: str | PathLike[str] | None = None,
) -> list[Task]:
    """The videos as tasks for `label_videos`, which writes OUT/Annotations/<video>/00000.png, the folder to submit.

    Every frame of the images is read from the first given one on, and the listed ones are written.

    Args:
        root, names: as in `evaluate_youtube_vos`.
        images: folder of images instead of ROOT/JPEGImages, such as that of all frames.

    Raises:
        InputError: a frame or a given annotation is missing, unreadable, or of another size.
    """
    return [_task(video, out / "Annotations" / video.name) for video in videos(root, names=names, images=images)]


def _task(video: Video, out: Path) -> Task:
    if not video.images.is_dir():
        raise InputError(video.images, "no images of this video", "add its frames, 00000.jpg ...")
    with open_video(video.images) as opened:
        size, index = (opened.height, opened.width), {name: k for k, name in enumerate(opened.names or [])}
    if lost := [frame for frame in video.frames if frame not in index]:
        what = f"no frame {lost[0]}, which meta.json lists, {len(lost)} of {len(video.frames)} are missing"
        raise InputError(video.images, what, "give all listed frames, named as in meta.json")
    given_ids(video, size)
    wanted = {index[frame]: frame for frame in video.frames}
    return Task(video.name, video.images, out, size, wanted, partial(_given, video, size, index))


def _given(video: Video, size: tuple[int, int], index: Mapping[str, int]) -> dict[int, Ids]:
    return {index[frame]: ids for frame, ids in given_ids(video, size).items()}


def check_submission(
    root: str | PathLike[str], pred: str | PathLike[str], *, names: Iterable[str] | None = None
) -> int:
    """Refuses results that the server could not score: missing frames, another size, ids that are no objects.

    Returns:
        How many frames there are.

    Raises:
        InputError: it names the file and the rule.
    """
    folder, count = submission(pred), 0
    for video in videos(root, names=names):
        masks = given_ids(video)
        size = next(iter(masks.values())).shape
        for file in results(results_folder(folder, video.name), video.name, video.frames):
            _refuse_strange(file, read_ids(file, (size[0], size[1])), video)
            count += 1
    return count


def submission(pred: str | PathLike[str]) -> Path:
    """The folder of videos in a folder of results: `Annotations` in it, as the server expects, or itself."""
    inside = Path(pred) / "Annotations"
    return inside if inside.is_dir() else Path(pred)


def shots(
    scores: YoutubeVosScores,
    root: str | PathLike[str],
    pred: str | PathLike[str],
    *,
    images: str | PathLike[str] | None = None,
) -> Iterator[Shot]:
    """The videos with their results over the images, if there are any, for `vcorr.evaluation.page`."""
    from vcorr.evaluation.page import shot_of_masks

    known = {video.name: video for video in videos(root, images=images)}
    for scored in scores.videos:
        folder = results_folder(submission(pred), scored.name)
        yield shot_of_masks(scored.name, scored.objects, partial(_shown, known[scored.name].images, folder))


def _shown(images: Path, folder: Path, name: str) -> tuple[np.ndarray | None, Ids]:
    from vcorr.media.image import read_rgb

    there = [images / f"{name}{suffix}" for suffix in (".jpg", ".png")]
    return next((read_rgb(file) for file in there if file.is_file()), None), read_ids(folder / f"{name}.png")


def _score(job: tuple[Video, list[Path], Mapping[str, tuple[int, ...]]]) -> VideoScores:
    video, files, counted = job
    refuse_twins(video.annotations)

    def frames() -> Iterator[ScoredFrame]:
        for file, (frame, objects) in zip(files, counted.items(), strict=True):
            truth = read_ids(video.annotation(frame))
            result = read_ids(file, (truth.shape[0], truth.shape[1]))
            _refuse_strange(file, result, video)
            yield ScoredFrame(frame, truth, result, objects)

    scores = score(frames())
    categories = {o.id: o.category for o in video.objects}
    return VideoScores(video.name, tuple(categories[o.id] for o in scores), scores)


def _refuse_strange(file: Path, ids: Ids, video: Video) -> None:
    known = [o.id for o in video.objects]
    strange = np.setdiff1d(ids, [0, *known])
    if strange.size:
        what = f"id {strange[-1]}, which is no object of {video.name} by meta.json"
        raise InputError(file, what, f"write 0 for the background and {', '.join(map(str, known))} for the objects")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
