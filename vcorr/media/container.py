"""Reads video files with PyAV (FFmpeg): a table of frames by time, and decoding that never shifts a frame.

Frame k is the k-th time stamp in display order. The table comes from the packets, which are read once without decoding:
headers lack or misstate the number of frames (webm, damaged files) and the rate (phone videos). If the time stamps of
the packets are missing or occur twice, the file is decoded once, and frame k is the k-th picture that comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

from vcorr.files import sha256
from vcorr.media.decoder import Decoder, FrameTable, refuse
from vcorr.media.edit_list import without_pauses
from vcorr.media.frame_table import DEFAULT_FPS, missing_frames, table_of_packets, table_of_pictures
from vcorr.media.image import shrink, to_rgb
from vcorr.media.levels import SharedScale

_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


class VideoFile:
    """One video file; its pictures as displayed. Memory: a few frames for each decoding thread, at any length.

    Raises:
        InputError: the file is empty or not a video, no frame decodes, or frames are above `MAX_PIXELS`.
    """

    names = None
    files = None

    def __init__(self, path: Path) -> None:
        self._path, self._edits = path, True
        self._idle: list[Decoder] = []  # of a walk that ended: to open a file takes as long as to decode some frames
        self._closed = False
        self._decoder, table, first = _opened(path)
        notes = []
        if first is None and self._decoder.container.format.name.startswith("mov"):
            self._decoder.close()
            self._edits = False
            self._decoder, table, first = _opened(path, edits=False)
            notes.append("its edit list shows no frame: all frames are read")
        if first is None:
            refuse(path, "holds no picture that can be decoded")
        stream = self._decoder.stream
        self._table, self.pts = table, table.pts
        self._turn = _Turn(first[1])
        self._stored = _square_pixels(first[1], stream)
        self.height, self.width = self._turn.displayed(*self._stored)
        self._time_base = Fraction(stream.time_base or Fraction(1, 25))
        self.fps = self._average_rate(stream)
        if self._decoder.streams > 1:
            size = f"{self.width}x{self.height}"
            count = self._decoder.streams
            notes.append(f"holds {count} video streams: the largest is read, {size}, the first of that size")
        missing = missing_frames(path, stream.frames) if stream.frames > len(table.pts) else 0
        if missing > 0:
            notes.append(f"the file ends early: {missing} of {stream.frames} frames are missing")
        self._scale = SharedScale(len(table.pts), self._deep_pixels)
        if _levels_format(first[1]):
            self._scale.get()
            notes += [note] if (note := self._scale.note()) else []
        self.notes: tuple[str, ...] = tuple(f"{path}: {note}" for note in notes)

    def __len__(self) -> int:
        return len(self.pts)

    def seconds(self, k: int) -> float:
        return float((self.pts[k] - self.pts[0]) * self._time_base)

    def fingerprint(self) -> str:
        return sha256(self._path)

    def walk(self, start: int, size: tuple[int, int]) -> Iterator[tuple[int, Callable[[], np.ndarray], bool]]:
        """Yields (index, what gives its RGB of `size`, whole) of each frame that decodes, in order from `start` on.

        If `start` does not decode, the last picture before it comes first. `whole` is False if the decoder concealed
        lost parts. Frames that do not decode are skipped.
        """
        try:
            decoder = self._idle.pop()
        except IndexError:
            decoder = Decoder(self._path, edits=self._edits)
        try:
            for k, picture in decoder.pictures(self._table, start):
                yield k, partial(self._rgb, picture, size), not picture.is_corrupt
        finally:
            if self._closed or self._idle:
                decoder.close()
            else:
                self._idle.append(decoder)

    def picture(self, k: int, size: tuple[int, int]) -> np.ndarray | None:
        index, picture = next(self._decoder.pictures(self._table, k), (-1, None))
        return self._rgb(picture, size) if picture is not None and index == k else None

    def close(self) -> None:
        self._closed = True
        self._decoder.close()
        while self._idle:
            self._idle.pop().close()

    def _deep_pixels(self, k: int) -> np.ndarray | None:
        index, picture = next(self._decoder.pictures(self._table, k), (-1, None))
        return _levels(picture) if picture is not None and index == k else None

    def _rgb(self, picture: VideoFrame, size: tuple[int, int]) -> np.ndarray:
        height, width = self._turn.displayed(*size)
        levels = _levels(picture)
        if levels is not None:
            return self._turn.apply(shrink(to_rgb(levels, self._scale.get()), (height, width)))
        # FFmpeg reads an unspecified matrix as BT.601; players read it as BT.709 in high definition.
        unnamed_hd = picture.colorspace == _UNSPECIFIED and picture.height >= 720
        rgb = picture.reformat(
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=Colorspace.ITU709 if unnamed_hd else None,
            interpolation=int(_EXACT),
        )
        return self._turn.apply(rgb.to_ndarray())

    def _average_rate(self, stream: VideoStream) -> float:
        """Frames per second from the first to the last frame; the header's fraction if it agrees within 0.5 %."""
        header = float(stream.average_rate or stream.guessed_rate or 0)
        span = self.seconds(len(self.pts) - 1)
        if len(self.pts) < 2 or span <= 0:
            return header if 0 < header < 1000 else DEFAULT_FPS
        measured = (len(self.pts) - 1) / span
        return header if abs(header - measured) <= 0.005 * measured else measured


