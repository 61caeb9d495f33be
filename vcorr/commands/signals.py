"""SIGTERM and Ctrl-C, as errors that are told in one line."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from vcorr.commands.console import fail
from vcorr.errors import Stopped


class Signalled(BaseException):
    """Stopped, before it reaches the commands: whoever mends what a hostile file raises lets this one through."""


@contextmanager
def stoppable(out: Path | None) -> Iterator[None]:
    """SIGTERM and Ctrl-C become errors of one line; what was done is saved in a folder, if there is one for it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Signalled(number)

    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Signalled as signalled:
        number = signalled.args[0]
        if out is not None:
            raise Stopped(out, number) from None
        fail(f"stopped by {signal.Signals(number).name}; nothing was kept", 128 + number)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
