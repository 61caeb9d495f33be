"""The pauses in the edit list of an MP4 or MOV file: times at which nothing is shown.

An edit without media after the first one is a pause. FFmpeg shows pictures from the start of the media there again.

    moov/mvhd, moov/trak/tkhd, moov/trak/mdia/mdhd, moov/trak/edts/elst     ISO/IEC 14496-12, 8.2, 8.3, 8.4.2, 8.6.6
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vcorr.media.decoder import FrameTable

MOST = 2**28  # bytes of a header that are read; those of a film of hours take a few MB
Span = tuple[int, int]


def without_pauses(table: FrameTable, path: Path, track: int) -> FrameTable:
    """The table without the frames that FFmpeg shows in pauses of a track."""
    spans = pauses(path, track)
    kept = [stamp for stamp in table.pts if not any(first <= stamp < end for first, end in spans)]
    if not spans or len(kept) == len(table.pts):
        return table
    place = {stamp: k for k, stamp in enumerate(kept)}
    keys = [place[table.pts[k]] for k in table.keys if table.pts[k] in place]
    return replace(table, pts=kept, keys=keys)


def pauses(path: Path, track: int) -> list[Span]:
    """First time of each pause of a track and the time after it, in ticks of the track; none if nothing says so."""
    try:
        return list(_spans(_header(path), track))
    except (OSError, struct.error, ValueError):  # a damaged header
        return []


def _spans(header: bytes, track: int) -> Iterator[Span]:
    movie = _ticks(_only(header, b"mvhd"))
    for kind, trak in _boxes(header):
        if kind != b"trak" or _number(_only(trak, b"tkhd")) != track:
            continue
        media = _ticks(_only(_only(trak, b"mdia"), b"mdhd"))
        edits = list(_edits(_only(_only(trak, b"edts"), b"elst")))
        first = next((k for k, (_, start) in enumerate(edits) if start != -1), len(edits))
        time = 0
        for k, (duration, start) in enumerate(edits):
            end = time + (2 * duration * media + movie) // (2 * movie)  # to the nearest tick, as FFmpeg rounds
            if start == -1 and k > first:
                yield time, end
            time = end


def _header(path: Path) -> bytes:
    """The box ``moov`` of a file, without its head."""
    with path.open("rb") as file:
        while head := file.read(8):
            size, kind = struct.unpack(">I4s", head)
            inner = size - 8
            if size == 1:
                inner = struct.unpack(">Q", file.read(8))[0] - 16
            if kind == b"moov" and 0 <= inner <= MOST:
                return file.read(inner)
            if inner < 0:  # 0: to the end of the file
                break
            file.seek(inner, 1)
    raise ValueError("no header")


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the boxes that follow one another."""
    place = 0
    while place + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        if size < 8:
            raise ValueError(f"a box of {size} bytes")
        yield kind, content[place + 8 : place + size]
        place += size


def _only(content: bytes, kind: bytes) -> bytes:
    for found, inner in _boxes(content):
        if found == kind:
            return inner
    raise ValueError(f"no {kind.decode()}")


def _ticks(box: bytes) -> int:
    """Ticks a second, of mvhd or mdhd: behind two times of 4 bytes, or of 8 from version 1 on."""
    (ticks,) = struct.unpack_from(">I", box, 20 if box[:1] == b"\x01" else 12)
    if not ticks:
        raise ValueError("no ticks")
    return int(ticks)


def _number(box: bytes) -> int:
    """The number of a track, of tkhd."""
    (number,) = struct.unpack_from(">I", box, 20 if box[:1] == b"\x01" else 12)
    return int(number)


def _edits(box: bytes) -> Iterator[tuple[int, int]]:
    """(duration in ticks of the film, first time in ticks of the track, -1 for none) of each edit."""
    (count,) = struct.unpack_from(">I", box, 4)
    form = ">QqI" if box[:1] == b"\x01" else ">IiI"
    for k in range(min(count, len(box) // struct.calcsize(form))):
        duration, start, _ = struct.unpack_from(form, box, 8 + k * struct.calcsize(form))
        yield int(duration), int(start)
