"""``objects.json`` in a folder of masks: the names of its ids, ``{"names": {"1": "goat"}}``. Other keys are free."""

from __future__ import annotations

from pathlib import Path

from vcorr.errors import InputError
from vcorr.labels.formats.text import read_json

NAMES = "objects.json"


def read_names(folder: Path) -> dict[int, str]:
    """The names of ids in a folder of masks; none where it does not have the file.

    Raises:
        InputError: the file cannot be read, or does not name ids.
    """
    path = folder / NAMES
    if not path.is_file():
        return {}
    names = read_json(path).get("names", {})
    if not isinstance(names, dict) or not all(
        k.isascii() and k.isdecimal() and isinstance(v, str) for k, v in names.items()
    ):
        raise InputError(path, "does not name ids", 'write {"names": {"1": "goat"}}')
    return {int(k): v for k, v in names.items() if v}
