"""Scores a few validation clips during training, with the current weights.

The scores are for curves, not for tables: clips are read at a short side of 240 pixels and cut to 25 frames, so that
they take seconds. ``vcorr evaluate davis`` gives scores that compare with others. J and F are those of ``metrics`` at
full size: the mean over objects and over all annotated frames except the given one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vcorr.errors import InputError
from vcorr.evaluation import davis_layout
from vcorr.evaluation.metrics.masks import boundary_f, jaccard
from vcorr.labels.draw import default_palette, overlay
from vcorr.labels.masks import Mask
from vcorr.media.image import shrink, shrunk_size
from vcorr.media.video import open_video
from vcorr.model.encoder import Model
from vcorr.model.weights import load_weights
from vcorr.propagation.plan import Span
from vcorr.propagation.video import label_video

CLIPS = 3  # sequences, evenly spread over the list
FRAMES = 25  # frames of a sequence, from the labelled one on
SIDE = 240  # pixels, the short side at which frames are read
SHOWN = 5  # frames of the first sequence that the report shows

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class ClipScore:
    """J and F of one sequence, in [0, 1], over ``frames`` scored frames."""

    name: str
    frames: int
    j: float
    f: float


@dataclass(frozen=True)
class Validation:
    """The scores of one set of weights.

    Attributes:
        clips: one score for each sequence.
        pictures: (frames after the given one, the frame with its labels drawn in), of the first sequence.
        seconds: the time that it took.
    """

    clips: tuple[ClipScore, ...]
    pictures: tuple[tuple[int, Picture], ...]
    seconds: float

    @property
    def j_and_f(self) -> float:
        """(mean J + mean F) / 2 over the sequences."""
        return float(np.mean([(clip.j + clip.f) / 2 for clip in self.clips]))


class ValidationClips:
    """Labelled clips that score weights.

    Args:
        root: a dataset in DAVIS's layout.

    Raises:
        InputError: the layout is another, or a sequence has no images, no object or no second annotated frame.
    """

    def __init__(self, root: Path) -> None:
        listed = davis_layout.sequences(root)
        count = min(CLIPS, len(listed))
        self.sequences = [listed[(2 * k + 1) * len(listed) // (2 * count)] for k in range(count)]
        for sequence in self.sequences:
            first = sequence.start
            within = {frame.stem for frame in sequence.frames[first + 1 : first + FRAMES]}
            if not within & {annotation.stem for annotation in sequence.annotations[1:]}:
                what = f"no annotation in the {FRAMES - 1} frames after the first annotated one"
                raise InputError(sequence.annotations[0].parent, what, "give sequences with more annotations")
            davis_layout.first_ids(sequence)

    def score(
        self, weights: Path, device: torch.device, *, cancelled: Callable[[], bool] = lambda: False
    ) -> Validation | None:
        """Labels the clips with a weights file and scores them; None if ``cancelled`` between two frames.

        Draws no random number and writes no file.
        """
        began = time.monotonic()
        model = Model.of(load_weights(weights), device)
        clips: list[ClipScore] = []
        pictures: list[tuple[int, Picture]] = []
        for sequence in self.sequences:
            drawn = pictures if not clips else None
            score = _score(sequence, model, drawn, cancelled)
            if score is None:
                return None
            clips.append(score)
        return Validation(tuple(clips), tuple(pictures), time.monotonic() - began)


def _score(
    sequence: davis_layout.Sequence,
    model: Model,
    drawn: list[tuple[int, Picture]] | None,
    cancelled: Callable[[], bool],
) -> ClipScore | None:
    """Labels one sequence and scores it; adds pictures to ``drawn`` if it is given."""
    first, truths = sequence.start, {path.stem: path for path in sequence.annotations[1:]}
    scores: list[tuple[float, float]] = []
    with open_video(sequence.images) as video:
        size = (video.height, video.width)
        given = Mask(davis_layout.first_ids(sequence, size), default_palette())
        objects = [int(k) for k in np.unique(given.ids) if k]
        frames = range(first, min(first + FRAMES, len(video)))
        wanted = set(np.linspace(0, len(frames) - 1, SHOWN).round().astype(int).tolist())
        compared = 0
        for frame in label_video(video, [Span(frames)], {first: given}, model, short_side=SIDE):
            if cancelled():
                return None
            if drawn is not None and frame.index - first in wanted:
                (shown,) = video.frames(frame.index, frame.index + 1)  # a damaged frame has the picture before it
                drawn.append((frame.index - first, _drawn(shown[1], frame.mask, given.palette)))
            truth = truths.get(sequence.frames[frame.index].stem)
            if truth is None or frame.index == first:
                continue
            ids = davis_layout.read_annotation(truth, size)
            compared += 1
            scores += [(jaccard(frame.mask == k, ids == k), boundary_f(frame.mask == k, ids == k)) for k in objects]
    j, f = np.mean(scores, axis=0).tolist()
    return ClipScore(sequence.name, compared, j, f)


def _drawn(rgb: Picture, mask: Picture | NDArray[np.uint16], palette: Picture) -> Picture:
    size = shrunk_size(rgb.shape[0], rgb.shape[1], SIDE)
    rows = (np.arange(size[0]) * mask.shape[0] // size[0])[:, None]
    columns = np.arange(size[1]) * mask.shape[1] // size[1]
    return overlay(shrink(rgb, size), mask[rows, columns], palette)
