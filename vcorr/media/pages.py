"""Lists the pictures of files that can hold several: TIFF with pages, animated PNG and WebP. Reads headers only.

Pillow is too slow for this: it takes milliseconds for each page of a TIFF, and reads a whole WebP to count its frames.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from vcorr.errors import InputError

STACK_SUFFIXES = frozenset([".tif", ".tiff", ".png", ".apng", ".webp"])
MAX_PAGES = 1_000_000

_TIFF = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
_PNG = b"\x89PNG\r\n\x1a\n"
_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _DESCRIPTION = _OF_INTEREST = (254, 255, 256, 257, 270)  # tags
_DATA = ((273, 279), (324, 325))  # tags of the offsets and lengths of strips and tiles
_ELSEWHERE = (330, 34665, 34853)  # tags of other directories: further pictures, EXIF, GPS
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}  # kind of value -> size
_UNSIGNED = {1: "B", 3: "H", 4: "I", 16: "Q"}  # kind of unsigned integer -> format of struct
_LONGEST = 2**26  # bytes of the values of an entry
_FAR = 2**63 - 1  # the largest offset in a file
_IMAGES = re.compile(r"\AImageJ=.*^images=(\d+)", re.MULTILINE | re.DOTALL)  # in a description
_COPY = 0b101  # bits of _SUBFILE: a smaller copy of another page, or its transparency mask


@dataclass(frozen=True)
class Pages:
    """The pictures of a file, without thumbnails, smaller copies and masks of other pictures.

    Attributes:
        places: the byte offset of each directory of a TIFF, or the index of each frame of a WebP.
        seconds: how long each picture is displayed; None for a TIFF, which has no times.
        whole: whether the file is complete.
        sizes: (width, height) of each page of a TIFF as stored; empty for a WebP, whose pictures have one size.
        description: the description that a TIFF states.
        missing: bytes by which a WebP is too short.
        end: the byte offset of the end of the last complete picture of an animation.
    """

    places: list[int]
    seconds: list[float] | None = None
    whole: bool = True
    sizes: list[tuple[int, int]] = field(default_factory=list)
    description: str = ""
    missing: int = 0
    end: int = 0


def is_stack(path: Path) -> bool:
    """Whether an image file holds several pictures; False if it cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would block
            return False
        pages = find_pages(path)
        return is_animated_png(path) if pages is None else len(pages.places) > 1
    except InputError:  # opening it will report the error
        return True
    except OSError:
        return False


def find_pages(path: Path) -> Pages | None:
    """Lists the pictures of a TIFF or WebP file; None for other files.

    Raises:
        OSError: the file cannot be read.
        InputError: it has more than `MAX_PAGES` pages, or they cannot be found.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] in _TIFF:
            return _tiff_pages(file, path)
        return _webp_frames(file) if head[:4] == b"RIFF" and head[8:] == b"WEBP" else None


def is_animated_png(path: Path) -> bool:
    """Whether a file is a PNG whose header announces several frames.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if file.read(8) != _PNG:
            return False
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"acTL":
                return int.from_bytes(file.read(4), "big") > 1
            if kind == b"IDAT":
                return False
            file.seek(length + 4, io.SEEK_CUR)
    return False


def page_of_tiff(file: BinaryIO, place: int) -> bytes:
    """A page of a TIFF or BigTIFF as a classic TIFF of its own, so that decoders need not search the file.

    Raises:
        ValueError: the page is truncated or damaged.
    """
    try:
        return _page_of_tiff(file, place)
    except (struct.error, KeyError, IndexError, OverflowError, OSError) as error:
        raise ValueError("its directory cannot be read") from error


def animation_up_to(file: BinaryIO, end: int) -> bytes:
    """The pictures of an animated WebP up to a byte, as a file of its own: decoders refuse a truncated file."""
    file.seek(0)
    content = bytearray(file.read(end))
    struct.pack_into("<I", content, 4, len(content) - 8)
    return bytes(content)


