"""The keypoints that a video is given, and the table of those that it gets."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vcorr.errors import InputError, UsageError
from vcorr.files import append, remove, replacing
from vcorr.labels.draw import draw_points, point_colours
from vcorr.labels.earlier import Earlier, changed
from vcorr.labels.formats.coco import has_keypoints, has_masks, is_coco, read_coco_points
from vcorr.labels.formats.deeplabcut import is_deeplabcut, read_deeplabcut
from vcorr.labels.formats.joints import is_joints, read_joints
from vcorr.labels.formats.points import COLUMNS, Place, PointTable, read_plain
from vcorr.labels.formats.text import read_json, read_rows
from vcorr.labels.keypoints import KeypointLabels, Points
from vcorr.labels.mask_names import MASK_SUFFIXES, NamedBy, frames_of_pictures
from vcorr.media.video import Video

TABLE = "keypoints.csv"
_LISTED = 6  # points named in a line


@dataclass(frozen=True, eq=False)
class GivenKeypoints:
    """Keypoints by frame index; as ``given.Given`` says.

    Attributes:
        names: of all points, in the order of the first file. size: (height, width) of the video. files: of each frame.
    """

    names: Sequence[str]
    by_frame: Mapping[int, Points]
    size: tuple[int, int]
    files: Mapping[int, Path]
    kind: Literal["keypoints"] = "keypoints"

    @property
    def objects(self) -> list[str]:
        return list(self.names)

    @property
    def shown(self) -> list[str]:
        return self.objects

    @property
    def colours(self) -> NDArray[np.uint8]:
        return point_colours(len(self.names))

    @property
    def described(self) -> dict[str, Any]:
        return {"objects": self.objects}

    def labels(self, device: torch.device) -> KeypointLabels:
        return KeypointLabels(self.names, self.size, device)

    def digest(self, frame: int) -> str:
        points = self.by_frame[frame]
        named = zip(self.names, points.xy.tolist(), points.present, strict=True)
        return places_digest({name: (x, y) for name, (x, y), there in named if there})

    def told(self, frame: int, name: str) -> str:
        present = self.by_frame[frame].present
        lost = [n for n, there in zip(self.names, present, strict=True) if not there]
        more = f" and {len(lost) - _LISTED} more" if len(lost) > _LISTED else ""
        missing = f"; missing {', '.join(lost[:_LISTED])}{more}" if lost else ""
        return f"{self.files[frame]} labels frame {name}: {present.sum()} of {len(self.names)} points{missing}"

    def store(self, out: Path) -> KeypointTable:
        return KeypointTable(out / TABLE, tuple(self.names), self.size)


def places_digest(places: Mapping[str, Place]) -> str:
    """SHA-256 of the points of a frame, whatever points other frames have."""
    digest = hashlib.sha256()
    for name in sorted(places):
        digest.update(name.encode() + b"\0" + np.array(places[name], "<f8").tobytes())
    return digest.hexdigest()


def read_keypoints(
    video: Video,
    labels: Path,
    start: int,
    at: Mapping[int, Path],
    named_by: NamedBy | None,
    earlier: Earlier | None = None,
) -> GivenKeypoints:
    """Keypoints of files by frame index.

    Args:
        labels: a file, or a folder of them. It labels the frames that it states; one picture whose name says no frame
            labels ``start``.
        at: files of one more frame each.
        earlier: labels that are among the results of a folder.

    Raises:
        InputError: a file cannot be read, or has a point outside the frame; an earlier label is not there.
        UsageError: a frame that is labelled twice; no label that is left.
    """
    size = (video.height, video.width)
    tables: dict[int, tuple[PointTable, Mapping[str, Place]]] = {}
    names: dict[str, None] = {}
    for path in _files(labels):
        table = read_point_table(path)
        names.update(dict.fromkeys(table.names))
        for frame, places in _frames(table, video, named_by, alone=start).items():
            if frame in tables:
                other = tables[frame][0].path
                raise InputError(labels, f"{other.name} and {path.name} both label frame {frame}", "keep one of them")
            tables[frame] = table, places
    kept: dict[int, Mapping[str, Place]] = {}
    if earlier:
        tables = {k: stated for k, stated in tables.items() if k not in earlier.without}
        kept = _kept(earlier, tables.keys() | at.keys(), size)
        names.update({n: None for n in map(str, earlier.objects) if any(n in places for places in kept.values())})
    for k, path in at.items():
        table = read_point_table(path)
        names.update(dict.fromkeys(table.names))
        frames = _frames(table, video, named_by, alone=k)
        if k in tables:
            what = f"frame {k} is labelled by {tables[k][0].path} already"
            raise UsageError(f"--at {k}={path}", what, "give one of the two")
        if k not in frames:
            raise InputError(path, f"labels frame {min(frames)}, not frame {k}", f"say --at {min(frames)}={path}")
        tables[k] = table, frames[k]
    if earlier and earlier.partial:
        results = KeypointTable(earlier.out / TABLE, tuple(map(str, earlier.objects)), size)
        if missing := results.missing(at.keys()):
            raise InputError(results.path, f"lacks frame {min(missing)}", "say --update without --partial")
        for k in at:
            table, places = tables[k]
            tables[k] = table, _places(results, k) | dict(places)
            names.update(dict.fromkeys(n for n in results.names if n in tables[k][1]))
    if earlier:
        own = PointTable(earlier.out / TABLE, tuple(names), {})
        tables |= {k: (own, places) for k, places in kept.items()}
    if not tables:
        raise UsageError("--without", "takes the last label back", "leave one frame labelled, or remove the folder")
    by_frame = {k: _points(table.path, k, places, tuple(names), size) for k, (table, places) in sorted(tables.items())}
    given = GivenKeypoints(tuple(names), by_frame, size, {k: table.path for k, (table, _) in tables.items()})
    if earlier:
        earlier.verify(kept, lambda k: earlier.out / TABLE, given.digest)
    return given


def _kept(earlier: Earlier, others: Collection[int], size: tuple[int, int]) -> dict[int, Mapping[str, Place]]:
    """The places of the labels that a folder of results has and that stay, by frame index."""
    table = KeypointTable(earlier.out / TABLE, tuple(map(str, earlier.objects)), size)
    frames = earlier.digests.keys() - others
    if missing := table.missing(frames):
        raise changed(table.path, min(missing), "it is not there")
    kept: dict[int, Mapping[str, Place]] = {}
    for k in frames:
        kept[k] = _places(table, k)
    return kept


def _places(table: KeypointTable, frame: int) -> dict[str, Place]:
    """The places of the points that a frame of a table has."""
    points = table.read(frame)
    named = zip(table.names, points.xy.tolist(), points.present, strict=True)
    return {name: (x, y) for name, (x, y), there in named if there}


def read_point_table(path: Path) -> PointTable:
    """The keypoints of a file, whatever its form.

    Raises:
        InputError: it has none, or cannot be read.
    """
    if path.suffix.casefold() == ".csv":
        rows = read_rows(path)
        table = read_deeplabcut(path, rows) if is_deeplabcut(rows) else read_plain(path, rows)
    elif path.suffix.casefold() == ".json":
        data = read_json(path)
        if not (is_joints(data) or is_coco(data)):
            raise InputError(path, "is no COCO file and names no joints", "give keypoints as CSV, COCO or joints")
        table = read_joints(path, data) if is_joints(data) else read_coco_points(path, data)
    else:
        raise InputError(path, "is no file of keypoints", "give CSV, a DeepLabCut table, COCO or joints JSON")
    if not any(table.frames.values()):
        raise InputError(path, "places no point", "place the points of one frame")
    return table


def holds_points(path: Path) -> bool:
    """Whether a file holds keypoints and nothing else that could be carried.

    Raises:
        InputError: it holds masks and keypoints, or cannot be read.
    """
    suffix = path.suffix.casefold()
    if suffix != ".json":
        return suffix == ".csv"
    data = read_json(path)
    if not is_coco(data) or not has_keypoints(data):
        return is_joints(data)
    if has_masks(data):
        raise InputError(path, "holds both keypoints and masks", "say --kind keypoints or --kind masks")
    return True


def point_files(folder: Path) -> list[Path]:
    """The keypoint files of a folder: of an output folder, of DeepLabCut's labels, or one without masks."""
    if (folder / "manifest.json").is_file():
        return [folder / TABLE] if (folder / TABLE).is_file() else []
    try:
        entries = sorted(p for p in folder.iterdir() if p.name[0] != "." and p.is_file())
    except OSError as error:
        raise InputError(folder, f"cannot be listed ({error.strerror})", "check the permissions") from error
    if collected := [p for p in entries if p.suffix.casefold() == ".csv" and p.name.startswith("CollectedData")]:
        return collected
    if any(p.suffix.casefold() in MASK_SUFFIXES for p in entries):
        return []
    return [p for p in entries if p.suffix.casefold() in (".csv", ".json") and holds_points(p)]


