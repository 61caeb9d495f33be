"""Reads image files as a video: the frames of a folder, or the files that match a pattern."""

from __future__ import annotations

import glob
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcorr.errors import InputError
from vcorr.files import sha256_of_all
from vcorr.media.decoder import VIDEO_SUFFIXES
from vcorr.media.image import (
    FRAME_SUFFIXES,
    UnreadableImage,
    displayed_size,
    is_deep,
    open_image,
    read_pixels,
    shrink,
    to_rgb,
)
from vcorr.media.levels import SharedScale
from vcorr.media.pages import is_stack

FOLDER_FPS = 25.0
"""Frames per second of image files, which have no times."""
FEWEST = 3  # files with like names, from which on a file with another name is odd
MOST_ODD = 2  # odd files, or a tenth of the others: more files are another way of naming frames


def natural_key(path: Path) -> tuple[object, ...]:
    """The sort key that puts frame2 before frame10: digits, of any script, compare as numbers, the rest as text."""
    parts: list[object] = list(re.split(r"(\d+)", str(path).casefold()))
    parts[1::2] = [int(str(digits)) for digits in parts[1::2]]
    return (parts, str(path))


def list_frames(folder: Path) -> list[Path]:
    """Lists the image files of a folder in natural order. Skips hidden files, subfolders and other kinds.

    Raises:
        InputError: the folder cannot be listed or holds no image.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise InputError(folder, f"cannot be listed ({error.strerror})", "check the permissions") from error
    files = [p for p in frame_files(entries) if not p.is_dir()]
    if not files:
        raise InputError(folder, "holds no image files", "give a video file, or a folder of frames such as 00000.jpg")
    return files


def frame_files(files: Iterable[Path]) -> list[Path]:
    """Selects the frames among files and sorts them. Everything that numbers frames uses this order."""
    return sorted(
        (f for f in files if f.suffix.lower() in FRAME_SUFFIXES and not f.name.startswith(".")), key=natural_key
    )


def frames_of(folder: Path, apart: Iterable[Path] = ()) -> list[Path]:
    """Lists the frames of a folder that is one video: `list_frames` without the files of ``apart``.

    Raises:
        InputError: see `list_frames` and `without`; or a few files are named unlike all others, such as a mask beside
            the frames.
    """
    files = without(list_frames(folder), apart)
    if not files:
        raise InputError(folder, "holds no image files but the masks", "give the folder of the frames")
    rule, odd = _named_alike(files)
    unlike = len(rule) >= FEWEST or (len(rule) > 1 and all(_is_another_word(file, rule[0]) for file in odd))
    if unlike and 0 < len(odd) <= max(MOST_ODD, len(rule) // 10) and len(odd) < len(rule):
        names = ", ".join(file.name for file in odd)
        what = f"holds {names} among {len(rule)} frames named like {rule[0].name}"
        pattern = _pattern(rule, odd)
        others = f", or give the frames as a quoted pattern, '{folder / pattern}'" if pattern else ""
        raise InputError(folder, what, f"take out what is no frame{others}")
    return files


def _pattern(files: Sequence[Path], odd: Sequence[Path]) -> str | None:
    """A pattern that matches ``files`` and none of ``odd``; None if there is none."""
    stem = glob.escape(files[0].stem)
    for number in (lambda digits: "[0-9]" * len(digits[0]), lambda digits: "[0-9]*"):
        pattern = re.sub("[0-9]+", number, stem) + files[0].suffix
        if all(fnmatch(f.name, pattern) for f in files) and not any(fnmatch(f.name, pattern) for f in odd):
            return pattern
    return None


def without(files: Sequence[Path], apart: Iterable[Path]) -> list[Path]:
    """Removes the files of ``apart`` from ``files``, even if they are given under other paths.

    Raises:
        InputError: a file of ``apart`` is named like the frames and may be one: without it, later frames would move.
    """
    names: dict[str, list[Path]] = defaultdict(list)
    for other in apart:
        names[other.name.casefold()].append(other)
    rest = [f for f in files if not any(_same(f, other) for other in names.get(f.name.casefold(), ()))]
    if rest and len(rest) < len(files):
        rule, _ = _named_alike(rest)
        stems = {file.stem for file in rest}
        for file in sorted(set(files) - set(rest), key=natural_key):
            if len(rule) > 1 and _text(file) == _text(rule[0]) and file.stem not in stems:
                what = f"is given as a mask, but lies among the frames and is named as they are, like {rule[0].name}"
                raise InputError(file, what, "put the mask elsewhere, or name it otherwise")
    return rest


def _text(file: Path) -> tuple[str, ...]:
    """A name without its numbers."""
    return tuple(re.split(r"\d+", file.stem.casefold()))


def _is_another_word(file: Path, numbered: Path) -> bool:
    """Whether a name has no number, and another word than a numbered one: img beside img1 may be a frame."""
    return len(_text(file)) == 1 < len(_text(numbered)) and file.stem.casefold() != "".join(_text(numbered)).strip(
        "_- ."
    )


def _named_alike(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Returns the largest set of files whose names differ only by numbers, and the other files."""
    alike: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for file in files:
        alike[_text(file)].append(file)
    rule = max(alike.values(), key=len)
    return rule, sorted(set(files) - set(rule), key=natural_key)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def matching_files(pattern: Path) -> list[Path]:
    """Lists what a pattern such as "frames/*.png" matches, in natural order; skips hidden files.

    A part of the path that exists is a name and not a pattern: a folder may be called "take[1]". If image files match,
    other kinds are skipped, as in a folder; else videos are listed.
    """
    found = [Path(pattern.anchor)]
    for part in pattern.parts[1 if pattern.anchor else 0 :]:
        found = [path for folder in found for path in _children(folder, part)]
    found = sorted(dict.fromkeys(path for path in found if path.exists()), key=natural_key)
    for suffixes in (FRAME_SUFFIXES, VIDEO_SUFFIXES):
        if chosen := [path for path in found if path.suffix.lower() in suffixes and path.is_file()]:
            return chosen
    return found


