"""Converts pictures of more than 8 bits a channel to 8 bits, with one scale for the whole video.

Microscopes and machine cameras write 10, 12 or 14 bits into 16-bit files, or fractions, and the file does not say
which. With the whole range of the file, such pictures would be black; with a range each, they would flicker. So a few
pictures, spread over the video, determine the range of all.
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
"""Number of pictures that determine the range of a video."""

_PIXELS = 2**20  # sampled pixels of a picture
_STRAY = 10_000  # one pixel in so many may lie beyond black and beyond white: dead and hot pixels
_FLAT = 8  # a range this many times wider than the levels is narrowed to them


@dataclass(frozen=True)
class Scale:
    """The levels that become black and white. Levels beyond them are clipped."""

    black: float
    white: float

    def to_8_bits(self, levels: NDArray[Any]) -> NDArray[np.uint8]:
        """Converts levels of any type and shape to uint8 of the same shape; NaN becomes black."""
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
"""The scale of pictures that use all 16 bits."""


def scale_of(pictures: Iterable[NDArray[Any]]) -> Scale:
    """Determines the scale of a video from some of its pictures.

    The scale extends from 0 to the next power of two (less 1) above the brightest level: 4095 for 12 bits, 1 for
    fractions. If levels are negative, or fill less than an eighth of that (thermal cameras), it extends from the
    darkest to the brightest. One pixel in 10,000 at either end does not count.
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
    """(darkest, brightest) level of a picture without stray pixels; None if all are NaN or infinite."""
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
    """The white of the smallest range that includes a level: 2^b - 1, or 2^-b for fractions.

    >>> [_power_of_two(level) for level in (0.2, 1, 200, 4080, 4096)]
    [0.25, 1.0, 255.0, 4095.0, 8191.0]
    """
    if level <= 0:
        return 1.0
    if level <= 1:
        return 2.0 ** math.ceil(math.log2(level))
    return 2.0 ** math.ceil(math.log2(level + 1)) - 1


class SharedScale:
    """The scale of a video, determined at the first call from a few of its pictures. Thread-safe.

    Args:
        count: number of pictures of the video.
        deep: index of a picture -> its levels; None if it has 8 bits or cannot be read.
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
        """A note for the user on the scale; empty before the first `get`, and where the scale is `WHOLE`."""
        return "" if self._scale in (None, WHOLE) else str(self._scale)

    def _deep_ones(self) -> Iterator[NDArray[Any]]:
        """Yields deep pictures, evenly spread ones first, then the others: some may have 8 bits."""
        spread = np.linspace(0, self._count - 1, SAMPLES).round().astype(int).tolist()
        for k in dict.fromkeys([*spread, *range(self._count)]):
            if (levels := self._deep(k)) is not None:
                yield levels
