"""Calls in a process of their own, so that one that breaks the GPU's context, dies or takes too long costs no other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

Found = TypeVar("Found")


class Failed(Exception):
    """A call had no result; the message says why."""


class Apart:
    """A process that calls what it is sent, and another one after a call that left it unfit.

    Args:
        limit: seconds that a call may take.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._worker: tuple[Any, Connection] | None = None

    def __call__(self, work: Callable[..., Found], *given: object) -> Found:
        """The result of ``work(*given)``, all of which must survive pickling.

        Raises:
            Failed: it raised, ended the process, or took longer than the limit.
        """
        process, pipe = self._worker = self._worker or _start()
        pipe.send((work, given))
        try:
            if not pipe.poll(self.limit):
                self.close()
                raise Failed(f"took more than {self.limit:g} s")
            found, failure, fit = pipe.recv()
        except EOFError:
            process.join()
            self.close()
            raise Failed(f"its process ended with code {process.exitcode}") from None
        if not fit:
            self.close()
        if failure:
            raise Failed(failure)
        result: Found = found
        return result

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            process, pipe = self._worker
            process.kill()
            process.join()
            pipe.close()
        self._worker = None


def _start() -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")  # a GPU's context does not survive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _serve(pipe: Connection) -> None:
    while True:
        try:
            work, given = pipe.recv()
        except EOFError:
            return
        found, failure = None, ""
        try:
            found = work(*given)
        except Exception as error:  # what may go wrong on a new GPU is not known beforehand
            failure = (str(error).strip() or type(error).__name__).splitlines()[0]
        pipe.send((found, failure, _fit()))


def _fit() -> bool:
    """Whether the GPU still answers: after an invalid access nothing in the process does."""
    try:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