def _children(folder: Path, part: str) -> list[Path]:
    """Lists what one part of a pattern matches in a folder."""
    if (folder / part).exists():
        return [folder / part]
    for pattern in (part, part.replace("[", "[[]")):  # brackets that match nothing are literal: "img[1]_*.png"
        if names := glob.glob(pattern, root_dir=folder):  # noqa: PTH207, Path.glob matches hidden files too
            return [folder / name for name in names]
    return []


class Stills:
    """Image files with one scale for all that have more than 8 bits a channel. Thread-safe.

    Args:
        files: in the order of the frames.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self.scale = SharedScale(len(self.files), self._deep_pixels)

    def rgb(self, k: int) -> NDArray[np.uint8]:
        """Reads the picture in file k as displayed, uint8 [h w 3].

        Raises:
            InputError: it cannot be read.
        """
        pixels = read_pixels(self.files[k])
        return to_rgb(pixels, None if pixels.dtype == np.uint8 else self.scale.get())

    def _deep_pixels(self, k: int) -> np.ndarray | None:
        try:
            with open_image(self.files[k]) as image:
                deep = is_deep(image)
            pixels = read_pixels(self.files[k]) if deep else None
        except InputError:
            return None
        return None if pixels is None or pixels.dtype == np.uint8 else pixels


class FrameFolder:
    """Frames in image files of one size, in the given order. Opening reads the headers; later one picture at a time.

    Raises:
        InputError: no file is an image, the sizes differ, or two files have the same name (00000.jpg and 00000.png), as
            masks beside their frames do.
    """

    pts = None

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self._stills = Stills(files)
        self.files = self._stills.files
        self.names = [file.stem for file in files]
        self.fps = FOLDER_FPS
        named: dict[Path, Path] = {}
        for file in files:
            other = named.setdefault(file.with_suffix(""), file)
            if other is not file:
                what = f"holds {other.name} and {file.name}, two files for one frame"
                suffix = Counter(f.suffix for f in files).most_common(1)[0][0]
                raise InputError(path, what, f"give a quoted pattern, such as '{file.with_name('*' + suffix)}'")
        headers, damaged = _headers(path, files)
        first, (self.height, self.width), _ = headers[0]
        for file, (height, width), _ in headers:
            if (height, width) != (self.height, self.width):
                what = f"{first.name} is {self.width}x{self.height}, but {file.name} is {width}x{height}"
                raise InputError(
                    path, what, "the frames of a video have one size: take out or resize those that differ"
                )
        notes = []
        if damaged:
            notes.append(f"{len(damaged)} of {len(files)} frames are damaged, such as {damaged[0].name}")
        if any(deep for _, _, deep in headers):
            self._stills.scale.get()
            notes += [note] if (note := self._stills.scale.note()) else []
        self.notes = tuple(f"{path}: {note}" for note in notes)

    def __len__(self) -> int:
        return len(self._stills.files)

    def seconds(self, k: int) -> float:
        return k / self.fps

    def fingerprint(self) -> str:
        return sha256_of_all(self._stills.files)

    def walk(self, start: int, size: tuple[int, int]) -> Iterator[tuple[int, Callable[[], np.ndarray], bool]]:
        """See `VideoFile.walk`. Skips files that do not decode."""
        first = start
        while first and self.picture(first, size) is None:
            first -= 1
        for k in range(first, len(self._stills.files)):
            rgb = self.picture(k, size)
            if rgb is not None:
                yield k, rgb.copy, True

    def picture(self, k: int, size: tuple[int, int]) -> np.ndarray | None:
        try:
            rgb = self._stills.rgb(k)
        except InputError:
            return None
        if rgb.shape[:2] != (self.height, self.width):  # the file was replaced
            return None
        return shrink(rgb, size)

    def close(self) -> None:
        """Does nothing: no file stays open."""


Header = tuple[Path, tuple[int, int], bool]
"""An image file, its (height, width), and whether it has more than 8 bits a channel."""


def _headers(path: Path, files: Sequence[Path]) -> tuple[list[Header], list[Path]]:
    """Reads the headers of files. Returns them, and the files without a readable header, which are damaged.

    Raises:
        InputError: no header is readable; or a file holds several pictures, has too many pixels, or is missing.
    """
    headers: list[Header] = []
    damaged: dict[Path, InputError] = {}
    for file in files:
        try:
            with open_image(file) as image:
                if getattr(image, "is_animated", False) and is_stack(file):
                    what = f"holds {file.name}, which is a video of its own: it has several pictures"
                    raise InputError(path, what, f"give {file}, or take it out of the folder")
                headers.append((file, displayed_size(image), is_deep(image)))
        except UnreadableImage as error:
            damaged[file] = error
    if not headers:
        raise next(iter(damaged.values()))
    return headers, list(damaged)
