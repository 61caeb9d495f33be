"""Writes a video that plays everywhere: H.264, 8-bit 4:2:0, BT.709 colours, index at the front."""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from vcorr.errors import OutputError
from vcorr.files import beside, put

QUALITY = "18"  # constant rate factor: no visible loss
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
RATES = (1e-4, 1e3)  # the range of frames per second: Matroska counts milliseconds
LONGEST = 16384  # pixels, the longest side that the encoder accepts
MAX_THREADS = 4  # each holds frames of its own, as does the look-ahead, which the preset keeps short
_BT709 = 1  # the number of its matrix, primaries and transfer curve (ITU-T H.273)


def is_whole_video(path: Path) -> bool:
    """Whether an MP4 or MOV file is complete: the lengths of its boxes add up to its size. Decodes no picture."""
    try:
        size, at, kinds = path.stat().st_size, 0, set()
        with path.open("rb") as file:
            while at < size:
                file.seek(at)
                head = file.read(16)
                length = int.from_bytes(head[:4], "big")
                kinds.add(head[4:8])
                length = int.from_bytes(head[8:16], "big") if length == 1 else length
                if length < 8:
                    return False
                at += length
    except OSError:
        return False
    return at == size and {b"moov", b"mdat"} <= kinds


class VideoWriter:
    """Encodes frames to `path`. The file appears when the block ends; after an exception there is none.

        with VideoWriter("overlay.mp4", height=480, width=854, fps=video.fps) as writer:
            writer.write(rgb)

    4:2:0 needs even sizes: an odd size gets one more row or column, a copy of the last.

    Args:
        path: .mp4, .m4v, .mov or .mkv.
        height, width: of the frames, in pixels.
        fps: frames per second, clamped to `RATES`.

    Raises:
        OutputError: another suffix, the folder is missing or not writable, the disk is full, or no frame was written.
    """

    channels = 3

    def __init__(self, path: str | Path, *, height: int, width: int, fps: float) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in SUFFIXES:
            raise OutputError(path, f"'{self.path.suffix}' is no format for H.264", f"name it {' or '.join(SUFFIXES)}")
        if height < 1 or width < 1 or not 0 < fps < math.inf:
            raise ValueError(f"height, width and fps must be positive, got {height}, {width}, {fps}")
        self._shape = (height, width, self.channels)
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))
        self._count = 0
        self._part = beside(self.path)
        try:
            self._container: OutputContainer = av.open(
                str(self._part.absolute()), "w", options={"movflags": "+faststart"} if self._is_mov() else {}
            )
            rate = Fraction(min(max(fps, RATES[0]), RATES[1])).limit_denominator(1001 * 60)
            self._open_stream(height + height % 2, width + width % 2, rate)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._discard()
            raise self._failure(error) from error

    def _is_mov(self) -> bool:
        return self.path.suffix.lower() != ".mkv"

    def _open_stream(self, height: int, width: int, rate: Fraction) -> None:
        if max(height, width) > LONGEST:
            raise ValueError(f"frames of {width}x{height}, but H.264 ends at {LONGEST} pixels a side")
        stream = self._container.add_stream("libx264", rate=rate, options={"crf": QUALITY, "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        context.thread_count = MAX_THREADS
        self._stream = stream

    def write(self, rgb: np.ndarray) -> None:
        """Appends one frame, uint8 [h w channels].

        Raises:
            ValueError: another shape or type.
            OutputError: the disk is full.
        """
        if rgb.shape != self._shape or rgb.dtype != np.uint8:
            raise ValueError(f"frame must be uint8 {self._shape}, got {rgb.dtype} {rgb.shape}")
        frame = self._frame(np.pad(rgb, self._padding, mode="edge"))
        frame.pts, frame.time_base = self._count, 1 / Fraction(self._stream.codec_context.rate)
        self._mux(frame)
        self._count += 1

    def _frame(self, pixels: np.ndarray) -> VideoFrame:
        frame = VideoFrame.from_ndarray(pixels, format="rgb24")
        return self._converted(frame, "yuv420p")

    def _converted(self, frame: VideoFrame, pixel_format: str) -> VideoFrame:
        return frame.reformat(
            format=pixel_format,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND),
        )

    def _mux(self, frame: VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Finishes the file and gives it its name."""
        try:
            if self._count == 0:
                raise OutputError(self.path, "no frame was written", "give at least one")
            self._mux(None)
            self._container.close()
            put(self._part, self.path)
        except (av.FFmpegError, OSError) as error:
            self._discard()
            raise (error if isinstance(error, OutputError) else self._failure(error)) from error

    def _discard(self) -> None:
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            if hasattr(self, "_container"):
                self._container.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _failure(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or str(error)
        return OutputError(self.path, f"cannot be written ({reason})", "check the folder and the free space")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()


class ProResWriter(VideoWriter):
    """Encodes frames with straight alpha, uint8 [h w 4], to ProRes 4444 (.mov), for editing programs."""

    channels = 4

    def _open_stream(self, height: int, width: int, rate: Fraction) -> None:
        stream = self._container.add_stream("prores_ks", rate=rate, options={"profile": "4444", "alpha_bits": "16"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuva444p10le"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        context.thread_count = MAX_THREADS
        self._stream = stream

    def _frame(self, pixels: np.ndarray) -> VideoFrame:
        return self._converted(VideoFrame.from_ndarray(pixels, format="rgba"), "yuva444p10le")
