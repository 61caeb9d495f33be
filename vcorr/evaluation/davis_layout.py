"""The folder layout of DAVIS-2017 (Pont-Tuset et al. 2017), and its masks.

    ROOT/ImageSets/2017/val.txt              names of sequences, one for each line
    ROOT/JPEGImages/480p/<name>/00000.jpg    every frame
    ROOT/Annotations/480p/<name>/00000.png   ids: 0 background, 1..K objects, 255 void

Some frames may lack annotations. Without ImageSets, every folder of Annotations is a sequence. Images are needed to
label the sequences, but not to score results.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcorr.errors import InputError
from vcorr.labels.raw_ids import read_ids
from vcorr.media.folder import frame_files
from vcorr.media.image import FRAME_SUFFIXES

VOID = 255
_LAYOUT = "give the root of a folder in the layout of DAVIS-2017: ROOT/Annotations/480p/<sequence>/00000.png"


@dataclass(frozen=True)
class Sequence:
    """One sequence: its files in the order in which `open_video` numbers frames.

    Args:
        name: the folder's name.
        images: the folder of its images, which may be missing.
        frames: the images of all frames; empty if the folder is missing.
        annotations: the masks of the annotated frames, at least one.
    """

    name: str
    images: Path
    frames: tuple[Path, ...]
    annotations: tuple[Path, ...]

    @property
    def start(self) -> int:
        """Index in `frames` of the first annotated frame, where labelling starts.

        Raises:
            InputError: there are no images.
        """
        if not self.frames:
            raise InputError(self.images, "no images of this sequence", "add its frames, 00000.jpg ...")
        return [frame.stem for frame in self.frames].index(self.annotations[0].stem)


def sequences(
    root: str | PathLike[str], split: str = "val", *, names: Iterable[str] | None = None, resolution: str = "480p"
) -> list[Sequence]:
    """Lists the sequences of a dataset in the layout of DAVIS-2017.

    Args:
        root: folder that holds Annotations, and possibly JPEGImages and ImageSets.
        split: the file of ImageSets/2017 that lists the sequences; has no effect without ImageSets.
        names: these sequences instead of the split's.
        resolution: the folder level below, "480p" or "Full-Resolution".

    Returns:
        The sequences in the order of the list, each once; at least one.

    Raises:
        InputError: a folder or the list is missing or unreadable; a sequence has no annotation; an annotation has no
            frame.
    """
    root = Path(root)
    annotations = root / "Annotations" / resolution
    if not annotations.is_dir():
        raise InputError(annotations, "no such folder", _LAYOUT)
    chosen = list(dict.fromkeys(_listed(root, split, annotations) if names is None else names))
    if not chosen:
        raise InputError(root, "no sequence to take", _LAYOUT)
    return [_sequence(root / "JPEGImages" / resolution, annotations, name) for name in chosen]


def first_ids(sequence: Sequence, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Reads the ids of a sequence's first annotation, which labelling starts from and which defines the objects.

    Raises:
        InputError: see `read_annotation`; or it holds no object.
    """
    ids = read_annotation(sequence.annotations[0], size)
    if not ids.any():
        advice = "ids start at 1 and 255 is void; masks of 0 and 255 (DAVIS-2016) must be written as 0 and 1"
        raise InputError(sequence.annotations[0], "no object in the first annotation", advice)
    return ids


def read_annotation(path: str | PathLike[str], size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Reads the ids of an annotation; void becomes background.

    Args:
        path: a PNG of at most 8 bits (`read_ids`).
        size: (height, width) that it must have.

    Returns:
        uint8 [h w], ids 0..254.

    Raises:
        InputError: see `read_ids`; or the file has 16 bits.
    """
    ids = read_ids(path, size)
    if ids.dtype != np.uint8:
        raise InputError(path, "16 bits a pixel", "annotations of DAVIS have 8 bits: ids 1 to 254, 255 for void")
    return np.where(ids == VOID, 0, ids).astype(np.uint8)


def _listed(root: Path, split: str, annotations: Path) -> list[str]:
    sets = root / "ImageSets"
    if not sets.is_dir():
        return [entry.name for entry in _entries(annotations) if entry.is_dir()]
    path = sets / "2017" / f"{split}.txt"
    try:
        return [name for line in path.read_text(encoding="utf-8").splitlines() if (name := line.strip())]
    except FileNotFoundError as error:
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))) or "none"
        raise InputError(path, f"no list of this split, there are: {known}", "take one of them") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"not a readable list ({error})", "write the sequences' names, one a line") from error


def _sequence(images: Path, annotations: Path, name: str) -> Sequence:
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise InputError(annotations, f"{name!r} is not the name of a sequence", "give names of folders, one a line")
    folder = annotations / name
    masks = _files(folder, frozenset([".png"]))
    if not masks:
        near = difflib.get_close_matches(name, [entry.name for entry in _entries(annotations)], n=3)
        advice = f"did you mean {' or '.join(near)}?" if near and name not in near else "add its masks, 00000.png ..."
        raise InputError(folder, "no annotation of this sequence", advice)
    images /= name
    frames = _files(images, FRAME_SUFFIXES)
    stems = {frame.stem for frame in frames}
    lost = [mask for mask in masks if frames and mask.stem not in stems]
    if lost:
        raise InputError(lost[0], f"no frame of this name in {images}", "name annotations as their frames")
    return Sequence(name, images, frames, masks)


def _files(folder: Path, suffixes: frozenset[str]) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    files = frame_files(_entries(folder))
    return tuple(f for f in files if f.suffix.lower() in suffixes and not f.is_dir())


def _entries(folder: Path) -> list[Path]:
    """Lists files in order without hidden ones: archives made on macOS hold a ._00000.jpg for every 00000.jpg."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(folder, f"cannot be listed ({error.strerror})", "give read access to the folder") from error
