"""Names folders after files: the same relative tree, no two equal, none inside another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import PurePosixPath


def folders_for(names: Mapping[str, bool], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns name -> folder, both relative with ``/``.

    The folder of a file is its name without the suffix. If another video has that name ("clip.mp4" beside "clip.avi"),
    it keeps the suffix; if that is taken too, it gets a number. The folder of a folder is its name, or "frames" in it
    if other videos lie below it. Names that differ only by case count as equal, because they are on some file systems.

    Args:
        names: name of each video -> whether it is a file.
        known: folders assigned earlier; they stay, and no other video gets them.

    >>> folders_for({"a/clip.avi": True, "a/clip.mp4": True, "a/other.mp4": True})
    {'a/clip.avi': 'a/clip', 'a/clip.mp4': 'a/clip.mp4', 'a/other.mp4': 'a/other'}
    """
    folders = {name: folder for name, folder in (known or {}).items() if name in names}
    taken, above = set(), set()
    for folder in (known or {}).values():
        taken.add(folder.casefold())
        above |= _above(folder)
    trees = set().union(*map(_above, names)) | {"."}
    for name, is_file in sorted(names.items(), key=lambda item: item[1]):  # folders keep their names first
        if name in folders:
            continue
        for folder in _candidates(name, is_file, trees):
            key, parents = folder.casefold(), _above(folder)
            if key not in taken and key not in above and not parents & taken:
                break
        taken.add(key)
        above |= parents
        folders[name] = folder
    return folders


def _candidates(name: str, is_file: bool, trees: set[str]) -> Iterator[str]:
    """Yields folders for a name, the best first. ``trees``: names of folders that hold videos."""
    path = PurePosixPath(name)
    plain = path.with_suffix("") if is_file else path
    if str(plain).casefold() in trees:
        plain = path if is_file else path / "frames"
    yield str(plain)
    if is_file:
        yield str(path)
    for number in count(2):
        first, *rest = plain.parts
        yield str(PurePosixPath(f"{first}.{number}", *rest))


def _above(folder: str) -> set[str]:
    """The folders above a folder."""
    return {str(parent).casefold() for parent in PurePosixPath(folder).parents} - {"."}
