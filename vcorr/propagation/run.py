"""The output folder of ``vcorr propagate``: what it holds, whose it is, and how a stopped run goes on.

masks/00000.png   indexed PNG, one a frame, named by frame index
overlay.mp4       the video with the masks drawn on it
frames.csv        index, pts, seconds of every labelled frame
manifest.json     inputs and weights by SHA-256, options, versions, device, where the time went
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import vcorr
from vcorr.errors import InputError, OutputError
from vcorr.evaluation.davis_layout import read_ids
from vcorr.labels.label import Ids
from vcorr.labels.masks import Mask, overlay, write_mask
from vcorr.machine import native_bf16
from vcorr.media.video import Video, VideoWriter, open_video, shrunk_size
from vcorr.model import weights as checkpoint
from vcorr.model.encoder import encoder
from vcorr.propagation.plan import Span, spans
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.timing import Seconds, seconds_a_frame
from vcorr.propagation.video import Pictures, frame_range, given_labels, label_span, mask_labels, pictures

FORMAT = "vcorr-results-1"
STATE = ".resume.safetensors"
SAME = ("vcorr", "inputs", "options")  # what must be equal in the manifest for a folder to be continued
SAVE_EVERY = 10  # frames between two states to go on from
OVERLAY_SIDE = 480  # short side of the overlay video


@dataclass(frozen=True)
class Request:
    """What ``propagate`` is asked to do; see ``propagation.propagate`` for the meaning of each field."""

    video: str
    labels: Path
    out: Path
    at: Mapping[int, Path] = field(default_factory=dict)
    weights: Path | None = None
    short_side: int = 480
    start: int = 0
    end: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Summary:
    """What was done: frames labelled now and before, seconds taken now, and the folder."""

    out: Path
    frames: int
    labelled_now: int
    seconds: float
    shares: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"out": str(self.out)}


def propagate_to(
    request: Request,
    *,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Label a video and write the output folder, or go on where a stopped run of the same inputs left it.

    Args:
        say: takes lines worth telling; progress: takes (frames labelled, frames in all).

    Raises:
        InputError, UsageError: as ``propagation.propagate``; nothing is written then.
        OutputError: the folder holds something else, or cannot be written.
    """
    weights_file = request.weights or checkpoint.default_weights()
    model = checkpoint.load_weights(weights_file)
    with open_video(request.video) as video:
        start, end = frame_range(video, request.start, request.end)
        masks = given_labels(video, request.labels, start, request.at)
        plan = spans(list(masks), start, end)
        manifest = _manifest(request, video, masks, weights_file, start, end)
        for note in dict.fromkeys([*video.notes, *(f"frame {k}: {n}" for k, m in masks.items() for n in m.notes)]):
            say(note)
        if _claim(request.out, manifest):
            say(f"{request.out} is complete already: same inputs, same options")
            return Summary(request.out, end - start, 0, 0.0, {})
        _write_frames(request.out / "frames.csv", video, start, end)
        network, frames = encoder(model, request.device), pictures(video, request.short_side)
        labels, given = mask_labels(video, masks, network.device)
        propagator = Propagator(network, labels, model.reader)
        first = _resume_point(request.out / STATE, plan, network.device)
        done = first.done(plan)
        height, width = shrunk_size(video.height, video.width, request.short_side)
        estimate = seconds_a_frame(propagator, frames, given) * (end - start - done)
        say(
            f"{end - start} frames of {video.width}x{video.height}, read at {width}x{height}, {labels.channels - 1} "
            f"object{'s' * (labels.channels != 2)}: about {_duration(estimate)} on {request.device}"
            + (f", going on after {done}" if done else "")
        )
        began, labelled, seconds = time.monotonic(), 0, Seconds()
        palette = next(iter(masks.values())).palette
        frames, propagator = seconds.items("io", frames), seconds.propagator(propagator)
        for index, ids in _labelled(frames, given, propagator, plan, first, request.out):
            write_mask(request.out / "masks" / f"{index:05d}.png", ids, palette)
            labelled += 1
            progress(done + labelled, end - start)
        taken = time.monotonic() - began
        if video.damaged:
            say(f"{len(video.damaged)} damaged frames took the picture before them: {_some(video.damaged)}")
        say("drawing the overlay")
        _write_overlay(request.out, video, start, end, palette)
    shares = {k: round(v / taken, 3) for k, v in dataclasses.asdict(seconds).items()} if labelled else {}
    _write_json(
        request.out / "manifest.json", manifest | {"complete": True, "seconds": round(taken, 2), "shares": shares}
    )
    (request.out / STATE).unlink(missing_ok=True)
    return Summary(request.out, end - start, labelled, taken, shares)


@dataclass(frozen=True)
class Point:
    """Where a stopped run goes on: the span, the next position in it, values of its references by position."""

    span: int = 0
    position: int = 0
    values: Mapping[int, torch.Tensor] = field(default_factory=dict)

    def done(self, plan: Sequence[Span]) -> int:
        """Frames yielded before this point."""
        first = plan[self.span].first if self.span < len(plan) else 0
        return sum(map(len, plan[: self.span])) + max(0, self.position - first)


