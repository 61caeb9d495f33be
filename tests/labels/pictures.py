"""Small pictures that masks are made of, and files that Pillow does not write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from vcorr.labels.draw import default_palette

PALETTE = default_palette()
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def grid(*values: int, dtype: type = np.uint8, side: int = 12) -> np.ndarray:
    """Squares of the given values in a row."""
    return np.repeat(np.repeat(np.array([values], dtype), side, axis=0), side, axis=1)


def colours(*rgb: tuple[int, ...]) -> np.ndarray:
    return np.array(rgb, np.uint8)[grid(*range(len(rgb)))]


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def indexed(ids: np.ndarray, palette: np.ndarray = PALETTE) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette(palette.tobytes())
    return image


def png(
    values: np.ndarray,
    bits: int,
    size: tuple[int, int] | None = None,
    *,
    kind: int = 0,
    channels: int = 1,
    extra: tuple[bytes, bytes] | None = None,
) -> bytes:
    """A PNG of depths that Pillow does not write, grey (kind 0) or colour.

    `size` is what its header claims, `extra` one more chunk.
    """
    height, width = size or values.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = []
    for row in values:
        packed = "".join(f"{value:0{bits}b}" * channels for value in row)
        packed += "0" * (-len(packed) % 8)
        rows.append(b"\0" + int(packed, 2).to_bytes(len(packed) // 8, "big"))
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(*extra) if extra else b"")
        + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + chunk(b"IEND", b"")
    )
