"""Labels of some frames of a video -> labels of all.

One decoded frame is held at a time, ``CHUNK`` of them where a span goes backwards, and what its ``Propagator`` holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vcorr.errors import UsageError
from vcorr.labels.label import L, MaskLabels
from vcorr.labels.mask_names import NamedBy, label_files
from vcorr.labels.masks import Mask, read_masks
from vcorr.labels.raw_ids import Ids
from vcorr.machine import in_own_modes, pick_device
from vcorr.media.video import Video, open_video
from vcorr.model.encoder import Model, Picture
from vcorr.model.weights import load_weights
from vcorr.propagation.plan import Span, spans
from vcorr.propagation.propagator import Propagator

SMALLEST = 32  # short side to read videos at, pixels
CHUNK = 16  # frames decoded at a time when a span goes backwards

Pictures = Callable[[range], Iterator[tuple[int, Picture]]]
"""Indices of frames, one after the other either way -> (index, picture [h w 3]) of each."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A labelled frame; equal to one of the same index whose mask has the same ids.

    Attributes:
        index: of the frame in the video, from 0.
        mask: object ids at the video's full size [H W], 0 is background.
    """

    index: int
    mask: Ids

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return self.index == other.index and np.array_equal(self.mask, other.mask)


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
) -> Iterator[Frame]:
    """Label every frame of a video from masks of some frames.

    Args:
        video: a video file, a folder of frames, or a glob.
        labels: a mask image of frame ``start``, or a folder of masks named by frame index, or as the frames' files.
        at: masks of more frames, by index: corrections. They change no id of the labels.
        weights: a weights file of ``vcorr train``; None takes the ones that come with vcorr.
        short_side: a video whose short side is above this is read at this size, at least `SMALLEST`; masks come back at
            full size.
        start, end: the frames to label, start .. end-1; None is to the end.
        device: of the computation; "auto" is the GPU if there is one.
        named_by: "index" or "frame": what the names in a folder of masks mean, where they can be read both ways.

    Yields:
        Frames, one at a time, in bounded memory: ascending, but frames before the first labelled one come first and
        descend towards ``start``.

    Raises:
        InputError: video, labels or weights cannot be read, or do not fit together.
        UsageError: no labelled frame within the range, a correction outside it, no such device, or too small a size.
    """
    device = pick_device(device)
    check_side(short_side)
    model = Model.of(load_weights(None if weights is None else Path(weights)), device)
    labels, corrections = Path(labels), {k: Path(p) for k, p in (at or {}).items()}
    with open_video(video, apart=[labels, *corrections.values()]) as source:
        start, stop = frame_range(source, start, end)
        masks = given_labels(source, labels, start, stop, corrections, named_by)
        plan = spans(list(masks), start, stop)
        yield from label_video(source, plan, masks, model, short_side=short_side)


def label_video(
    video: Video,
    plan: Sequence[Span],
    masks: Mapping[int, Mask],
    model: Model,
    *,
    short_side: int = 480,
) -> Iterator[Frame]:
    """Label the frames of the spans of a plan from masks by frame index, in bounded memory."""
    labels, given = mask_labels(video, masks, model.encoder.device)
    propagator = Propagator(model, labels)
    for span in plan:
        for index, ids in label_span(pictures(video, short_side), span, given, propagator):
            yield Frame(index, ids)


def label_span(
    pictures: Pictures,
    span: Span,
    given: Mapping[int, L],
    propagator: Propagator[L],
    *,
    kept: Mapping[int, Tensor] | None = None,
    first: int = 0,
) -> Iterator[tuple[int, L]]:
    """Label the frames of a span.

    Args:
        pictures: the frames of the video.
        given: labels by frame index.
        propagator: reads the labels; it forgets what it has seen before.
        kept, first: where a span that was interrupted goes on: ``propagator.kept()`` of the time, and the position.

    Yields:
        (frame index, label).
    """
    propagator.forget()
    if span.until is not None:
        propagator.look_ahead(len(span.frames), _picture(pictures, span.until), given[span.until])
    for position, values in (kept or {}).items():
        propagator.recall(position, _picture(pictures, span.frames[position]), values)
    propagator.position = first
    for position, (index, picture) in enumerate(pictures(span.frames[first:]), start=first):
        label = propagator.step(picture, given[index] if position == 0 else None)
        if position >= span.first:
            yield index, label


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


def mask_labels(video: Video, masks: Mapping[int, Mask], device: torch.device) -> tuple[MaskLabels, dict[int, Ids]]:
    """The kind of label that the masks of a video are, and their ids by frame index, all of one type."""
    labels = MaskLabels.of([mask.ids for mask in masks.values()], (video.height, video.width), device)
    return labels, {k: labels.typed(mask.ids) for k, mask in masks.items()}


def _picture(pictures: Pictures, index: int) -> Picture:
    return next(pictures(range(index, index + 1)))[1]


def given_labels(
    video: Video,
    labels: Path,
    start: int,
    end: int,
    at: Mapping[int, Path] | None = None,
    named_by: NamedBy | None = None,
) -> dict[int, Mask]:
    """Masks by frame index: a file labels frame ``start``, a folder names the frames; ``at`` labels more of them.

    A folder may label frames outside ``start`` .. ``end - 1``, which are of no use then.

    Raises:
        InputError: a mask cannot be read, does not fit the video, or its name or content can be read two ways.
        UsageError: a frame that is labelled twice, or by ``at`` outside the range.
    """
    size = (video.height, video.width)
    files = {start: labels}
    if labels.is_dir():
        files = label_files(labels, frames=len(video), frame_files=video.files, named_by=named_by)
    for k, path in (at or {}).items():
        if k in files:
            raise UsageError(f"--at {k}={path}", f"frame {k} is labelled by {files[k]} already", "give one of the two")
        if not start <= k < end:
            raise UsageError(f"--at {k}={path}", f"frames {start} to {end - 1} are labelled", "give one of these")
    return read_masks(files, at, size=size)


def told_labels(video: Video, masks: Mapping[int, Mask]) -> list[str]:
    """One line for each given mask: its file, the frame, the objects, the background, and what was decided."""
    return [m.told(str(k) if video.files is None else f"{k} ({video.files[k].name})") for k, m in masks.items()]


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
