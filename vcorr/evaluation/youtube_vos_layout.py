"""The folder layout of YouTube-VOS (Xu et al. 2018).

    ROOT/meta.json                        the objects of each video: {"videos": {NAME: {"objects": {ID: {"category":
                                          "dog", "frames": ["00000", "00005", ...]}}}}}
    ROOT/JPEGImages/NAME/00000.jpg        frames; every fifth, or all of them
    ROOT/Annotations/NAME/00000.png       one id a pixel: the frames in which objects begin, or every listed one

An object begins in the first of its frames, often in the middle of the video. Ids need not be consecutive.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from vcorr.errors import InputError
from vcorr.labels.raw_ids import Ids, read_ids
from vcorr.media.folder import natural_key

# fmt: off
SEEN = frozenset([  # the 65 categories of the training set
    "airplane", "ape", "bear", "bike", "bird", "boat", "bucket", "bus", "camel", "cat", "cow", "crocodile", "deer",
    "dog", "dolphin", "duck", "eagle", "earless_seal", "elephant", "fish", "fox", "frisbee", "frog", "giant_panda",
    "giraffe", "hand", "hat", "hedgehog", "horse", "knife", "leopard", "lion", "lizard", "monkey", "motorbike",
    "mouse", "others", "owl", "paddle", "parachute", "parrot", "penguin", "person", "plant", "rabbit", "raccoon",
    "sedan", "shark", "sheep", "sign", "skateboard", "snail", "snake", "snowboard", "squirrel", "surfboard",
    "tennis_racket", "tiger", "toilet", "train", "truck", "turtle", "umbrella", "whale", "zebra",
])
# fmt: on
LAYOUT = "give a folder in the layout of YouTube-VOS: ROOT/meta.json, ROOT/Annotations/VIDEO/00000.png"


@dataclass(frozen=True)
class Object:
    """One object of a video.

    Args:
        id: in the masks.
        category: such as "dog".
        frames: names of the frames that list it, in order; it begins in the first.
    """

    id: int
    category: str
    frames: tuple[str, ...]


@dataclass(frozen=True)
class Video:
    """One video of the set.

    Args:
        name: of its folders.
        objects: by id.
        images, annotations: its folders, there or not.
    """

    name: str
    objects: tuple[Object, ...]
    images: Path
    annotations: Path

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of the frames that meta.json lists, in order: those that a submission holds."""
        return tuple(sorted({frame for o in self.objects for frame in o.frames}, key=_order))

    @property
    def given(self) -> dict[str, tuple[int, ...]]:
        """The frames in which objects begin, in order, and which objects do."""
        begin: dict[str, list[int]] = {}
        for o in self.objects:
            begin.setdefault(o.frames[0], []).append(o.id)
        return {frame: tuple(begin[frame]) for frame in sorted(begin, key=_order)}

    def counted(self, *, given: bool = False) -> dict[str, tuple[int, ...]]:
        """The frames that are scored, in order, and the objects that count in each.

        Args:
            given: count the frame in which an object begins too.
        """
        count: dict[str, list[int]] = {}
        for o in self.objects:
            for frame in o.frames if given else o.frames[1:]:
                count.setdefault(frame, []).append(o.id)
        return {frame: tuple(count[frame]) for frame in sorted(count, key=_order)}

    def annotation(self, frame: str) -> Path:
        """The path of a frame's annotation, which may be missing."""
        return self.annotations / f"{frame}.png"


def videos(
    root: str | PathLike[str],
    *,
    names: Iterable[str] | None = None,
    images: str | PathLike[str] | None = None,
    annotations: str | PathLike[str] | None = None,
) -> list[Video]:
    """The videos of a set in the layout of YouTube-VOS.

    Args:
        root: folder that holds meta.json.
        names: these videos instead of all.
        images, annotations: folders of videos, instead of ROOT/JPEGImages and ROOT/Annotations.

    Raises:
        InputError: meta.json is missing or does not say what it must; a name is not in it.
    """
    root = Path(root)
    path = root / "meta.json"
    listed = _listed(path)
    chosen = list(dict.fromkeys(listed if names is None else names))
    if unknown := [name for name in chosen if name not in listed]:
        raise InputError(path, f"lists no video {unknown[0]}", "give names of videos that it lists")
    if not chosen:
        raise InputError(path, "lists no video", LAYOUT)
    of_images = root / "JPEGImages" if images is None else Path(images)
    of_masks = root / "Annotations" if annotations is None else Path(annotations)
    return [Video(name, _objects(path, name, listed[name]), of_images / name, of_masks / name) for name in chosen]


