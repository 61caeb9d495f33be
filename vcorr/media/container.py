"""Video files through PyAV (FFmpeg): a table of frames by time, and decoding that never shifts one.

Frame k is the k-th time stamp in order of display. The table comes from the packets, read once without decoding,
because headers are wrong or silent about counts (webm, damaged files) and rates (phone videos). A file whose packets
bear no usable times (missing or doubled) is decoded once instead, and frame k is the k-th picture that comes out.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream

from vcorr.errors import InputError
from vcorr.media.image import MAX_PIXELS

# Formats that hold video themselves. Playlists (ffconcat, m3u8, mpd) and image patterns would open other files.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mxf,ogg,flv,asf,nut,dv,ivf,yuv4mpegpipe,"
    "h264,hevc,vvc,mpegvideo,m4v,mjpeg,vc1,obu"  # streams without a container
)
# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".vob", ".mts", ".m2ts",
    ".ts", ".mxf", ".ogv", ".ogg", ".flv", ".f4v", ".asf", ".wmv", ".nut", ".dv", ".ivf", ".y4m",
    ".h264", ".264", ".avc", ".hevc", ".h265", ".265", ".h266", ".266", ".vvc", ".m2v", ".m1v", ".mjpeg", ".mjpg",
    ".vc1", ".obu",
])
# fmt: on
# Formats whose packets do not say when a frame is shown, only when it is decoded: the same but for codecs that reorder.
ORDER_OF_DECODING = frozenset({"avi", "mxf", "asf"})
PROBED = 64  # pictures: enough to meet a reordered one in a stream that has them
MAX_THREADS = 4  # each thread of the decoder holds frames of its own
DEFAULT_FPS = 25.0
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True)
class FrameTable:
    """Which frames a file has.

    Attributes:
        pts: time stamps, ascending.
        keys: frames that decoding can start at, ascending.
        places: byte offset and length of the packet of each time stamp; None where the packets do not bear them.
    """

    pts: list[int]
    keys: list[int]
    places: dict[int, tuple[int | None, int]] | None


class VideoFile:
    """One video file, pictures as displayed. Memory: a few frames per decoding thread, whatever the length.

    Raises:
        InputError: not a video, empty, cut so short that no frame decodes, or frames above `MAX_PIXELS`.
    """

    names = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = _Decoder(path)
        table = _table_of_packets(self._decoder)
        first = next(self._decoder.pictures(table, 0), None) if table else None
        if table is None or first is None:  # also where no picture bears a time stamp of its packet
            table = _table_of_pictures(path)
            first = next(self._decoder.pictures(table, 0), None) if table.pts else None
        if first is None:
            _refuse(path, "holds no picture that can be decoded")
        stream = self._decoder.stream
        self._table, self.pts = table, table.pts
        self._turn = _Turn(first[1])
        self._stored = _square_pixels(first[1], stream)
        self.height, self.width = self._turn.displayed(*self._stored)
        self._time_base = Fraction(stream.time_base or Fraction(1, 25))
        self.fps = self._average_rate(stream)
        missing = _missing_frames(path, stream.frames) if stream.frames > len(table.pts) else 0
        self.notes: tuple[str, ...] = (
            (f"{path}: the file ends early: {missing} of {stream.frames} frames are missing",) if missing > 0 else ()
        )

    def __len__(self) -> int:
        return len(self.pts)

    def seconds(self, k: int) -> float:
        return float((self.pts[k] - self.pts[0]) * self._time_base)

    def fingerprint(self) -> str:
        with self._path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def walk(self, start: int, size: tuple[int, int]) -> Iterator[tuple[int, np.ndarray, bool]]:
        """(index, RGB of the size asked for, whole) of each frame that decodes, in order, from `start` on.

        Where `start` itself does not decode, the last picture before it comes first. `whole` is False where the decoder
        filled in lost parts. Frames that do not decode at all are passed over.
        """
        decoder = _Decoder(self._path)
        try:
            for k, picture in decoder.pictures(self._table, start):
                yield k, self._rgb(picture, size), not picture.is_corrupt
        finally:
            decoder.close()

    def picture(self, k: int, size: tuple[int, int]) -> np.ndarray | None:
        index, picture = next(self._decoder.pictures(self._table, k), (-1, None))
        return self._rgb(picture, size) if picture is not None and index == k else None

    def close(self) -> None:
        self._decoder.close()

    def _rgb(self, picture: VideoFrame, size: tuple[int, int]) -> np.ndarray:
        height, width = self._turn.displayed(*size)
        # FFmpeg takes an unnamed matrix as BT.601; players take BT.709 for high definition.
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
        """Frames per second between first and last frame; the header's fraction where it agrees to half a percent."""
        header = float(stream.average_rate or stream.guessed_rate or 0)
        span = self.seconds(len(self.pts) - 1)
        if len(self.pts) < 2 or span <= 0:
            return header if 0 < header < 1000 else DEFAULT_FPS
        measured = (len(self.pts) - 1) / span
        return header if abs(header - measured) <= 0.005 * measured else measured


