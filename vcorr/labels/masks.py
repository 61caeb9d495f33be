"""Masks as image files: read with their ids and colours, written with a palette. Keypoint files are read elsewhere.

Ids: 0 is background, 1, 2, ... are objects. How a file states them:

| file                          | ids                                                                                  |
|-------------------------------|--------------------------------------------------------------------------------------|
| indexed (PNG, GIF, BMP)       | the palette index                                                                    |
| grey, 1 to 8 bits             | the value; of two values, the brighter is one object, id 1                           |
| grey, 16 bits                 | the value; 0 and 65535 alone are one object, id 1                                    |
| colour, without or with alpha | each colour an object, black and transparent the background; the colours of          |
|                               | `default_palette` have their ids there, others are numbered by (red, green, blue)    |

255 beside other ids of 8 bits is "void" by custom (unlabelled border) and read as background. What was decided in this
way is told in `Mask.notes`. Masks of one video are read together, so that a colour is one id in all of them.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vcorr.errors import InputError
from vcorr.labels.draw import default_palette, overlay
from vcorr.labels.mask_files import MaskPicture, read_mask_picture
from vcorr.media.image import write_image

__all__ = ["Mask", "default_palette", "is_whole", "label_files", "overlay", "read_mask", "read_masks", "write_mask"]

MASK_SUFFIXES = frozenset([".png", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm"])
VOID = 255
MAX_ID = 65534  # 65535 is white in grey of 16 bits
_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # width and height come next
_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True, eq=False)
class Mask:
    """Object ids of one frame.

    Attributes:
        ids: uint8 or uint16 [h w], 0 is background.
        palette: uint8 [256 3], the colour of each id; above 255 the colours start again (`overlay`).
        notes: what was decided in reading it, one line each.
    """

    ids: np.ndarray
    palette: np.ndarray
    notes: tuple[str, ...] = ()


def read_mask(path: str | Path, *, size: tuple[int, int] | None = None) -> Mask:
    """Reads one mask file; the module's table says how.

    Args:
        path: indexed, grey or colour image without loss: PNG, TIFF, BMP, GIF, PPM.
        size: (height, width) of the video, which the mask must have; None for any.

    Raises:
        InputError: unreadable, another size, JPEG or WebP, without any object, or colours of soft edges.
    """
    return read_masks({0: Path(path)}, size=size)[0]


def label_files(path: Path, *, frames: int, names: Sequence[str] | None = None) -> dict[int, Path]:
    """Which frame each mask file of a folder labels, ascending.

    A file labels the frame whose index its name ends in (00005.png, mask_5.png). Where the frames are files themselves
    and each mask bears the name of one (`names`), it labels that: frames numbered from 1 keep their masks.

    Args:
        path: the folder.
        frames: how many frames the video has.
        names: file names of the frames without suffix, `Video.names`; None for video files.

    Raises:
        InputError: no masks in it; or a name without a number, past the end, or twice.
    """
    files = [p for p in sorted(path.iterdir()) if p.suffix.lower() in MASK_SUFFIXES and not p.name.startswith(".")]
    if not files:
        raise InputError(path, "holds no mask files", "put in masks named by frame index, such as 00000.png")
    order = {name: k for k, name in enumerate(names or ())}
    by_name = all(file.stem in order for file in files)
    labels: dict[int, Path] = {}
    for file in files:
        k = order[file.stem] if by_name else _trailing_number(file)
        if k >= frames:
            raise InputError(
                file, f"labels frame {k}, but the video has frames 0 to {frames - 1}", "rename or remove it"
            )
        other = labels.setdefault(k, file)
        if other is not file:
            raise InputError(path, f"{other.name} and {file.name} both label frame {k}", "keep one of them")
    return dict(sorted(labels.items()))


def _trailing_number(file: Path) -> int:
    number = re.search("([0-9]+)$", file.stem)
    if number is None:
        raise InputError(file, "does not name its frame", "end the name in the frame's index, such as 00005.png")
    return int(number[1])


def read_masks(files: Mapping[int, str | Path], *, size: tuple[int, int] | None = None) -> dict[int, Mask]:
    """Reads mask files of the given frames in one space of ids: what depends on the values present is decided over all.

    A mask without any object is taken, if another has one: its frame shows none of them.

    Raises:
        InputError: see `read_mask`.
    """
    pictures = {k: read_mask_picture(Path(path), size) for k, path in files.items()}
    coloured = [p for p in pictures.values() if p.kind == "colour"]
    if all(_is_grey(p) for p in coloured):
        masks = _by_value({k: _as_grey(p) for k, p in pictures.items()})
    else:
        masks = _by_colour(pictures)
    if not any(mask.ids.any() for mask in masks.values()):
        path = next(iter(pictures.values())).path
        raise InputError(path, "holds no object: every pixel is background", "paint the objects in values other than 0")
    return masks


def write_mask(path: str | Path, ids: np.ndarray, palette: np.ndarray) -> None:
    """Writes ids as PNG: indexed with the palette if uint8, grey of 16 bits if uint16 or where 255 (void) is an id.

    Args:
        path: ends in .png; written beside and renamed.
        ids: uint8 or uint16 [h w].
        palette: uint8 [256 3].

    Raises:
        OutputError: the folder is missing, full or not writable.
        ValueError: another type or shape, or an id above 65534.
    """
    path = Path(path)
    if path.suffix.lower() != ".png" or ids.ndim != 2 or ids.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"a mask is uint8 or uint16 [h w] and goes to .png, got {ids.dtype} {ids.shape} for {path.name}"
        )
    if ids.max(initial=0) > MAX_ID:
        raise ValueError(f"ids must lie in 0 to {MAX_ID}, got {ids.max()}")
    if palette.shape != (256, 3) or palette.dtype != np.uint8:
        raise ValueError(f"palette must be uint8 (256, 3), got {palette.dtype} {palette.shape}")
    if ids.dtype == np.uint8 and not (ids == VOID).any():
        image = Image.fromarray(ids)
        image.putpalette(palette.tobytes())
    else:
        image = Image.fromarray(ids.astype(np.uint16))
    write_image(path, image)


def is_whole(path: Path, size: tuple[int, ...]) -> bool:
    """Whether a PNG of (height, width) is there from its first byte to its last; the pixels are not decoded."""
    try:
        with path.open("rb") as file:
            head = file.read(24)
            file.seek(-len(_END), os.SEEK_END)
            return head[:16] == _START and struct.unpack(">II", head[16:]) == (size[1], size[0]) and file.read() == _END
    except (OSError, struct.error):
        return False


def _is_grey(picture: MaskPicture) -> bool:
    """Whether red, green and blue agree everywhere: a grey mask saved in colour."""
    blue = picture.values & 255
    return bool((picture.values == blue * 0x010101).all())


def _as_grey(picture: MaskPicture) -> MaskPicture:
    if picture.kind != "colour":
        return picture
    return MaskPicture(picture.path, "grey", picture.values & 255)


def _by_value(pictures: Mapping[int, MaskPicture]) -> dict[int, Mask]:
    """Masks of indexed and grey files: the values are ids, but for the customs in the module's table."""
    present = _present(pictures.values())
    others = present[(present > 0) & (present != VOID)]
    if all(p.kind == "grey" for p in pictures.values()) and len(present) <= 2:
        bright = int(present[-1])
        note = f"of the grey values {present[0]} and {bright}, {bright} is taken as object 1, the rest as background"
        notes = (note,) if len(present) == 2 and list(present) not in ([0, 1], [0, VOID]) else ()
        return {k: _mask(p, (p.values == bright) & (bright > 0), 1, notes) for k, p in pictures.items()}
    top = int(present.max())
    masks = {}
    for k, picture in pictures.items():
        values, notes = picture.values, ()
        void = (values == VOID) & (picture.bits == 8)
        if void.any() and len(others):
            if picture.kind == "grey" and not ((values > 0) & ~void).any():
                what = "is painted in 255, which beside the ids of the other masks means unlabelled"
                raise InputError(picture.path, what, "paint in the value of the object's id")
            values = np.where(void, 0, values)
            notes = (f"value 255 ({int(void.sum())} pixels) is void, taken as background",)
        elif void.any():
            values = np.where(void, 1, values)
            notes = ("value 255 is the only one beside 0, taken as object 1",)
        masks[k] = _mask(picture, values, top, notes)
    return masks


