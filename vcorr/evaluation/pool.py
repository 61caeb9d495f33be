"""Runs jobs in parallel processes. The caller handles Ctrl-C, and no process outlives the caller."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import TypeVar

from vcorr.errors import VcorrError
from vcorr.machine import cores

J = TypeVar("J")
T = TypeVar("T")

_stop: Event | None = None  # set when the pool of this process closes


class WorkerLost(VcorrError):
    """Another program killed a process of the pool."""


def outcomes(
    work: Callable[[J], T], jobs: Sequence[J], workers: int | None = None, *, in_order: bool = True
) -> Generator[T]:
    """Yields the result of a function for each job.

    If the generator is closed early, it drops jobs that have not begun and waits for the others, which check `stopped`.
    The processes import the main module again (spawn), because threads of the caller do not survive a fork. A single
    worker is this process itself.

    Args:
        work, jobs: picklable.
        workers: processes; None for one for each core that this process may use. At most one for each job starts.
        in_order: yield in order of the jobs, which raises the first failure in this order; else as they end.

    Raises:
        WorkerLost: a process was killed.
    """
    workers = min(workers or cores(), len(jobs))
    if workers <= 1:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(stop,))
    try:
        with _interrupts_ignored():
            futures = [pool.submit(work, job) for job in jobs]
        for future in futures if in_order else as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        what, advice = f"one of {workers} processes was killed, perhaps for want of memory", "give fewer --workers"
        raise WorkerLost("processes", what, advice) from None
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def gather(
    work: Callable[[J], T],
    jobs: Sequence[J],
    workers: int | None = None,
    progress: Callable[[T], None] | None = None,
) -> tuple[T, ...]:
    """Returns the results of all jobs in order; ``progress`` receives each one.

    Raises:
        ValueError: ``workers`` is below 1.
        WorkerLost: a process was killed.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    found = []
    with contextlib.closing(outcomes(work, jobs, workers)) as done:
        for outcome in done:
            if progress is not None:
                progress(outcome)
            found.append(outcome)
    return tuple(found)


def stopped() -> bool:
    """Whether the pool of this process is closing, so that its results are not needed."""
    return _stop is not None and _stop.is_set()


def _begin(stop: Event) -> None:
    """Prepares each process: it ignores Ctrl-C, which could kill it while it holds a lock of the pool."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_caller, daemon=True).start()


def _end_with_the_caller() -> None:
    caller = multiprocessing.parent_process()
    if caller is not None:
        caller.join()
        os._exit(1)  # even in the middle of a job


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Makes processes that start inside ignore Ctrl-C from their first moment, before `_begin`."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:  # signals belong to the main thread
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