def given_ids(video: Video, size: tuple[int, int] | None = None) -> dict[str, Ids]:
    """The masks in which objects begin, by frame, with the ids of these objects only.

    Raises:
        InputError: one is missing or unreadable, not of a size (height, width), or lacks an object that begins in it.
    """
    masks = {}
    for frame, begin in video.given.items():
        ids = read_ids(video.annotation(frame), size)
        lost = [k for k in begin if not (ids == k).any()]
        if lost:
            what = f"no pixel of object {lost[0]}, which begins here by meta.json"
            raise InputError(video.annotation(frame), what, "take the annotations and the meta.json of one release")
        ids[~np.isin(ids, begin)] = 0
        masks[frame] = ids
        size = ids.shape[0], ids.shape[1]
    return masks


def is_annotated(chosen: Iterable[Video]) -> bool:
    """Whether the annotations for scoring exist; those of the validation set do not.

    Raises:
        InputError: some are and some are not.
    """
    counted = [(video, frame) for video in chosen for frame in video.counted() if frame not in video.given]
    lost = [video.annotation(frame) for video, frame in counted if not video.annotation(frame).is_file()]
    if lost and len(lost) < len(counted):
        what = f"no such file, {len(lost)} of {len(counted)} annotations to score against are missing"
        raise InputError(lost[0], what, "give them all, or those alone in which objects begin")
    return not lost


def read_seen(path: Path) -> frozenset[str]:
    """Reads the seen categories from the meta.json of the training set, or from a list with one name in each line.

    Raises:
        InputError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"not a readable list ({error})", "give names of categories, one a line") from None
    if text.lstrip().startswith("{"):
        return frozenset(o.category for name, entry in _listed(path).items() for o in _objects(path, name, entry))
    return frozenset(name for line in text.splitlines() if (name := line.strip()))


def _listed(path: Path) -> dict[str, Any]:
    """The videos of a meta.json, unchecked."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(path, "no such file", LAYOUT) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, f"is no readable JSON ({error})", "give the file as it was released") from None
    listed = _table(path, _table(path, found, "it").get("videos"), "videos")
    if strange := [name for name in listed if not _is_name(name)]:
        raise _not(path, f"videos.{strange[0]}", "the name of a folder")
    return listed


def _objects(path: Path, name: str, entry: Any) -> tuple[Object, ...]:
    where = f"videos.{name}"
    listed = _table(path, _table(path, entry, where).get("objects"), f"{where}.objects")
    objects = [_object(path, f"{where}.objects.{key}", key, _table(path, value, key)) for key, value in listed.items()]
    if len({o.id for o in objects}) != len(listed) or not objects:
        raise _not(path, f"{where}.objects", "a table of objects with an id each")
    return tuple(sorted(objects, key=lambda o: o.id))


def _object(path: Path, where: str, key: str, entry: Mapping[str, Any]) -> Object:
    if not (key.isascii() and key.isdigit() and 0 < int(key) < 65536):
        raise _not(path, where, "an id from 1 on")
    category, frames = entry.get("category"), entry.get("frames")
    if not isinstance(category, str):
        raise _not(path, f"{where}.category", "the name of a category")
    if not isinstance(frames, list) or not frames or not all(isinstance(f, str) and _is_name(f) for f in frames):
        raise _not(path, f"{where}.frames", "a list of names of frames")
    return Object(int(key), category, tuple(sorted(set(frames), key=_order)))


def _table(path: Path, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _not(path, where, "a table")
    return value


def _not(path: Path, where: str, wanted: str) -> InputError:
    return InputError(path, f"{where} is not {wanted}", "give the file as it was released")


def _is_name(frame: str) -> bool:
    return frame not in ("", ".", "..") and "/" not in frame and "\\" not in frame


def _order(frame: str) -> tuple[object, ...]:
    return natural_key(Path(frame))
