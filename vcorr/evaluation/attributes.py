"""Attributes of sequences, such as occlusion or motion blur, by which a page of scores groups them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from vcorr.errors import InputError

_FORM = 'write one line for each sequence, "NAME: ATTRIBUTE ATTRIBUTE", or JSON: {"NAME": ["ATTRIBUTE", ...]}'


def read_attributes(path: Path) -> dict[str, tuple[str, ...]]:
    """Reads the attributes of each sequence.

    Args:
        path: a text file of lines "NAME: OCC MB" or "NAME,OCC,MB", or a JSON file {"NAME": ["OCC", "MB"]}.

    Raises:
        InputError: the file is missing, is none of these, or names a sequence twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"not a readable list of attributes ({error})", _FORM) from error
    if path.suffix.casefold() == ".json":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(path, f"is not JSON ({error})", _FORM) from error
        pairs = list(found.items()) if isinstance(found, dict) else [(None, None)]
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        pairs = [_of_line(line) for line in lines]
    read: dict[str, tuple[str, ...]] = {}
    for name, attributes in pairs:
        if name is None or not isinstance(attributes, list) or not all(isinstance(a, str) for a in attributes):
            raise InputError(path, "does not say the attributes of each sequence", _FORM)
        if name in read:
            raise InputError(path, f"names {name} twice", "keep one of them")
        read[name] = tuple(dict.fromkeys(attributes))
    return read


def _of_line(line: str) -> tuple[str | None, list[str]]:
    name, mark, rest = line.partition(":" if ":" in line else ",")
    return (name.strip(), re.findall(r"[^\s,;]+", rest)) if mark and name.strip() else (None, [])
