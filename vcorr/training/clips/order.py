"""The clips of an epoch and their order, which depend only on (seed, epoch, number in the epoch)."""

from __future__ import annotations

import functools
import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch

from vcorr import rng as random


@dataclass(frozen=True)
class Place:
    """Where in the dataset a clip begins.

    Attributes:
        source: the index of the video.
        start: the index of the frame.
        gap: frames between two positions of the clip; None if each sample draws its own.
    """

    source: int
    start: int
    gap: int | None = None


class Order(Protocol):
    """Places by sample number; numbers go on from epoch to epoch."""

    def __len__(self) -> int:
        """Clips of the first epoch."""

    def place(self, sample: int, attempt: int = 0) -> Place:
        """The place of a sample; with ``attempt`` > 0, of a later clip of its epoch, which replaces it."""


class Starts:
    """Every frame that can start a clip does so once in an epoch.

    Args:
        starts: for each video, the number of frames, from the first on, that can start a clip; at least one.
        seed: of the run.
    """

    def __init__(self, starts: Sequence[int], seed: int) -> None:
        self._ends = list(accumulate(starts))  # clips up to the end of each video
        self._shuffled = functools.lru_cache(maxsize=2)(lambda epoch: _shuffled(len(self), seed, epoch))

    def __len__(self) -> int:
        return self._ends[-1]

    def place(self, sample: int, attempt: int = 0) -> Place:
        epoch, index = divmod(sample, len(self))
        position = int(self._shuffled(epoch)[(index + attempt) % len(self)])
        source = bisect_right(self._ends, position)
        return Place(source, position - (self._ends[source - 1] if source else 0))


class Intervals:
    """Each epoch draws a gap for each video, and cuts frames 0, gap, 2 gap, ... into consecutive clips.

    Clips of an epoch share no frame; frames left at the end of a video are dropped. Gaps that are too wide for a video
    are not drawn. (CorrFlow: gap 4, clips of 3; MAST: gap 2, 5 or 8 with odds 2 : 2 : 1, clips of 2.)

    Args:
        frames: frames of each video; at least one gap with odds above 0 must fit.
        length: frames of a clip.
        gaps, odds: the gaps, and their odds.
        seed: of the run.
    """

    def __init__(
        self, frames: Sequence[int], length: int, gaps: Sequence[int], odds: Sequence[float], seed: int
    ) -> None:
        self._frames, self._length, self._gaps, self._seed = torch.tensor(frames), length, torch.tensor(gaps), seed
        fits = (length - 1) * self._gaps[None, :] < self._frames[:, None]
        self._odds = torch.tensor(odds, dtype=torch.float64)[None, :] * fits
        self._drawn = functools.lru_cache(maxsize=2)(self._draw)
        self._ends: list[int] = []  # samples up to the end of each epoch, as far as requested
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._drawn(0)[1][-1])

    def place(self, sample: int, attempt: int = 0) -> Place:
        epoch = self._epoch(sample)
        gaps, ends, order = self._drawn(epoch)
        index = sample - (self._ends[epoch - 1] if epoch else 0)
        position = int(order[(index + attempt) % len(order)])
        source = int(torch.searchsorted(ends, position, right=True))
        number = position - (int(ends[source - 1]) if source else 0)
        gap = int(gaps[source])
        return Place(source, number * self._length * gap, gap)

    def _epoch(self, sample: int) -> int:
        with self._lock:
            while not self._ends or self._ends[-1] <= sample:
                clips = int(self._count(self._draw_gaps(len(self._ends))).sum())
                self._ends.append(clips + (self._ends[-1] if self._ends else 0))
        return bisect_right(self._ends, sample)

    def _draw(self, epoch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draws an epoch: the gap of each video, the clips up to the end of each video, the order."""
        gaps = self._draw_gaps(epoch)
        ends = self._count(gaps).cumsum(0)
        return gaps, ends, _shuffled(int(ends[-1]), self._seed, epoch)

    def _draw_gaps(self, epoch: int) -> torch.Tensor:
        drawn = torch.multinomial(self._odds, 1, generator=random.generator(self._seed, "gaps", epoch))
        return self._gaps[drawn[:, 0]]

    def _count(self, gaps: torch.Tensor) -> torch.Tensor:
        return ((self._frames - 1) // gaps + 1) // self._length


def _shuffled(count: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(count, generator=random.generator(seed, "order", epoch))
