"""Pictures of more than 8 bits a channel, brought to 8 by one scale for the whole video.

Microscopes and machine cameras write 10, 12 or 14 bits into files of 16, or fractions; no file says which. Read from
the whole range of the file such pictures are black, and stretched one by one they flicker. So a few pictures, spread
over the video, tell the range, and every picture is read by it.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLES = 9
"""Pictures that tell the range of a video."""

_PIXELS = 2**20  # of a picture that are looked at
_STRAY = 10_000  # one pixel of so many may be brighter or darker than white and black: hot and dead pixels
_FLAT = 8  # a range that is this many times wider than what it holds is narrowed to it


@dataclass(frozen=True)
class Scale:
    """The levels that are read as black and as white; what lies beyond is read as these."""

    black: float
    white: float

    def to_8_bits(self, levels: NDArray[Any]) -> NDArray[np.uint8]:
        """Levels of any numbers and shape -> uint8 of the same shape; NaN is black."""
        if levels.dtype == np.uint16:
            read: NDArray[np.uint8] = self._to_8_bits(np.arange(2**16))[levels]
            return read
        return self._to_8_bits(levels)

    def _to_8_bits(self, levels: NDArray[Any]) -> NDArray[np.uint8]:
        share = (levels.astype(np.float64) - self.black) / (self.white - self.black)
        return np.round(255 * np.nan_to_num(share, nan=0.0).clip(0, 1)).astype(np.uint8)

    def __str__(self) -> str:
        return f"more than 8 bits a channel: {self.black:g} is read as black and {self.white:g} as white in every frame"


WHOLE = Scale(0, 65535)
"""Of 16 bits that are all in use."""


def scale_of(pictures: Iterable[NDArray[Any]]) -> Scale:
    """The scale of a video from some of its pictures.

    It reaches from 0 to the power of two that holds the brightest level: 4095 for 12 bits, 1 for fractions. Where
    levels are negative, or fill less than an eighth of that (thermal cameras), it reaches from the darkest to the
    brightest. Stray pixels, one in 10,000 at either end, do not count.
    """
    ends = [found for picture in pictures if (found := _ends(picture)) is not None]
    if not ends:
        return WHOLE
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    white = _power_of_two(high)
    if low < 0 or (high - low) * _FLAT < white:
        return Scale(low, high if high > low else low + 1)
    return Scale(0, white)


def _ends(levels: NDArray[Any]) -> tuple[float, float] | None:
    """(darkest, brightest) level of a picture without its stray pixels; None if no number is in it."""
    step = max(1, math.isqrt(levels.shape[0] * levels.shape[1] // _PIXELS))
    known = levels[::step, ::step].ravel()
    if known.dtype.kind == "f":
        known = known[np.isfinite(known)]
    if not known.size:
        return None
    stray = known.size // _STRAY
    ordered = np.partition(known, (stray, known.size - 1 - stray))
    return float(ordered[stray]), float(ordered[-1 - stray])


def _power_of_two(level: float) -> float:
    """The white of the smallest range from 0 that holds a level: 2^b - 1, or 2^-b for fractions.

    >>> [_power_of_two(level) for level in (0.2, 1, 200, 4080, 4096)]
    [0.25, 1.0, 255.0, 4095.0, 8191.0]
    """
    if level <= 0:
        return 1.0
    if level <= 1:
        return 2.0 ** math.ceil(math.log2(level))
    return 2.0 ** math.ceil(math.log2(level + 1)) - 1


class SharedScale:
    """The scale of a video, found when it is first asked for, from a few of its pictures. For any thread.

    Args:
        count: pictures that the video has.
        deep: number of a picture -> its levels; None where it has 8 bits or cannot be read.
    """

    def __init__(self, count: int, deep: Callable[[int], NDArray[Any] | None]) -> None:
        self._count, self._deep = count, deep
        self._scale: Scale | None = None
        self._lock = threading.Lock()

    def get(self) -> Scale:
        """The scale of the pictures that have more than 8 bits a channel."""
        with self._lock:
            if self._scale is None:
                self._scale = scale_of(itertools.islice(self._deep_ones(), SAMPLES))
            return self._scale

    def note(self) -> str:
        """What the user should know of the scale, once it was asked for; empty where there is nothing to tell."""
        return "" if self._scale in (None, WHOLE) else str(self._scale)

    def _deep_ones(self) -> Iterator[NDArray[Any]]:
        """Deep pictures: among those evenly spread, then among the others, as some may have 8 bits."""
        spread = np.linspace(0, self._count - 1, SAMPLES).round().astype(int).tolist()
        for k in dict.fromkeys([*spread, *range(self._count)]):
            if (levels := self._deep(k)) is not None:
                yield levels
