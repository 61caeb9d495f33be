"""Decodes and shrinks videos once, into folders of frames for training.

OUT/manifest.json    the options, the source of each folder, failures and their reasons
OUT/a/b/clip/        the frames of SOURCE/a/b/clip.mp4 and their record (see ``frames``)

A folder is renamed to its place when it is complete. So a killed run leaves nothing to clean up, and the same command
does the rest.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import vcorr
from vcorr.errors import InputError, OutputError, UsageError
from vcorr.files import agree, held, recorded, sweep, sync_folder, write_json
from vcorr.machine import cores
from vcorr.media.naming import folders_for
from vcorr.training.clips.dataset import MasksFound, walk
from vcorr.training.prepare.frames import RECORD, Original, PrepareOptions, Record, read_records, write_frames

FORMAT = "vcorr-prepared-1"
MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class PrepareSummary:
    """The content of the folder after a call.

    Attributes:
        out: the folder.
        videos, frames: their numbers, of this source.
        made: videos made by this call.
        gone: earlier videos whose source is missing or unreadable now.
        failed: path -> reason of unreadable videos.
        left_out: path -> reason of what is not a video.
        notes: path -> what the user should know about a video.
    """

    out: Path
    videos: int
    frames: int
    made: int
    gone: int
    failed: dict[str, str]
    left_out: dict[str, str]
    notes: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"out": str(self.out)}


def prepare(
    source: Path,
    out: Path,
    options: PrepareOptions | None = None,
    *,
    workers: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PrepareSummary:
    """Decodes and shrinks every video below a folder into frame folders of the same relative tree.

    Folders of unchanged videos are kept; changed videos are made again. Frames that do not decode are left out, and the
    others keep their names.

    Args:
        source: folder of video files and frame folders, at any depth.
        out: folder to write; created, or continued if it was made with the same options.
        options: see `PrepareOptions`.
        workers: videos at a time; default: one for each core.
        say: receives lines for the user.
        progress: receives (finished videos, all videos).

    Raises:
        InputError: the folder does not exist, or holds no readable video.
        UsageError: ``source`` lies in ``out``.
        OutputError: ``out`` holds something else, another process uses it, or it cannot be written.
    """
    options = options or PrepareOptions()
    if source.resolve().is_relative_to(out.resolve()):
        raise UsageError(out, "holds the source folder", "give another folder to write to")
    failed: dict[str, str] = {}
    found = _find(source, out, failed)
    if not found and not failed:
        raise InputError(source, "holds no videos or frame folders", "give a folder that does")
    with held(out, say):
        about = {"format": FORMAT, "source": str(source.resolve()), "options": asdict(options)}
        _claim(out, about)
        run = _Run(out, options, found, failed)
        run.all(workers or cores(), progress)
        gone = {folder: r for folder, r in run.old.items() if folder not in run.records}
        videos = [{"folder": folder} | asdict(r) for folder, r in sorted((gone | run.records).items())]
        failed = dict(sorted(failed.items()))
        write_json(
            out / MANIFEST,
            about | {"vcorr": vcorr.__version__, "complete": True} | {"videos": videos, "failed": failed},
        )
    if not run.records:
        reasons = failed | run.left_out
        path, reason = min(reasons.items())
        raise InputError(source, f"none of its {len(reasons)} videos can be read ({path}: {reason})", "check the files")
    notes = {str(source / r.source): "; ".join(r.notes) for _, r in sorted(run.records.items()) if r.notes}
    frames = sum(r.kept for r in run.records.values())
    return PrepareSummary(out, len(run.records), frames, len(run.made), len(gone), failed, run.left_out, notes)


def _find(source: Path, out: Path, failed: dict[str, str]) -> list[Original]:
    """The videos of a folder, without those in ``out``."""
    if not source.is_dir():
        raise InputError(source, "no such folder", "give a folder of videos and/or folders of frames")
    own = os.path.realpath(out)
    return [
        Original(path, None if stills is None else tuple(stills), path.relative_to(source).as_posix())
        for path, stills in walk(source, failed)
        if not Path(os.path.realpath(path)).is_relative_to(own)  # unlike resolve, it accepts a link to itself
    ]


def _claim(out: Path, wanted: dict[str, Any]) -> None:
    """Claims the folder, or checks that it is claimed for the same work."""
    found = recorded(out, MANIFEST, holds="prepared videos", advice="give another folder")
    if found is not None:
        try:
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']}")
            before = {"source": found["source"]} | found["options"]
            moved = not Path(before["source"]).exists()
        except (OSError, ValueError, KeyError, TypeError):
            raise OutputError(out / MANIFEST, "is no manifest of prepared videos", "give another folder") from None
        now = {"source": before["source"] if moved else wanted["source"]} | wanted["options"]
        agree(out, before, now, what="was made otherwise", advice="give the same options, or another folder")
    write_json(out / MANIFEST, wanted | {"vcorr": vcorr.__version__, "complete": False})
    sweep(out)


@dataclass
class _Run:
    """The work of one call, in a claimed folder. Fills ``failed`` and the fields after it."""

    out: Path
    options: PrepareOptions
    found: Sequence[Original]
    failed: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    old: dict[str, Record] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)

    def all(self, workers: int, progress: Callable[[int, int], None]) -> None:
        scratch = self.out / UNFINISHED
        shutil.rmtree(scratch, ignore_errors=True)  # left by a killed run
        self.old = read_records(self.out)
        names = {original.name: original.stills is None for original in self.found}
        folders = folders_for(names, {record.source: folder for folder, record in self.old.items()})
        with ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
            try:
                jobs = [
                    pool.submit(self._one, original, folders[original.name], scratch / str(k))
                    for k, original in enumerate(self.found)
                ]
                for done, job in enumerate(as_completed(jobs), 1):
                    job.result()
                    progress(done, len(jobs))
            finally:  # after an error or a signal, the other jobs end at their next frame
                self.stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                shutil.rmtree(scratch, ignore_errors=True)

    def _one(self, original: Original, folder: str, part: Path) -> None:
        """Makes the folder of one video, unless it exists."""
        try:
            old = self.old.get(folder)
            record = old.still_holds(self.out / folder, original) if old else None
            if record is None:
                record = write_frames(original, self.options, part, self.stopped.is_set)
                if record is None:
                    return
                _put(part, self.out / folder)
                self.made.add(folder)
            self.records[folder] = record
        except MasksFound as error:
            self.left_out[str(original.path)] = error.what
        except InputError as error:
            self.failed[str(original.path)] = error.what
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _put(part: Path, folder: Path) -> None:
    """Moves a finished folder to its place. Replaces only a folder that vcorr prepare made."""
    if folder.exists() and not (folder / RECORD).exists():
        raise OutputError(folder, "is in the way, and was not made by vcorr prepare", "move it away")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rename(part.with_name(part.name + ".old"))
        part.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise OutputError(folder, f"cannot be written ({error.strerror})", "check the folder's rights") from error
