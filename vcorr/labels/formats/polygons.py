"""Polygons and masks: x and y count along the edges of pixels, so that the first pixel is [0, 1] x [0, 1].

A pixel belongs to a polygon whose inside holds its centre, by the even-odd rule. An outline that is traced along the
edges of pixels is filled to the same mask again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Corners = NDArray[np.float64]


def fill(corners: Corners, size: tuple[int, int]) -> Flags:
    """Mask [h w] of a polygon [n 2] of (x, y)."""
    height, width = size
    turns = np.zeros((height, width + 1), np.int32)
    ends = np.roll(corners, -1, axis=0)
    for (x0, y0), (x1, y1) in zip(corners.tolist(), ends.tolist(), strict=True):
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        first, last = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in (y0, y1))
        if first < last:
            crossing = x0 + (np.arange(first, last) + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
            turns[np.arange(first, last), np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)] += 1
    return np.asarray(np.cumsum(turns, axis=1)[:, :width] % 2 == 1)


def outlines(mask: Flags) -> Iterator[tuple[Corners, bool]]:
    """The outlines of a mask's parts and of their holes, along the edges of pixels: (corners [n 2], is it a hole).

    Pixels that meet at a corner alone are two parts.
    """
    padded = np.pad(mask, 1)
    # Directed edges with the object on their right: (x, y) -> where it goes, by the four sides of a pixel.
    starts: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for side, (dy, dx) in {"top": (-1, 0), "right": (0, 1), "bottom": (1, 0), "left": (0, -1)}.items():
        outside = ~np.roll(padded, (-dy, -dx), (0, 1))
        for y, x in np.argwhere(padded & outside) - 1:
            a, b = {
                "top": ((x, y), (x + 1, y)),
                "right": ((x + 1, y), (x + 1, y + 1)),
                "bottom": ((x + 1, y + 1), (x, y + 1)),
                "left": ((x, y + 1), (x, y)),
            }[side]
            starts.setdefault((int(a[0]), int(a[1])), []).append((int(b[0]), int(b[1])))
    while starts:
        begin = min(starts, key=lambda p: (p[1], p[0]))
        path, here = [begin], begin
        came = (0, 0)
        while True:
            ways = starts[here]
            # Where two parts meet at a corner, turn right: stay on this one.
            way = next((w for w in ways if (w[0] - here[0], w[1] - here[1]) == (-came[1], came[0])), ways[0])
            ways.remove(way)
            if not ways:
                del starts[here]
            came = (way[0] - here[0], way[1] - here[1])
            here = way
            if here == begin and (here not in starts or came == (0, -1)):
                break
            path.append(here)
        corners = np.array(path, np.float64)
        ahead, behind = np.roll(corners, -1, 0) - corners, corners - np.roll(corners, 1, 0)
        turning = (ahead != behind).any(1)
        x, y = corners.T
        hole = bool((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() < 0)
        yield corners[turning], hole