def _by_colour(pictures: Mapping[int, MaskPicture]) -> dict[int, Mask]:
    """Masks of colour files: one id per colour that occurs in any of them."""
    coloured = next(p for p in pictures.values() if p.kind == "colour")
    other = next((p for p in pictures.values() if p.kind != "colour"), None)
    if other is not None:
        what = f"is in colour, but {other.path.name} is not, so that colours and ids cannot be matched"
        raise InputError(coloured.path, what, "save both in the same way")
    present = _present(pictures.values())
    colours = present[present > 0]
    if len(colours) > MAX_ID:
        raise InputError(coloured.path, f"has {len(colours)} colours", "give each object one flat colour")
    palette = default_palette()
    codes = palette.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    if np.isin(colours, codes).all():
        ids = np.array([int(np.flatnonzero(codes == colour)[0]) for colour in colours])
    else:
        ids = np.arange(1, len(colours) + 1)
        shown = colours[:255]
        palette[1 : len(shown) + 1] = np.stack([shown >> 16, shown >> 8 & 255, shown & 255], axis=1)
    masks = {}
    for k, picture in pictures.items():
        values = np.where(picture.values > 0, np.append(ids, 0)[np.searchsorted(colours, picture.values)], 0)
        notes = () if (values == 0).any() else ("no pixel is black: there is no background",)
        masks[k] = _mask(picture, values, int(ids.max()), notes, palette)
    return masks


def _present(pictures: Iterable[MaskPicture]) -> np.ndarray:
    return np.unique(np.concatenate([np.unique(p.values) for p in pictures]))


def _mask(
    picture: MaskPicture, values: np.ndarray, top: int, notes: tuple[str, ...], palette: np.ndarray | None = None
) -> Mask:
    """The mask of a file. `top` is the largest id of the video: all its masks have one type."""
    dtype = np.uint8 if top <= VOID else np.uint16
    colours = picture.colours() if palette is None else palette
    return Mask(values.astype(dtype), colours, tuple(f"{picture.path}: {note}" for note in notes))
