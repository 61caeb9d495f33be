"""Writes a video, or images, as a folder of frames with a record.

prepared.json   name, size, time and SHA-256 of the source; numbers of its frames, of kept and of damaged ones
00000.jpg ...   the frames, named by their index in the source
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import TypeAdapter

from vcorr.errors import InputError, OutputError, UsageError
from vcorr.files import make_folder, sha256, sha256_of_all, write_json
from vcorr.media.folder import Stills, frame_files
from vcorr.media.image import shrink, shrunk_size
from vcorr.media.video import open_video
from vcorr.training.clips.dataset import Picture, frame_folder

RECORD = "prepared.json"
# Training learns from colour, so it has full resolution too, which JPEG halves by default.
SAVE: dict[str, dict[str, Any]] = {"jpg": {"quality": 95, "subsampling": 0}, "png": {}}


@dataclass(frozen=True)
class PrepareOptions:
    """How videos are written.

    Attributes:
        size: largest short side of the frames, in pixels.
        every: frames 0, every, 2 every, ... are kept.
        format: jpg (quality 95, colour at full resolution) or png (lossless).
    """

    size: int = 480
    every: int = 1
    format: str = "jpg"

    def __post_init__(self) -> None:
        if self.size < 1 or self.every < 1:
            raise UsageError("size and every", f"are {self.size} and {self.every}", "give at least 1")
        if self.format not in SAVE:
            raise UsageError("format", f"is {self.format}", f"give one of {', '.join(SAVE)}")


@dataclass(frozen=True)
class Original:
    """A video by its path, its frame files (None for a video file), and its name below the source folder."""

    path: Path
    stills: tuple[Path, ...] | None
    name: str

    def stamp(self) -> dict[str, int]:
        """Number, bytes and time of its files, which change when the video changes.

        Raises:
            InputError: a file is missing, or a broken link.
        """
        try:
            stats = [file.stat() for file in self.stills or (self.path,)]
        except OSError as error:
            raise InputError(self.path, f"cannot be read ({error.strerror})", "check the file") from error
        size, time = sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)
        return {"files": len(stats), "bytes": size, "modified": time}

    def sha256(self) -> str:
        """SHA-256 of the video file, or of the names and bytes of the frame files in order.

        Raises:
            InputError: a file cannot be read.
        """
        return sha256(self.path) if self.stills is None else sha256_of_all(self.stills)


@dataclass(frozen=True)
class Record:
    """The record of a folder of frames.

    Attributes:
        source: name below the source folder.
        stamp, sha256: of the source when it was read.
        frames: the number of frames of the source.
        kept: the number of written frames.
        damaged: the number of frames that should be kept, but do not decode.
        fps: frames per second of the source; None for images.
        notes: what the user should know.
    """

    source: str
    stamp: dict[str, int]
    sha256: str
    frames: int
    kept: int
    damaged: int
    fps: float | None
    notes: list[str] = field(default_factory=list)

    def still_holds(self, folder: Path, original: Original) -> Record | None:
        """The record if the folder is complete and its source is the same; None if it must be made again.

        If only the time of the source has changed, the record gets the new one, in the folder too.
        """
        try:
            frames = frame_files(folder.iterdir())  # file managers add files of their own
            if len(frames) != self.kept or not all(frame.stat().st_size for frame in frames):
                return None
        except OSError:
            return None
        stamp = original.stamp()
        if stamp == self.stamp:
            return self
        if stamp["bytes"] != self.stamp.get("bytes") or original.sha256() != self.sha256:
            return None
        fresh = Record(**asdict(self) | {"stamp": stamp})
        write_json(folder / RECORD, asdict(fresh))
        return fresh


def read_records(out: Path) -> dict[str, Record]:
    """Reads the records below ``out``: folder, relative with ``/``, -> record. Leaves out damaged records."""
    records: dict[str, Record] = {}
    kind = TypeAdapter(Record)
    for path in sorted(out.rglob(RECORD)):
        folder = path.parent.relative_to(out).as_posix()
        try:
            data = json.loads(path.read_bytes())
            text = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")  # a file name may not be valid text
            kind.validate_json(text, strict=True)
            record = Record(**data)
        except (OSError, ValueError, TypeError, RecursionError):
            continue
        if not folder.startswith("."):
            records[folder] = record
    return records


def write_frames(original: Original, options: PrepareOptions, part: Path, stopped: Callable[[], bool]) -> Record | None:
    """Writes the frames and the record of a video into a new folder ``part``; None if it was stopped.

    Raises:
        MasksFound: the images are masks.
        InputError: the video cannot be read, or no frame decodes.
        OutputError: the folder cannot be written.
    """
    stamp, sha256 = original.stamp(), original.sha256()
    make_folder(part)
    frames = _Frames(original, options)
    kept = 0
    for k, rgb in frames:
        if stopped():
            return None
        _save(part / f"{k:05d}.{options.format}", rgb, SAVE[options.format])
        kept += 1
    if not kept:
        raise InputError(original.path, "no frame of it can be decoded", "export it again")
    if frames.damaged:
        frames.notes.append(f"{frames.damaged} of {frames.count} frames cannot be decoded and were left out")
    record = Record(original.name, stamp, sha256, frames.count, kept, frames.damaged, frames.fps, frames.notes)
    write_json(part / RECORD, asdict(record))
    return record


class _Frames:
    """Yields (index, RGB) of the kept frames of a video.

    Attributes:
        count: frames of the video.
        damaged: frames that should be kept, but do not decode.
        fps: frames per second; None for images.
        notes: what the user should know.
    """

    def __init__(self, original: Original, options: PrepareOptions) -> None:
        self._original, self._options = original, options
        self.count = self.damaged = 0
        self.fps: float | None = None
        self.notes: list[str] = []

    def __iter__(self) -> Iterator[tuple[int, Picture]]:
        return self._film() if self._original.stills is None else self._folder(self._original.stills)

    def _film(self) -> Iterator[tuple[int, Picture]]:
        with open_video(self._original.path) as video:
            self.count, self.fps = len(video), round(video.fps, 3)
            self.notes += [note.removeprefix(f"{video.path}: ") for note in video.notes]
            for k, rgb in video.frames(short_side=self._options.size):
                if k % self._options.every:
                    continue
                if k in video.damaged:  # the picture is another frame's
                    self.damaged += 1
                else:
                    yield k, rgb

    def _folder(self, stills: tuple[Path, ...]) -> Iterator[tuple[int, Picture]]:
        frame_folder(self._original.path, stills)  # no masks, no two files for one frame
        self.count = len(stills)
        pictures = Stills(stills)
        sizes = set()
        for k in range(0, len(stills), self._options.every):
            try:
                rgb = pictures.rgb(k)
            except InputError:
                self.damaged += 1
                continue
            sizes.add(rgb.shape)
            yield k, shrink(rgb, shrunk_size(rgb.shape[0], rgb.shape[1], self._options.size))
        if note := pictures.scale.note():
            self.notes.append(note)
        if len(sizes) > 1:
            self.notes.append("its images differ in size: of use as stills, not as a video")


def _save(path: Path, rgb: Picture, options: dict[str, Any]) -> None:
    try:
        Image.fromarray(rgb).save(path, **options)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(path, f"cannot be written ({reason})", "check the free space") from error