def _opened(path: Path, *, edits: bool = True) -> tuple[Decoder, FrameTable, tuple[int, VideoFrame] | None]:
    """A decoder, the table of frames, and the first picture; None if no frame decodes."""
    decoder = Decoder(path, edits=edits)
    edited = edits and decoder.container.format.name.startswith("mov")
    table = table_of_packets(decoder)
    if table and edited:
        table = without_pauses(table, path, decoder.stream.id)
    first = next(decoder.pictures(table, 0), None) if table else None
    if table is None or first is None:  # or no picture has the time stamp of its packet
        table = table_of_pictures(path, edits=edits)
        first = next(decoder.pictures(table, 0), None) if table.pts else None
    return decoder, table, first


class _Turn:
    """The rotation by quarter turns and the mirroring in a video's display matrix."""

    def __init__(self, picture: VideoFrame) -> None:
        self.transposed, self.mirrored, self.flipped = False, False, False
        matrix: Any = picture.side_data.get("DISPLAYMATRIX")  # a buffer, which the stubs lack
        if matrix is not None:
            # stored (x, y) is displayed at (a x + c y, b x + d y)
            a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]
            self.transposed = bool(abs(b) > abs(a))
            self.mirrored, self.flipped = (bool(c < 0), bool(b < 0)) if self.transposed else (bool(a < 0), bool(d < 0))

    def displayed(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the turn, or before it: the rule is the same."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        turned = rgb.swapaxes(0, 1) if self.transposed else rgb
        turned = turned[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1]
        return np.ascontiguousarray(turned)


def _levels(picture: VideoFrame) -> np.ndarray | None:
    """uint16 [h w] or [h w 3], the levels of a picture that does not state its range; None for other pictures."""
    wanted = _levels_format(picture)
    return picture.reformat(format=wanted).to_ndarray() if wanted else None


def _levels_format(picture: VideoFrame) -> str | None:
    """The format for reading levels of grey above 8 bits and of 16-bit RGB; None for other pictures.

    Machine cameras use part of the range, as in image files. YUV video keeps to the range that it states.
    """
    if picture.color_range == ColorRange.MPEG:
        return None
    bits = max((component.bits for component in picture.format.components), default=8)
    if picture.format.name.startswith(("gray", "ya")):
        return "gray16le" if bits > 8 else None
    return "rgb48le" if picture.format.is_rgb and bits >= 16 else None


def _square_pixels(picture: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """(height, width) of a stored picture with square pixels: the width is stretched, as in players."""
    ratio = stream.sample_aspect_ratio
    if not ratio or not Fraction(1, 8) < ratio < 8:  # absent, or from a damaged header
        ratio = Fraction(1)
    return picture.height, max(1, round(picture.width * ratio))
