"""A line of values in [0, 1] over the frames of a video, with marks, as SVG. Its size hangs on no length."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

WIDTH, LEFT, RIGHT = 1000, 30, 990  # of the drawing; where its first and last frames lie
TOP, BOTTOM, HEIGHT = 20, 110, 130  # where 1 and 0 lie; of the drawing
POINTS = 480  # of the line at most: of the frames that share one, the lowest counts
MARKS = 200  # of a kind at most
TICKS = 10


def timeline(
    values: NDArray[np.floating],
    first: int,
    *,
    labelled: Sequence[int] = (),
    cuts: Sequence[int] = (),
    bands: Sequence[tuple[int, int, str]] = (),
    title: str = "",
) -> str:
    """The line of values, of frames from ``first`` on.

    Args:
        labelled: frames marked by a triangle. cuts: by a dashed line before them.
        bands: (first, last, name) of frames that are shaded and named.
        title: what the drawing shows, for those who do not see it.
    """
    count = len(values)

    def x(frame: float) -> str:
        return f"{LEFT + (RIGHT - LEFT) * (frame - first) / max(1, count):.1f}"

    parts = []
    for begin, end, name in bands:
        middle = x((begin + end + 1) / 2)
        parts.append(
            f'<path class="band" d="M{x(begin)} {TOP}V{BOTTOM}H{x(end + 1)}V{TOP}Z"/>'
            f'<text x="{middle}" y="{TOP - 6}" text-anchor="middle" class="name">{escape(name)}</text>'
        )
    for value in (0, 0.5, 1):
        y = BOTTOM + (TOP - BOTTOM) * value
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    for frame in ticks(first, count):
        parts.append(f'<text x="{x(frame + 0.5)}" y="{HEIGHT - 4}" text-anchor="middle">{frame}</text>')
    for cut in cuts[:MARKS]:
        parts.append(f'<path class="cut" d="M{x(cut)} {TOP - 14}V{BOTTOM}"><title>scene cut: {cut}</title></path>')
    points = "L".join(f"{x(frame + 0.5)} {BOTTOM + (TOP - BOTTOM) * low:.1f}" for frame, low in lowest(values, first))
    parts.append(f'<path class="line" d="M{points}{"h0" if count == 1 else ""}"/>')
    for frame in labelled[:MARKS]:
        parts.append(
            f'<path class="given" d="M{x(frame + 0.5)} {TOP - 1}l-5 -9h10z"><title>labelled: {frame}</title></path>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def lowest(values: NDArray[np.floating], first: int) -> list[tuple[int, float]]:
    """(frame, value) of every frame, or of the lowest of each of POINTS parts.

    >>> lowest(np.array([1.0, 0.25, 0.5]), 7)
    [(7, 1.0), (8, 0.25), (9, 0.5)]
    """
    edges = np.unique(np.linspace(0, len(values), min(POINTS, len(values)) + 1).astype(int))
    found = []
    for begin, end in pairwise(edges):
        k = int(begin + np.argmin(values[begin:end]))
        found.append((first + k, float(values[k])))
    return found


def ticks(first: int, count: int) -> list[int]:
    """Round numbers of frames, TICKS at most.

    >>> ticks(0, 90), ticks(7, 3)
    ([0, 10, 20, 30, 40, 50, 60, 70, 80], [7, 8, 9])
    """
    step = next(s for e in range(12) for s in (10**e, 2 * 10**e, 5 * 10**e) if count <= s * TICKS)
    return list(range(-(-first // step) * step, first + count, step))
