"""One process at a time in a folder, and whether a folder may be taken for work."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vcorr.errors import OutputError

HOLDER = ".lock"  # who works in a folder, for the others to read
# What file managers, file systems and synchronisation put into folders of their own accord.
# fmt: off
_NOISE = frozenset([
    ".ds_store", ".localized", ".fseventsd", ".spotlight-v100", ".trashes", "icon\r", "thumbs.db", "ehthumbs.db",
    "desktop.ini", "$recycle.bin", "system volume information", ".directory", "@eadir", "lost+found",
])
# fmt: on


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

    note = folder / HOLDER
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what, advice = f"another process works in it{_said(note)}", "wait for that one, or give another folder"
            raise OutputError(folder, what, advice) from None
        except OSError:
            say(f"{folder}: its file system has no locks; start no second process in it")
        with contextlib.suppress(OSError):
            note.write_text(f"{os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M')}")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                note.unlink()
    finally:
        os.close(descriptor)


def _said(note: Path) -> str:
    try:
        return f" (process {note.read_text()})"
    except (OSError, ValueError):
        return ""


def strangers(folder: Path, *ours: str) -> list[str]:
    """What in a folder speaks against taking it: not the system's own files, nor what a killed run of ours left.

    That is ``ours`` in the midst of being written, and folders in which nothing lies.

    Raises:
        OSError: it cannot be listed.
    """
    known = {HOLDER, *(f"{name}.part" for name in ours)}
    return [
        p.name
        for p in folder.iterdir()
        if p.name not in known
        and p.name.casefold() not in _NOISE
        and not p.name.startswith("._")
        and (p.is_symlink() or not p.is_dir() or strangers(p))
    ]
