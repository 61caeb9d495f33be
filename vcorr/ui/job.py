"""What runs, as pages are told of it."""

from __future__ import annotations

from dataclasses import dataclass


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
