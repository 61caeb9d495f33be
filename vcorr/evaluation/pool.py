"""Jobs in processes side by side. Ctrl-C is the caller's to act on, and no process outlives the caller."""

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

_stop: Event | None = None  # of the pool that this process works for


class WorkerLost(VcorrError):
    """A process of the pool was killed."""


def outcomes(
    work: Callable[[J], T], jobs: Sequence[J], workers: int | None = None, *, in_order: bool = True
) -> Generator[T]:
    """What a function makes of each job. Closed before its end, it drops the jobs that have not begun and waits for the
    others, which look for `stopped`.

    The processes start by importing the main module anew (spawn: the caller may hold threads, which do not survive a
    fork). A single worker is this process itself.

    Args:
        work, jobs: picklable.
        workers: processes; None is one for each core that this process may use. No more than jobs are started.
        in_order: of the jobs, so that the first failure in this order is the one that is raised; or as they end.

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
    """The outcomes of all jobs, in their order; ``progress`` is called with each as it is there.

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
    """Whether the pool that this process works for is closing, so that nobody waits for the outcome any more."""
    return _stop is not None and _stop.is_set()


def _begin(stop: Event) -> None:
    """In each process. One that Ctrl-C killed could hold a lock of the pool, and the pool wait for it for ever."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_caller, daemon=True).start()


def _end_with_the_caller() -> None:
    caller = multiprocessing.parent_process()
    if caller is not None:
        caller.join()
        os._exit(1)  # whatever it works at


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that are started here ignore Ctrl-C from their first moment, before `_begin` says so."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:  # not ours to change
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
