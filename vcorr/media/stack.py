"""Reads one image file as a video: the pages of a TIFF, the frames of an animated WebP.

An animated PNG is read as a video file: FFmpeg composes its frames by the specification.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from vcorr.errors import InputError
from vcorr.files import sha256
from vcorr.media.folder import FOLDER_FPS
from vcorr.media.image import displayed_size, is_deep, open_image, pixels_of, shrink, to_rgb
from vcorr.media.levels import SharedScale
from vcorr.media.pages import Pages, animation_up_to, find_pages, page_of_tiff

# The numbers of channels, slices and times that ImageJ and OME state in the first page of a TIFF.
_CHANNELS = r'^channels=(\d+)|\bSizeC="(\d+)"'
_SLICES = r'^slices=(\d+)|\bSizeZ="(\d+)"'
_TIMES = r'^frames=(\d+)|\bSizeT="(\d+)"'


class Stack:
    """The pictures of one file, in order. Opening reads headers; later one picture at a time.

    Raises:
        InputError: the pictures differ in size, or are the channels of a microscope image, or slices at several times.
    """

    files = None
    names = None

    def __init__(self, path: Path) -> None:
        pages = find_pages(path)
        if pages is None or not pages.places:
            raise InputError(path, "holds no picture that can be read", "export it again")
        _refuse_several_dimensions(path, pages)
        self._path, self._pages = path, pages
        self._reader = _Reader(path, pages)
        with self._reader.opened(0) as (first, _):
            self.height, self.width = displayed_size(first)
            deep = is_deep(first)
        for number, size in enumerate(pages.sizes):
            if size != pages.sizes[0]:
                (width, height), (w, h) = pages.sizes[0], size
                what = f"its picture 0 is {width}x{height}, but picture {number} is {w}x{h}"
                raise InputError(path, what, "the frames of a video have one size: export those of one size")
        self.fps, self.pts = _times(pages)
        self._scale = SharedScale(len(pages.places), self._deep_pixels)
        lost = f": {pages.missing} bytes are missing" if pages.missing else ""
        notes = [] if pages.whole else [f"the file ends early, after {len(pages.places)} pictures{lost}"]
        if deep:
            self._scale.get()
            notes += [note] if (note := self._scale.note()) else []
        self.notes = tuple(f"{path}: {note}" for note in notes)

    def __len__(self) -> int:
        return len(self._pages.places)

    def seconds(self, k: int) -> float:
        return k / self.fps if self.pts is None else self.pts[k] / 1000

    def fingerprint(self) -> str:
        return sha256(self._path)

    def walk(self, start: int, size: tuple[int, int]) -> Iterator[tuple[int, Callable[[], np.ndarray], bool]]:
        """See `VideoFile.walk`. Skips pictures that do not decode."""
        reader = _Reader(self._path, self._pages)
        try:
            first = start
            while first and self._rgb(reader, first, size) is None:
                first -= 1
            for k in range(first, len(self)):
                rgb = self._rgb(reader, k, size)
                if rgb is not None:
                    yield k, rgb.copy, True
        finally:
            reader.close()

    def picture(self, k: int, size: tuple[int, int]) -> np.ndarray | None:
        return self._rgb(self._reader, k, size)

    def close(self) -> None:
        self._reader.close()

    def _rgb(self, reader: _Reader, k: int, size: tuple[int, int]) -> np.ndarray | None:
        try:
            pixels = reader.pixels(k)
        except InputError:
            return None
        if pixels.shape[:2] != (self.height, self.width):  # its orientation differs from the first one's
            return None
        return shrink(to_rgb(pixels, None if pixels.dtype == np.uint8 else self._scale.get()), size)

    def _deep_pixels(self, k: int) -> np.ndarray | None:
        try:
            with self._reader.opened(k) as (image, encoded):
                pixels = pixels_of(image, self._path, encoded) if is_deep(image) else None
        except InputError:
            return None
        return None if pixels is None or pixels.dtype == np.uint8 else pixels


class _Reader:
    """The pictures of a file that stays open. Not thread-safe."""

    def __init__(self, path: Path, pages: Pages) -> None:
        self._path, self._pages = path, pages
        self._file = path.open("rb")
        self._close = weakref.finalize(self, self._file.close)  # without a ResourceWarning, as for video files
        # Frames of an animation depend on earlier ones, so it stays open; pages are opened one by one.
        self._animation = None
        if pages.seconds is not None:
            content = self._file if pages.whole else io.BytesIO(animation_up_to(self._file, pages.end))
            self._animation = open_image(path, content=content)

    @contextlib.contextmanager
    def opened(self, k: int) -> Iterator[tuple[Image.Image, bytes | None]]:
        """Opens picture k without decoding it. Yields it and the bytes of its page; None for an animation.

        Raises:
            InputError: it cannot be read.
        """
        place = self._pages.places[k]
        try:
            if self._animation is None:
                encoded = page_of_tiff(self._file, place)
            else:
                self._animation.seek(place)
        except Exception as error:  # decoders raise any exception on hostile files
            raise InputError(self._path, f"has a damaged picture {k} ({error})", "export it again") from error
        if self._animation is not None:
            yield self._animation, None
            return
        with open_image(self._path, ("TIFF",), io.BytesIO(encoded)) as page:
            yield page, encoded

    def pixels(self, k: int) -> np.ndarray:
        """`image.read_pixels` for picture k."""
        with self.opened(k) as (image, encoded):
            return pixels_of(image, self._path, encoded)

    def close(self) -> None:
        self._close()


def _times(pages: Pages) -> tuple[float, list[int] | None]:
    """Returns frames per second, and the start of each frame in milliseconds; None without usable times."""
    if pages.seconds is not None:
        *starts, end = (round(1000 * time) for time in itertools.accumulate(pages.seconds, initial=0.0))
        if all(a < b for a, b in itertools.pairwise([*starts, end])):
            return 1000 * len(starts) / end, starts
    return FOLDER_FPS, None


def _refuse_several_dimensions(path: Path, pages: Pages) -> None:
    """Refuses pages that ImageJ or OME describe as channels, or as slices at several times."""
    channels, slices, times = (
        int(found.group(found.lastindex or 0)) if (found := re.search(pattern, pages.description, re.MULTILINE)) else 1
        for pattern in (_CHANNELS, _SLICES, _TIMES)
    )
    if channels * slices * times != len(pages.places):
        return  # the channels of one picture, or an outdated description
    if channels > 1:
        what = f"holds {channels} channels in turn, one a page"
        raise InputError(path, what, "save one channel, or a colour picture of all, as a file of its own")
    if slices > 1 and times > 1:
        what = f"holds {slices} slices of each of {times} times"
        raise InputError(path, what, "save one slice, or a projection, as a file of its own")
