"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from vcorr.errors import OutputError


@contextlib.contextmanager
def held(folder: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Make a folder and keep other processes out of it while inside.

    The system lets go when the process ends, however it ends. Windows cannot lock folders: nobody is kept out there.

    Raises:
        OutputError: another process is in it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, f"cannot be made ({error.strerror})", "give another folder") from error
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what, advice = "another process works in it", "wait for that one, or give another folder"
            raise OutputError(folder, what, advice) from None
        except OSError:
            say(f"{folder}: its file system has no locks; start no second process in it")
        yield
    finally:
        os.close(descriptor)
