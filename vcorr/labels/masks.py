"""Reads masks from image files with their ids and colours, and writes them with a palette.

Id 0 is the background; 1, 2, ... are objects. ``mask_files`` reads one file, ``mask_ids`` matches the ids and colours
of several, ``mask_names`` finds the frame that a file labels, ``mask_set`` reads other kinds of files. A mask that was
written here is read back with the same ids, indexed or saved as RGB, alone or with other masks.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vcorr.errors import InputError
from vcorr.labels.draw import default_palette, overlay
from vcorr.labels.mask_edges import refuse_soft_edges
from vcorr.labels.mask_files import WHITE, MaskFile, channels, read_mask_file
from vcorr.labels.mask_ids import MAX_ID, Matched, match
from vcorr.labels.mask_names import label_files
from vcorr.media.image import write_image

__all__ = ["Mask", "default_palette", "is_whole", "label_files", "overlay", "read_mask", "read_masks", "write_mask"]

_LISTED = 6  # objects that a line names
_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # width and height follow
_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True, eq=False)
class Mask:
    """The object ids of one frame.

    Attributes:
        ids: uint8 or uint16 [h w], 0 is the background.
        palette: uint8 [256 3], a distinct colour for each id, black for 0; ids above 255 repeat the colours
            (`overlay`). Masks that are read together share it.
        notes: decisions of reading that the user should know, one line each.
        path: its file.
        shown: how the file shows an object, if not by the id alone: "#ff0000", "value 255".
        background: how the file shows the background.
    """

    ids: np.ndarray
    palette: np.ndarray
    notes: tuple[str, ...] = ()
    path: Path | None = None
    shown: Mapping[int, str] = field(default_factory=dict)
    background: str = "black"

    def told(self, frame: str) -> str:
        """The line that says how the file was read, as the mask of a frame ("3", "3 (00003.jpg)")."""
        present = [int(i) for i in np.unique(self.ids) if i]
        share = float(np.mean(self.ids == 0))
        names = [f"{i} ({how})" if (how := self.shown.get(i)) else str(i) for i in present[:_LISTED]]
        more = f" and {len(present) - _LISTED} more up to {present[-1]}" if len(present) > _LISTED else ""
        objects = f"object{'s' * (len(present) != 1)} {', '.join(names)}{more}" if present else "no object"
        background = "no background" if share == 0 else f"background {self.background}, {100 * share:.3g}%"
        return "; ".join([f"{self.path} labels frame {frame}: {objects}; {background}", *self.notes])


def read_mask(path: str | Path, *, size: tuple[int, int] | None = None) -> Mask:
    """Reads one mask file.

    Args:
        path: a lossless indexed, grey or colour image: PNG, TIFF, BMP, GIF, PPM.
        size: (height, width) that the mask must have; None for any.

    Raises:
        InputError: the file is unreadable, lossy or ambiguous, has another size or soft edges, or holds no object.
    """
    return read_masks({0: Path(path)}, size=size)[0]


def read_masks(
    files: Mapping[int, str | Path | MaskFile],
    corrections: Mapping[int, str | Path | MaskFile] | None = None,
    *,
    kept: Mapping[int, MaskFile] | None = None,
    size: tuple[int, int] | None = None,
) -> dict[int, Mask]:
    """Reads mask files by frame, ascending, with one set of ids (`mask_ids` matches them).

    A mask without an object is accepted if another mask has one: its frame shows none of them.

    Args:
        files: the labels, matched as a set. Files that are read already state ids, and have no soft edges.
        corrections: masks of further frames; they change no id of the labels.
        kept: results of these labels, with their ids.
        size: see `read_mask`.

    Raises:
        InputError: see `read_mask`; or a file cannot be matched with the earlier ones.
    """
    given = {**files, **(corrections or {})}
    read = {k: f if isinstance(f, MaskFile) else read_mask_file(Path(f), size) for k, f in given.items()}
    refuse_soft_edges(file for k, file in read.items() if not isinstance(given[k], MaskFile))
    matched, table = match({k: read[k] for k in files}, {k: read[k] for k in corrections or {}}, kept or {})
    top = max((int(m.ids.max()) for m in matched.values()), default=0)
    if top == 0:
        path = next(iter([*read.values(), *(kept or {}).values()])).path
        raise InputError(path, "holds no object: every pixel is background", "paint the objects in values other than 0")
    palette = channels(table).astype(np.uint8)
    return {k: _mask(matched[k], palette, np.uint8 if top <= WHITE else np.uint16) for k in sorted(matched)}


def _mask(matched: Matched, palette: np.ndarray, dtype: type[np.uint8] | type[np.uint16]) -> Mask:
    file = matched.file
    return Mask(
        matched.ids.astype(dtype)[file.codes],
        palette.copy(),
        matched.notes,
        file.path,
        matched.names,
        matched.background,
    )


def write_mask(path: str | Path, ids: np.ndarray, palette: np.ndarray) -> None:
    """Writes ids as PNG: indexed if uint8, grey of 16 bits if uint16 or if 255 (void) is an id.

    Args:
        path: ends in .png; written under a temporary name and renamed.
        ids: uint8 or uint16 [h w].
        palette: uint8 [256 3]; the background is always written as black.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
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
    if ids.dtype == np.uint8 and not (ids == WHITE).any():
        image = Image.fromarray(ids)
        image.putpalette(bytes(3) + palette[1:].tobytes())
    else:
        image = Image.fromarray(ids.astype(np.uint16))
    write_image(path, image)


def is_whole(path: Path, size: tuple[int, ...]) -> bool:
    """Whether a path holds an undamaged PNG of (height, width). Checks the checksums; decodes no pixel."""
    try:
        with path.open("rb") as file:
            data = file.read(24)
            if data != _START + struct.pack(">II", size[1], size[0]):
                return False
            data += file.read()
    except OSError:
        return False
    at = 8
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")  # 4 bytes follow: the checksum of name and content
        if data[end : end + 4] != zlib.crc32(data[at + 4 : end]).to_bytes(4, "big"):
            return False
        at = end + 4
    return data.endswith(_END)
