"""Scene cuts: where what is seen changes at once and stays changed.

Frame t begins a scene if every one of the ``WINDOW`` frames from t on differs from every one of the ``WINDOW`` before
it. So a flash shorter than that is no cut. Frames differ where their colours do, more than they change from one frame
to the next on either side, which motion however fast may do; and where light and dark lie elsewhere as well, so that a
lamp that goes on is no cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

WINDOW = 4  # frames on either side that are compared
COLOURS = 0.15  # least distance of colours, in [0, 1]
CHANGE = 3.0  # least distance of colours over the median of those from one frame to the next on either side
LAYOUT = 0.9  # correlation of light and dark above which the scene is the same
SAMPLES = 60  # rows or columns of pixels that are looked at, of the shorter side
BINS = 8  # of a colour channel
CELLS = (9, 16)  # down and across, in which light and dark are averaged

Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Look:
    """What a frame is compared by.

    Attributes:
        colours: float32 [BINS^3], a smoothed histogram of RGB that sums to 1.
        layout: float32 [cells], brightness less its mean, of length 1; 0 where it is the same everywhere.
    """

    colours: NDArray[np.float32]
    layout: NDArray[np.float32]


class CutFinder:
    """Finds the cuts of a video whose frames it sees one after the other, in bounded memory."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, Look]] = deque(maxlen=2 * WINDOW)
        self._marks: list[tuple[int, float]] = []

    def see(self, index: int, rgb: Picture) -> None:
        """The next frame [h w 3]; it is not kept."""
        self._recent.append((index, look(rgb)))
        if len(self._recent) > WINDOW:
            self._marks += _marks(list(self._recent), [len(self._recent) - WINDOW])

    def found(self) -> list[int]:
        """First frames of the scenes after the first, of all that was seen."""
        last = list(self._recent)
        marks = self._marks + _marks(last, range(max(1, len(last) - WINDOW + 1), len(last)))
        # A frame that a cut blends makes two marks: the one that stands out more is the cut.
        return [k for k, d in marks if all((d, -k) >= (e, -j) for j, e in marks if abs(j - k) < WINDOW)]


def _marks(frames: Sequence[tuple[int, Look]], splits: Iterable[int]) -> list[tuple[int, float]]:
    """(frame, distance of colours) of those of the frames before which to split that begin a scene."""
    found = []
    for split in splits:
        before, after = ([seen for _, seen in side] for side in (frames[:split][-WINDOW:], frames[split:][:WINDOW]))
        far = min(_distance(a, b) for a in before for b in after)
        if far <= COLOURS:
            continue
        steps = [_distance(a, b) for side in (before, after) for a, b in pairwise(side)]
        near = float(np.median(steps)) if steps else 0.0  # one of them may be to a frame that the cut blends
        alike = max(float(a.layout @ b.layout) for a in before for b in after)
        if far > CHANGE * near and alike < LAYOUT:
            found.append((frames[split][0], far))
    return found


def look(rgb: Picture) -> Look:
    """What a frame [h w 3] is compared by."""
    step = max(1, min(rgb.shape[:2]) // SAMPLES)
    pixels = rgb[::step, ::step]
    bins = (pixels.astype(np.int64) * BINS) >> 8
    counts = np.bincount(((bins[..., 0] * BINS + bins[..., 1]) * BINS + bins[..., 2]).ravel(), minlength=BINS**3)
    colours = counts.reshape(BINS, BINS, BINS).astype(np.float32) / bins[..., 0].size
    for axis in range(3):  # a colour at the edge of its bin lies in two
        side = np.pad(np.moveaxis(colours, axis, 0), ((1, 1), (0, 0), (0, 0)), mode="edge")
        colours = np.moveaxis((side[:-2] + 2 * side[1:-1] + side[2:]) / 4, 0, axis)
    light = _averaged(pixels.mean(-1, dtype=np.float32)).ravel()
    light -= light.mean()
    length = float(np.linalg.norm(light))
    return Look(
        np.asarray(colours, np.float32).ravel(), light / np.float32(length) if length > 1e-3 else np.zeros_like(light)
    )


def _averaged(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of pixels [h w] over CELLS, or over as many as there are pixels."""
    means = light
    for axis, cells in enumerate(CELLS):
        edges = np.linspace(0, light.shape[axis], min(cells, light.shape[axis]) + 1).astype(int)
        widths = np.diff(edges).astype(np.float32).reshape([-1, 1] if axis == 0 else [1, -1])
        means = np.asarray(np.add.reduceat(means, edges[:-1], axis) / widths, np.float32)
    return means


def _distance(a: Look, b: Look) -> float:
    """Share of the colours of one frame that the other does not have."""
    return 1 - float(np.minimum(a.colours, b.colours).sum())
