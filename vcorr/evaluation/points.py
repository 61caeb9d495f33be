"""Scores of keypoints, for JHMDB and any keypoint files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vcorr.errors import InputError
from vcorr.evaluation.metrics.points import Errors, Measure, Numbers, pck

ALPHAS = (0.1, 0.2)
MEASURES: tuple[Measure, ...] = ("instance", "max")


@dataclass(frozen=True, eq=False)
class VideoScores:
    """The points of one video.

    Args:
        name: of the video.
        frames: names of its scored frames.
        errors: in these frames.
    """

    name: str
    frames: tuple[str, ...]
    errors: Errors


@dataclass(frozen=True)
class PointScores:
    """The scores of a set of videos with the same points.

    Args:
        points: their names.
        videos: in the order of the list.
    """

    columns: ClassVar[tuple[str, ...]] = ("point", "counted", *(f"PCK_{m}@{a}" for m in MEASURES for a in ALPHAS))

    points: tuple[str, ...]
    videos: tuple[VideoScores, ...]

    def pck(self, alpha: float, measure: Measure) -> float:
        """The mean over the points that count in a frame; NaN if none does."""
        return _mean(self._each(alpha, measure))

    @property
    def counted(self) -> list[int]:
        """The number of frames in which each point counts."""
        return [int(n) for n in np.sum([v.errors.counted.sum(0) for v in self.videos], axis=0)]

    def rows(self) -> list[tuple[str, ...]]:
        """A table under `columns`, scores times 100: one row for each point, their mean last."""
        shares = [self._each(a, m) for m in MEASURES for a in ALPHAS]
        rows = [
            (name, str(n), *map(_percent, row))
            for name, n, *row in zip(self.points, self.counted, *shares, strict=True)
        ]
        means = [_percent(_mean(share)) for share in shares]
        return [*rows, ("mean over points", str(sum(self.counted)), *means)]

    def csv(self) -> list[tuple[object, ...]]:
        """A header, and one row for each video and point; scores in [0, 1], empty if it does not count."""
        table: list[tuple[object, ...]] = [("video", *self.columns)]
        for video in self.videos:
            shares = [pck([video.errors], a, m) for m in MEASURES for a in ALPHAS]
            for name, n, *row in zip(self.points, video.errors.counted.sum(0), *shares, strict=True):
                table.append((video.name, name, int(n), *("" if np.isnan(x) else float(x) for x in row)))
        return table

    def to_json(self) -> dict[str, Any]:
        """PCK by measure and threshold for all points, each point and each video; None if nothing counts."""
        each = {_key(m, a): self._each(a, m) for m in MEASURES for a in ALPHAS}
        return {
            **{key: _number(_mean(shares)) for key, shares in each.items()},
            "counted": sum(self.counted),
            "points": [
                {"name": name, "counted": n} | {key: _number(shares[i]) for key, shares in each.items()}
                for i, (name, n) in enumerate(zip(self.points, self.counted, strict=True))
            ],
            "videos": [
                {"name": v.name, "frames": len(v.frames)}
                | {_key(m, a): _number(_mean(pck([v.errors], a, m))) for m in MEASURES for a in ALPHAS}
                for v in self.videos
            ],
        }

    def _each(self, alpha: float, measure: Measure) -> Numbers:
        return pck([v.errors for v in self.videos], alpha, measure)


def places(path: Path, names: Sequence[str], frames: Sequence[int]) -> Numbers:
    """Reads the points of a result file in frames: float64 [t n 2], NaN for missing points.

    Raises:
        InputError: the file is missing or unreadable, has another point, or lacks a frame.
    """
    from vcorr.labels.keypoint_set import read_point_table

    if not path.is_file():
        raise InputError(path, "no such file", "write the points of each video to a file of its name")
    table = read_point_table(path)
    if strange := [name for name in table.names if name not in names]:
        raise InputError(path, f"names a point {strange[0]}, which is none of {', '.join(names)}", "name them alike")
    by_frame = {frame_index(path, frame): found for frame, found in table.frames.items()}
    if missing := [frame for frame in frames if frame not in by_frame]:
        what = f"has nothing of frame {missing[0]}, {len(missing)} of {len(frames)} frames are missing"
        raise InputError(path, what, "write a row for every point of every frame; x and y may be empty")
    xy = np.full((len(frames), len(names), 2), np.nan)
    for t, frame in enumerate(frames):
        for name, place in by_frame[frame].items():
            xy[t, names.index(name)] = place
    return xy


def frame_index(path: Path, frame: int | str) -> int:
    """The index of a frame, as stated or from the number at the end of its picture's name.

    Raises:
        InputError: the name does not end with a number.
    """
    if isinstance(frame, int):
        return frame
    digits = re.search(r"\d+$", Path(frame).stem)
    if digits is None:
        raise InputError(path, f"the picture {frame} does not say its frame", "end names in the frame's index")
    return int(digits[0])


def _key(measure: Measure, alpha: float) -> str:
    return f"pck_{measure}@{alpha}"


def _mean(shares: Numbers) -> float:
    return float("nan") if np.isnan(shares).all() else float(np.nanmean(shares))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"
