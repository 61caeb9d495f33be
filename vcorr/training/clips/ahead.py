"""Prepares batches of clips in background threads, so that training does not wait for files.

Threads share the frames in memory, and decoding and resizing release Python's lock, so processes have no advantage. A
batch depends only on its samples, so the number of threads changes no result.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from vcorr.machine import cores
from vcorr.training.clips.cut import Clips

DEPTH = 3  # batches in preparation, including the next one
MOST = 8  # threads: enough for a GPU; more would compete for Python's lock


def workers_for(device: torch.device, processes: int = 1) -> int:
    """The number of threads that prepare clips: one if the CPU trains, one for each core beside a GPU.

    Args:
        device: trains.
        processes: training processes on this machine, which share its cores.
    """
    if device.type == "cpu":
        return 1
    return max(1, min(MOST, cores() // processes))


class ReadAhead:
    """Prepares the batches of a training in order, some of them ahead of time.

    Args:
        clips: the training set.
        plan: the samples of each batch, in order.
        workers: threads; 0 prepares each batch when it is requested.
    """

    def __init__(self, clips: Clips, plan: Iterable[Sequence[int]], workers: int) -> None:
        self._clips, self._plan = clips, iter(plan)
        # A page-locked batch moves to a GPU several times faster.
        self._pinned = clips.device.type == "cpu" and torch.cuda.is_available()
        self._pool = ThreadPoolExecutor(workers, "clips", _settle) if workers else None
        self._under_way: deque[_Pending] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads; each finishes its present clip."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._under_way.clear()

    def batch(self, samples: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
        """See `Clips.batch`. Drops earlier batches of the plan that were not requested.

        Raises:
            InputError: see `Clips.batch`.
        """
        self._fill()
        while self._under_way:
            pending = self._under_way.popleft()
            self._fill()
            if pending.samples == tuple(samples):
                videos = tuple(job.result() for job in pending.jobs)
                return pending.pictures, videos
            for job in pending.jobs:
                job.cancel()
        return self._clips.batch(samples)

    def _fill(self) -> None:
        while self._pool is not None and len(self._under_way) < DEPTH:
            samples = next(self._plan, None)
            if samples is None:
                return
            cfg, device = self._clips.cfg, self._clips.device
            shape = (len(samples), cfg.length, cfg.size, cfg.size, 3)
            pictures = torch.empty(shape, dtype=torch.uint8, device=device, pin_memory=self._pinned)
            jobs = [self._pool.submit(self._make, pictures[k], sample) for k, sample in enumerate(samples)]
            self._under_way.append(_Pending(tuple(samples), pictures, jobs))

    def _make(self, place: Tensor, sample: int) -> int:
        """Writes a clip to its place in the batch; returns its video."""
        clip, video = self._clips.clip(sample)
        place.copy_(clip)
        return video


@dataclass(frozen=True)
class _Pending:
    """A batch in preparation. Its clips are complete when all jobs have returned their videos."""

    samples: tuple[int, ...]
    pictures: Tensor
    jobs: list[Future[int]]


def _settle() -> None:
    """Lowers the priority of a new thread: the threads of a training on the same cores wait for one another."""
    torch.set_num_threads(1)  # of this thread only
    if sys.platform == "linux" and not torch.cuda.is_available():  # on Linux each thread has its own priority
        mine = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, mine + 5))
