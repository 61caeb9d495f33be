"""YOLO segmentation: a line a polygon, ``class x1 y1 x2 y2 ...`` as shares of width and height.

The form has no holes and no parts: a part is a line of its own, and a hole is cut into its outline by a bridge of no
width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vcorr.labels.formats.objects import Named
from vcorr.labels.formats.polygons import Corners, Flags, fill, outlines


def lines(frame: Named, ids: Sequence[int]) -> str:
    """The lines of a frame; the class of an object is its place among the ids."""
    scale = np.array(frame.size[::-1], np.float64)
    text = []
    for i, _, mask in frame.objects:
        for polygon in whole_outlines(mask):
            values = " ".join(f"{value:.8g}" for value in (polygon / scale).ravel())
            text.append(f"{ids.index(i)} {values}\n")
    return "".join(text)


def whole_outlines(mask: Flags) -> list[Corners]:
    """The outlines of a mask's parts, with holes cut into them."""
    found = list(outlines(mask))
    parts = [corners for corners, hole in found if not hole]
    areas = [fill(corners, mask.shape) for corners in parts] if len(parts) < len(found) else []
    for corners, hole in found:
        if hole:
            inside = fill(corners, mask.shape)
            around = [n for n, area in enumerate(areas) if not (inside & ~area).any()]
            if around:
                n = min(around, key=lambda n: int(areas[n].sum()))
                parts[n] = _bridged(parts[n], corners)
    return parts


def _bridged(outline: Corners, hole: Corners) -> Corners:
    """An outline that goes to the hole at the nearest corners, around it, and back."""
    distance = np.square(outline[:, None] - hole[None]).sum(-1)
    i, j = np.unravel_index(int(distance.argmin()), distance.shape)
    around = np.roll(hole, -int(j), 0)
    return np.concatenate([outline[: i + 1], around, around[:1], outline[i:]])
