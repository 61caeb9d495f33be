"""J and F of the objects of a video, for all benchmarks of masks.

Each object has its own frames: in DAVIS those of its sequence, in YouTube-VOS those after it begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from vcorr.errors import InputError
from vcorr.evaluation.metrics.masks import Statistics, boundary_f, jaccard, statistics
from vcorr.labels.raw_ids import Ids


@dataclass(frozen=True)
class MaskScores:
    """J and F of one object, or the mean of several, in [0, 1]; decay in [-1, 1]."""

    j: Statistics
    f: Statistics

    @property
    def j_and_f(self) -> float:
        """(mean J + mean F) / 2."""
        return (self.j.mean + self.f.mean) / 2

    @staticmethod
    def average(several: Iterable[MaskScores]) -> MaskScores:
        """The mean of each number over several objects (at least one)."""
        several = list(several)
        return MaskScores(Statistics.average(s.j for s in several), Statistics.average(s.f for s in several))

    def to_json(self) -> dict[str, Any]:
        """`j_and_f`, and `j` and `f` with `mean`, `recall` and `decay`."""
        return {"j_and_f": self.j_and_f, "j": asdict(self.j), "f": asdict(self.f)}


@dataclass(frozen=True)
class ObjectScores(MaskScores):
    """The scores of one object.

    Args:
        id: of the object in the masks.
        frames: names of its scored frames, in order.
        js, fs: J and F in each of these.
    """

    id: int
    frames: tuple[str, ...]
    js: tuple[float, ...]
    fs: tuple[float, ...]

    def csv(self) -> tuple[object, ...]:
        """Cells under `OBJECT_CSV`."""
        return (len(self.frames), self.j_and_f, *astuple(self.j), *astuple(self.f))


OBJECT_CSV = ("frames", "J&F", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay")


@dataclass(frozen=True)
class ScoredFrame:
    """One frame to score.

    Args:
        name: of the frame.
        truth, result: ids [h w] of the annotation and of the result.
        objects: ids of the objects that count in it.
    """

    name: str
    truth: Ids
    result: Ids
    objects: Sequence[int]


def score(frames: Iterable[ScoredFrame]) -> tuple[ObjectScores, ...]:
    """J and F of every object that counts in a frame, in order of ids; an object without pixels is empty."""
    named: dict[int, list[str]] = {}
    scores: dict[int, list[tuple[float, float]]] = {}
    for frame in frames:
        for k in frame.objects:
            pair = frame.result == k, frame.truth == k
            named.setdefault(k, []).append(frame.name)
            scores.setdefault(k, []).append((jaccard(*pair), boundary_f(*pair)))
    return tuple(_object(k, named[k], scores[k]) for k in sorted(named))


def _object(k: int, frames: list[str], scores: list[tuple[float, float]]) -> ObjectScores:
    js, fs = zip(*scores, strict=True)
    return ObjectScores(statistics(js), statistics(fs), k, tuple(frames), js, fs)


def cells(scores: MaskScores) -> tuple[str, ...]:
    """J&F; mean, recall and decay of J and of F, times 100, as text."""
    j, f = scores.j, scores.f
    return tuple(f"{100 * x:.1f}" for x in (scores.j_and_f, j.mean, j.recall, j.decay, f.mean, f.recall, f.decay))


CELLS = OBJECT_CSV[1:]


def results_folder(pred: Path, name: str) -> Path:
    """The folder with the results of a video: PRED/<name>, or `masks` in it, as `vcorr propagate` writes.

    Raises:
        InputError: there is none.
    """
    folder = pred / name
    if not folder.is_dir():
        advice = "write the masks of each sequence to a folder of its name, or name the sequences to score"
        raise InputError(folder, "no results of this sequence", advice)
    return folder / "masks" if (folder / "masks").is_dir() else folder


def results(folder: Path, name: str, frames: Sequence[str]) -> list[Path]:
    """The result files of frames of a video, 00000.png for frame 00000.

    Raises:
        InputError: one is missing, or another PNG has the same number.
    """
    files = [folder / f"{frame}.png" for frame in frames]
    missing = [file for file in files if not file.is_file()]
    if missing:
        what = f"no such file, {len(missing)} of {len(files)} results of {name} are missing"
        raise InputError(missing[0], what, "write a mask for every frame; one without objects is all 0")
    refuse_twins(folder)
    return files


def refuse_twins(folder: Path) -> None:
    """Refuses a folder of masks with two PNG files of one frame: 5.png beside 00005.png or 00005.PNG.

    Raises:
        InputError: names both files.
    """
    named: dict[object, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() != ".png" or file.name.startswith("."):
            continue
        key = int(file.stem) if file.stem.isascii() and file.stem.isdigit() else file.stem
        other = named.setdefault(key, file)
        if other is not file:
            raise InputError(folder, f"{other.name} and {file.name} are two masks of one frame", "keep one of them")
