"""What a request of ``vcorr propagate`` would take: frames, time, memory and disk. Its folder is left alone."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vcorr.files import nearest_folder
from vcorr.labels.given import Kind
from vcorr.machine import in_own_modes, peak_memory
from vcorr.model.encoder import Model
from vcorr.pages.document import jpeg
from vcorr.propagation import review
from vcorr.propagation.blend import Waiting
from vcorr.propagation.memory import kept_after
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.results import Results
from vcorr.propagation.resume import WAITING, resume_point, stretches_of
from vcorr.propagation.run import Request, Work, opened
from vcorr.propagation.timing import trial
from vcorr.propagation.video import CHUNK, pictures

SAMPLE = 8  # frames that are written to see how large results become
KEYS_APART = 250  # frames from one key frame of the overlay to the next, at most
ENCODER = 60e6  # bytes that the overlay's encoder holds


@dataclass(frozen=True)
class Forecast:
    """What a request would take.

    Attributes:
        frames: to label. left: of these, without a label so far.
        height, width: of the video. read_height, read_width: of its frames as they are read.
        kind: of the labels. objects: or keypoints, how many.
        device: that it would run on.
        seconds: to label the frames that are left, without drawing the overlay. Frames between two labelled ones are
            read twice.
        memory: bytes at the peak, of the process or, where it runs on one, of the GPU; None if unknown.
        disk: bytes of all results. free: bytes that are free where they go.
    """

    frames: int
    left: int
    height: int
    width: int
    read_height: int
    read_width: int
    kind: Kind
    objects: int
    device: str
    seconds: float
    memory: int | None
    disk: int
    free: int

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@in_own_modes
def forecast(request: Request, *, say: Callable[[str], None] = lambda line: None) -> Forecast:
    """Open the inputs of a request, label one frame, and say what all of it would take.

    Nothing is written to the request's folder. A few results go to a temporary folder, to see their size.

    Raises:
        InputError, UsageError, OutputError: as ``propagate_to``.
    """
    with opened(request, say) as work:
        request, video = work.request, work.video
        device = torch.device(request.device)
        model, frames = Model.of(work.weights, device), pictures(video, request.short_side)
        propagator: Propagator[Any] = Propagator(model, work.given.labels(device))
        tried = trial(propagator, frames, work.given.by_frame)
        point = resume_point(request.out, device)
        stretches = stretches_of(work.plan, point, work.missing, Waiting(request.out / WAITING))
        steps = sum(stretch.left(work.plan) for stretch in stretches)
        disk = _disk(work)
        held = peak_memory(device)
        read = tried.seen
        return Forecast(
            frames=work.end - work.start,
            left=len(work.missing),
            height=video.height,
            width=video.width,
            read_height=read[0],
            read_width=read[1],
            kind=work.given.kind,
            objects=len(work.given.objects),
            device=str(device),
            seconds=round(tried.seconds * steps, 2),
            memory=held and held + _grows(work, model, read),
            disk=disk,
            free=shutil.disk_usage(nearest_folder(request.out)).free,
        )


def _grows(work: Work, model: Model, read: tuple[int, int]) -> int:
    """Bytes that come on top of labelling one frame: the memory of references, frames that wait, the overlay."""
    references = model.inference.references
    late = max(references.long, default=0) + max(references.short, default=0) + 1
    kept = min(len(kept_after(late, references)), work.end - work.start)
    cells = -(-read[0] // model.encoder.stride) * -(-read[1] // model.encoder.stride)
    memory = kept * cells * (work.weights.net.features + len(work.given.objects) + 1) * 4
    if torch.device(work.request.device).type == "cuda":
        return memory
    backwards = any(span.frames.step < 0 for span in work.plan)
    return int(memory + backwards * CHUNK * 3 * read[0] * read[1] + ENCODER)


def _disk(work: Work) -> int:
    """Bytes of all results, from those of a few frames that all have the first given label."""
    index = min(k for k in work.given.by_frame if work.start <= k < work.end)
    count = work.end - work.start
    first = max(work.start, min(index, work.end - SAMPLE))
    shown, page = min(count, review.STRETCHES * review.PICTURES), 0
    with tempfile.TemporaryDirectory(prefix="vcorr-") as folder:

        def size(name: str, frames: range) -> tuple[int, int]:
            """Bytes of the overlay and of all other results of some frames."""
            out = Path(folder) / name
            out.mkdir()
            results = Results.of(out, work.video, frames, work.given)
            results.prepare()
            for k in frames:
                results.store.write(k, work.given.by_frame[index])
            results.store.finish(frames)
            results.rate([])
            rest = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
            results.draw(lambda line: None)
            nonlocal page
            page = shown * len(jpeg(results.outlined(first), review.SIDE))
            return sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) - rest, rest

        frames = range(first, min(first + SAMPLE, work.end))
        key, _ = size("one", frames[:1])
        overlay, rest = size("some", frames)
    step = (overlay - key) / max(1, len(frames) - 1)
    keys = -(-count // KEYS_APART)
    return int(max(0.0, keys * key + (count - keys) * step) + rest * count / len(frames)) + page
