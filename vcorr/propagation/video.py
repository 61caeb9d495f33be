"""Propagates the labels of some frames of a video to all of them.

One decoded frame is held at a time, ``CHUNK`` of them where a span goes backwards, and what its ``Propagator`` holds.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from vcorr.errors import UsageError
from vcorr.labels.draw import colour_index, default_palette
from vcorr.labels.given import Kind, read_given
from vcorr.labels.keypoints import Points
from vcorr.labels.label import L
from vcorr.labels.mask_names import NamedBy
from vcorr.labels.mask_set import GivenMasks
from vcorr.labels.masks import Mask
from vcorr.labels.raw_ids import Ids
from vcorr.labels.soft import Layer
from vcorr.machine import in_own_modes, pick_device
from vcorr.media.video import Video, open_video
from vcorr.model.encoder import Model, Picture
from vcorr.model.weights import load_weights
from vcorr.propagation.adapt import Adaptation, Form, Job, fitted, relabelled
from vcorr.propagation.blend import Step, Waiting, go_through
from vcorr.propagation.confidence import SIGNALS, confidence, overlap, signals
from vcorr.propagation.methods import Method, read_by
from vcorr.propagation.plan import Span, spans
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import Pictures

SMALLEST = 32  # short side to read videos at, pixels
CHUNK = 16  # frames decoded at a time when a span goes backwards


@dataclass(frozen=True, eq=False)
class Frame:
    """A labelled frame; equal to one of the same index whose label is the same.

    Attributes:
        index: of the frame in the video, from 0.
        label: of the kind that was given.
        confidence: of the mask of each object by its id, in [0, 1] (``confidence.csv``), without regard to scene cuts,
            which are known at the end; empty where the video was given no masks. Points have their own.
    """

    index: int
    label: Ids | Points | Layer
    confidence: Mapping[int, float] = field(default_factory=dict)

    @property
    def mask(self) -> Ids:
        """Object ids at the video's full size [H W], 0 is background, of a video that was given masks."""
        if isinstance(self.label, Points):
            raise AttributeError("the video was given keypoints: its frames have points and no mask")
        if self.label.dtype.kind == "f":
            raise AttributeError("the video was given values: its frames have values and no mask")
        return cast("Ids", self.label)

    @property
    def values(self) -> Layer:
        """Values as they were given, [H W] or [H W K], of a video that was given value layers."""
        if isinstance(self.label, Points) or self.label.dtype.kind != "f":
            raise AttributeError("the video was given masks or keypoints: its frames have no values")
        return cast("Layer", self.label)

    @property
    def points(self) -> Points:
        """Keypoints, in the order in which they were given, of a video that was given keypoints."""
        if not isinstance(self.label, Points):
            raise AttributeError("the video was given no keypoints: its frames have no points")
        return self.label

    def _repr_png_(self) -> bytes | None:
        """The mask in its colours, as a notebook shows it."""
        if isinstance(self.label, Points) or self.label.dtype.kind == "f":
            return None
        image, file = Image.fromarray(default_palette()[colour_index(self.mask)]), io.BytesIO()
        image.save(file, "PNG")
        return file.getvalue()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        if isinstance(self.label, Points) or isinstance(other.label, Points):
            return self.index == other.index and self.label == other.label
        return self.index == other.index and np.array_equal(self.label, other.label)


@in_own_modes
def propagate(
    video: str | Path,
    labels: str | Path,
    *,
    at: Mapping[int, str | Path] | None = None,
    weights: str | Path | None = None,
    short_side: int = 480,
    start: int = 0,
    end: int | None = None,
    device: str | torch.device = "cpu",
    named_by: NamedBy | None = None,
    kind: Kind | None = None,
    adapt: Form | None = None,
    interleave: bool = False,
    method: Method | None = None,
    read: Sequence[str] = (),
) -> Iterator[Frame]:
    """Label every frame of a video from masks or keypoints of some frames.

    Args:
        video: a video file, a folder of frames, or a glob.
        labels: a mask image of frame ``start``, or a folder of masks named by frame index, or as the frames' files; or
            a file of keypoints, which says its frames.
        at: labels of more frames, by index: corrections. They change no id of the labels.
        weights: a weights file of ``vcorr train``; None takes the ones that come with vcorr.
        short_side: a video whose short side is above this is read at this size, at least `SMALLEST`; masks come back at
            full size.
        start, end: the frames to label, start .. end-1; None is to the end.
        device: of the computation; "auto" is the GPU if there is one.
        named_by: "index" or "frame": what the names of masks mean, where they can be read both ways.
        kind: of the labels; None finds it from the files.
        adapt: then fit a network to this video, whose masks are the result: "full" or "light". interleave: it learns
            from the frames in their order.
        method, read: how labels are read: "mast", "momentum", "liir" or "walk", and settings such as "top_k=10"; None
            and nothing as the weights say.

    Yields:
        Frames, one at a time, in bounded memory: ascending, but frames before the first labelled one come first and
        descend towards ``start``. With ``adapt``, ascending, once all are labelled and the network is fitted.

    Raises:
        InputError: video, labels or weights cannot be read, or do not fit together.
        UsageError: no labelled frame within the range, a correction outside it, no such device, or too small a size.
    """
    device = pick_device(device)
    check_side(short_side)
    loaded = load_weights(None if weights is None else Path(weights))
    model = Model.of(read_by(loaded, method, read), device)
    labels, corrections = Path(labels), {k: Path(p) for k, p in (at or {}).items()}
    with open_video(video, apart=[labels, *corrections.values()]) as source:
        start, stop = frame_range(source, start, end)
        given = read_given(source, labels, start, stop, corrections, named_by, kind)
        propagator: Propagator[Any] = Propagator(model, given.labels(device))
        plan = spans(list(given.by_frame), start, stop)
        if not isinstance(given, GivenMasks):
            if adapt is not None:
                raise UsageError("adapt", f"labels anew by masks, but {labels} holds {given.kind}", "leave it out")
            for index, label in label_plan(pictures(source, short_side), plan, given.by_frame, propagator):
                yield Frame(index, label)
            return
        frames = _rated(
            label_steps(pictures(source, short_side), plan, given.by_frame, propagator), given, range(start, stop)
        )
        if adapt is not None:
            cfg = Adaptation.of(adapt, interleaved=interleave)
            frames = _adapted(frames, cfg, given, range(start, stop), pictures(source, short_side), model)
        yield from frames


