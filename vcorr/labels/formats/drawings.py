"""Masks whose objects have names, as the files of annotation tools state them, and how names become ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcorr.errors import InputError
from vcorr.labels.earlier import Earlier
from vcorr.labels.formats.text import short
from vcorr.labels.mask_files import MaskFile

MAX_ID = 65534
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Drawing:
    """The objects drawn on one picture; where they overlap, the later one counts.

    Attributes:
        path: of the file. picture: its name, as the file has it. size: (height, width).
        objects: (name, mask [h w]) in order; parts of one object bear one name.
    """

    path: Path
    picture: str
    size: tuple[int, int]
    objects: Sequence[tuple[str, Flags]]

    def as_file(self, ids: dict[str, int]) -> MaskFile:
        """The mask that it states, with the ids of its names."""
        pixels = np.zeros(self.size, np.uint16)
        for name, mask in self.objects:
            pixels[mask] = ids[name]
        values, places = np.unique(pixels, return_inverse=True)
        codes = np.asarray(places.reshape(pixels.shape), np.uint16)
        if values[0] != 0:  # the background is there, if nowhere seen
            values, codes = np.concatenate([[0], values]), np.asarray(codes + 1, np.uint16)
        return MaskFile(self.path, "ids", codes, values.astype(np.int64), background="all else", white=MAX_ID + 1)


def number_names(drawings: Iterable[Drawing], earlier: Earlier | None = None) -> dict[str, int]:
    """Ids of all names: a whole number is its own id, the others are numbered in order, from 1, past these.

    Names of earlier labels have the ids that they had.

    Raises:
        InputError: a number that is no id.
    """
    names = {name: drawing.path for drawing in drawings for name, _ in drawing.objects}
    ids = {}
    for name, path in names.items():
        if name.isascii() and name.isdecimal():
            if len(name) > 5 or not 1 <= int(name) <= MAX_ID:
                raise InputError(path, f"has the object {short(name)}", f"ids must lie in 1 to {MAX_ID}")
            ids[name] = int(name)
    if earlier:
        ids |= {name: i for i, name in earlier.names.items() if name in names}
    taken, following = set(ids.values()) | {int(i) for i in (earlier.objects if earlier else ())}, 1
    for name in names:
        if name not in ids:
            while following in taken:
                following += 1
            taken.add(following)
            ids[name] = following
    return ids
