"""The folder layout of VIP, Video Instance-level Parsing (Zhou et al. 2018), the part with annotations (VIP_Fine).

    ROOT/lists/val_id.txt                               names of videos or video/frame, one in each line
    ROOT/Images/videos1/000000000001.jpg                every 25th frame of the video
    ROOT/Annotations/Category_ids/videos1/....png       classes: 0 background, 1..19 parts
    ROOT/Annotations/Instance_ids/videos1/....png       ids: a part of one person each
    ROOT/Annotations/Instance_ids/videos1/....txt       "id class" in each line, further words are ignored

The folders of annotations may lie in ROOT itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from vcorr.errors import InputError
from vcorr.evaluation.objects import refuse_twins
from vcorr.labels.raw_ids import Ids, read_ids
from vcorr.media.folder import frame_files

# fmt: off
CLASSES = (
    "background", "hat", "hair", "gloves", "sun-glasses", "upper-clothes", "dress", "coat", "socks", "pants",
    "torso-skin", "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
)
# fmt: on
LAYOUT = "give a folder in the layout of VIP: ROOT/Annotations/Category_ids/VIDEO/000000000001.png"


@dataclass(frozen=True)
class Video:
    """One video of the set.

    Args:
        name: of its folders.
        images: the folder of its images, there or not.
        categories: the annotations of its classes, in the order of frames; the first is given.
        instances: the annotations of its instances, there or not: one for each of these.
    """

    name: str
    images: Path
    categories: tuple[Path, ...]
    instances: tuple[Path, ...]

    @property
    def has_instances(self) -> bool:
        """Whether all annotations of instances exist.

        Raises:
            InputError: some are and some are not.
        """
        lost = [file for file in self.instances if not file.is_file()]
        if lost and len(lost) < len(self.instances):
            what = f"no such file, {len(lost)} of {len(self.instances)} annotations of instances are missing"
            raise InputError(lost[0], what, "give them all, or none")
        return not lost


def videos(
    root: str | PathLike[str], *, names: Iterable[str] | None = None, listed: str | PathLike[str] | None = None
) -> list[Video]:
    """The videos of a set in the layout of VIP.

    Args:
        root: folder that holds Images and Annotations.
        names: these videos instead of the listed ones.
        listed: the list, instead of ROOT/lists/val_id.txt; where there is none, all that have annotations.

    Raises:
        InputError: a folder or the list is missing or unreadable, a video has no annotation, an annotation no frame.
    """
    root = Path(root)
    inside = root / "Annotations" if (root / "Annotations").is_dir() else root
    categories = inside / "Category_ids"
    if not categories.is_dir():
        raise InputError(categories, "no such folder", LAYOUT)
    folders = {p.name for p in categories.iterdir() if p.is_dir() and not p.name.startswith(".")}
    if names is None:
        path = root / "lists" / "val_id.txt" if listed is None else Path(listed)
        names = _listed(path, folders) if path.is_file() or listed is not None else sorted(folders)
    chosen = list(dict.fromkeys(names))
    if not chosen:
        raise InputError(root, "no video to take", LAYOUT)
    return [_video(root / "Images" / name, categories / name, inside / "Instance_ids" / name) for name in chosen]


def read_categories(path: Path, size: tuple[int, int] | None = None) -> Ids:
    """The classes of an annotation or a result.

    Raises:
        InputError: as `read_ids`; or a class that VIP does not have.
    """
    ids = read_ids(path, size)
    if ids.max(initial=0) >= len(CLASSES):
        advice = f"write 0 for the background and 1 to {len(CLASSES) - 1} for the parts, as the palette's indices"
        raise InputError(path, f"class {ids.max()}, and VIP has 0 to {len(CLASSES) - 1}", advice)
    return ids


def read_instances(path: Path, size: tuple[int, int] | None = None) -> tuple[Ids, dict[int, int]]:
    """The instances of an annotation, and the class of each id.

    Raises:
        InputError: the PNG or the list beside it is missing or unreadable, or the list lacks an id of the PNG.
    """
    ids, text = read_ids(path, size), path.with_suffix(".txt")
    classes: dict[int, int] = {}
    for number, words in read_lines(text):
        if len(words) < 2 or not words[0].isdigit() or not words[1].isdigit() or int(words[1]) >= len(CLASSES):
            what = f"line {number} is not an id and a class of 0 to {len(CLASSES) - 1}"
            raise InputError(text, what, "give the file as it was released")
        classes[int(words[0])] = int(words[1])
    refuse_unlisted(path, ids, classes, text)
    return ids, classes


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Number and words of each line that has any.

    Raises:
        InputError: the file is missing or unreadable.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "each PNG of instances has a list of their classes beside it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"not a readable list ({error})", "write the file again") from error
    return [(number, words) for number, line in enumerate(text.splitlines(), start=1) if (words := line.split())]


def refuse_unlisted(path: Path, ids: Ids, listed: Iterable[int], text: Path) -> None:
    """Refuse ids of a PNG that the list beside it does not name."""
    strange = np.setdiff1d(ids, [0, *listed])
    if strange.size:
        raise InputError(path, f"id {strange[0]}, of which {text.name} does not tell the class", "list every id")


def _listed(path: Path, folders: set[str]) -> list[str]:
    """Names of videos, from lines that are a video, a frame of one, or a path to one."""
    names = []
    for number, words in read_lines(path):
        known = [part for part in words[0].replace("\\", "/").split("/") if part in folders]
        if not known:
            raise InputError(path, f"line {number}: {words[0]!r} names no video with annotations", LAYOUT)
        names.append(known[-1])
    return names


def _video(images: Path, categories: Path, instances: Path) -> Video:
    files = [] if not categories.is_dir() else [f for f in frame_files(categories.iterdir()) if f.suffix == ".png"]
    if not files:
        raise InputError(categories, "no annotation of this video", "add its classes, 000000000001.png ...")
    refuse_twins(categories)
    if images.is_dir():
        frames = {file.stem for file in frame_files(images.iterdir())}
        if lost := [file for file in files if file.stem not in frames]:
            raise InputError(lost[0], f"no frame of this name in {images}", "name annotations as their frames")
    return Video(categories.name, images, tuple(files), tuple(instances / file.name for file in files))
