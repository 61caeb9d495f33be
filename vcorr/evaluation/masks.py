"""J, F and mean IoU of masks in any folders: unpadded names, gaps in the annotation, any ids.

    TRUTH/Annotations/480p/<name>/7.png, TRUTH/Annotations/<name>/7.png, TRUTH/<name>/7.png, or TRUTH/7.png alone

An object begins in the first annotation with its id, which is given. It is scored in all later annotations, even if it
has left. Mean IoU comes from one confusion matrix for each sequence, over all annotations except the first, with the
background as a class; the score is the mean over the sequences. In 8 bits, 255 next to other ids is void, which is
background; as the only id, it is an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vcorr.errors import InputError
from vcorr.evaluation import pool
from vcorr.evaluation.metrics.semantic import Matrix, confusion, mean_iou
from vcorr.evaluation.objects import (
    CELLS,
    OBJECT_CSV,
    MaskScores,
    ObjectScores,
    ScoredFrame,
    cells,
    refuse_twins,
    results_folder,
    score,
)
from vcorr.labels.raw_ids import Ids, read_ids
from vcorr.media.folder import frame_files

VOID = 255
_LAYOUT = "give a folder of masks, 00000.png ..., or of folders of masks"


@dataclass(frozen=True)
class SequenceScores:
    """The scores of one sequence.

    Args:
        name: of the sequence.
        objects: J and F by id, without objects that begin in the last annotation.
        mean_iou: of all classes.
    """

    name: str
    objects: tuple[ObjectScores, ...]
    mean_iou: float


@dataclass(frozen=True)
class FolderScores:
    """The scores of sequences, in order of their names."""

    columns: ClassVar[tuple[str, ...]] = ("sequence", "objects", *CELLS, "mIoU")

    sequences: tuple[SequenceScores, ...]

    @property
    def overall(self) -> MaskScores:
        """The mean over the objects of all sequences."""
        return MaskScores.average(scores for s in self.sequences for scores in s.objects)

    @property
    def mean_iou(self) -> float:
        """The mean over the sequences."""
        return float(np.mean([s.mean_iou for s in self.sequences]))

    def rows(self) -> list[tuple[str, ...]]:
        """A table under `columns`, scores times 100: a row for each sequence, the means last."""
        named = [(s.name, len(s.objects), MaskScores.average(s.objects), s.mean_iou) for s in self.sequences]
        named.append(("mean", sum(len(s.objects) for s in self.sequences), self.overall, self.mean_iou))
        return [(name, str(n), *cells(scores), f"{100 * iou:.1f}") for name, n, scores, iou in named]

    def csv(self) -> list[tuple[object, ...]]:
        """A header, and one row for each object; scores in [0, 1]."""
        rows = [(s.name, o.id, *o.csv(), s.mean_iou) for s in self.sequences for o in s.objects]
        return [("sequence", "object", *OBJECT_CSV, "mIoU of the sequence"), *rows]

    def to_json(self) -> dict[str, Any]:
        """The overall scores, and under `sequences` those of each sequence and object."""
        return self.overall.to_json() | {
            "mean_iou": self.mean_iou,
            "sequences": [
                {"name": s.name, "mean_iou": s.mean_iou}
                | MaskScores.average(s.objects).to_json()
                | {"objects": [{"id": o.id, "frames": len(o.frames)} | o.to_json() for o in s.objects]}
                for s in self.sequences
            ],
        }


def evaluate_masks(
    truth: str | PathLike[str], pred: str | PathLike[str], *, workers: int | None = None
) -> FolderScores:
    """Scores masks (see the module).

    Args:
        truth: the annotations.
        pred: the results: PRED/<name>/, or PRED itself if the truth is one folder of masks; or `masks` in it, as
            `vcorr propagate` writes. Files have the names of the annotations or the same numbers: 7.png or 00007.png.
        workers: processes, at least 1; default: one for each core that this process may use.

    Raises:
        InputError: a folder or file is missing or unreadable; a result has another size than its annotation, or an id
            that no annotation of the sequence has; two files belong to one frame; there is nothing to score.
        ValueError: `workers` is below 1.
    """
    folders = _folders(Path(truth))
    pred = Path(pred)
    alone = len(folders) == 1 and folders[0] == Path(truth)
    jobs = [
        (folder, results_folder(pred.parent if alone else pred, pred.name if alone else folder.name))
        for folder in folders
    ]
    return FolderScores(pool.gather(_score, jobs, workers))


def _folders(truth: Path) -> list[Path]:
    """The folders of annotations."""
    inside = next((f for f in (truth / "Annotations/480p", truth / "Annotations", truth) if f.is_dir()), None)
    if inside is None:
        raise InputError(truth, "no such folder", _LAYOUT)
    if _masks(inside):
        return [inside]
    found = sorted(f for f in inside.iterdir() if f.is_dir() and not f.name.startswith(".") and _masks(f))
    if not found:
        raise InputError(inside, "holds no masks", _LAYOUT)
    return found


def _masks(folder: Path) -> list[Path]:
    return [f for f in frame_files(folder.iterdir()) if f.suffix.lower() == ".png" and f.is_file()]


def _score(job: tuple[Path, Path]) -> SequenceScores:
    folder, results = job
    refuse_twins(folder)
    annotations = _masks(folder)
    first = read_ids(annotations[0])
    size = first.shape[0], first.shape[1]
    shown = {file: np.unique(read_ids(file, size)) for file in annotations}
    known = np.unique(np.concatenate(list(shown.values())))
    void = VOID if first.dtype == np.uint8 and VOID in known and np.setdiff1d(known, [0, VOID]).size else None
    ids = [int(k) for k in known if k not in (0, void)]
    if not ids or len(annotations) < 2:
        what = "no object" if not ids else "one annotation, and the first is given"
        raise InputError(folder, f"{what}, nothing to score", "leave this sequence out")
    begins = {k: next(i for i, file in enumerate(annotations) if k in shown[file]) for k in ids}
    files = _matching(results, annotations[1:])
    matrix: Matrix = np.zeros((len(ids) + 1, len(ids) + 2), np.int64)

    def frames() -> Iterator[ScoredFrame]:
        nonlocal matrix
        for i, (annotation, file) in enumerate(zip(annotations[1:], files, strict=True), start=1):
            truth, result = read_ids(annotation, size), read_ids(file, size)
            if void is not None:
                truth = _without(truth, void)
            _refuse_strange(file, result, ids)
            matrix = matrix + confusion(truth, result, [0, *ids])
            yield ScoredFrame(annotation.stem, truth, result, [k for k in ids if begins[k] < i])

    scores = score(frames())
    if not scores:
        raise InputError(folder, "objects show in the last annotation alone, which is given", "leave this sequence out")
    return SequenceScores(folder.name, scores, mean_iou(matrix))


def _without(ids: Ids, void: int) -> Ids:
    kept = ids.copy()
    kept[kept == void] = 0
    return kept


def _refuse_strange(file: Path, result: Ids, ids: list[int]) -> None:
    strange = np.setdiff1d(result, [0, *ids])
    if strange.size:
        known = ", ".join(map(str, ids[:9])) + (", ..." if len(ids) > 9 else "")
        raise InputError(file, f"id {strange[-1]}, which no annotation shows", f"write 0 and the ids {known}")


def _matching(results: Path, annotations: list[Path]) -> list[Path]:
    """The result of each annotation, by name or by number."""
    refuse_twins(results)
    masks = _masks(results)
    named, numbered = {f.stem: f for f in masks}, {_number(f): f for f in masks if _number(f) is not None}
    found = [named.get(a.stem) or numbered.get(_number(a)) for a in annotations]
    missing = [a for a, f in zip(annotations, found, strict=True) if f is None]
    if missing:
        what = f"no such file, {len(missing)} of {len(annotations)} results are missing"
        raise InputError(results / missing[0].name, what, "write a mask for every annotation; without objects all is 0")
    return [f for f in found if f is not None]


def _number(file: Path) -> int | None:
    """The number at the end of a file's name."""
    digits = re.search(r"\d+$", file.stem)
    return int(digits[0]) if digits else None
