"""Reads the log of a run, metrics.jsonl, even if the file is damaged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LONGEST = 1 << 16  # bytes of a line; a longer one is damage
LARGEST = 1 << 25  # bytes; of a longer file, every second, third, ... line is read
EXTREME = 1e100  # a larger number is damage, and would overflow in a chart
SERIES = 64  # different names; a damaged file may hold any number of them
NAME = 48  # characters of a name
RENAMED = {"probe": "validation"}  # in logs of early runs

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One number over the steps of all stages, ascending; at least one value."""

    steps: Numbers
    values: Numbers

    @property
    def last(self) -> float:
        """The newest value."""
        return float(self.values[-1])


@dataclass
class History:
    """All logged numbers of a run.

    Attributes:
        series: by name, in the order of first appearance.
        damaged: the number of unusable lines.
    """

    series: dict[str, Series] = field(default_factory=dict)
    damaged: int = 0


def read(path: Path, stages: Mapping[str, tuple[int, int]]) -> History:
    """Reads a log.

    Of a step that was logged twice, the later line counts. Values that are NaN, infinite, extreme or not numbers are
    left out. A line that is not an object, or has a stage or step that the run lacks, counts as damaged.

    Args:
        path: metrics.jsonl, which may be missing.
        stages: name -> (steps of the stages before it, its own steps).
    """
    found: dict[str, dict[int, float]] = {}
    history = History()
    for text in _lines(path):
        line = _parsed(text)
        where = None if line is None else _step(line, stages)
        if line is None or where is None:
            history.damaged += 1
            continue
        for key, value in line.items():
            name, number = RENAMED.get(key, key), _number(value)
            if name in ("stage", "step") or number is None:
                continue
            if name[:NAME] in found or len(found) < SERIES:
                found.setdefault(name[:NAME], {})[where] = number
    for name, values in found.items():
        steps = sorted(values)
        history.series[name] = Series(np.array(steps, np.float64), np.array([values[s] for s in steps]))
    return history


def _lines(path: Path) -> Iterator[bytes]:
    """Yields lines up to the longest; the parts of a longer line are no objects and count as damaged."""
    if not path.is_file():
        return
    every = path.stat().st_size // LARGEST + 1
    with path.open("rb") as file:
        pieces: Iterable[bytes] = iter(lambda: file.readline(LONGEST), b"")
        for index, piece in enumerate(pieces):
            if index % every == 0 and piece.strip():
                yield piece


def _parsed(text: bytes) -> dict[str, object] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _step(line: Mapping[str, object], stages: Mapping[str, tuple[int, int]]) -> int | None:
    stage, step = line.get("stage", line.get("phase")), line.get("step")  # phase: its name in early runs
    if not isinstance(stage, str) or stage not in stages or type(step) is not int:
        return None
    before, steps = stages[stage]
    return before + step if 1 <= step <= steps else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not abs(number) < EXTREME:
        return None
    return number if abs(number) > 1 / EXTREME else 0.0


def smoothed(values: Numbers, share: float = 0.04) -> Numbers:
    """A centred mean over a share of the values, over fewer near both ends."""
    half = int(len(values) * share / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    mean: Numbers = (sums[high] - sums[low]) / (high - low)
    return mean


def thinned(series: Series, most: int = 600) -> Series:
    """Thins a series: keeps the lowest and the highest point of each of equal intervals, so that no peak is lost."""
    count = len(series.steps)
    if count <= most:
        return series
    edges = np.linspace(0, count, most // 2 + 1).astype(int)
    kept = []
    for first, end in pairwise(edges.tolist()):
        part = series.values[first:end]
        kept += sorted({first + int(part.argmin()), first + int(part.argmax())})
    return Series(series.steps[kept], series.values[kept])
