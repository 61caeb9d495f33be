"""Text from anyone: CSV and JSON with limits, and one error for whatever is wrong with them."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

from vcorr.errors import InputError

MAX_BYTES = 2**28  # of a label file: ten thousand frames of COCO polygons
_DELIMITERS = ",;\t"


def read_text(path: Path) -> str:
    """The text of a file, UTF-8 with or without a mark.

    Raises:
        InputError: missing, empty, too large, or no text.
    """
    try:
        if not path.is_file():
            raise InputError(path, "is not a file" if path.exists() else "does not exist", "check the path")
        if path.stat().st_size > MAX_BYTES:
            what = f"has {path.stat().st_size // 2**20} MiB, above the limit of {MAX_BYTES // 2**20}"
            raise InputError(path, what, "keep the frames that are labelled")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(path, "is no text in UTF-8", "save it as UTF-8") from None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from None
    if not text.strip():
        raise InputError(path, "is empty", "export the labels again")
    return text


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        InputError: as ``read_text``, or no JSON object.
    """
    try:
        data = json.loads(read_text(path))
    except RecursionError:
        raise InputError(path, "nests too deep to be a label file", "export the labels again") from None
    except ValueError as error:
        raise InputError(path, f"is no valid JSON ({error})", "export the labels again") from None
    if not isinstance(data, dict):
        raise InputError(path, "holds no JSON object of labels", "give a COCO, LabelMe or joints file")
    return data


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file, empty ones left out; the separator is what splits the first row into most cells.

    Raises:
        InputError: as ``read_text``, or no CSV.
    """
    text = read_text(path)
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(path, f"is no valid CSV ({error})", "export the labels again") from None
    return [[cell.strip() for cell in row] for row in rows]


def number(path: Path, text: object, what: str) -> float | None:
    """A finite number of a label file; None where it is left empty or NaN.

    Args:
        what: it is, for people: "x of nose, frame 3".

    Raises:
        InputError: it is none.
    """
    if text is None or (isinstance(text, str) and text.casefold() in ("", "nan", "na", "none", "null")):
        return None
    if isinstance(text, str) and re.fullmatch("[-+]?[0-9]+,[0-9]+", text):
        raise InputError(path, f"{what} is {text}: a decimal comma", "save it with decimal points")
    try:
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise ValueError
        value = float(text)
    except (ValueError, OverflowError):
        raise InputError(path, f"{what} is {short(text)}, no number", "mend it, or leave it empty") from None
    if math.isnan(value):
        return None
    if math.isinf(value):
        raise InputError(path, f"{what} is infinite", "mend it, or leave it empty")
    return value


def short(value: object, length: int = 40) -> str:
    """A value as it may stand in an error."""
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."
