"""How messages name times, sizes and frames."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

MOST_RANGES = 8
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """A length of time in its two largest units.

    >>> [duration(s) for s in (0.2, 7, 61, 3725, 200000)]
    ['1 s', '7 s', '1 min 1 s', '1 h 2 min', '2 d 7 h']
    """
    whole = max(1, round(min(seconds, 1e10)))
    for (name, size), (next_name, next_size) in pairwise(_UNITS):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // next_size} {next_name}"
    return f"{whole} s"


def file_size(count: int) -> str:
    """Bytes in MB or GB.

    >>> [file_size(n) for n in (10, 25_400_000, 3_210_000_000)]
    ['1 MB', '25 MB', '3.2 GB']
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def ranges(frames: Iterable[int]) -> list[tuple[int, int]]:
    """Frames as (first, last) of each range of neighbours.

    >>> ranges({1, 2, 3, 7})
    [(1, 3), (7, 7)]
    """
    found: list[tuple[int, int]] = []
    for k in sorted(frames):
        if found and found[-1][1] == k - 1:
            found[-1] = found[-1][0], k
        else:
            found.append((k, k))
    return found


def frame_list(frames: Iterable[int]) -> str:
    """The first ``MOST_RANGES`` ranges of frames.

    >>> frame_list({1, 2, 3, 7})
    '1 to 3, 7'
    >>> frame_list(range(0, 100, 2))
    '0, 2, 4, 6, 8, 10, 12, 14, ...'
    """
    found = ranges(frames)
    names = [str(first) if first == last else f"{first} to {last}" for first, last in found[:MOST_RANGES]]
    return ", ".join(names + ["..."] * (len(found) > MOST_RANGES))