class _Decoder:
    """An open container that decodes from any frame on. Only the latest `pictures` may be iterated."""

    def __init__(self, path: Path, threads: int = MAX_THREADS, **options: str) -> None:
        self.path, self._options = path, options
        self._threads = min(threads, os.cpu_count() or 1)
        self._open()

    def _open(self) -> None:
        self.container = _open_container(self.path, **self._options)
        self.stream = _picture_stream(self.container, self.path)
        self.stream.codec_context.thread_type = "AUTO"
        self.stream.codec_context.thread_count = self._threads
        self.stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}

    def close(self) -> None:
        self.container.close()

    def rewind(self) -> None:
        self.close()
        self._open()

    def packets(self) -> Iterator[av.Packet[VideoStream]]:
        """Packets of the stream to the end of the file or to the place past which it cannot be read."""
        demuxer = self.container.demux(self.stream)
        while True:
            try:
                packet = next(demuxer, None)
            except av.FFmpegError:
                return
            except IndexError:  # PyAV met a stream that the header did not announce
                demuxer = self.container.demux(self.stream)
                continue
            if packet is None:
                return
            if packet.size:
                yield packet

    def pictures(self, table: FrameTable, start: int) -> Iterator[tuple[int, VideoFrame]]:
        """(index, picture) from `start` on; the last picture before it first, if `start` does not decode."""
        before: tuple[int, VideoFrame] | None = None
        due = start
        for seek_to in self._entries(table, start):
            for k, picture in self._indexed(table, seek_to):
                if k < due:
                    before = (k, picture)
                    continue
                if seek_to is not None and (k > due or (k == start and picture.is_corrupt)):
                    break  # after a seek, a gap may come from entering too late: enter earlier before calling it damage
                if k > start == due and before is not None:
                    yield before
                yield k, picture
                due = k + 1
            if due == len(table.pts):
                return
        if due == start and before is not None:
            yield before

    def all_pictures(self) -> Iterator[VideoFrame]:
        """Every picture that decodes, from the start of the file. For a decoder of one thread (see `_indexed`)."""
        return self._decode(None, None)

    def _entries(self, table: FrameTable, start: int) -> Iterator[int | None]:
        """Where to seek in order to reach `start`: its key frame, the one before that, the start of the file."""
        keys = table.keys[: bisect.bisect_right(table.keys, start)]
        if keys and keys[-1] > 0:
            yield table.pts[start]
        if len(keys) > 1 and keys[-2] > 0:
            yield table.pts[keys[-2]]
        yield None

    def _indexed(self, table: FrameTable, seek_to: int | None) -> Iterator[tuple[int, VideoFrame]]:
        """Pictures with their index, in order. Damage is decoded by one thread, which alone keeps all good pictures."""
        last = -1
        while True:
            try:
                for count, picture in enumerate(self._decode(table, seek_to)):
                    k = count if table.places is None else _index(table.pts, picture.pts)
                    if k is not None and last < k < len(table.pts):
                        last = k
                        yield k, picture
                return
            except _DamageError:
                self._threads = 1

    def _decode(self, table: FrameTable | None, seek_to: int | None) -> Iterator[VideoFrame]:
        if seek_to is None or self.stream.codec_context.thread_count != self._threads:
            self.rewind()
        if seek_to is not None:
            try:
                self.container.seek(seek_to, stream=self.stream, backward=True)
            except av.FFmpegError:
                return
        packets = self.packets()
        if seek_to is not None and table is not None:
            first = next(packets, None)
            # Formats that count their frames (avi, mxf) name other times after a seek, where frames were lost before.
            known = (table.places or {}).get(first.pts) if first is not None and first.pts is not None else None
            if first is None or known != (first.pos, first.size):
                return
            packets = itertools.chain([first], packets)
        for packet in packets:
            yield from self._decode_packet(packet)
        yield from self._decode_packet(None)

    def _decode_packet(self, packet: av.Packet[VideoStream] | None) -> Iterator[VideoFrame]:
        try:
            pictures = self.stream.codec_context.decode(packet)
        except (av.FFmpegError, ValueError, MemoryError) as error:
            if self._threads > 1:
                raise _DamageError from error
            return
        for picture in pictures:
            if picture.is_corrupt and self._threads > 1:
                raise _DamageError
            yield picture


class _DamageError(Exception):
    """A packet did not decode while several threads were at work."""


class _Turn:
    """The quarter turn and mirroring that the display matrix of a phone video asks for."""

    def __init__(self, picture: VideoFrame) -> None:
        self.transposed, self.mirrored, self.flipped = False, False, False
        matrix: Any = picture.side_data.get("DISPLAYMATRIX")  # a buffer; the stubs know none of its kind
        if matrix is not None:
            # stored (x, y) is shown at (a x + c y, b x + d y)
            a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]
            self.transposed = bool(abs(b) > abs(a))
            self.mirrored, self.flipped = (bool(c < 0), bool(b < 0)) if self.transposed else (bool(a < 0), bool(d < 0))

    def displayed(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) on the other side of the turn, which is the same rule both ways."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, rgb: np.ndarray) -> np.ndarray:
        turned = rgb.swapaxes(0, 1) if self.transposed else rgb
        turned = turned[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1]
        return np.ascontiguousarray(turned)


