"""Finds the frame that each mask file of a folder labels: by the frame's index, or by the frame's file name.

A name consists of text and numbers in turn: ``cam1_00003`` is "cam", 1, "_", 3. Case and leading zeros do not matter.
If a name has several numbers, the one that differs between names of the same text counts.

| reading  | a mask labels                                     | possible if                                       |
|----------|---------------------------------------------------|---------------------------------------------------|
| by index | the frame whose index is its number               | all numbers are indices of the video              |
| by frame | the frame whose file has its name, or its number  | the frames are files, and each mask matches one   |

If both are possible and differ (frames numbered from 1), masks are read by frame if they have the names of frames, or
their word and number (img_1 for IMG_0001), or lie beside the frames under their names. Other numbers, and names as
vcorr writes them, are refused unless ``named_by`` decides. Masks of a result are named by index.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vcorr.errors import InputError, UsageError

NamedBy = Literal["index", "frame"]

MASK_SUFFIXES = frozenset([".png", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".npy"])
# fmt: off
_NO_MASKS = frozenset([  # such a file among masks was meant as a mask
    ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".jp2", ".tga", ".exr", ".psd", ".xcf", ".heic", ".avif", ".svg",
])
# fmt: on
_OWN_NAME = re.compile("frame_[0-9]{5,}|[0-9]+")  # of `vcorr frame`, and of the masks of a result
_MINUS = re.compile("(^|[_ .=])-$")


@dataclass(frozen=True)
class _Name:
    """A file's name in parts.

    Attributes:
        file: the file.
        text: the text before, between and after the numbers, in lower case; one part more than there are numbers.
        numbers: the numbers in order.
        place: the position of the number that names the frame; None if it is unknown.
    """

    file: Path
    text: tuple[str, ...]
    numbers: tuple[int, ...]
    place: int | None = None

    @property
    def negative(self) -> bool:
        return self.place is not None and _MINUS.search(self.text[self.place]) is not None

    @property
    def number(self) -> int | None:
        """The number that names the frame; None if there is none, it is unknown, or it is negative."""
        return None if self.place is None or self.negative else self.numbers[self.place]


def label_files(
    folder: Path, *, frames: int, frame_files: Sequence[Path] | None = None, named_by: NamedBy | None = None
) -> dict[int, Path]:
    """Finds the frame that each mask file of a folder labels; ascending.

    Args:
        folder: holds the masks, and possibly the frames; or an output folder of ``vcorr propagate``.
        frames: number of frames of the video.
        frame_files: the frames' files in order; None for a video file.
        named_by: the meaning of names that are ambiguous.

    Raises:
        InputError: the folder holds no masks, or images that cannot be masks; a name has no number, several numbers, a
            number past the end, or the frame of another name; the names are ambiguous.
        UsageError: ``named_by`` is "frame", and the video has no frame files.
    """
    if named_by == "frame" and frame_files is None:
        raise UsageError("named by frame", "the frames of a video file have no names", "name the masks by index")
    if (folder / "manifest.json").is_file() and (folder / "masks").is_dir():
        folder = folder / "masks"
    if named_by is None and _is_result(folder):
        named_by = "index"
    files = _mask_files(folder, frame_files or [])
    shown = _named(frame_files or [])
    names = _named(files, like=shown)
    found = _frames(folder, names, frames, shown, named_by)
    labels: dict[int, Path] = {}
    for file, k in zip(files, found, strict=True):
        other = labels.setdefault(k, file)
        if other is not file:
            raise InputError(folder, f"{other.name} and {file.name} both label frame {k}", "keep one of them")
    return dict(sorted(labels.items()))


def frames_of_pictures(
    path: Path,
    pictures: Sequence[str],
    *,
    frames: int,
    frame_files: Sequence[Path] | None = None,
    named_by: NamedBy | None = None,
    alone: int | None = None,
) -> dict[str, int]:
    """Finds the frame of each picture that a label file names, by the rules for a folder of masks.

    Args:
        path: the label file.
        pictures: file names.
        frames, frame_files, named_by: see ``label_files``.
        alone: the frame of a single picture whose name does not tell it; None if the name must tell it.

    Raises:
        InputError: a name does not tell its frame, or two pictures have the same frame.
    """
    shown = _named(frame_files or [])
    names = _named([Path(picture) for picture in pictures], like=shown)
    if len(names) == 1 and alone is not None and named_by is None and not _says_its_frame(names[0], frames, shown):
        return {pictures[0]: alone}
    try:
        found = _frames(path, names, frames, shown, named_by) if names else []
    except InputError as error:
        if error.where == str(path):
            raise
        raise InputError(path, f"has the picture {Path(error.where).name}, which {error.what}", error.advice) from None
    if len(set(found)) < len(found):
        frame = next(k for k in found if found.count(k) > 1)
        one, other = [picture for picture, k in zip(pictures, found, strict=True) if k == frame][:2]
        raise InputError(path, f"{one} and {other} are both frame {frame}", "keep one of them")
    return dict(zip(pictures, found, strict=True))


def _says_its_frame(name: _Name, frames: int, shown: Sequence[_Name]) -> bool:
    """Whether a picture's name states its frame: the name of a frame's file, or a number that can be an index."""
    if any(name.file.stem.casefold() == other.file.stem.casefold() for other in shown):
        return True
    plain = re.fullmatch(r"((frame|img|image)[ _-]?)?\d+", name.file.stem.casefold())
    return plain is not None and name.number is not None and name.number < frames


def _is_result(folder: Path) -> bool:
    """Whether a folder is ``masks`` of an output folder."""
    try:
        manifest = json.loads((folder.parent / "manifest.json").read_text(encoding="utf-8"))
        return folder.name == "masks" and str(manifest["format"]).startswith("vcorr-results")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _mask_files(folder: Path, frame_files: Sequence[Path]) -> list[Path]:
    """Lists the masks of a folder; the frames of the video may lie beside them.

    Raises:
        InputError: there are none, or there are images that cannot be read as masks.
    """
    try:
        entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".") and not p.is_dir()]
        here = {file.name for file in frame_files if file.parent.resolve() == folder.resolve()}
    except OSError as error:
        raise InputError(folder, f"cannot be listed ({error.strerror})", "check the permissions") from error
    entries = [p for p in entries if p.name not in here]
    drawn = [p for p in entries if p.suffix.lower() == ".json" and re.search("[0-9]", p.stem)]
    painted = {p.stem for p in drawn}  # LabelMe's files lie beside their pictures, which are not masks
    files = [p for p in entries if p.suffix.lower() in MASK_SUFFIXES and p.stem not in painted] + drawn
    stems = {p.stem for p in files}
    for other in entries:
        if other.suffix.lower() in _NO_MASKS and other.stem not in stems:  # else it is the picture beside its mask
            what = f"is a {other.suffix[1:].upper()} file among the masks, which cannot be read as one"
            raise InputError(other, what, "save it as PNG, or take it out of the folder")
    if not files:
        what = "holds no mask files" + (" beside the frames" if here else "")
        raise InputError(folder, what, "put in masks named by frame index, such as 00000.png")
    return files


def _named(files: Sequence[Path], like: Sequence[_Name] = ()) -> list[_Name]:
    """Splits names into parts. ``like``: other names, which also tell which of several numbers differs."""
    names = []
    for file in files:
        parts = re.split(r"(\d+)", unicodedata.normalize("NFC", file.stem).casefold())
        names.append(_Name(file, tuple(parts[0::2]), tuple(int(digits) for digits in parts[1::2])))
    alike: dict[tuple[str, ...], list[tuple[int, ...]]] = defaultdict(list)
    for name in (*names, *like):
        alike[name.text].append(name.numbers)
    differing = {
        text: [i for i, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
        for text, numbers in alike.items()
    }
    placed = []
    for name in names:
        differ = [0] if len(set(name.numbers)) == 1 else differing[name.text]
        placed.append(replace(name, place=differ[0] if len(differ) == 1 else None))
    return placed


def _frames(
    folder: Path, names: Sequence[_Name], frames: int, shown: Sequence[_Name], named_by: NamedBy | None
) -> list[int]:
    """Returns the frame of each name.

    Raises:
        InputError: see ``label_files``.
    """
    by_index = [name.number if name.number is not None and name.number < frames else None for name in names]
    by_frame, sure = _by_frame(names, shown)
    if named_by == "index" or not shown:
        by_frame = [None] * len(names)
    elif named_by == "frame":
        by_index = [None] * len(names)
    readings = [whole for one in (by_index, by_frame) if len(whole := [k for k in one if k is not None]) == len(names)]
    if not readings:
        raise _unread(names, by_index, by_frame, frames)
    if len(readings) == 1 or readings[0] == readings[1]:
        return readings[0]
    if sure:
        return readings[1]
    i = next(i for i in range(len(names)) if readings[0][i] != readings[1][i])
    file, index, frame = names[i].file, readings[0][i], readings[1][i]
    what = (
        f"{file.name} can be read two ways: by index it labels frame {index}, {shown[index].file.name}; by its number"
    )
    raise InputError(
        folder,
        f"{what} or name frame {frame}, {shown[frame].file.name}",
        f"say --named-by index or --named-by frame, or give each mask as --at {index}={file.name} by index",
    )


def _by_frame(names: Sequence[_Name], frames: Sequence[_Name]) -> tuple[list[int | None], bool]:
    """Returns the frame whose file has each name or its number, None if there is not exactly one; and whether all
    names show that they mean frames.
    """
    stems = {stem: k for k, name in enumerate(frames) for stem in (name.file.stem, name.file.name)}
    keys: dict[object, list[int]] = defaultdict(list)
    numbers: dict[int, list[int]] = defaultdict(list)
    for k, name in enumerate(frames):
        keys[name.text, name.numbers].append(k)
        if name.number is not None:
            numbers[name.number].append(k)
    found: list[int | None] = []
    beside = {(name.file.parent, name.file.stem) for name in frames}
    sure = not any(
        _OWN_NAME.fullmatch(name.file.stem.casefold()) and (name.file.parent, name.file.stem) not in beside
        for name in names
    )
    for name in names:
        near = [stems[name.file.stem]] if name.file.stem in stems else keys.get((name.text, name.numbers), [])
        if len(near) != 1:
            near = [] if name.number is None else numbers.get(name.number, [])
            sure = sure and len(near) == 1 and _says_frame(name, frames[near[0]])
        found.append(near[0] if len(near) == 1 else None)
    return found, sure


def _says_frame(mask: _Name, frame: _Name) -> bool:
    """Whether the same word stands before a mask's number and the frame's."""
    assert mask.place is not None and frame.place is not None
    word, before = frame.text[frame.place], mask.text[mask.place]
    return any(c.isalpha() for c in word) and before.endswith(word) and not before[: -len(word)][-1:].isalpha()


def _unread(
    names: Sequence[_Name], by_index: Sequence[int | None], by_frame: Sequence[int | None], frames: int
) -> InputError:
    """The error that says why the masks' names cannot all be read in one way."""
    for name, index, frame in zip(names, by_index, by_frame, strict=True):
        if index is not None or frame is not None:
            continue
        advice = "end the name in the frame's index, such as 00005.png"
        if not name.numbers:
            return InputError(name.file, "does not name its frame", advice)
        if name.place is None:
            numbers = " and ".join(map(str, dict.fromkeys(name.numbers)))
            what = f"has the numbers {numbers} in its name: which is the frame's cannot be told"
            return InputError(
                name.file, what, "leave the frame's index alone in it, such as 00005.png, or say --at K=FILE"
            )
        if name.negative:
            return InputError(name.file, f"names frame -{name.numbers[name.place]}", advice)
        what = f"labels frame {name.number}, but the video has frames 0 to {frames - 1}"
        return InputError(name.file, what, "rename or remove it")
    one = next(name for name, frame in zip(names, by_frame, strict=True) if frame is None)
    other = next(name for name, index in zip(names, by_index, strict=True) if index is None)
    what = f"names its frame by index, but {other.file.name} by the frame's name or number"
    return InputError(one.file, what, "name all masks in one way")
