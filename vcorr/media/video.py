"""Reads a video file, a folder of frames or a pattern: RGB frames in order or by index, in bounded memory.

with open_video("video.mp4") as video:
    for k, rgb in video.frames(short_side=480):    # int, uint8 [h w 3]
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from vcorr.errors import InputError, UsageError
from vcorr.media.container import VideoFile
from vcorr.media.decoder import VIDEO_SUFFIXES
from vcorr.media.folder import FrameFolder, frames_of, matching_files, without
from vcorr.media.image import FRAME_SUFFIXES, shrunk_size
from vcorr.media.pages import find_pages, is_animated_png, is_stack
from vcorr.media.stack import Stack
from vcorr.media.writer import VideoWriter

__all__ = ["Video", "VideoWriter", "open_video", "shrunk_size"]


def open_video(path: str | Path, *, apart: Iterable[Path] = ()) -> Video:
    """Opens a video file, a folder of frames, or the files that match a pattern such as "frames/*.png".

    A TIFF with several pages, an animated PNG and an animated WebP are video files.

    Frame files are in natural order (frame2 before frame10); hidden files and other kinds are skipped. A part of a
    pattern that exists under that very name is taken literally, so folders may have brackets in their names.

    Args:
        path: the file, folder or pattern.
        apart: image files that are not frames, wherever they lie: the masks.

    Raises:
        InputError: the path does not exist, is empty or not a video, or is a playlist (which reads other files); no
            frame decodes; the frames of a folder differ in size, or a few are named unlike all others.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return Video(path, _frames(path, frames_of(path, apart)))
        if path.exists():
            return Video(path, _file_source(path))
        matches = without(matching_files(path), apart)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(path, f"cannot be opened ({error})", "check the path and its permissions") from error
    if not matches:
        raise InputError(path, "does not exist", "give a video file, a folder of frames, or a quoted pattern of frames")
    if len(matches) == 1 and matches[0].suffix.lower() not in FRAME_SUFFIXES:
        return open_video(matches[0])
    if several := [match for match in matches if match.suffix.lower() in VIDEO_SUFFIXES or match.is_dir()]:
        what = f"matches {len(several)} videos or folders, among them {several[0].name} and {several[-1].name}"
        raise InputError(path, what, "give one of them")
    return Video(path, _frames(path, matches))


def _frames(path: Path, files: list[Path]) -> Source:
    """Opens image files as frames; a single file may hold all of them."""
    return _stack(files[0]) if len(files) == 1 and is_stack(files[0]) else FrameFolder(path, files)


def _stack(path: Path) -> Source:
    return VideoFile(path) if is_animated_png(path) else Stack(path)


def _file_source(path: Path) -> Source:
    if not path.is_file():
        raise InputError(path, "is neither a file nor a folder", "give a video file or a folder of frames")
    if path.stat().st_size == 0:
        raise InputError(path, "is an empty file", "copy or export the video again")
    if is_stack(path):
        return _stack(path)
    if path.suffix.lower() in FRAME_SUFFIXES:
        pages = find_pages(path)
        if pages is not None and not pages.whole:
            raise InputError(path, "ends early, within or after its first picture", "copy or export the video again")
        advice = (
            f"give a folder, or a quoted pattern such as '{path.with_name('*' + path.suffix)}', of one file per frame"
        )
        raise InputError(path, "is an image file, not a video", advice)
    return VideoFile(path)


Picture = Callable[[], np.ndarray]
"""Gives a frame, RGB uint8 [h w 3], an array of the caller's own each time."""


class Source(Protocol):
    """A video file, a stack or a folder, as `Video` uses it."""

    height: int
    width: int
    fps: float
    notes: tuple[str, ...]

    @property
    def files(self) -> Sequence[Path] | None: ...
    @property
    def pts(self) -> list[int] | None: ...
    @property
    def names(self) -> list[str] | None: ...
    def __len__(self) -> int: ...
    def seconds(self, k: int) -> float: ...
    def fingerprint(self) -> str: ...
    def walk(self, start: int, size: tuple[int, int]) -> Iterator[tuple[int, Picture, bool]]: ...
    def picture(self, k: int, size: tuple[int, int]) -> np.ndarray | None: ...
    def close(self) -> None: ...


