"""Label the sequences of a data set in DAVIS's layout, in processes side by side, into PRED/<sequence>/00000.png."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from vcorr.evaluation import davis_layout, pool
from vcorr.files import agree, held, recorded, sha256, sweep, write_json
from vcorr.labels.draw import default_palette
from vcorr.labels.masks import Mask, is_whole, write_mask
from vcorr.media.video import open_video
from vcorr.model.encoder import Model
from vcorr.model.weights import default_weights, load_weights
from vcorr.propagation.plan import Span
from vcorr.propagation.video import label_video

Load = Callable[[], Model]
"""Makes the model; called in each process, so it must be picklable."""

SIDE = 480  # reading size of the benchmark
MADE_BY = "made_by.json"


def trained(weights: Path | None) -> tuple[Load, str]:
    """The model of a weights file, or of the weights that come with vcorr; and the SHA-256 that it is known by."""
    load_weights(weights)  # an error here is one line; in a worker it comes late
    digest = sha256(weights or default_weights())
    return partial(_trained, weights, "cpu"), f"weights {digest}"


def _trained(weights: Path | None, device: str) -> Model:
    return Model.of(load_weights(weights), device)


@dataclass(frozen=True)
class Labelled:
    """A sequence that was labelled.

    Attributes:
        name: of the sequence. frames: labelled ones. seconds: it took, 0 where the results were there.
        damaged: frames that do not decode, and took the picture before them.
    """

    name: str
    frames: int
    seconds: float
    damaged: tuple[int, ...] = ()


def label_sequences(
    root: Path,
    out: Path,
    load: Load,
    about: str,
    *,
    names: list[str] | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Generator[Labelled]:
    """Label every sequence from its first annotated frame, as they come to an end.

    Args:
        root: data set in DAVIS's layout.
        out: folder of the results; a sequence whose every frame is there already, and whole, is left as it is.
        load: makes the model.
        about: what makes the results, such as the SHA-256 of the weights: a folder made by anything else is refused.
        names: these sequences instead of the validation split.
        workers: processes, each on one thread; None is one for each core that this process may use.
        say: takes lines worth telling.

    Raises:
        InputError: a sequence lacks images, objects or fits not together; told of all before the first is labelled.
        OutputError: another process works in ``out``, it holds something else, or it cannot be written.
    """
    jobs = [
        _Job(sequence, out / sequence.name, load, _size(sequence))
        for sequence in davis_layout.sequences(root, names=names)
    ]
    jobs.sort(key=lambda job: -len(job.sequence.frames))  # the longest first
    with held(out, say):
        _claim(out, about)
        with contextlib.closing(pool.outcomes(_label, jobs, workers, in_order=False)) as outcomes:
            yield from outcomes


@dataclass(frozen=True)
class _Job:
    """One sequence, the folder of its results, and the (height, width) of both its frames and its first annotation."""

    sequence: davis_layout.Sequence
    out: Path
    load: Load
    size: tuple[int, int]


def _size(sequence: davis_layout.Sequence) -> tuple[int, int]:
    with open_video(sequence.images) as video:
        size = video.height, video.width
    davis_layout.first_ids(sequence, size)
    return size


def _claim(out: Path, about: str) -> None:
    wanted, elsewhere = {"made by": about}, "give another folder"
    found = recorded(out, MADE_BY, holds="labelled sequences", advice=elsewhere)
    if found is not None:
        agree(out, found, wanted, what="holds the results of others", advice=elsewhere)
    write_json(out / MADE_BY, wanted)


def _label(job: _Job) -> Labelled:
    """In a process of the pool, or in the only one.

    Raises:
        CancelledError: the pool is closing.
    """
    sequence, first = job.sequence, job.sequence.start
    wanted = [job.out / f"{frame.stem}.png" for frame in sequence.frames[first:]]
    if all(is_whole(path, job.size) for path in wanted):
        return Labelled(sequence.name, len(wanted), 0.0)
    job.out.mkdir(exist_ok=True)
    sweep(job.out)
    began = time.monotonic()
    with _one_thread(), open_video(sequence.images) as video:
        mask = Mask(davis_layout.first_ids(sequence, job.size), default_palette())
        plan = [Span(range(first, len(video)))]
        frames = label_video(video, plan, {first: mask}, job.load(), short_side=SIDE)
        for frame, path in zip(frames, wanted, strict=True):
            if pool.stopped():
                raise CancelledError
            write_mask(path, frame.mask, mask.palette)
        return Labelled(sequence.name, len(wanted), time.monotonic() - began, tuple(video.damaged))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The number of threads decides the last bits of results, which must not hang on the number of workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
