"""DAVIS-2017: the protocol, which gives the numbers of the official toolkit, and the table of scores.

The task is semi-supervised (Pont-Tuset et al. 2017). The objects of a sequence are 1..K, K the largest id of its first
annotation. J and F (`vcorr.evaluation.metrics.masks`) are computed on every annotated frame except the first, which is
given, and the last. Void is background. Statistics of an object cover its frames. The score of a sequence is the mean
of its objects; the score of the dataset is the mean of all objects, not of the sequences. J&F is the mean of the mean J
and the mean F.

To label the sequences first, write results where `evaluate_davis` reads them:

    for sequence in davis_layout.sequences(root):
        label(sequence, pred / sequence.name)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vcorr.errors import InputError
from vcorr.evaluation import davis_layout, pool
from vcorr.evaluation.objects import (
    CELLS,
    OBJECT_CSV,
    MaskScores,
    ObjectScores,
    ScoredFrame,
    cells,
    results,
    results_folder,
    score,
)
from vcorr.labels.raw_ids import Ids, read_ids

if TYPE_CHECKING:
    from vcorr.evaluation.page import Shot


@dataclass(frozen=True)
class SequenceScores:
    """The scores of one sequence.

    Args:
        name: of the sequence.
        frames: the number of scored frames.
        objects: scores of the objects 1..K, in this order.
    """

    name: str
    frames: int
    objects: tuple[ObjectScores, ...]

    @property
    def overall(self) -> MaskScores:
        """The mean over the objects."""
        return MaskScores.average(self.objects)


@dataclass(frozen=True)
class DavisScores:
    """The scores of sequences, in the order of the list."""

    columns: ClassVar[tuple[str, ...]] = ("sequence", "objects", *CELLS)

    sequences: tuple[SequenceScores, ...]

    @property
    def overall(self) -> MaskScores:
        """The mean over the objects of all sequences: the score of the benchmark."""
        return MaskScores.average(scores for sequence in self.sequences for scores in sequence.objects)

    def rows(self) -> list[tuple[str, ...]]:
        """A table under `columns`, scores times 100: one row for each sequence; the last is the mean of all objects."""
        named = [(s.name, len(s.objects), s.overall) for s in self.sequences]
        named.append(("mean over objects", sum(len(s.objects) for s in self.sequences), self.overall))
        return [(name, str(count), *cells(scores)) for name, count, scores in named]

    def csv(self) -> list[tuple[object, ...]]:
        """A header, and one row for each object; scores in [0, 1]."""
        return [
            ("sequence", "object", *OBJECT_CSV),
            *((s.name, o.id, *o.csv()) for s in self.sequences for o in s.objects),
        ]

    def to_json(self) -> dict[str, Any]:
        """The overall scores, and under `sequences` those of each sequence and, under `objects`, of each object."""
        return self.overall.to_json() | {
            "objects": sum(len(s.objects) for s in self.sequences),
            "frames": sum(s.frames for s in self.sequences),
            "sequences": [
                {"name": s.name, "frames": s.frames}
                | s.overall.to_json()
                | {"objects": [{"id": scores.id} | scores.to_json() for scores in s.objects]}
                for s in self.sequences
            ],
        }


def evaluate_davis(
    root: str | PathLike[str],
    pred: str | PathLike[str],
    *,
    split: str = "val",
    sequences: Iterable[str] | None = None,
    workers: int | None = None,
    progress: Callable[[SequenceScores], None] | None = None,
) -> DavisScores:
    """Scores results on a dataset in the layout of DAVIS-2017, by the official protocol (see the module).

    Several processes score the sequences; their number does not change the scores. Each process imports the main module
    again, so a script must call this under `if __name__ == "__main__":`, or with `workers=1`, which starts no process.

    Args:
        root: folder of the dataset (`vcorr.evaluation.davis_layout`); its images are not read.
        pred: folder of the results: PRED/<sequence>/00000.png, or PRED/<sequence>/masks/00000.png. Every scored frame
            needs one PNG of ids with the name and size of its annotation. An object without pixels is empty.
        split: the list of sequences.
        sequences: names of sequences, instead of the split's.
        workers: number of processes, at least 1; default: one for each core that this process may use.
        progress: receives the scores of each sequence, in order.

    Raises:
        InputError: the dataset or a result is missing or unreadable; a result has another size than its annotation, or
            an id above the number of objects; a sequence has no object or no frame to score.
        ValueError: `workers` is below 1.
    """
    chosen = davis_layout.sequences(root, split, names=sequences)
    jobs = [(sequence, _results(Path(pred), sequence)) for sequence in chosen]
    return DavisScores(pool.gather(_score_sequence, jobs, workers, progress))


def shots(scores: DavisScores, root: str | PathLike[str], pred: str | PathLike[str]) -> Iterator[Shot]:
    """The sequences with their results over the images, if there are any, for `vcorr.evaluation.page`."""
    from vcorr.evaluation.page import shot_of_masks

    for scored in scores.sequences:
        (sequence,) = davis_layout.sequences(root, names=[scored.name])
        images, folder = {image.stem: image for image in sequence.frames}, results_folder(Path(pred), scored.name)
        yield shot_of_masks(scored.name, scored.objects, partial(_shown, images, folder))


def _shown(images: Mapping[str, Path], folder: Path, name: str) -> tuple[NDArray[np.uint8] | None, Ids]:
    from vcorr.media.image import read_rgb

    return (read_rgb(images[name]) if name in images else None), read_ids(folder / f"{name}.png")


def check_davis(root: str | PathLike[str], split: str = "val", *, sequences: Iterable[str] | None = None) -> None:
    """Refuses a dataset that `evaluate_davis` would refuse, before any work on results.

    Raises:
        InputError: see `evaluate_davis`; checks only the first annotations and the number of annotations.
    """
    for sequence in davis_layout.sequences(root, split, names=sequences):
        davis_layout.first_ids(sequence)
        _scored(sequence)


def _score_sequence(job: tuple[davis_layout.Sequence, list[Path]]) -> SequenceScores:
    sequence, files = job
    first = davis_layout.first_ids(sequence)
    size, count = (first.shape[0], first.shape[1]), int(first.max())

    def frames() -> Iterator[ScoredFrame]:
        for annotation, result in zip(_scored(sequence), files, strict=True):
            truth, ids = davis_layout.read_annotation(annotation, size), read_ids(result, size)
            if ids.max() > count:
                advice = f"write 0 for the background and 1 to {count} for the objects of {sequence.name}"
                raise InputError(result, f"id {ids.max()} where the first annotation has ids up to {count}", advice)
            yield ScoredFrame(annotation.stem, truth, ids, range(1, count + 1))

    return SequenceScores(sequence.name, len(files), score(frames()))


def _scored(sequence: davis_layout.Sequence) -> tuple[Path, ...]:
    """The annotations of the scored frames, at least one."""
    if len(sequence.annotations) < 3:
        what = f"{len(sequence.annotations)} annotated frame(s), and the first and the last are not scored"
        raise InputError(sequence.annotations[0].parent, what, "leave this sequence out")
    return sequence.annotations[1:-1]


def _results(pred: Path, sequence: davis_layout.Sequence) -> list[Path]:
    """The result files of the scored frames; all must exist."""
    scored = [annotation.stem for annotation in _scored(sequence)]
    return results(results_folder(pred, sequence.name), sequence.name, scored)