class Video:
    """The frames of one video as displayed: rotated, with square pixels, in 8-bit RGB.

    Frame k is the k-th time stamp in display order, or the k-th file. A frame that cannot be decoded keeps its index:
    `frames` yields the picture before it in its place (at the start, the next one), `frame` raises, and `damaged`
    lists it.

    Attributes:
        path: as given to `open_video`.
        height, width: in pixels, as displayed.
        fps: average frames per second; 25 for image files, which have no times.
        pts: time stamp of each frame in units of the file; None for image files.
        names: file name of each frame without suffix; None for video files.
        files: file of each frame; None for video files.
        notes: what the user should know about the file, one line each.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self.path = path
        self.height, self.width = source.height, source.width
        self.fps, self.pts, self.names, self.notes = source.fps, source.pts, source.names, source.notes
        self.files = source.files
        self._source = source
        self._damaged: set[int] = set()

    def __len__(self) -> int:
        return len(self._source)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. Running iterators of `frames` go on."""
        self._source.close()

    def would_hold(self, path: Path) -> bool:
        """Whether a file written to `path` would be a frame when this folder or pattern is read again."""
        if self.files is None or path.suffix.lower() not in FRAME_SUFFIXES:
            return False
        if self.path.is_dir():
            return path.parent.resolve() == self.path.resolve()
        return (path.parent.resolve() / path.name).match(str(self.path.parent.resolve() / self.path.name))

    @property
    def damaged(self) -> list[int]:
        """Frames read so far that did not decode, or that the decoder concealed in part."""
        return sorted(self._damaged)

    def seconds(self, k: int) -> float:
        """Time of frame k in seconds after frame 0."""
        return self._source.seconds(self._checked(k))

    def fingerprint(self) -> str:
        """SHA-256 of the file, or of the names and bytes of the frame files in order."""
        return self._source.fingerprint()

    def frames(
        self, start: int = 0, end: int | None = None, *, short_side: int | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (index, RGB uint8 [h w 3]) of each frame in start <= index < end.

        Args:
            start: first frame.
            end: one past the last frame; None for all.
            short_side: pixels; pictures with a longer short side are shrunk to it (`shrunk_size`).

        Raises:
            UsageError: the range is not within the video.
        """
        return ((k, picture()) for k, picture in self.pictures(start, end, short_side=short_side))

    def pictures(
        self, start: int = 0, end: int | None = None, *, short_side: int | None = None
    ) -> Iterator[tuple[int, Picture]]:
        """As `frames`, for who passes frames over: each is turned into RGB when it is called."""
        end = len(self) if end is None else end
        if not 0 <= start <= end <= len(self):
            what = f"frames {start} to {end} asked for, but it has {len(self)} frames"
            raise UsageError(self.path, what, f"choose 0 <= start <= end <= {len(self)}")
        return self._stream(start, end, shrunk_size(self.height, self.width, short_side))

    def _stream(self, start: int, end: int, size: tuple[int, int]) -> Iterator[tuple[int, Picture]]:
        due = start
        shown: Picture | None = None
        if start == end:
            return
        for k, picture, whole in self._source.walk(start, size):
            while due < min(k, end):
                self._damaged.add(due)
                yield due, picture if shown is None else shown
                due += 1
            if k >= end:
                return
            shown = picture
            if k < start:
                continue
            if not whole:
                self._damaged.add(k)
            due = k + 1
            yield k, picture
            if due == end:
                return
        if shown is None:
            raise InputError(self.path, "has no frame that decodes", "check that it is whole and unchanged")
        for k in range(due, end):
            self._damaged.add(k)
            yield k, shown

    def frame(self, k: int, *, short_side: int | None = None) -> np.ndarray:
        """Returns frame k, RGB uint8 [h w 3]. For consecutive frames, `frames` is many times faster.

        Raises:
            UsageError: there is no frame k.
            InputError: frame k cannot be decoded.
        """
        rgb = self._source.picture(self._checked(k), shrunk_size(self.height, self.width, short_side))
        if rgb is None:
            self._damaged.add(k)
            name = "" if self.names is None else f" ({self.names[k]})"
            raise InputError(self.path, f"frame {k}{name} is damaged and has no picture", "choose another frame")
        return rgb

    def _checked(self, k: int) -> int:
        if not 0 <= k < len(self):
            what = f"there is no frame {k}: it has {len(self)} frames"
            raise UsageError(self.path, what, f"choose 0 to {len(self) - 1}")
        return k
