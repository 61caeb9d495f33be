"""TIFF files with several pages, written by the book: any byte order, BigTIFF, any tags."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

REDUCED = {254: 1}  # NewSubfileType of a thumbnail, or of a level of a pyramid


def write_tiff(
    path: Path,
    pages: Sequence[np.ndarray],
    *,
    tags: Sequence[dict[int, int | bytes]] | None = None,
    big: bool = False,
    order: str = "<",
    photometric: int | None = None,
) -> Path:
    """Writes pages uncompressed, [h w] or [h w 3], each with its own `tags` on top of those that it needs."""
    head = {"<": b"II", ">": b"MM"}[order]
    wide = "Q" if big else "I"
    size = 8 if big else 4
    out = bytearray(head + (struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)))
    link = len(out) - size  # where the offset of the next page is written
    for k, page in enumerate(pages):
        data = page.astype(page.dtype.newbyteorder(order)).tobytes()
        bits = page.dtype.itemsize * 8
        channels = 1 if page.ndim == 2 else page.shape[2]
        start = len(out)
        out += data + b"\0" * (-len(data) % 2)
        entries: dict[int, int | bytes] = {
            256: page.shape[1], 257: page.shape[0], 258: bits, 259: 1,
            262: photometric if photometric is not None else 1 if channels == 1 else 2,
            273: start, 277: channels, 278: page.shape[0], 279: len(data),
            339: {"u": 1, "i": 2, "f": 3}[page.dtype.kind],
        }  # fmt: skip
        entries |= (tags[k] if tags else {}) or {}
        texts = {}
        for tag, value in entries.items():
            if isinstance(value, bytes):
                texts[tag] = len(out)
                out += value + b"\0" * (-len(value) % 2)
        struct.pack_into(order + wide, out, link, len(out))
        out += struct.pack(order + ("Q" if big else "H"), len(entries))
        for tag, value in sorted(entries.items(), key=lambda entry: entry[0]):
            if isinstance(value, bytes):
                out += struct.pack(order + "HH" + wide * 2, tag, 2, len(value), texts[tag])
            elif tag == 258 and channels > 1 and not big:  # one number of bits serves all channels
                out += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
            else:
                out += struct.pack(order + "HH" + wide * 2, tag, 16 if big else 4, 1, value)
        link = len(out)
        out += struct.pack(order + wide, 0)
    path.write_bytes(out)
    return path
