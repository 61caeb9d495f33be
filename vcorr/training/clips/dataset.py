"""The videos of a training folder: found, counted, and their frames decoded no more often than needed."""

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

OPEN = 8  # video files kept open: each holds some frames of its own for every thread of its decoder


@dataclass(frozen=True)
class Source:
    """One video.

    Attributes:
        path: video file, or folder of frames.
        stills: the frame files in order; None for a video file.
        frames: how many.
        height, width: in pixels; of a folder's first frame that can be read.
        image: an image of its own, no frame of a video.
    """

    path: Path
    stills: tuple[Path, ...] | None
    frames: int
    height: int
    width: int
    image: bool = False


@dataclass(frozen=True)
class Dataset:
    """What a folder holds to train on, in one order on every machine.

    Attributes:
        root: the folder.
        sources: its videos.
        skipped: path -> reason, of what looks like video and was left out.
    """

    root: Path
    sources: tuple[Source, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Frames of all videos."""
        return sum(s.frames for s in self.sources)

    def as_stills(self) -> Dataset:
        """Each image file as a source of its own; video files are left out.

        Raises:
            InputError: there are only video files.
        """
        images = [image for source in self.sources for image in _images(source)]
        films = {str(s.path): "is a video, not a still image" for s in self.sources if s.stills is None}
        if not images:
            raise InputError(self.root, "holds no still images", "give a folder of images, or train another recipe")
        return Dataset(self.root, tuple(images), self.skipped | films)

    def with_stills(self, folders: Collection[str]) -> Dataset:
        """Of folders of these names each image file is a source of its own; the others hold the frames of a video."""
        parted = [_images(s) if s.path.name in folders else [s] for s in self.sources]
        return Dataset(self.root, tuple(source for part in parted for source in part), self.skipped)

    def fingerprint(self) -> str:
        """SHA-256 over the names of videos and frames below the root, frame counts, and sizes of video files in bytes.

        The same for a folder that was moved or copied; no picture is read for it.
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
    """The image files of a folder, each by itself; a video file has none."""
    return [Source(file, (file,), 1, source.height, source.width, image=True) for file in source.stills or ()]


def scan(root: str | Path) -> Dataset:
    """Find the video files and frame folders at any depth. Hidden files and folders are passed over.

    Folders of indexed PNG files are label masks, not video, and are left out; so are folders that hold two pictures
    of one name, as images with their masks beside them.

    Raises:
        InputError: no such folder, or nothing in it that can be read.
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
    """What looks like video below a folder: (file, None), or (folder, its images in natural order).

    In one order on every machine. No file is opened but those that may hold several pictures, which are videos then.
    Folders that cannot be listed go to ``skipped``, path -> reason.
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
    """Whether a folder is a link to one that was gone through to reach it: following it would never end."""
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
    """A folder of frame files as a source; reads the header of the first one that can be read.

    Raises:
        MasksFound: its pictures are indexed.
        InputError: two files bear one name, or none can be read.
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
    """Decoded frames by (source, index), the most recently used ones kept up to a number of bytes.

    Where all videos fit in memory, a video file is decoded once, as a whole. Where they do not, the frames of a clip
    are decoded in one go from the key frame before them, and the last few files stay open. Any number of threads may
    ask at once; one at a time reads from a source.

    Args:
        sources: the videos.
        short_side: frames are kept at this short side, in pixels, or smaller.
        limit: bytes of frames to keep; at least one clip is.

    Attributes:
        needed: bytes that all frames would take.
        fits: whether they may be kept.
        bytes: those kept now.
    """

    def __init__(self, sources: Sequence[Source], short_side: int, limit: int) -> None:
        self._sources, self._short_side, self._limit = sources, short_side, limit
        self._stills = [None if s.stills is None else Stills(s.stills) for s in sources]
        self._kept: OrderedDict[tuple[int, int], Picture | None] = OrderedDict()
        self._open: OrderedDict[int, Video] = OrderedDict()
        self._lock = threading.Lock()  # of what is kept and open; held for moments only
        self._reading = [threading.Lock() for _ in sources]
        self.needed = sum(s.frames * _area(s, short_side) * 3 for s in sources)
        self.fits = self.needed <= limit
        self.bytes = 0

    def get(self, source: int, indices: Sequence[int]) -> list[Picture]:
        """The frames of a clip, uint8 [h w 3], in the order of ``indices``.

        Raises:
            InputError: one of them is damaged.
        """
        found = self._find(source, indices)
        if len(found) < len(set(indices)):
            with self._reading[source]:
                found = self._find(source, indices)  # another thread may have read them by now
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
        """Keep no frame of a source any longer."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == source]:
                old = self._kept.pop(key)
                self.bytes -= 0 if old is None else old.nbytes

    def _find(self, source: int, indices: Sequence[int]) -> dict[int, Picture | None]:
        """Those that are kept, which count as used now."""
        found = {}
        with self._lock:
            for k in indices:
                if (source, k) in self._kept:
                    self._kept.move_to_end((source, k))
                    found[k] = self._kept[source, k]
        return found

    def _read(self, source: int, wanted: list[int]) -> dict[int, Picture | None]:
        """Frames from the file, in ascending order; kept from now on. The source's lock is held."""
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
        found: dict[int, Picture | None] = dict.fromkeys(wanted)  # None: a file that shrank since it was counted
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
