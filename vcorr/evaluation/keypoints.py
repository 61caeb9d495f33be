"""PCK of any keypoint files: a file for one video, or a folder with one file for each video.

The first annotated frame is given and does not count. All points of the truth count; a point that the result lacks is
wrong. Frames are matched by index, or by the number at the end of a picture's name.
"""

from __future__ import annotations

from itertools import pairwise
from os import PathLike
from pathlib import Path

import numpy as np

from vcorr.errors import InputError
from vcorr.evaluation.metrics.points import errors
from vcorr.evaluation.points import PointScores, VideoScores, frame_index, places
from vcorr.labels.formats.points import PointTable
from vcorr.labels.keypoint_set import TABLE, read_point_table

SUFFIXES = (".csv", ".json")


def evaluate_keypoints(
    truth: str | PathLike[str], pred: str | PathLike[str], *, count_given: bool = False
) -> PointScores:
    """Scores keypoints (see the module).

    Args:
        truth: a file in any format that `vcorr propagate` reads, or a folder with one file for each video.
        pred: the results: a file or an output folder. For a folder of truths: a folder with NAME.csv, NAME.json or an
            output folder NAME for each NAME.csv or NAME.json.
        count_given: count the first annotated frame too.

    Raises:
        InputError: a file is missing or unreadable, a frame is missing, or two files have different points.
    """
    truth, pred = Path(truth), Path(pred)
    pairs = [(truth, _result(pred, pred))]
    if truth.is_dir():
        files = sorted(p for p in truth.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if not files:
            raise InputError(truth, "holds no file of keypoints", "give CSV or JSON, a file for each video")
        if equal := [a for a, b in pairwise(files) if a.stem == b.stem]:
            raise InputError(truth, f"{equal[0].stem} has two files", "keep one of them")
        pairs = [(file, _result(pred / file.stem, pred)) for file in files]
    tables = [(read_point_table(file), result) for file, result in pairs]
    names = tuple(dict.fromkeys(name for table, _ in tables for name in table.names))
    return PointScores(names, tuple(_score(table, result, names, count_given) for table, result in tables))


def _score(table: PointTable, result: Path, names: tuple[str, ...], count_given: bool) -> VideoScores:
    by_frame = {frame_index(table.path, frame): found for frame, found in table.frames.items() if found}
    frames = sorted(by_frame)[0 if count_given else 1 :]
    if not frames:
        raise InputError(table.path, "annotates one frame, which is given", "leave this video out")
    truth = np.full((len(frames), len(names), 2), np.nan)
    for t, frame in enumerate(frames):
        for name, place in by_frame[frame].items():
            truth[t, names.index(name)] = place
    found = errors(truth, places(result, names, frames), lost="wrong")
    return VideoScores(table.path.stem, tuple(map(str, frames)), found)


def _result(path: Path, pred: Path) -> Path:
    """The result file for a path without suffix."""
    if path.is_dir():
        return path / TABLE
    if path == pred:
        return path
    return next(
        (f for s in SUFFIXES if (f := path.with_name(path.name + s)).is_file()), path.with_name(f"{path.name}.csv")
    )
