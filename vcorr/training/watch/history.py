"""What a run logged, read from metrics.jsonl, whatever became of that file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LONGEST = 1 << 16  # bytes a line; longer ones are no lines of ours
LARGEST = 1 << 25  # bytes read whole; of a longer file every second, third, ... line is taken
EXTREME = 1e100  # larger numbers are damage, and would overflow in what is drawn of them
SERIES = 64  # different names; a damaged file may hold any number
NAME = 48  # characters of a name

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One number over the steps of the run (of all stages together), ascending, at least one."""

    steps: Numbers
    values: Numbers

    @property
    def last(self) -> float:
        """The newest value."""
        return float(self.values[-1])


@dataclass
class History:
    """All numbers that a run logged.

    Attributes:
        series: by name, in the order of their first appearance.
        damaged: lines that could not be used.
    """

    series: dict[str, Series] = field(default_factory=dict)
    damaged: int = 0


def read(path: Path, stages: Mapping[str, tuple[int, int]]) -> History:
    """Read a log.

    A step that was logged twice counts as it was logged last. What is no number, or beyond all bounds, is left out; a
    line that is no object, or names a stage or step that the run does not have, is counted as damaged.

    Args:
        path: of metrics.jsonl; there or not.
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
        for name, value in line.items():
            number = _number(value)
            if name in ("stage", "step") or number is None:
                continue
            if name[:NAME] in found or len(found) < SERIES:
                found.setdefault(name[:NAME], {})[where] = number
    for name, values in found.items():
        steps = sorted(values)
        history.series[name] = Series(np.array(steps, np.float64), np.array([values[s] for s in steps]))
    return history


def _lines(path: Path) -> Iterator[bytes]:
    """Lines within bounds: a part of a longer one is no object, so it counts as damaged."""
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
    """A centred mean over so large a share of the values, over fewer near both ends."""
    half = int(len(values) * share / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    mean: Numbers = (sums[high] - sums[low]) / (high - low)
    return mean


def thinned(series: Series, most: int = 600) -> Series:
    """At most so many points: of each stretch of equal length its lowest and its highest, so that no peak is lost."""
    count = len(series.steps)
    if count <= most:
        return series
    edges = np.linspace(0, count, most // 2 + 1).astype(int)
    kept = []
    for first, end in pairwise(edges.tolist()):
        part = series.values[first:end]
        kept += sorted({first + int(part.argmin()), first + int(part.argmax())})
    return Series(series.steps[kept], series.values[kept])