def _files(labels: Path) -> list[Path]:
    files = point_files(labels) if labels.is_dir() else [labels]
    if not files:
        raise InputError(labels, "holds no file of keypoints", "put in CSV, DeepLabCut tables, COCO or joints JSON")
    return files


def _frames(table: PointTable, video: Video, named_by: NamedBy | None, *, alone: int) -> dict[int, Mapping[str, Place]]:
    """The places of a table by frame index; those of one picture whose name says no frame are of frame ``alone``."""
    pictures = [frame for frame in table.frames if isinstance(frame, str)]
    found = frames_of_pictures(
        table.path,
        pictures,
        frames=len(video),
        frame_files=video.files,
        named_by=named_by,
        alone=None if table.says_frames else alone,
    )
    frames: dict[int, Mapping[str, Place]] = {}
    for frame, places in table.frames.items():
        index = found[frame] if isinstance(frame, str) else frame
        if index >= len(video):
            what = f"labels frame {index}, but the video has frames 0 to {len(video) - 1}"
            raise InputError(table.path, what, "frames count from 0; take the others out")
        if index in frames:
            raise InputError(table.path, f"labels frame {index} twice, by index and as {frame}", "keep one of them")
        frames[index] = places
    return frames


def _points(path: Path, frame: int, places: Mapping[str, Place], names: Sequence[str], size: tuple[int, int]) -> Points:
    xy = np.full((len(names), 2), np.nan)
    for i, name in enumerate(names):
        if name in places:
            xy[i] = x, y = places[name]
            if not (-0.5 <= x < size[1] - 0.5 and -0.5 <= y < size[0] - 0.5):
                what = f"places {name} of frame {frame} at ({x:g}, {y:g}), outside the frame of {size[1]}x{size[0]}"
                raise InputError(path, what, "leave it empty where it cannot be seen; x and y count from 0")
    return Points.given(xy)


