"""Keypoints that are placed: ``OUT/labels/keypoints.csv``. A point is on the disk when it is answered.

A row a point and labelled frame: frame, point, x, y, id; x and y are empty where the point is hidden. ``id`` is the
page's, which a name can change under. Points that are nowhere are not in it: to name one redoes nothing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcorr.errors import InputError, OutputError, UsageError
from vcorr.files import remove, replacing, write_json
from vcorr.labels.formats.points import Place, read_plain
from vcorr.labels.formats.text import read_rows
from vcorr.labels.keypoint_set import TABLE, KeypointTable, places_digest
from vcorr.labels.keypoints import DECIMALS, Points
from vcorr.propagation.update import labels_of
from vcorr.ui.label_folder import BEFORE, LabelFolder

Sure = tuple[float, float, float]
"""x, y and confidence."""


@dataclass
class Placed(LabelFolder):
    """Keypoints of a video; see ``LabelFolder``.

    Attributes:
        placed: places of the labels by frame index and id; a point that is not there is hidden in that frame.
        found: those of the results, with what they are sure of.
    """

    kind = "keypoints"
    placed: dict[int, dict[int, Place]] = field(default_factory=dict)
    found: dict[int, dict[int, Sure]] = field(default_factory=dict)
    _in_results: list[str] = field(default_factory=list)  # names of their points, in their order

    def file(self, k: int) -> Path:
        return self.folder / TABLE

    def results(self, manifest: Mapping[str, Any] | None) -> set[int]:
        self._in_results = [str(name) for name in manifest["objects"]] if manifest else []
        self.found = {}
        named = [self._in_results]
        if manifest and "stale" in manifest:  # a kill left those of the labels before
            named.append([str(name) for name in manifest["stale"]["objects"]])
        for names in named:
            table = KeypointTable(self.out / TABLE, tuple(names), self.size)
            self.found |= {k: self._by_id(names, points) for k, points in table.read_all().items()}
        return self.found.keys() & set(self.frames)

    def wrote(self, k: int, label: Any) -> None:
        self.found[k] = self._by_id(self._in_results, label)

    def points(self, k: int) -> dict[int, Sure]:
        """What the page shows of a frame: points that are placed, or propagated, by id."""
        if k in self.digests:
            return {i: (x, y, 1.0) for i, (x, y) in self.placed[k].items()}
        return self.found.get(k, {})

    def place(self, k: int, places: Mapping[int, Place | None]) -> None:
        """Place points of a frame, or hide them. It is a label from now on; its other points are as they are shown.

        Raises:
            UsageError: a place outside the frame. OutputError: the folder cannot be written; the points are as before.
        """
        height, width = self.size
        now = {i: (x, y) for i, (x, y, _) in self.points(k).items() if i in self.names or i in places}
        for i, place in places.items():
            now.pop(i, None)
            if place is not None:
                x, y = (round(float(v), DECIMALS) for v in place)
                if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
                    raise UsageError(
                        f"point {i}", f"({x:g}, {y:g}) lies outside the frame", "place it inside, or hide it"
                    )
                now[i] = (x, y)
        for i in places.keys() - self.names.keys():
            self.describe(i, "")
        self._put(self.placed | {k: now})

    def take_back(self, k: int) -> None:
        self._put({frame: places for frame, places in self.placed.items() if frame != k})

    def forget(self, id_: int) -> set[int]:
        changed = {k for k in self.digests if id_ in self.placed[k]}
        self._put({k: {i: at for i, at in places.items() if i != id_} for k, places in self.placed.items()})
        self.names.pop(id_, None)
        self.colours.pop(id_, None)
        self._write()
        return changed

    def keep_before(self, frames: Collection[int]) -> None:
        write_json(self._before, {str(k): {str(i): at for i, at in self.found.get(k, {}).items()} for k in frames})

    def before(self, k: int) -> dict[int, Sure] | None:
        """The points of a frame before the last correction; None where that left it as it was."""
        try:
            points = json.loads(self._before.read_text(encoding="utf-8")).get(str(k))
            return None if points is None else {int(i): (x, y, sure) for i, (x, y, sure) in points.items()}
        except (OSError, ValueError, AttributeError):
            return None

    def confidence(self, manifest: Mapping[str, Any], cuts: Collection[int]) -> tuple[list[int], NDArray[np.float64]]:
        ids = [i for name in self._in_results if (i := self._id_of(name))]
        sure = np.full((len(self.frames), len(ids)), np.nan)
        for k, points in self.found.items():
            if k in self.frames:
                sure[k - self.frames.start] = [points[i][2] if i in points else 0.0 for i in ids]
        return ids, sure

    # --- within -------------------------------------------------------------------------------------------------------

    @property
    def _before(self) -> Path:
        return self.folder / f"{BEFORE}.json"

    def _read_labels(self) -> None:
        path = self.folder / TABLE
        self.placed = {}
        if path.is_file():
            rows = read_rows(path)
            table = read_plain(path, rows)
            self.names |= {i: name for name, i in self._stated_ids(path, rows).items()}
            for name in table.names:
                self._number(name)
            for k, places in table.frames.items():
                self.placed[int(k)] = {i: at for name, at in places.items() if (i := self._id_of(name))}
        self._digest()

    @staticmethod
    def _stated_ids(path: Path, rows: list[list[str]]) -> dict[str, int]:
        """The ids of a table by name."""
        header = [cell.casefold() for cell in rows[0]]
        if "id" not in header:
            return {}
        at, named = header.index("id"), header.index("point")
        try:
            return {row[named]: int(row[at]) for row in rows[1:]}
        except ValueError:
            raise InputError(path, "has an id that is no number", "take the column out") from None

    def _name(self, manifest: Mapping[str, Any]) -> None:
        theirs = {k: label for k, label in labels_of(manifest).items() if k in self.frames}
        if theirs != self._seen:
            for name in manifest["objects"]:
                self._number(str(name))
        self.results(manifest)

    def _adopt(self, frames: Collection[int]) -> set[int]:
        there = {k for k in frames if k in self.found}  # of others the next run tells
        if there:
            self._put(self.placed | {k: {i: (x, y) for i, (x, y, _) in self.found[k].items()} for k in there})
        return there

    def _rename(self, id_: int, name: str) -> set[int]:
        name = name.strip() or next(n for i in count(id_) if self._id_of(n := f"point {i}") in (None, id_))
        if any(not c.isprintable() for c in name):
            raise UsageError("name", "has a character that cannot be printed", "leave it out")
        if self._id_of(name) not in (None, id_):
            raise UsageError(f"name '{name}'", "another point has it", "choose another")
        before = self.names.get(id_)
        self.names[id_] = name
        changed = {k for k in self.digests if id_ in self.placed[k]} if before != name else set()
        if changed:
            try:
                self._put(self.placed)
            except OutputError:
                self.names[id_] = str(before)
                raise
        return changed

    def _number(self, name: str) -> None:
        if self._id_of(name) is None:
            self.names[max(self.names, default=0) + 1] = name

    def _id_of(self, name: str) -> int | None:
        return next((i for i, known in self.names.items() if known == name), None)

    def _by_id(self, names: Collection[str], points: Points) -> dict[int, Sure]:
        """Points that have a place and a name here."""
        rows = zip(names, points.xy.tolist(), points.confidence.tolist(), points.present.tolist(), strict=True)
        return {i: (x, y, sure) for name, (x, y), sure, there in rows if there and (i := self._id_of(name))}

    def _put(self, placed: dict[int, dict[int, Place]]) -> None:
        """Make these the labels, once they are on the disk."""
        path = self.folder / TABLE
        if placed:
            somewhere = {i for places in placed.values() for i in places}
            ids = [i for i in sorted(self.names) if i in somewhere or self.names[i] in self._in_results]
            text = io.StringIO()
            table = csv.writer(text, lineterminator="\n")
            table.writerow(["frame", "point", "x", "y", "id"])
            for k, places in sorted(placed.items()):
                table.writerows([k, self.names[i], *places.get(i, ("", "")), i] for i in ids)
            with replacing(path) as file:
                file.write(text.getvalue().encode())
        else:
            remove(path)
        self.placed = placed
        self._digest()

    def _digest(self) -> None:
        self.digests = {
            k: places_digest({self.names[i]: at for i, at in places.items() if i in self.names})
            for k, places in self.placed.items()
            if k in self.frames
        }
