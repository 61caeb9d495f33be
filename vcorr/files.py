"""Files and folders of ours: written whole or not at all, one process at a time, never over somebody else's work."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from vcorr.errors import InputError, OutputError

LOCK = ".lock"  # held by the process that works in a folder; says which, for the others to read
_NO_LOCKS = frozenset([errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
# What file managers, file systems and synchronisation put into folders of their own accord.
# fmt: off
_NOISE = frozenset([
    ".ds_store", ".localized", ".fseventsd", ".spotlight-v100", ".trashes", "icon\r", "thumbs.db", "ehthumbs.db",
    "desktop.ini", "$recycle.bin", "system volume information", ".directory", "@eadir", "lost+found",
])
# fmt: on


# --- writing ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path, *, parents: bool = False) -> Iterator[BinaryIO]:
    """A file to write beside ``path`` that takes its place at the end; on an error the old file stays as it was.

    Its folder must be there, or is made (``parents``).

    Raises:
        OutputError: it cannot be written.
    """
    part = beside(path)
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
        put(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            reason, advice = error.strerror or error, "check the folder, its rights and the free space"
            raise OutputError(path, f"cannot be written ({reason})", advice) from error
        raise


def beside(path: Path) -> Path:
    """Where a file is written before it takes its name: no other process has the same, and ``sweep`` knows it."""
    return path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")


def put(part: Path, path: Path) -> None:
    """Give a file that is written its name, once it is on the disk: after a loss of power it is whole, or not there.

    Raises:
        OSError: it cannot be done.
    """
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, where the system can: Windows opens no folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append(path: Path, text: str, *, into: Path) -> None:
    """Add text to a journal of what is to be in another file at the end, ``into``, which an error names.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise OutputError(into, what, "check the folder, its rights and the free space") from error


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as file:
        file.write((json.dumps(data, indent=2) + "\n").encode())


def sweep(folder: Path) -> None:
    """Remove files of a folder that a kill left half written; no other process may be at work in it.

    Raises:
        OutputError: one of them cannot be removed.
    """
    try:
        for path in folder.iterdir():
            if _half_written(path.name):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(folder, f"cannot be cleared ({error.strerror})", "check its rights") from error


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        OutputError: it cannot be done.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(path, f"cannot be removed ({error.strerror})", "check the rights of its folder") from error


def _half_written(name: str) -> bool:
    return re.fullmatch(r"\..+\.\d+\.part(\.\w+)?", name) is not None


# --- digests ----------------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """Of the bytes of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from None


def sha256_of_all(files: Iterable[Path]) -> str:
    """Of the names and the bytes of files, in their order.

    Raises:
        InputError: one cannot be read.
    """
    digest = hashlib.sha256()
    for file in files:
        name = os.fsencode(file.name)
        digest.update(len(name).to_bytes(4, "big") + name + bytes.fromhex(sha256(file)))
    return digest.hexdigest()


# --- folders ----------------------------------------------------------------------------------------------------------


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises:
        OutputError: it cannot be made, or a file is in its place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "check its rights and the free space, or give another folder"
        raise OutputError(folder, f"cannot be made ({error.strerror})", advice) from error


def nearest_folder(path: Path) -> Path:
    """The folder that a path lies in, of those that are there: where what is written to it will take space."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


@contextlib.contextmanager
def held(folder: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Make a folder and keep other processes out of it while inside.

    The system lets go when the process ends, however it ends.

    Raises:
        OutputError: another process is in it, or it cannot be made or written.
    """
    make_folder(folder)
    path = folder / LOCK
    lock = filelock.FileLock(path, thread_local=False)  # a generator may be closed by another thread
    locked = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where a marker stands in for the lock of a file system that has none
            lock.acquire(blocking=False)
    except filelock.Timeout:
        what, advice = f"another process works in it{_holder(path)}", "wait for that one, or give another folder"
        raise OutputError(folder, what, advice) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            reason, advice = error.strerror or error, "check its rights and the free space, or give another"
            raise OutputError(folder, f"cannot be written ({reason})", advice) from error
        say(f"{folder}: its file system has no locks; start no second process in it")
        locked = False
    ours = locked and not isinstance(lock, filelock.SoftFileLock)  # a marker is the library's to write
    try:
        with contextlib.suppress(OSError):
            if ours:
                path.write_text(f"{os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M')}")
        yield
    finally:
        with contextlib.suppress(OSError):
            if ours:
                path.unlink()  # before it is free: a file that another process holds stays
        lock.release()


def _holder(path: Path) -> str:
    try:
        text = path.read_text()
    except (OSError, ValueError):
        return ""
    return f" (process {text})" if " on " in text else ""


def recorded(
    folder: Path, name: str, *, holds: str, advice: str, harmless: Iterable[str] = ()
) -> dict[str, Any] | None:
    """What a run of ours wrote down in a folder; None where the folder is not there yet, or free to be taken.

    Args:
        name: of the JSON file. holds: what it says of the folder: "results of vcorr". advice: what to do otherwise.
        harmless: names in a folder that is free to be taken all the same.

    Raises:
        OutputError: the folder holds something else, is none or cannot be read, or the file is damaged.
    """
    path = folder / name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        found = None
    except (ValueError, RecursionError):
        raise OutputError(path, "is damaged, or not of vcorr", advice) from None
    except OSError as error:
        raise OutputError(path, f"cannot be read ({error.strerror})", advice) from None
    if found is not None:
        if not isinstance(found, dict):
            raise OutputError(path, "is damaged, or not of vcorr", advice)
        return found
    try:
        # ".part" at the end is what a record half written was called at first.
        taken = folder.exists() and (not folder.is_dir() or bool(strangers(folder, f"{name}.part", *harmless)))
    except OSError as error:
        raise OutputError(folder, f"cannot be read ({error.strerror})", advice) from None
    if taken:
        raise OutputError(folder, f"is not empty and holds no {holds}", advice)
    return None


def agree(folder: Path, found: Any, wanted: Any, *, what: str, advice: str) -> None:
    """Refuse a folder whose record differs from what it would be now, and say where.

    Raises:
        OutputError: ``what`` (``holds another run``), with the first differences.
    """
    if differing := list(differences(found, wanted)):
        raise OutputError(folder, f"{what} ({'; '.join(differing[:3])})", advice)


def strangers(folder: Path, *harmless: str) -> list[str]:
    """What in a folder speaks against taking it: not the system's own files, nor what a killed run of ours left.

    That is files half written, and folders in which nothing lies; and ``harmless``, names that are passed over too.

    Raises:
        OSError: it cannot be listed.
    """
    return [
        p.name
        for p in folder.iterdir()
        if p.name not in (LOCK, *harmless)
        and p.name.casefold() not in _NOISE
        and not p.name.startswith("._")
        and not _half_written(p.name)
        and (p.is_symlink() or not p.is_dir() or strangers(p))
    ]


def changes(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, old, new) of every value that differs between two nested dicts; keys of inner ones as ``outer.inner``."""
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from changes(a, b, f"{prefix}{key}.")
        elif a != b:
            yield f"{prefix}{key}", a, b


def differences(old: Any, new: Any) -> Iterator[str]:
    """``"key old -> new"`` of every value that differs between two nested dicts."""
    return (f"{key} {a} -> {b}" for key, a, b in changes(old, new))
