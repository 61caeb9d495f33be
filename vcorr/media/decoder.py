"""Decodes a video file from any frame on, in display order and past damage."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vcorr.errors import InputError
from vcorr.machine import cores
from vcorr.media.image import MAX_PIXELS

# Formats that contain video. Playlists (ffconcat, m3u8, mpd) and image patterns are left out: they open other files.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,mpegts,mpeg,mxf,ogg,flv,asf,nut,dv,ivf,yuv4mpegpipe,"
    "h264,hevc,vvc,mpegvideo,m4v,mjpeg,vc1,obu"  # streams without a container
)
# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".vob", ".mts", ".m2ts",
    ".ts", ".mxf", ".ogv", ".ogg", ".flv", ".f4v", ".asf", ".wmv", ".nut", ".dv", ".ivf", ".y4m", ".apng",
    ".h264", ".264", ".avc", ".hevc", ".h265", ".265", ".h266", ".266", ".vvc", ".m2v", ".m1v", ".mjpeg", ".mjpg",
    ".vc1", ".obu",
])
# fmt: on
MAX_THREADS = 4  # each decoding thread holds frames of its own


@dataclass(frozen=True)
class FrameTable:
    """The frames of a file.

    Attributes:
        pts: time stamps, ascending.
        keys: frames at which decoding can start, ascending.
        places: byte offset and length of the packet of each time stamp; None if the packets lack usable time stamps.
    """

    pts: list[int]
    keys: list[int]
    places: dict[int, tuple[int | None, int]] | None


def can_decode(codec: str) -> bool:
    """Whether this FFmpeg decodes a codec, such as h264 or prores."""
    try:
        av.codec.Codec(codec, "r")
    except ValueError:
        return False
    return True


class Decoder:
    """An open container that decodes from any frame on. Only the latest `pictures` may be iterated.

    Args:
        path: of the file.
        threads: at most so many decode.
        edits: obey the edit list of an MP4 or MOV file.
    """

    def __init__(self, path: Path, threads: int = MAX_THREADS, *, edits: bool = True) -> None:
        self.path, self._options = path, {} if edits else {"ignore_editlist": "1"}
        self._threads = min(threads, cores())
        self._open()

    def _open(self) -> None:
        self.container = _open_container(self.path, **self._options)
        self.stream, self.streams = _picture_stream(self.container, self.path)
        self.stream.codec_context.thread_type = "AUTO"
        self.stream.codec_context.thread_count = self._threads
        self.stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}

    def close(self) -> None:
        self.container.close()

    def rewind(self) -> None:
        self.close()
        self._open()

    def packets(self) -> Iterator[av.Packet[VideoStream]]:
        """Yields the packets of the stream, up to the end of the file or the first error."""
        demuxer = self.container.demux(self.stream)
        while True:
            try:
                packet = next(demuxer, None)
            except av.FFmpegError:
                return
            except IndexError:  # PyAV found a stream that the header does not announce
                demuxer = self.container.demux(self.stream)
                continue
            if packet is None:
                return
            if packet.size:
                yield packet

    def pictures(self, table: FrameTable, start: int) -> Iterator[tuple[int, VideoFrame]]:
        """Yields (index, picture) from `start` on. If `start` does not decode, the picture before it comes first."""
        before: tuple[int, VideoFrame] | None = None
        due = start
        for seek_to in self._entries(table, start):
            for k, picture in self._indexed(table, seek_to):
                if k < due:
                    before = (k, picture)
                    continue
                if seek_to is not None and (k > due or (k == start and picture.is_corrupt)):
                    break  # a gap after a seek may come from seeking too late: seek earlier before calling it damage
                if k > start == due and before is not None:
                    yield before
                yield k, picture
                due = k + 1
            if due == len(table.pts):
                return
        if due == start and before is not None:
            yield before

    def all_pictures(self) -> Iterator[VideoFrame]:
        """Yields all pictures that decode. Only for a decoder of one thread (see `_indexed`)."""
        return self._decode(None, None)

    def _entries(self, table: FrameTable, start: int) -> Iterator[int | None]:
        """Yields where to seek to reach `start`: its key frame, the one before it, the start of the file (None)."""
        keys = table.keys[: bisect.bisect_right(table.keys, start)]
        if keys and keys[-1] > 0:
            yield table.pts[start]
        if len(keys) > 1 and keys[-2] > 0:
            yield table.pts[keys[-2]]
        yield None

    def _indexed(self, table: FrameTable, seek_to: int | None) -> Iterator[tuple[int, VideoFrame]]:
        """Yields (index, picture) in order. On damage it starts again with one thread: several drop good pictures."""
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
            # avi and mxf count their frames: if frames are missing, time stamps after a seek differ from the table's.
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


def _open_container(path: Path, **more: str) -> InputContainer:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"} | more
    try:
        # FFmpeg cannot mistake an absolute path for a protocol ("a:b.mp4"). Metadata may have any encoding.
        return av.open(str(path.absolute()), options=options, metadata_errors="ignore")
    except (av.FFmpegError, ValueError, MemoryError) as error:
        refuse(path, f"is not a video that can be read ({_reason(error)})")


def _picture_stream(container: InputContainer, path: Path) -> tuple[VideoStream, int]:
    """Returns the stream with the largest pictures, the first of equals, as players do; and the number of streams."""
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover and _has_decoder(s)]
    if not streams:
        refuse(path, "holds no video stream that can be decoded")
    stream = max(streams, key=lambda s: s.codec_context.width * s.codec_context.height)
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        size = f"{stream.codec_context.width}x{stream.codec_context.height}"
        refuse(path, f"has frames of {size}, above the limit of {MAX_PIXELS} pixels")
    return stream, len(streams)


def _has_decoder(stream: VideoStream) -> bool:
    context: av.VideoCodecContext | None = stream.codec_context  # None for an unknown codec
    return context is not None


def _index(stamps: list[int], stamp: int | None) -> int | None:
    if stamp is None:
        return None
    k = bisect.bisect_left(stamps, stamp)
    return k if k < len(stamps) and stamps[k] == stamp else None


def refuse(path: Path, what: str) -> NoReturn:
    raise InputError(path, what, "give a video file (mp4, mov, mkv, webm, avi, gif, ...) or a folder of frames")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
