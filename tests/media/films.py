"""Small films that tests encode: each frame carries its number as eight black or white squares."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SILENT = {"libx264": {}, "libx265": {"x265-params": "log-level=none"}}


def numbered(k: int, height: int = 96, width: int = 160) -> np.ndarray:
    """uint8 [h w 3] on which the number k, below 256, can be read after lossy coding and scaling."""
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[:] = np.linspace(40, 200, width, dtype=np.uint8)[None, :, None]
    side = width // 10
    for bit in range(8):
        rgb[side : 2 * side, (1 + bit) * side : (2 + bit) * side] = 255 * (k >> bit & 1)
    return rgb


def number(rgb: np.ndarray) -> int:
    """The number on a picture of `numbered`, at any scale."""
    side = rgb.shape[1] / 10
    row = int(1.5 * side)
    return sum(int(rgb[row, int((1.5 + bit) * side)].mean() > 127) << bit for bit in range(8))


def encode(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 30,
    size: tuple[int, int] = (96, 160),
    pixels: str = "yuv420p",
    rate: int = 30,
    group: int = 8,
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    tick: int = 1,
    rotation: int = 0,
    aspect: Fraction | None = None,
    mux: dict[str, str] | None = None,
) -> Path:
    """Writes numbered frames.

    `times` are milliseconds of each frame, multiples of `tick`; `aspect` is width over height of one pixel.
    """
    with av.open(str(path), "w", options=mux or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=SILENT.get(codec, {}) | (options or {}))
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.gop_size = group
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(tick, 1000)
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(k, *size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[k] // tick, Fraction(tick, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
