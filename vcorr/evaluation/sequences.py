"""Label the sequences of a data set in DAVIS's layout, in processes side by side, into PRED/<sequence>/00000.png."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import torch

from vcorr.errors import OutputError
from vcorr.files import strangers
from vcorr.evaluation import davis_layout as davis
from vcorr.labels.draw import default_palette
from vcorr.labels.masks import Mask, write_mask
from vcorr.media.video import open_video
from vcorr.model import weights as checkpoint
from vcorr.model.encoder import Encoder, encoder
from vcorr.model.inference import Reader
from vcorr.propagation.plan import Span
from vcorr.propagation.video import label_video

Model = Callable[[], tuple[Encoder, Reader]]
"""Makes the features and says how labels are read with them; called in each process, so it must be picklable."""

SIDE = 480  # reading size of the benchmark


def trained(weights: Path | None) -> tuple[Model, str]:
    """The model of a weights file, or of the weights that come with vcorr; and the SHA-256 that it is known by."""
    checkpoint.load_weights(weights)  # an error here is one line; in a worker it comes late
    digest = hashlib.sha256((weights or checkpoint.default_weights()).read_bytes()).hexdigest()
    return partial(_trained, weights, "cpu"), f"weights {digest}"


def _trained(weights: Path | None, device: str) -> tuple[Encoder, Reader]:
    model = checkpoint.load_weights(weights)
    return encoder(model, device), model.reader


def label_sequences(
    root: Path, out: Path, model: Model, about: str, *, names: list[str] | None = None, workers: int | None = None
) -> Iterator[tuple[str, int, float]]:
    """Label every sequence from its first annotated frame.

    Args:
        root: data set in DAVIS's layout.
        out: folder of the results; a sequence whose every frame is there already is left as it is.
        model: features and reader.
        about: what makes the results, such as the SHA-256 of the weights: a folder made by anything else is refused.
        names: these sequences instead of the validation split.
        workers: processes, each on one thread; None is one a core.

    Yields:
        (sequence, frames, seconds) as they come to an end.
    """
    todo = davis.sequences(root, names=names)
    _claim(out, about)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers or os.cpu_count(), mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        longest_first = sorted(todo, key=lambda s: -len(s.frames))
        jobs = [pool.submit(_label, s, out / s.name, model) for s in longest_first]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _claim(out: Path, about: str) -> None:
    note = out / "made_by.txt"
    found = note.read_text() if note.exists() else None
    if found is None and out.exists() and strangers(out, note.name):
        raise OutputError(out, "is not empty and does not say what made it", "give another folder")
    if found not in (None, about):
        raise OutputError(out, f"holds the results of {found}, not of {about}", "give another folder")
    with checkpoint.replacing(note) as file:
        file.write(about.encode())


def _label(sequence: davis.Sequence, out: Path, model: Model) -> tuple[str, int, float]:
    first = sequence.start
    wanted = [out / f"{frame.stem}.png" for frame in sequence.frames[first:]]
    if all(path.exists() for path in wanted):
        return sequence.name, len(wanted), 0.0
    out.mkdir(exist_ok=True)
    encode, reader = model()
    with open_video(sequence.images) as video:
        mask = Mask(davis.first_ids(sequence, (video.height, video.width)), default_palette())
        began, plan = time.perf_counter(), [Span(range(first, len(video)))]
        frames = label_video(video, plan, {first: mask}, encode, reader, short_side=SIDE)
        for frame, path in zip(frames, wanted, strict=True):
            write_mask(path, frame.mask, mask.palette)
    return sequence.name, len(wanted), time.perf_counter() - began
