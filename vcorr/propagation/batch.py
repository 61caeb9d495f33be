"""Many videos: a table of jobs, each ``vcorr propagate`` in a process of its own, some at a time.

A job that fails, or whose process dies, stops no other. What a stopped batch has done is not done again: each output
folder says so itself.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vcorr.errors import InputError, OutputError, UsageError
from vcorr.files import make_folder
from vcorr.machine import cores, free_memory

COLUMNS = ("video", "labels", "out", "options")
MEMORY = 1_500_000_000  # bytes that a job is expected to hold
_TAKEN = ("--out", "--json", "--dry-run")  # options that are not a job's to give
_UNSAFE = frozenset('<>:"|?*\\/\0')


@dataclass(frozen=True)
class BatchJob:
    """A video to label.

    Attributes:
        video, labels: as for ``vcorr propagate``. out: its folder. options: further words of the command.
        line: of the table.
    """

    video: str
    labels: str
    out: Path
    options: tuple[str, ...] = ()
    line: int = 0

    @property
    def log(self) -> Path:
        """What the command says goes here, beside its folder."""
        return self.out.with_name(f"{self.out.name}.log")

    @property
    def command(self) -> list[str]:
        """The command without the interpreter."""
        return ["vcorr", "propagate", self.video, self.labels, "--out", str(self.out), *self.options]


@dataclass(frozen=True)
class Done:
    """A job that ended.

    Attributes:
        code: exit code of its command. said: the error in a line, where it failed.
        seconds: that it took. summary: what the command printed as JSON.
    """

    job: BatchJob
    code: int
    said: str
    seconds: float
    summary: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        said = {"error": self.said} if self.code else {}
        out, seconds = str(self.job.out), round(self.seconds, 2)
        return {"video": self.job.video, "out": out, "exit": self.code, "seconds": seconds, **said, **self.summary}


def read_jobs(path: Path, out: Path) -> list[BatchJob]:
    """The jobs of a table.

    Args:
        path: a CSV file with the columns video and labels, and optionally out and options. Paths start at its folder.
        out: folder for the results of jobs without an ``out``, each named like its video; it starts here.

    Raises:
        InputError: it cannot be read, has other columns, or a row lacks something.
        UsageError: two jobs have one folder, or a job gives an option that is not its own to give.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path") from None
    except UnicodeDecodeError:
        raise InputError(path, "is no text in UTF-8", "save it as CSV in UTF-8") from None
    separator = max(",;\t", key=text.partition("\n")[0].count)
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=separator, strict=True))
    except csv.Error as error:
        raise InputError(path, f"is no CSV file ({error})", "save it as CSV") from None
    names = [name.strip().casefold() for name in rows[0]] if rows else []
    if not {"video", "labels"} <= set(names) <= set(COLUMNS) or len(set(names)) < len(names):
        got = ", ".join(names) or "nothing"
        raise InputError(path, f"has the columns {got}", "write video,labels,out,options in the first row")
    jobs: list[BatchJob] = []
    folders: dict[str, int] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(names):
            raise InputError(f"{path}, line {line}", f"has {len(row)} cells, not {len(names)}", "put texts in quotes")
        job = _job(path, line, dict(zip(names, map(str.strip, row), strict=True)), out)
        place = os.path.normcase(job.out.absolute())
        if place in folders:
            what = f"writes to {job.out}, as line {folders[place]} does"
            raise UsageError(f"{path}, line {line}", what, "give each video its own out")
        folders[place] = line
        jobs.append(job)
    if not jobs:
        raise InputError(path, "holds no job", "add a row for each video")
    return jobs


