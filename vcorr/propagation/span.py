"""Frames labelled one after the other in one direction, from one labelled frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from vcorr.labels.label import L
from vcorr.model.encoder import Picture
from vcorr.propagation.plan import Span
from vcorr.propagation.propagator import Propagator

Pictures = Callable[[range], Iterator[tuple[int, Picture]]]
"""Indices of frames, one after the other either way -> (index, picture [h w 3]) of each."""


@dataclass(frozen=True)
class Start:
    """Where in a span labelling begins, or goes on after an interruption.

    Attributes:
        position: of the first frame, counted along the span.
        kept: ``propagator.kept()`` of the time.
        values: ``propagator.values`` of the time.
        places: ``propagator.memory.places`` of the time.
    """

    position: int = 0
    kept: Mapping[int, Tensor] = field(default_factory=dict)
    values: Tensor | None = None
    places: Mapping[int, Tensor] = field(default_factory=dict)


def label_span(
    pictures: Pictures,
    span: Span,
    given: Mapping[int, L],
    propagator: Propagator[L],
    start: Start = Start(),
    last: L | None = None,
) -> Iterator[tuple[int, Picture, L]]:
    """Label the frames of a span from its first one.

    Args:
        pictures: the frames of the video.
        given: labels by frame index.
        propagator: reads the labels; it forgets what it has seen before.
        start: where to go on. last: the label of the frame before it.

    Yields:
        (frame index, picture, label) of every frame from the start on; ``propagator.values`` are those of the frame.
    """
    propagator.forget()
    for position, values in start.kept.items():
        label = last if position == start.position - 1 else None
        propagator.recall(position, _picture(pictures, span.frames[position]), values, label)
    propagator.values, propagator.memory.places = start.values, dict(start.places)
    for position, (index, picture) in enumerate(pictures(span.frames[start.position :]), start=start.position):
        yield index, picture, propagator.step(picture, given[index] if position == 0 else None)


def _picture(pictures: Pictures, index: int) -> Picture:
    return next(pictures(range(index, index + 1)))[1]
