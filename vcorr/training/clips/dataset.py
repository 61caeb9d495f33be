"""Finds and counts the videos of a training folder, and decodes their frames no more often than necessary."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcorr.errors import InputError
from vcorr.media.decoder import VIDEO_SUFFIXES
from vcorr.media.folder import Stills, frame_files
from vcorr.media.image import displayed_size, open_image, shrink, shrunk_size
from vcorr.media.pages import STACK_SUFFIXES, is_stack
from vcorr.media.video import Video, open_video

Picture = NDArray[np.uint8]

OPEN = 8  # open video files: each holds a few frames for each thread of its decoder


@dataclass(frozen=True)
class Source:
    """One video.

    Attributes:
        path: video file, or folder of frames.
        stills: the frame files in order; None for a video file.
        frames: the number of frames.
        height, width: in pixels; of a folder, those of the first readable frame.
        image: whether it is a still image.
    """

    path: Path
    stills: tuple[Path, ...] | None
    frames: int
    height: int
    width: int
    image: bool = False


@dataclass(frozen=True)
class Dataset:
    """The videos of a folder, in the same order on every machine.

    Attributes:
        root: the folder.
        sources: its videos.
        skipped: path -> reason of what looks like video and was left out.
    """

    root: Path
    sources: tuple[Source, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Frames of all videos."""
        return sum(s.frames for s in self.sources)

    def as_stills(self) -> Dataset:
        """Turns each image file into a source; leaves out video files.

        Raises:
            InputError: there are only video files.
        """
        images = [image for source in self.sources for image in _images(source)]
        films = {str(s.path): "is a video, not a still image" for s in self.sources if s.stills is None}
        if not images:
            raise InputError(self.root, "holds no still images", "give a folder of images, or train another recipe")
        return Dataset(self.root, tuple(images), self.skipped | films)

    def with_stills(self, folders: Collection[str]) -> Dataset:
        """Turns each image file in folders of these names into a source; other folders stay videos."""
        parted = [_images(s) if s.path.name in folders else [s] for s in self.sources]
        return Dataset(self.root, tuple(source for part in parted for source in part), self.skipped)

    def fingerprint(self) -> str:
        """SHA-256 of the names of videos and frames below the root, frame counts, and sizes of video files in bytes.

        A moved or copied folder keeps its fingerprint. No picture is read.
        """
        digest = hashlib.sha256()
        for source in self.sources:
            names = [source.path.relative_to(self.root).as_posix()]
            names += [still.name for still in source.stills or ()]
            size = source.path.stat().st_size if source.stills is None else 0
            line = "\0".join([*names, str(source.frames), str(size)])
            digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()


def _images(source: Source) -> list[Source]:
    """The image files of a folder as sources; none for a video file."""
    return [Source(file, (file,), 1, source.height, source.width, image=True) for file in source.stills or ()]


