"""What image files hold that may hold several pictures: TIFF with pages, animated PNG and WebP. From headers alone.

Not asked of Pillow, which takes milliseconds a page to list those of a TIFF, and reads a whole WebP to count.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from vcorr.errors import InputError

STACK_SUFFIXES = frozenset([".tif", ".tiff", ".png", ".apng", ".webp"])
MAX_PAGES = 1_000_000

_TIFF = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
_PNG = b"\x89PNG\r\n\x1a\n"
_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _DESCRIPTION = 254, 255, 256, 257, 270  # tags
_BYTES = {2: 1, 3: 2, 4: 4, 16: 8}  # of a value, by the number of its type: text and unsigned integers
_IMAGES = re.compile(r"\AImageJ=.*^images=(\d+)", re.MULTILINE | re.DOTALL)  # in a description
_COPY = 0b101  # bits of _SUBFILE: a smaller copy of another page, a mask of its transparency


@dataclass(frozen=True)
class Pages:
    """The pictures of a file, without thumbnails, smaller copies and masks of another one.

    Attributes:
        places: of each, what Pillow finds it by: the byte offset of a TIFF's directory, the number of a WebP's frame.
        seconds: how long each is shown; None of a TIFF, which carries no time.
        whole: whether the file holds all that it announces.
        sizes: (width, height) of each page of a TIFF, as stored; empty of a WebP, whose pictures have one size.
        description: what the program that wrote a TIFF notes of it.
    """

    places: list[int]
    seconds: list[float] | None = None
    whole: bool = True
    sizes: list[tuple[int, int]] = field(default_factory=list)
    description: str = ""


def is_stack(path: Path) -> bool:
    """Whether an image file holds several pictures; False of what cannot be read."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        pages = find_pages(path)
        return is_animated_png(path) if pages is None else len(pages.places) > 1
    except InputError:  # for whoever opens it to tell
        return True
    except OSError:
        return False


def find_pages(path: Path) -> Pages | None:
    """The pictures of a TIFF or WebP file; None of any other.

    Raises:
        OSError: it cannot be read.
        InputError: it has more than `MAX_PAGES`, or they cannot be found.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] in _TIFF:
            return _tiff_pages(file, path)
        return _webp_frames(file) if head[:4] == b"RIFF" and head[8:] == b"WEBP" else None


def is_animated_png(path: Path) -> bool:
    """Whether a file is a PNG that says, as it must before its pixels, that it has several frames.

    Raises:
        OSError: it cannot be read.
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


def page_of_tiff(file: BinaryIO, place: int) -> BinaryIO:
    """The file as one that begins with the page at a place: for Pillow, which otherwise goes through all before it."""
    file.seek(0)
    order, big = _TIFF[file.read(4)]
    file.seek(0)
    head = file.read(8) + struct.pack(order + "Q", place) if big else file.read(4) + struct.pack(order + "I", place)
    return cast(BinaryIO, _Patched(file, head))


class _Patched(io.RawIOBase):
    """An open file with other bytes at its beginning. Closing it leaves the file open."""

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        self._file, self._head = file, head
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        data = self._file.read(size)
        return (self._head[start : start + len(data)] + data[max(0, len(self._head) - start) :]) if data else data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


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
    except struct.error:  # a recording that was cut off, or damage
        whole = False
    images = _IMAGES.search(description)
    if len(places) == 1 and images and int(images[1]) > 1:
        what = f"holds {images[1]} pictures in a form that ImageJ alone reads (it writes it above 4 GB)"
        raise InputError(path, what, "save it from ImageJ as an image sequence")
    if sizes[1:] and sizes.count(sizes[0]) == 1:  # the others are copies of it that are not marked as such
        places, sizes = places[:1], sizes[:1]
    return Pages(places, None, whole, sizes, description)


def _directories(file: BinaryIO) -> Iterator[tuple[int, dict[int, bytes]]]:
    """(offset, tags of interest) of each directory of a TIFF, in order; values big-endian.

    Raises:
        struct.error: the file ends in one, or before it.
    """
    file.seek(0)
    order, big = _TIFF[file.read(4)]
    link, count_kind, size = (order + "Q", order + "Q", 20) if big else (order + "I", order + "H", 12)
    file.seek(8 if big else 4)
    (offset,) = struct.unpack(link, file.read(struct.calcsize(link)))
    seen = set()
    while offset and offset not in seen:  # a circle is an end
        seen.add(offset)
        file.seek(min(offset, 2**63 - 1))
        (count,) = struct.unpack(count_kind, file.read(struct.calcsize(count_kind)))
        table = file.read(size * min(count, 2**16))
        place, (offset,) = offset, struct.unpack(link, file.read(struct.calcsize(link)))
        tags = {}
        for entry in range(0, len(table), size):
            tag, kind = struct.unpack_from(order + "HH", table, entry)
            if tag in (_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _DESCRIPTION) and kind in _BYTES:
                tags[tag] = _value(file, table[entry + 4 : entry + size], kind, order, big)
        yield place, tags


def _value(file: BinaryIO, rest: bytes, kind: int, order: str, big: bool) -> bytes:
    """What an entry of a directory holds, or leads to: the bytes of a text, or of its first number, big-endian."""
    number = order + ("Q" if big else "I")
    (count,) = struct.unpack_from(number, rest)
    field = rest[struct.calcsize(number) :]
    if kind != 2:
        value = field[: _BYTES[kind]]
        return value if order == ">" else value[::-1]
    if count <= len(field):
        return field[:count]
    (place,) = struct.unpack(number, field)
    file.seek(min(place, 2**63 - 1))
    return file.read(min(count, 2**16))


def _webp_frames(file: BinaryIO) -> Pages:
    seconds = []
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        body = file.read(16) if kind == b"ANMF" else b""
        if len(body) == 16:
            seconds.append(int.from_bytes(body[12:15], "little") / 1000)
        file.seek(length + length % 2 - len(body), io.SEEK_CUR)
    return Pages([*range(len(seconds))], seconds) if len(seconds) > 1 else Pages([0])
