"""What runs in a thread beside the server, one thing at a time, and what pages are told of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from vcorr.errors import UsageError, VcorrError


class Stopped(BaseException):
    """The page stopped a job; what it did is saved."""


@dataclass
class Job:
    """What runs, or ran last.

    Attributes:
        what: "propagate" or "export"; empty where nothing ran yet.
        running: whether it does. done, total: steps. frame: that was written last.
        said: the last line that it told. error: why it ended, if it failed. result: what an export wrote.
    """

    what: str = ""
    running: bool = False
    done: int = 0
    total: int = 0
    frame: int | None = None
    rate: float = 0.0
    said: str = ""
    error: str = ""
    result: str = ""


class Worker:
    """Runs a job.

    Args:
        told: called when the job changed.
        ended: called when its work is done or failed; it takes the job as no longer running, and tells.

    Attributes:
        job: that runs, or ran last.
    """

    def __init__(self, told: Callable[[], None], ended: Callable[[], None]) -> None:
        self.job = Job()
        self._told, self._ended = told, ended
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, what: str, work: Callable[[], None]) -> None:
        """Start a job.

        Raises:
            UsageError: one runs.
        """
        with self._lock:
            if self.job.running:
                raise UsageError(what, f"{self.job.what} runs already", "stop it, or wait")
            self.job = Job(what, running=True)
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, args=[work], name=f"vcorr-{what}", daemon=True)
            self._thread.start()
        self._told()

    def stop(self) -> None:
        """Ask the job to stop. It does so after the frame that it is at."""
        self._stop.set()

    def close(self) -> None:
        """Stop the job, and wait until it has saved."""
        self.stop()
        if self._thread:
            self._thread.join()

    def check(self) -> None:
        """For the work to call between its steps.

        Raises:
            Stopped: it was asked to.
        """
        if self._stop.is_set():
            raise Stopped

    def say(self, line: str) -> None:
        """Tell a line."""
        self.job.said = line
        self._told()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Stopped:
            self.job.said = "stopped"
        except VcorrError as error:
            self.job.error = str(error)
        except Exception as error:
            self.job.error = f"internal error: {type(error).__name__}: {error}"
        try:
            self._ended()
        except VcorrError as error:  # the folder itself is damaged
            self.job.error = self.job.error or str(error)
            self.job.running = False
            self._told()
