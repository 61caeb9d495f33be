"""COCO's run lengths: pixels column by column, runs of 0 and of 1 in turn, the first of 0; and their text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]


def encode(mask: Flags) -> list[int]:
    """Counts of a mask [h w].

    >>> encode(np.array([[0, 1], [0, 1]], bool))
    [2, 2]
    """
    return runs(mask.T.ravel())


def runs(flags: Flags) -> list[int]:
    """Lengths of the runs of False and True in turn, the first of False, of flags in a row."""
    ends = np.flatnonzero(np.diff(flags)) + 1
    counts: list[int] = np.diff(np.concatenate([[0], ends, [flags.size]])).tolist()
    return [0, *counts] if flags.size and flags[0] else counts


def decode(counts: Sequence[int], size: tuple[int, int]) -> Flags:
    """The mask [h w] of counts.

    Raises:
        ValueError: they are no counts, or not of so many pixels.
    """
    height, width = size
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts):
        raise ValueError("its counts are not all whole numbers from 0 up")
    if sum(counts) != height * width:
        raise ValueError(f"its counts sum to {sum(counts)}, not to the {height * width} pixels of {width}x{height}")
    values = np.zeros(len(counts), bool)
    values[1::2] = True
    return np.repeat(values, counts).reshape(width, height).T


def to_text(counts: Sequence[int]) -> str:
    """Counts as COCO's text: each but the first three as the difference from that two before, six bits a character."""
    text = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            text.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(text)


def from_text(text: str) -> list[int]:
    """Counts of COCO's text.

    Raises:
        ValueError: it is cut short, or has other characters.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"its counts hold {character!r}")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("its counts are cut short")
    return counts