def _page_of_tiff(file: BinaryIO, place: int) -> bytes:
    file.seek(0)
    order, big = _TIFF[file.read(4)]
    end = file.seek(0, io.SEEK_END)
    entries, _ = _entries(file, place, order, big)
    page = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    fields: dict[int, tuple[int, bytes]] = {}
    for tag, kind, count, rest in entries:
        if kind in _BYTES and tag not in _ELSEWHERE:
            fields[tag] = (kind, _content(file, kind, count, rest, order, big))
    for offsets, lengths in _DATA:
        if offsets in fields:
            starts = _numbers(*fields[offsets], order)
            parts = _numbers(*fields.get(lengths, (4, b"")), order)
            if len(parts) != len(starts) or 0 in parts:  # each then extends to the next one
                parts = [min([end, *(other for other in starts if other > start)]) - start for start in starts]
            if sum(parts) > end:
                raise ValueError("its parts are larger than the file")
            moved = []
            for start, length in zip(starts, parts, strict=True):
                file.seek(start)
                moved.append(len(page))
                page += file.read(length)
            fields[offsets] = (4, struct.pack(f"{order}{len(moved)}I", *moved))
            fields[lengths] = (4, struct.pack(f"{order}{len(parts)}I", *parts))
    table = bytearray(struct.pack(order + "H", len(fields)))
    for tag, (kind, content) in sorted(fields.items()):
        if kind == 16:  # classic TIFF lacks it
            kind, content = 4, struct.pack(f"{order}{len(content) // 8}I", *_numbers(16, content, order))
        table += struct.pack(order + "HHI", tag, kind, len(content) // _BYTES[kind])
        if len(content) > 4:
            page += bytes(len(page) % 2)
            table += struct.pack(order + "I", len(page))
            page += content
        else:
            table += content.ljust(4, b"\0")
    page += bytes(len(page) % 2)
    struct.pack_into(order + "I", page, 4, len(page))
    return bytes(page + table + bytes(4))


def _numbers(kind: int, content: bytes, order: str) -> list[int]:
    return list(struct.unpack(f"{order}{len(content) // _BYTES[kind]}{_UNSIGNED[kind]}", content))


def _tiff_pages(file: BinaryIO, path: Path) -> Pages:
    places: list[int] = []
    sizes: list[tuple[int, int]] = []
    description, whole = "", True
    try:
        for number, (place, tags) in enumerate(_directories(file)):
            if number == MAX_PAGES:
                raise InputError(path, f"has more than {MAX_PAGES} pages", "split it")
            if number == 0:
                description = tags.get(_DESCRIPTION, b"").decode("utf-8", "replace")
            numbers = {tag: int.from_bytes(value, "big") for tag, value in tags.items()}
            if numbers.get(_SUBFILE, 0) & _COPY or numbers.get(_OLD_SUBFILE) == 2:
                continue
            places.append(place)
            sizes.append((numbers.get(_WIDTH, 0), numbers.get(_HEIGHT, 0)))
    except struct.error:  # the recording was cut off, or the file is damaged
        whole = False
    images = _IMAGES.search(description)
    if len(places) == 1 and images and int(images[1]) > 1:
        what = f"holds {images[1]} pictures in a form that ImageJ alone reads (it writes it above 4 GB)"
        raise InputError(path, what, "save it from ImageJ as an image sequence")
    if sizes[1:] and sizes.count(sizes[0]) == 1:  # the others are unmarked copies of the first
        places, sizes = places[:1], sizes[:1]
    return Pages(places, None, whole, sizes, description)


def _directories(file: BinaryIO) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Yields (offset, tags of interest) of each directory of a TIFF, in order; numbers big-endian, the first of each.

    Raises:
        struct.error: the file ends within a directory or before it.
    """
    file.seek(0)
    order, big = _TIFF[file.read(4)]
    file.seek(8 if big else 4)
    link = order + ("Q" if big else "I")
    (following,) = struct.unpack(link, file.read(struct.calcsize(link)))
    seen: set[int] = set()
    while following and following not in seen:  # a cycle ends the list
        seen.add(place := following)
        entries, following = _entries(file, place, order, big)
        tags = {}
        for tag, kind, count, rest in entries:
            if tag in _OF_INTEREST and kind in _BYTES:
                content = _content(file, kind, count, rest, order, big)
                number = content[: _BYTES[kind]]
                tags[tag] = content if kind == 2 else number if order == ">" else number[::-1]
        yield place, tags


Entry = tuple[int, int, int, bytes]
"""Tag, kind and number of values, and the bytes of the values or of their offset."""


def _entries(file: BinaryIO, place: int, order: str, big: bool) -> tuple[list[Entry], int]:
    """Reads the entries of a directory, and the offset of the next one."""
    count_kind, size, link = (order + "Q", 20, order + "Q") if big else (order + "H", 12, order + "I")
    file.seek(min(place, _FAR))
    (count,) = struct.unpack(count_kind, file.read(struct.calcsize(count_kind)))
    table = file.read(size * min(count, 2**16))
    (following,) = struct.unpack(link, file.read(struct.calcsize(link)))
    head = order + ("HHQ" if big else "HHI")
    rows = (table[k : k + size] for k in range(0, len(table), size))
    return [(*struct.unpack(head, row[: struct.calcsize(head)]), row[-8 if big else -4 :]) for row in rows], following


def _content(file: BinaryIO, kind: int, count: int, rest: bytes, order: str, big: bool) -> bytes:
    """Reads the bytes of the values of an entry."""
    size = count * _BYTES[kind]
    if size <= len(rest):
        return rest[:size]
    file.seek(min(struct.unpack(order + ("Q" if big else "I"), rest)[0], _FAR))
    content = file.read(min(size, _LONGEST))
    if len(content) < size:
        raise struct.error("a value is cut short")
    return content


def _webp_frames(file: BinaryIO) -> Pages:
    length_of_file = file.seek(0, io.SEEK_END)
    file.seek(4)
    announced = 8 + int.from_bytes(file.read(4), "little")
    seconds, end = [], 12
    file.seek(end)
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        body = file.read(16) if kind == b"ANMF" else b""
        if end + 8 + length > length_of_file:
            break
        if len(body) == 16:
            seconds.append(int.from_bytes(body[12:15], "little") / 1000)
        end = file.seek(end + 8 + length + length % 2)
    missing = max(0, announced - length_of_file)
    if len(seconds) > 1:
        return Pages([*range(len(seconds))], seconds, whole=not missing, missing=missing, end=end)
    return Pages([0], whole=not missing, missing=missing)