@dataclass(frozen=True, eq=False)
class KeypointTable:
    """A row a point and frame, in order; as ``given.Store`` says.

    While frames are being labelled, in whatever order, their rows are added to a hidden table beside it, which a kill
    leaves with one torn row at most; the table itself appears when it is whole.

    Attributes:
        path: of the table. names: of the points. size: (height, width) of the video.
    """

    path: Path
    names: tuple[str, ...]
    size: tuple[int, int]
    _found: dict[int, str] = field(default_factory=dict)  # rows by frame

    def prepare(self) -> None:
        self._read()
        with replacing(self._journal) as file:
            file.write("".join(self._found.values()).encode())

    def missing(self, frames: Iterable[int]) -> set[int]:
        self._read()
        return set(frames) - self._found.keys()

    def write(self, index: int, label: Points) -> None:
        if index in self._found:
            return
        rows = self._rows(index, label)
        append(self._journal, rows, into=self.path)
        self._found[index] = rows

    def revise(
        self, frames: Collection[int], labels: Mapping[int, Points], before: Sequence[int] | Sequence[str]
    ) -> None:
        """As ``given.Store`` says; of points that the results do not have yet, what stays says that they are lost."""
        self._read(tuple(map(str, before)))
        found = {k: rows for k, rows in self._found.items() if k not in frames}
        for k, rows in found.items():
            by_name = {row[1]: row for row in csv.reader(io.StringIO(rows))}
            found[k] = _text(by_name.get(name, [str(k), name, "", "", "0.0"]) for name in self.names)
        found |= {k: self._rows(k, label) for k, label in labels.items()}
        with replacing(self._journal) as file:
            file.write("".join(found.values()).encode())
        remove(self.path)
        self._found.clear()

    def finish(self, frames: Iterable[int]) -> None:
        text = ",".join(COLUMNS) + "\n" + "".join(self._found[k] for k in frames)
        with replacing(self.path) as file:
            file.write(text.encode())
        self._journal.unlink(missing_ok=True)

    def read(self, index: int) -> Points:
        cells = [row[2:] for row in csv.reader(io.StringIO(self._found[index]))]
        values = np.array([[float(cell or "nan") for cell in row] for row in cells]).reshape(-1, 3)
        return Points(values[:, :2], values[:, 2])

    def read_all(self) -> dict[int, Points]:
        """The points of all frames that are there."""
        self._read()
        return {k: self.read(k) for k in self._found}

    def drawn(self, index: int, rgb: NDArray[np.uint8], *, opacity: float = 0.5) -> NDArray[np.uint8]:
        points = self.read(index)
        scale = np.array([rgb.shape[1] / self.size[1], rgb.shape[0] / self.size[0]])
        return draw_points(rgb, (points.xy + 0.5) * scale - 0.5, points.confidence)

    @property
    def _journal(self) -> Path:
        return self.path.with_name(f".{self.path.name}")

    def _rows(self, index: int, label: Points) -> str:
        """The rows of a frame."""
        rows = []
        for name, (x, y), confidence in zip(self.names, label.xy, label.confidence, strict=True):
            place = ("", "") if np.isnan(x) else (repr(float(x)), repr(float(y)))
            rows.append((str(index), name, *place, repr(float(confidence))))
        return _text(rows)

    def _read(self, *also: tuple[str, ...]) -> None:
        """Find the whole rows of frames with these points, or with ``also`` others."""
        self._found.clear()
        for path in (self.path, self._journal):
            try:
                text = path.read_bytes().decode()
            except (OSError, UnicodeDecodeError):
                continue
            for frame, rows in _by_frame(text).items():
                names = tuple(row[1] for row in csv.reader(rows))
                if names in (self.names, *also) and all(map(_is_whole, csv.reader(rows))):
                    self._found.setdefault(frame, "".join(rows))


def _text(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _by_frame(text: str) -> dict[int, list[str]]:
    """Whole rows of a table by frame."""
    found: dict[int, list[str]] = {}
    for row in text.splitlines(keepends=True):
        number = row.split(",", 1)[0]
        if row.endswith("\n") and number.isascii() and number.isdecimal():
            found.setdefault(int(number), []).append(row)
    return found


def _is_whole(row: Sequence[str]) -> bool:
    """Whether the row of a frame and point has a place or none, and a confidence."""
    try:
        return len(row) == len(COLUMNS) and all(np.isfinite(float(v)) for v in row[2:] if v or v is row[4])
    except ValueError:
        return False