def scan(root: str | Path) -> Dataset:
    """Finds the video files and frame folders at any depth. Skips hidden files and folders.

    Folders of indexed PNG files are masks and are left out, as are folders with two pictures of the same name, such as
    images and their masks.

    Raises:
        InputError: the folder does not exist, or holds nothing readable.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(root, "no such folder", "give a folder of videos and/or folders of frames")
    sources: list[Source] = []
    skipped: dict[str, str] = {}
    for path, stills in walk(root, skipped):
        try:
            sources.append(_video_file(path) if stills is None else frame_folder(path, stills))
        except InputError as error:
            skipped[str(path)] = error.what
    if not sources:
        found = "; ".join(f"{p}: {why}" for p, why in list(skipped.items())[:3]) or "no videos or frame folders"
        raise InputError(root, f"nothing to train on ({found})", "give a folder of videos and/or folders of frames")
    return Dataset(root, tuple(sources), skipped)


def walk(root: Path, skipped: dict[str, str]) -> Iterator[tuple[Path, list[Path] | None]]:
    """Yields what looks like video below a folder: (file, None), or (folder, its images in natural order).

    The order is the same on every machine. Only files that may hold several pictures are opened. Folders that cannot be
    listed are added to ``skipped``, path -> reason.
    """

    def unlisted(error: OSError) -> None:
        skipped[str(error.filename)] = f"cannot be listed ({error.strerror})"

    for name, subfolders, names in os.walk(root, onerror=unlisted, followlinks=True):
        folder = Path(name)
        subfolders[:] = [s for s in sorted(subfolders) if not s.startswith(".") and not _loops(folder / s, root)]
        files = [folder / name for name in sorted(names) if not name.startswith(".")]
        images = frame_files(files)
        stacks = {f for f in images if f.suffix.lower() in STACK_SUFFIXES and is_stack(f)}
        if stills := [f for f in images if f not in stacks]:
            yield folder, stills
        for file in files:
            if file in stacks or file.suffix.lower() in VIDEO_SUFFIXES:
                yield file, None


def _loops(folder: Path, root: Path) -> bool:
    """Whether a folder is a link to one above it, which would be followed without end."""
    if not folder.is_symlink():
        return False
    target = folder.resolve()
    return any(p.resolve() == target for p in folder.parents if p.is_relative_to(root))


def _video_file(path: Path) -> Source:
    if not path.is_file():
        raise InputError(path, "is no file", "check where it links to")
    with open_video(path) as video:
        return Source(path, None, len(video), video.height, video.width)


class MasksFound(InputError):
    """A folder holds label masks, not the frames of a video."""


def frame_folder(path: Path, stills: Sequence[Path]) -> Source:
    """A folder of frame files as a source; reads the header of the first readable one.

    Raises:
        MasksFound: its pictures are indexed.
        InputError: two files have the same name, or none can be read.
    """
    named: dict[str, Path] = {}
    for still in stills:
        if (other := named.setdefault(still.stem, still)) is not still:
            raise InputError(path, f"holds {other.name} and {still.name}, two files for one frame", "move one away")
    reason = ""
    for still in stills:
        try:
            with open_image(still) as image:
                if image.mode == "P" and image.format == "PNG":
                    raise MasksFound(path, "holds indexed pictures, which are masks", "move them away")
                return Source(path, tuple(stills), len(stills), *displayed_size(image))
        except InputError as error:
            if error.where == str(path):
                raise
            reason = reason or f"{still.name} {error.what}"
    raise InputError(path, f"no frame can be read ({reason})", "check the files")


class Frames:
    """Decoded frames by (source, index); keeps the most recently used ones up to a number of bytes.

    If all videos fit, each video file is decoded once, as a whole. If they do not, the frames of a clip are decoded
    together from the key frame before them, and the last few files stay open. Thread-safe; one thread at a time reads
    from a source.

    Args:
        sources: the videos.
        short_side: largest short side of the kept frames, in pixels.
        limit: bytes of the kept frames; one clip is always kept.

    Attributes:
        needed: bytes of all frames.
        fits: whether all frames fit.
        bytes: bytes of the kept frames.
    """

    def __init__(self, sources: Sequence[Source], short_side: int, limit: int) -> None:
        self._sources, self._short_side, self._limit = sources, short_side, limit
        self._stills = [None if s.stills is None else Stills(s.stills) for s in sources]
        self._kept: OrderedDict[tuple[int, int], Picture | None] = OrderedDict()
        self._open: OrderedDict[int, Video] = OrderedDict()
        self._lock = threading.Lock()  # for the kept frames and open files; never held for long
        self._reading = [threading.Lock() for _ in sources]
        self.needed = sum(s.frames * _area(s, short_side) * 3 for s in sources)
        self.fits = self.needed <= limit
        self.bytes = 0

    def get(self, source: int, indices: Sequence[int]) -> list[Picture]:
        """Returns the frames of a clip, uint8 [h w 3], in the order of ``indices``.

        Raises:
            InputError: one of them is damaged.
        """
        found = self._find(source, indices)
        if len(found) < len(set(indices)):
            with self._reading[source]:
                found = self._find(source, indices)  # another thread may have read them since
                if missing := sorted(set(indices) - found.keys()):
                    found |= self._read(source, missing)
        pictures = []
        for k in indices:
            picture = found[k]
            if picture is None:
                raise InputError(self._sources[source].path, f"frame {k} is damaged", "export the video again")
            pictures.append(picture)
        with self._lock:
            while self.bytes > self._limit and len(self._kept) > len(found):
                _, old = self._kept.popitem(last=False)
                self.bytes -= 0 if old is None else old.nbytes
        return pictures

    def forget(self, source: int) -> None:
        """Drops all frames of a source."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == source]:
                old = self._kept.pop(key)
                self.bytes -= 0 if old is None else old.nbytes

    def _find(self, source: int, indices: Sequence[int]) -> dict[int, Picture | None]:
        """Returns the kept ones among frames, and marks them as used."""
        found = {}
        with self._lock:
            for k in indices:
                if (source, k) in self._kept:
                    self._kept.move_to_end((source, k))
                    found[k] = self._kept[source, k]
        return found

    def _read(self, source: int, wanted: list[int]) -> dict[int, Picture | None]:
        """Reads and keeps frames, in ascending order. The caller holds the source's lock."""
        stills = self._stills[source]
        if stills is None:
            return self._decode(source, wanted)
        found: dict[int, Picture | None] = {}
        for k in wanted:
            found[k] = picture = self._still(stills, k)
            self._keep((source, k), picture)
        return found

    def _still(self, stills: Stills, k: int) -> Picture:
        rgb = stills.rgb(k)
        return shrink(rgb, shrunk_size(rgb.shape[0], rgb.shape[1], self._short_side))

    def _decode(self, source: int, wanted: list[int]) -> dict[int, Picture | None]:
        video = self._opened(source)
        found: dict[int, Picture | None] = dict.fromkeys(wanted)  # None: the file has become shorter
        try:
            span = (0, len(video)) if self.fits else (wanted[0], wanted[-1] + 1)
            for k, rgb in video.frames(*span, short_side=self._short_side):
                if self.fits or k in wanted:
                    found[k] = None if k in video.damaged else rgb
        except BaseException:
            self._close(source)
            raise
        if self.fits:
            self._close(source)
        for k, picture in found.items():
            self._keep((source, k), picture)
        return found

    def _opened(self, source: int) -> Video:
        with self._lock:
            video = self._open.get(source)
        if video is None:
            video = open_video(self._sources[source].path)
        with self._lock:
            self._open[source] = video
            self._open.move_to_end(source)
            for old in list(self._open)[: max(0, len(self._open) - OPEN)]:
                if self._reading[old].acquire(blocking=False):  # else another thread is reading from it
                    self._open.pop(old).close()
                    self._reading[old].release()
        return video

    def _close(self, source: int) -> None:
        with self._lock:
            self._open.pop(source).close()

    def _keep(self, key: tuple[int, int], picture: Picture | None) -> None:
        with self._lock:
            old = self._kept.get(key)
            self.bytes += (0 if picture is None else picture.nbytes) - (0 if old is None else old.nbytes)
            self._kept[key] = picture


def _area(source: Source, short_side: int) -> int:
    height, width = shrunk_size(source.height, source.width, short_side)
    return height * width
