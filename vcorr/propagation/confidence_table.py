"""``confidence.csv``: how sure the labels of each frame and object are, and the signals that say so.

While frames are labelled, in whatever order, their signals go to a hidden table beside it, a few rows a frame, which a
kill leaves with one torn row at most; the table itself is written when all are there, since the confidence of a frame
hangs on others. An update keeps the signals of the frames that it does not touch.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcorr.files import append, remove, replacing
from vcorr.propagation.confidence import SIGNALS, Signals

TABLE = "confidence.csv"
COLUMNS = ("frame", "object", "confidence", *SIGNALS)
_START = ",".join(COLUMNS) + "\n"


class ConfidenceTable:
    """Signals and confidence of the objects of a range of frames.

    Args:
        path: of the table. objects: ids, in the order of their rows. frames: those that are labelled.

    Attributes:
        signals: [frames objects SIGNALS] as they are written; NaN where there are none.
        confidence: [frames objects] as it is written; NaN where the table is not.
    """

    def __init__(self, path: Path, objects: Sequence[int], frames: range) -> None:
        self.path, self.objects, self.frames = path, tuple(objects), frames
        self.signals = np.full((len(frames), len(objects), len(SIGNALS)), np.nan, np.float32)
        self.confidence = np.full(self.signals.shape[:2], np.nan, np.float32)

    def prepare(self) -> None:
        """Take over what is there, without what a kill tore.

        Raises:
            OutputError: it cannot be written.
        """
        self._read(self.objects)
        self._keep()

    def missing(self) -> set[int]:
        """Frames without signals."""
        self._read(self.objects)
        lacking = ~np.isfinite(self.signals).all(axis=(1, 2))
        return {self.frames[i] for i in np.flatnonzero(lacking)}

    def is_whole(self, labelled: Collection[int]) -> bool:
        """Whether the table is there, with a confidence of every frame and object, and signals where none is given."""
        lacking = self.missing() - set(labelled)
        return not (lacking or self._journal.exists()) and bool(np.isfinite(self.confidence).all())

    def write(self, index: int, found: Signals) -> None:
        """Keep the signals of a frame, unless they are there.

        Raises:
            OutputError: they cannot be written.
        """
        if self._has(index):
            return
        rows = self._rows(index, found)
        append(self._journal, rows, into=self.path)
        self._take(rows, self.objects)  # as they will be read

    def revise(self, frames: Collection[int], before: Sequence[int]) -> None:
        """Take out the signals of frames. Objects that the others do not have yet are not there.

        A kill leaves the old signals, or the new ones. It works before ``prepare``.

        Args:
            before: the objects of the table that is there.

        Raises:
            OutputError: it cannot be written.
        """
        self._read(tuple(before))
        for k in frames:
            self._of(k)[:] = np.nan
        self._keep()
        remove(self.path)

    def finish(self, confidence: NDArray[np.floating[Any]]) -> None:
        """Write the table, with a confidence for every frame and object [frames objects].

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(self.path) as file:
            file.write(_START.encode())
            for k, sure in zip(self.frames, confidence, strict=True):
                file.write(self._rows(k, self._of(k), sure).encode())
        self._journal.unlink(missing_ok=True)
        self._read(self.objects)

    @property
    def _journal(self) -> Path:
        return self.path.with_name(f".{self.path.name}")

    def _of(self, index: int) -> Signals:
        own: Signals = self.signals[index - self.frames.start]
        return own

    def _has(self, index: int) -> bool:
        return bool(np.isfinite(self._of(index)).all())

    def _keep(self) -> None:
        """Write the hidden table with the signals that are there."""
        with replacing(self._journal) as file:
            for k in filter(self._has, self.frames):
                file.write(self._rows(k, self._of(k)).encode())

    def _rows(self, index: int, found: Signals, sure: Sequence[float] | NDArray[np.floating[Any]] = ()) -> str:
        """The rows of a frame: without its confidence while it is not known, without signals where it was given."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        for i, (name, row) in enumerate(zip(self.objects, found.tolist(), strict=True)):
            said = f"{sure[i]:.3f}" if len(sure) else ""
            table.writerow([index, name, said, *("" if np.isnan(v) else f"{v:.4f}" for v in row)])
        return text.getvalue()

    def _read(self, objects: tuple[int, ...]) -> None:
        """Read the whole rows of frames with these objects."""
        self.signals[:], self.confidence[:] = np.nan, np.nan
        for path in (self.path, self._journal):
            try:
                with path.open(encoding="utf-8", newline="") as file:
                    for _, rows in groupby(file, key=lambda row: row.split(",", 1)[0]):
                        self._take("".join(rows), objects)
            except (OSError, UnicodeDecodeError):
                continue

    def _take(self, rows: str, objects: tuple[int, ...]) -> None:
        """Take over the rows of a frame, if they are whole and of these objects; others of ours are not there."""
        read = [numbers for row in rows.splitlines(keepends=True) if (numbers := _numbers(row))]
        if [row[1] for row in read] != list(objects) or len({row[0] for row in read}) != 1:
            return
        if not read[0][0].is_integer() or (index := int(read[0][0])) not in self.frames:
            return
        if objects != self.objects:
            known = {row[1]: row for row in read}
            absent = [np.nan, *[0.0] * len(SIGNALS)]
            read = [known.get(name, [index, name, *absent]) for name in self.objects]
        self.signals[index - self.frames.start] = [row[3:] for row in read]
        self.confidence[index - self.frames.start] = [row[2] for row in read]


def _numbers(row: str) -> list[float]:
    """The numbers of a whole row, NaN where there is none; nothing of another row."""
    cells = row[:-1].split(",")
    if not row.endswith("\n") or len(cells) != len(COLUMNS):
        return []
    try:
        return [float(cell or "nan") for cell in cells]
    except ValueError:
        return []