def _job(path: Path, line: int, cells: dict[str, str], out: Path) -> BatchJob:
    where = f"{path}, line {line}"
    for name in ("video", "labels"):
        if not cells[name]:
            raise InputError(where, f"names no {name}", "fill it in, or take the row out")
    try:
        options = tuple(shlex.split(cells.get("options", "")))
    except ValueError as error:
        raise InputError(where, f"has options that cannot be read ({error})", "close the quotes") from None
    for word in options:
        if word.split("=", 1)[0] in _TAKEN:
            raise UsageError(
                where, f"gives {word}, which a batch gives itself", "take it out; the column out names the folder"
            )
    name = Path(cells["video"]).stem
    if not cells.get("out") and (name in ("", ".", "..") or _UNSAFE & set(name)):
        raise InputError(where, f"{cells['video']} names no folder for the results", "fill in out")
    folder = path.parent / cells["out"] if cells.get("out") else out / name
    return BatchJob(str(path.parent / cells["video"]), str(path.parent / cells["labels"]), folder, options, line)


def sized(jobs: int, workers: int | None = None, threads: int | None = None) -> tuple[int, int]:
    """(processes, threads of each) for so many jobs: what fits into cores and memory, unless they are said."""
    have, free = cores(), free_memory()
    fit = have if free is None else min(have, max(1, free // MEMORY))
    workers = workers or max(1, min(jobs, fit))
    return workers, threads or max(1, have // workers)


def run_jobs(jobs: Sequence[BatchJob], workers: int, threads: int) -> Generator[Done]:
    """Run jobs, so many at a time; yields each as it ends. Closing it ends those that run, which may go on later.

    Raises:
        OutputError: a log cannot be written.
    """
    for folder in {job.out.parent for job in jobs}:
        make_folder(folder)
    waiting: queue.SimpleQueue[BatchJob] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    ended: queue.SimpleQueue[Done | OSError] = queue.SimpleQueue()
    running: set[subprocess.Popen[str]] = set()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                ended.put(_run(job, threads, running, stop))
            except OSError as error:
                ended.put(error)

    pool = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(jobs)))]
    for thread in pool:
        thread.start()
    try:
        for _ in jobs:
            done = _next(ended)
            if isinstance(done, OSError):
                where = done.filename or "the logs"
                raise OutputError(where, f"cannot be written ({done.strerror})", "check the rights and the free space")
            yield done
    finally:
        stop.set()
        for process in list(running):
            with contextlib.suppress(OSError):
                process.terminate()
        for thread in pool:
            thread.join()


def _next(ended: queue.SimpleQueue[Done | OSError]) -> Done | OSError:
    """The next that ends; signals are heard meanwhile."""
    while True:
        try:
            return ended.get(timeout=0.5)
        except queue.Empty:
            continue


def _run(job: BatchJob, threads: int, running: set[subprocess.Popen[str]], stop: threading.Event) -> Done:
    """Run a job to its end."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", *job.command, "--json"]
    began = time.monotonic()
    with job.log.open("w", encoding="utf-8") as log:
        log.write(shlex.join(job.command) + "\n")
        log.flush()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)  # noqa: S603
        running.add(process)
        if stop.is_set():
            process.terminate()
        printed, _ = process.communicate()
        running.discard(process)
    seconds = time.monotonic() - began
    if process.returncode == 0:
        return Done(job, 0, "", seconds, _summary(printed))
    return Done(job, process.returncode, _reason(job, process.returncode), seconds)


def _summary(printed: str) -> dict[str, Any]:
    try:
        found = json.loads(printed.splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return {key: found[key] for key in ("kind", "frames", "labelled_now", "look") if key in found}


def _reason(job: BatchJob, code: int) -> str:
    """Why a job failed, in a line."""
    lines = [line for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    own = [line.removeprefix("vcorr: ") for line in lines if line.startswith("vcorr: ")]
    if own:
        return own[-1]
    if code < 0:
        return f"its process was ended by signal {-code}; see {job.log}"
    return f"{' '.join(lines[-1].strip('│ ').split())}; see {job.log}" if len(lines) > 1 else f"see {job.log}"


def told(done: Done, number: int, total: int, duration: Callable[[float], str]) -> str:
    """The line that says how a job ended."""
    if done.code:
        return f"{number}/{total} {done.job.out.name}: failed: {done.said}"
    frames = done.summary.get("frames", 0)
    now = done.summary.get("labelled_now", frames)
    what = f"{frames} frames" if now else f"{frames} frames, complete before"
    return f"{number}/{total} {done.job.out.name}: {what}, {duration(done.seconds)}"
