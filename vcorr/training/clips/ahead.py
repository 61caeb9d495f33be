"""Batches of clips made in the background, so that training does not wait for files.

Threads, not processes: decoders and resizing let go of Python's lock, and all threads share the frames that are kept
in memory. What a batch holds is a function of its samples alone, so nothing hangs on how many threads there are.
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

DEPTH = 3  # batches under way, one of which is asked for
MOST = 8  # threads: enough for a GPU; more would fight over Python's lock


def workers_for(device: torch.device, processes: int = 1) -> int:
    """Threads that make clips while a device trains: on the CPU one, beside a GPU one a core.

    Args:
        processes: that train on this machine and share its cores.
    """
    if device.type == "cpu":
        return 1
    return max(1, min(MOST, cores() // processes))


class ReadAhead:
    """The batches of a training in the order in which they will be asked for, some of them ahead of time.

    Args:
        clips: the training set.
        plan: the samples of each batch, in order.
        workers: threads. 0: none, each batch is made when it is asked for.
    """

    def __init__(self, clips: Clips, plan: Iterable[Sequence[int]], workers: int) -> None:
        self._clips, self._plan = clips, iter(plan)
        # Page-locked, a batch goes to a GPU several times faster.
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
        """End the threads, after the clip that each is at."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._under_way.clear()

    def batch(self, samples: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
        """As `Clips.batch`. Batches of the plan that come before this one and were not asked for are dropped.

        Raises:
            InputError: as `Clips.batch`, when the batch is asked for.
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
        """Write a clip where it belongs in its batch; its video."""
        clip, video = self._clips.clip(sample)
        place.copy_(clip)
        return video


@dataclass(frozen=True)
class _Pending:
    """A batch that is being made: its clips, once each job has given the video that its clip is from."""

    samples: tuple[int, ...]
    pictures: Tensor
    jobs: list[Future[int]]


def _settle() -> None:
    """Of a thread that begins: give way to a training on the same cores, whose threads wait for one another."""
    torch.set_num_threads(1)  # of this thread, and of none that runs already
    if sys.platform == "linux" and not torch.cuda.is_available():  # there, a thread has a priority of its own
        mine = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, mine + 5))