def _labelled(
    frames: Pictures,
    given: Mapping[int, Ids],
    propagator: Propagator[Ids],
    plan: Sequence[Span],
    first: Point,
    out: Path,
) -> Iterator[tuple[int, Ids]]:
    """The frames from ``first`` on; however this ends, the folder can be continued after the last frame taken."""
    point = first
    try:
        for number in range(first.span, len(plan)):
            span, begin = plan[number], first if number == first.span else Point(number)
            labelled = label_span(frames, span, given, propagator, kept=begin.values, first=begin.position)
            for taken, item in enumerate(labelled, start=max(begin.position, span.first)):
                yield item
                point = Point(number, taken + 1, propagator.kept())
                if taken % SAVE_EVERY == 0:
                    _save_point(out / STATE, point)
            point = Point(number + 1)
    except BaseException:
        _save_point(out / STATE, point)
        raise


def _save_point(path: Path, point: Point) -> None:
    tensors = {str(position): values for position, values in point.values.items()}
    checkpoint.save(path, tensors, {"format": FORMAT, "span": point.span, "position": point.position})


def _resume_point(path: Path, plan: Sequence[Span], device: torch.device) -> Point:
    """Where to go on; the beginning if nothing was saved or what was saved is damaged."""
    try:
        tensors, meta = checkpoint.load(path)
        point = Point(meta["span"], meta["position"], {int(k): v.to(device) for k, v in tensors.items()})
    except (InputError, KeyError, ValueError):
        return Point()
    return point if point.done(plan) <= sum(map(len, plan)) else Point()


def _claim(out: Path, manifest: dict[str, Any]) -> bool:
    """Make the folder this request's, or check that it is already; True if it is complete."""
    path = out / "manifest.json"
    try:
        if path.exists():
            found = json.loads(path.read_text())
            if changes := list(checkpoint.differences(*({key: m[key] for key in SAME} for m in (found, manifest)))):
                raise OutputError(
                    out,
                    f"holds the results of another run ({'; '.join(changes[:3])})",
                    "give another --out, or remove it",
                )
            return bool(found.get("complete"))
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(out, "exists and holds no results of vcorr", "give another --out, or remove it")
        (out / "masks").mkdir(parents=True, exist_ok=True)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OutputError(path, "is damaged", "give another --out, or remove the folder") from None
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(out, f"cannot be written ({error.strerror})", "give another --out") from None
    _write_json(path, manifest | {"complete": False})
    return False


def _manifest(
    request: Request, video: Video, masks: Mapping[int, Mask], weights: Path, start: int, end: int
) -> dict[str, Any]:
    labels = {str(k): hashlib.sha256(f"{m.ids.shape}".encode() + m.ids.tobytes()).hexdigest() for k, m in masks.items()}
    return {
        "format": FORMAT,
        "vcorr": vcorr.__version__,
        "inputs": {
            "video": video.fingerprint(),
            "labels": labels,
            "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
        "options": {"start": start, "end": end, "size": request.short_side, "device": request.device},
        "paths": {
            "video": str(request.video),
            "labels": str(request.labels),
            "at": {str(k): str(path) for k, path in request.at.items()},
            "weights": request.weights and str(request.weights),
        },
        "video": {"frames": len(video), "height": video.height, "width": video.width, "fps": round(video.fps, 4)},
        "objects": sorted({int(i) for m in masks.values() for i in np.unique(m.ids) if i}),
        "machine": {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "processor": platform.machine(),
            "bf16": native_bf16(torch.device(request.device)),
        },
    }


def _write_overlay(out: Path, video: Video, start: int, end: int, palette: NDArray[np.uint8]) -> None:
    height, width = shrunk_size(video.height, video.width, OVERLAY_SIDE)
    with VideoWriter(out / "overlay.mp4", height=height, width=width, fps=video.fps) as writer:
        for index, rgb in video.frames(start, end, short_side=OVERLAY_SIDE):
            ids = read_ids(out / "masks" / f"{index:05d}.png")
            if ids.shape != rgb.shape[:2]:
                rows = (np.arange(height) + 0.5) * (ids.shape[0] / height)
                columns = (np.arange(width) + 0.5) * (ids.shape[1] / width)
                ids = ids[rows.astype(int)[:, None], columns.astype(int)]
            writer.write(overlay(rgb, ids, palette))


def _write_frames(path: Path, video: Video, start: int, end: int) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["index", "pts", "seconds"])
    table.writerows(
        [k, video.pts[k] if video.pts is not None else "", f"{video.seconds(k):.6f}"] for k in range(start, end)
    )
    with checkpoint.replacing(path) as file:
        file.write(text.getvalue().encode())


def _write_json(path: Path, data: dict[str, Any]) -> None:
    with checkpoint.replacing(path) as file:
        file.write((json.dumps(data, indent=2) + "\n").encode())


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