def _rated(steps: Iterator[Step[Ids]], given: GivenMasks, frames: range) -> Iterator[Frame]:
    """Frames with the confidence of their masks."""
    objects = given.objects
    present = {k: np.isin(objects, mask) for k, mask in given.by_frame.items() if k in frames}
    unread = np.full((len(objects), len(SIGNALS)), np.nan, np.float32)
    for step in steps:
        assert step.label is not None
        found = unread if step.values is None else signals(step.values)
        sure = confidence(found[None], range(step.index, step.index + 1), present, [])[0]
        yield Frame(step.index, step.label, dict(zip(objects, sure.tolist(), strict=True)))


def _adapted(
    propagated: Iterator[Frame],
    cfg: Adaptation,
    given: GivenMasks,
    frames: range,
    pictures: Pictures,
    model: Model,
) -> Iterator[Frame]:
    """Frames by a network that is fitted to those that are propagated, whose masks wait in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="vcorr-") as folder:
        store = given.store(Path(folder))
        store.prepare()
        sure: dict[int, Mapping[int, float]] = {}
        for frame in propagated:
            store.write(frame.index, frame.mask)
            sure[frame.index] = frame.confidence
        inside = {k: mask for k, mask in given.by_frame.items() if k in frames}
        job = Job(frames, pictures, inside, store.read, given.labels(model.encoder.device), model)
        network, view = fitted(job, cfg, Path(folder) / "samples")
        for index, mask in relabelled(job, network, view, frames):
            before = store.read(index)
            agreed = {i: value * overlap(before == i, mask == i) for i, value in sure[index].items()}
            yield Frame(index, mask, agreed)


def label_video(
    video: Video,
    plan: Sequence[Span],
    masks: Mapping[int, Mask],
    model: Model,
    *,
    short_side: int = 480,
) -> Iterator[Frame]:
    """Label the frames of the spans of a plan from masks by frame index, in bounded memory."""
    given = GivenMasks(masks, (video.height, video.width))
    propagator = Propagator(model, given.labels(model.encoder.device))
    for index, ids in label_plan(pictures(video, short_side), plan, given.by_frame, propagator):
        yield Frame(index, ids)


def label_plan(
    pictures: Pictures, plan: Sequence[Span], given: Mapping[int, L], propagator: Propagator[L]
) -> Iterator[tuple[int, L]]:
    """(frame index, label) of the frames of the spans of a plan; what waits does so in a folder for temporary files."""
    for step in label_steps(pictures, plan, given, propagator):
        assert step.label is not None
        yield step.index, step.label


def label_steps(
    pictures: Pictures, plan: Sequence[Span], given: Mapping[int, L], propagator: Propagator[L]
) -> Iterator[Step[L]]:
    """As ``label_plan``, with what each label was made of."""
    with tempfile.TemporaryDirectory(prefix="vcorr-") as folder:
        waiting = Waiting(Path(folder) / "waiting")
        for span in plan:
            for step in go_through(pictures, span, given, propagator, waiting):
                if step.label is not None:
                    yield step


def pictures(video: Video, short_side: int) -> Pictures:
    """The frames of a video at the size at which they are read."""

    def read(frames: range) -> Iterator[tuple[int, Picture]]:
        if frames.step > 0:
            yield from video.frames(frames.start, frames.stop, short_side=short_side)
            return
        for last in range(frames.start, frames.stop, -CHUNK):
            first = max(last - CHUNK, frames.stop) + 1
            yield from reversed(list(video.frames(first, last + 1, short_side=short_side)))

    return read


def check_side(short_side: int) -> None:
    """Refuse to read a video at a size at which it shows nothing."""
    if short_side < SMALLEST:
        raise UsageError(f"--size {short_side}", "is too small to see anything", f"give at least {SMALLEST}")


def frame_range(video: Video, start: int, end: int | None) -> tuple[int, int]:
    """(start, end) checked against the video."""
    stop = len(video) if end is None else end
    if not 0 <= start < stop <= len(video):
        raise UsageError(
            f"--start {start} --end {stop}",
            f"not within the {len(video)} frames of {video.path}",
            "give 0 <= start < end <= frames",
        )
    return start, stop
