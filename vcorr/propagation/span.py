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
        state: ``propagator.state()`` of the time.
    """

    position: int = 0
    state: Mapping[str, Tensor] = field(default_factory=dict)


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
    if start.position > 0:
        propagator.restore(start.position, start.state, lambda p: _picture(pictures, span.frames[p]), last)
    for position, (index, picture) in enumerate(pictures(span.frames[start.position :]), start=start.position):
        yield index, picture, propagator.step(picture, given[index] if position == 0 else None)


def _picture(pictures: Pictures, index: int) -> Picture:
    return next(pictures(range(index, index + 1)))[1]
