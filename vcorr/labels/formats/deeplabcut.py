"""DeepLabCut tables: three header rows (scorer, bodyparts, coords), four where there are individuals.

A row is a frame. Predictions number it; labels name its picture, ``labeled-data/<video>/img0012.png`` in one cell or
three, whose number is the frame. A point that is not there is empty, and its row stands all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vcorr.errors import InputError
from vcorr.labels.formats.points import Place, PointTable
from vcorr.labels.formats.text import number, short

_LEVELS = ("scorer", "individuals", "bodyparts", "coords")


def is_deeplabcut(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a table has DeepLabCut's header."""
    return rows[0][0].casefold() == "scorer"


def read_deeplabcut(path: Path, rows: Sequence[Sequence[str]]) -> PointTable:
    """The points of a table; a row without any point is a frame that is not labelled yet, and is left out.

    Raises:
        InputError: a header that is none of DeepLabCut's, rows of another length, or a value that is not a number.
    """
    levels = [row[0].casefold() for row in rows[:4]]
    if levels != list(_LEVELS):
        levels = levels[:3]
        if levels != [level for level in _LEVELS if level != "individuals"]:
            what = f"begins with the rows {short(', '.join(levels))}"
            raise InputError(path, what, "a DeepLabCut table begins with scorer, (individuals,) bodyparts, coords")
    header = dict(zip(levels, rows, strict=False))
    coords = [cell.casefold() for cell in header["coords"]]
    first = next((i for i, cell in enumerate(coords) if cell == "x"), 0)
    if not first:
        raise InputError(path, "has no x in its row coords", "export it from DeepLabCut again")
    names: dict[str, dict[str, int]] = {}
    for column in range(first, len(coords)):
        if coords[column] in "xy":
            name = _name(path, header, column)
            if coords[column] in names.setdefault(name, {}):
                raise InputError(path, f"has the columns of {name} twice", "export it from DeepLabCut again")
            names[name][coords[column]] = column
    if halves := [name for name, columns in names.items() if len(columns) < 2]:
        raise InputError(path, f"has no x and y of {halves[0]}", "export it from DeepLabCut again")
    frames: dict[int | str, dict[str, Place]] = {}
    for line, row in enumerate(rows[len(levels) :], start=len(levels) + 1):
        if len(row) != len(coords):
            what = f"row {line} has {len(row)} values where the header has {len(coords)}"
            raise InputError(path, what, "write numbers with decimal points")
        picture = next((cell for cell in reversed(row[:first]) if cell), "").replace("\\", "/").rsplit("/", 1)[-1]
        frame = int(picture) if picture.isascii() and picture.isdecimal() and len(picture) <= 18 else picture
        if frame == "" or frame in frames:
            what = f"row {line} names no frame" if frame == "" else f"row {line} labels {picture} again"
            raise InputError(path, what, "give each frame one row")
        places: dict[str, Place] = {}
        for name, columns in names.items():
            x, y = (number(path, row[columns[axis]], f"{axis} of {name}, row {line}") for axis in "xy")
            if x is not None and y is not None:
                places[name] = (x, y)
        frames[frame] = places
    return PointTable(path, tuple(names), {frame: places for frame, places in frames.items() if places})


def _name(path: Path, header: dict[str, Sequence[str]], column: int) -> str:
    try:
        part = header["bodyparts"][column]
        individual = header["individuals"][column] if "individuals" in header else ""
    except IndexError:
        raise InputError(path, "has header rows of different lengths", "export it from DeepLabCut again") from None
    if not part:
        raise InputError(path, f"names no body part in column {column + 1}", "export it from DeepLabCut again")
    return f"{individual}/{part}" if individual else part
