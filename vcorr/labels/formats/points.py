"""What one keypoint file states, before its frames are found in the video; and the CSV form of our own.

The plain form is a row a point: ``frame,point,x,y``, with ``visible`` (0: not there) if one likes; other columns are
passed over. Where x and y are empty, or there is no row, the point is missing in that frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcorr.errors import InputError
from vcorr.labels.formats.text import number, short

Place = tuple[float, float]

COLUMNS = ("frame", "point", "x", "y", "confidence")  # of what we write
_NEEDED = ("frame", "point", "x", "y")
_HIDDEN = ("0", "0.0", "false", "no")


@dataclass(frozen=True)
class PointTable:
    """The points of a file.

    Attributes:
        path: of the file.
        names: of all its points, in its order; "individual/part" where it has individuals.
        frames: places by name of the point, of those that are there, by index of the frame or by name of its picture.
        says_frames: whether the name of a picture always says which frame it is.
    """

    path: Path
    names: Sequence[str]
    frames: Mapping[int | str, Mapping[str, Place]]
    says_frames: bool = True


def read_plain(path: Path, rows: Sequence[Sequence[str]]) -> PointTable:
    """A table ``frame,point,x,y[,visible]``.

    Raises:
        InputError: other headers, a row of another length, a point twice in a frame, or a value that is not a number.
    """
    header = [cell.casefold() for cell in rows[0]]
    if lacking := [name for name in _NEEDED if name not in header]:
        what = f"has no column {' and none '.join(lacking)}; its first row is {short(','.join(rows[0]))}"
        raise InputError(path, what, "name the columns frame,point,x,y[,visible], or give a DeepLabCut table")
    names: dict[str, None] = {}
    frames: dict[int | str, dict[str, Place]] = {}
    seen: set[tuple[int, str]] = set()
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            what = f"row {line} has {len(row)} values where the first row names {len(header)}"
            raise InputError(path, what, "write numbers with decimal points, and quote names with commas")
        cells = dict(zip(header, row, strict=True))
        frame, point = frame_number(path, cells["frame"], f"row {line}"), cells["point"]
        if not point:
            raise InputError(path, f"row {line} names no point", "name it")
        if (frame, point) in seen:
            raise InputError(path, f"row {line} places {point} of frame {frame} again", "keep one of the rows")
        seen.add((frame, point))
        names.setdefault(point)
        places = frames.setdefault(frame, {})
        x, y = (number(path, cells[axis], f"{axis} of {point}, frame {frame}") for axis in "xy")
        if x is not None and y is not None and cells.get("visible", "1").casefold() not in _HIDDEN:
            places[point] = (x, y)
    return PointTable(path, tuple(names), frames)


def frame_number(path: Path, text: str, where: str) -> int:
    """The index of a frame.

    Raises:
        InputError: it is none.
    """
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise InputError(path, f"{where} has the frame {short(text)}", "number frames 0, 1, 2, ...")
    return int(text)