def _open_container(path: Path, **more: str) -> InputContainer:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"} | more
    try:
        # An absolute path cannot be taken for a protocol ("a:b.mp4"). Metadata may be in any encoding.
        return av.open(str(path.absolute()), options=options, metadata_errors="ignore")
    except (av.FFmpegError, ValueError, MemoryError) as error:
        _refuse(path, f"is not a video that can be read ({_reason(error)})")


def _picture_stream(container: InputContainer, path: Path) -> VideoStream:
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover and _has_decoder(s)]
    if not streams:
        _refuse(path, "holds no video stream that can be decoded")
    stream = streams[0]
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        size = f"{stream.codec_context.width}x{stream.codec_context.height}"
        _refuse(path, f"has frames of {size}, above the limit of {MAX_PIXELS} pixels")
    return stream


def _has_decoder(stream: VideoStream) -> bool:
    context: av.VideoCodecContext | None = stream.codec_context  # None for a codec that FFmpeg does not know
    return context is not None


def _table_of_packets(decoder: _Decoder) -> FrameTable | None:
    """The table from the packets' own times, or None where they do not tell the frames apart."""
    if decoder.container.format.name in ORDER_OF_DECODING and decoder.stream.codec_context.has_b_frames:
        return None
    hides_frames = decoder.stream.codec_context.name == "vp8"
    keys: list[int] = []
    places: dict[int, tuple[int | None, int]] = {}
    ascending, latest = True, None
    for packet in decoder.packets():
        # Edit lists cut frames off that are decoded all the same; a VP8 packet may be a reference that is never shown.
        if packet.is_discard or (hides_frames and not memoryview(packet)[0] >> 4 & 1):
            continue
        if packet.pts is None or packet.pts in places:
            return None
        places[packet.pts] = (packet.pos, packet.size)
        ascending, latest = ascending and (latest is None or latest < packet.pts), packet.pts
        if packet.is_keyframe:
            keys.append(packet.pts)
    if ascending and decoder.stream.codec_context.has_b_frames and not _shown_as_stamped(decoder.path):
        return None
    stamps = sorted(places)
    return FrameTable(stamps, sorted(bisect.bisect_left(stamps, key) for key in keys), places) if stamps else None


def _shown_as_stamped(path: Path) -> bool:
    """Whether the first pictures come out in the order of their times: not so where a muxer lost how they reorder."""
    decoder = _Decoder(path, threads=1)
    stamps = [picture.pts for picture in itertools.islice(decoder.all_pictures(), PROBED)]
    decoder.close()
    return all(a is None or b is None or a < b for a, b in itertools.pairwise(stamps))


def _table_of_pictures(path: Path) -> FrameTable:
    """The table from decoding everything, in the order of output. Times that do not ascend become a steady rate."""
    decoder = _Decoder(path, threads=1)
    stamps = [picture.pts for picture in decoder.all_pictures()]
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps) or any(a >= b for a, b in itertools.pairwise(known)):
        # The guess knows what a stream without a container says of itself; the average is then the demuxer's default.
        rate = decoder.stream.guessed_rate or decoder.stream.average_rate or Fraction(DEFAULT_FPS)
        step = max(1, round(1 / (rate * (decoder.stream.time_base or 1 / rate))))
        known = [k * step for k in range(len(stamps))]
    decoder.close()
    return FrameTable(known, keys=[], places=None)


def _missing_frames(path: Path, announced: int) -> int:
    """How many of the frames that the header announces are not in the file.

    Not missing: what an edit list cuts off, and the pauses that AVI counts as frames.
    """
    decoder = _Decoder(path, threads=1, ignore_editlist="1")
    counts_pauses = decoder.container.format.name == "avi"
    count = 0
    for packet in decoder.packets():
        count += 1
        if counts_pauses and packet.dts is not None:
            count = max(count, packet.dts + 1)
    decoder.close()
    return announced - count


def _index(stamps: list[int], stamp: int | None) -> int | None:
    if stamp is None:
        return None
    k = bisect.bisect_left(stamps, stamp)
    return k if k < len(stamps) and stamps[k] == stamp else None


def _square_pixels(picture: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """(height, width) of a stored picture once its pixels are square: the width is stretched, as players do."""
    ratio = stream.sample_aspect_ratio
    if not ratio or not Fraction(1, 8) < ratio < 8:  # absent, or nonsense of a damaged header
        ratio = Fraction(1)
    return picture.height, max(1, round(picture.width * ratio))


def _refuse(path: Path, what: str) -> NoReturn:
    raise InputError(path, what, "give a video file (mp4, mov, mkv, webm, avi, gif, ...) or a folder of frames")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
