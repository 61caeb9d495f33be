"""Where the time of a propagation goes: its parts, wrapped so that their calls are timed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

from torch import Tensor

from vcorr.labels.label import L, Labels, Side
from vcorr.matching.cells import Grid
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import Pictures

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Seconds:
    """Seconds spent so far in each part.

    Attributes:
        encoder: features. read: values from references. io: frames decoded. other: labels to cells and back.
    """

    encoder: float = 0.0
    read: float = 0.0
    io: float = 0.0
    other: float = 0.0

    def propagator(self, propagator: Propagator[L]) -> Propagator[L]:
        """A propagator whose parts are timed."""
        model, labels, encoder = propagator.model, propagator.labels, propagator.model.encoder
        query = self.calls("encoder", encoder.query)
        slow = encoder.slow and self.calls("encoder", encoder.slow)
        both = encoder.with_context and self.calls("encoder", encoder.with_context)
        timed = dataclasses.replace(encoder, query=query, slow=slow, with_context=both)
        model = dataclasses.replace(model, encoder=timed)
        read, follow = self.calls("read", propagator.read), self.calls("read", propagator.follow)
        return Propagator(model, _Timed(labels, self), read=read, follow=follow)

    def calls(self, part: str, function: Callable[P, T]) -> Callable[P, T]:
        """The function, its calls timed."""

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            self._add(part, began)
            return result

        return call

    def items(self, part: str, function: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
        """A function that returns an iterator, the making of whose items is timed."""

        def iterate(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            items = function(*args, **kwargs)
            while True:
                began = time.perf_counter()
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    self._add(part, began)
                yield item

        return iterate

    def _add(self, part: str, began: float) -> None:
        setattr(self, part, getattr(self, part) + time.perf_counter() - began)


class _Timed(Generic[L]):
    """A kind of label, timed as ``other``."""

    def __init__(self, labels: Labels[L], seconds: Seconds) -> None:
        self.size, self.channels, self.background = labels.size, labels.channels, labels.background
        self._to = seconds.calls("other", labels.to_cells)
        self._from = seconds.calls("other", labels.from_cells)
        self._thickness = seconds.calls("other", labels.thickness)
        self._side = seconds.calls("other", labels.side)
        self._blend = seconds.calls("other", labels.blend)

    def to_cells(self, label: L, grid: Grid) -> Tensor:
        return self._to(label, grid)

    def from_cells(self, cells: Tensor, grid: Grid) -> L:
        return self._from(cells, grid)

    def thickness(self, label: L) -> float:
        return self._thickness(label)

    def side(self, values: Tensor, grid: Grid, start: L) -> Side:
        return self._side(values, grid, start)

    def blend(self, near: Side, far: Side, share: float, grid: Grid) -> L:
        return self._blend(near, far, share, grid)


@dataclass(frozen=True)
class Trial:
    """What labelling one frame shows of the rest.

    Attributes:
        seconds: expected time of a step. seen: (height, width) of frames as the encoder sees them.
    """

    seconds: float
    seen: tuple[int, int]


def trial(propagator: Propagator[L], pictures: Pictures, given: Mapping[int, L]) -> Trial:
    """A step whose references are all a labelled frame itself."""
    scratch = Propagator(propagator.model, propagator.labels, read=propagator.read)
    index = next(iter(given))
    _, picture = next(pictures(range(index, index + 1)))
    scratch.step(picture, given[index])
    (frame,) = scratch.memory.frames.values()
    references = propagator.model.inference.references
    late = max(references.long, default=0) + max(references.short, default=0) + 1  # when as many are read as ever
    expected = 0.0
    for _ in range(2):  # the first time pays for warming up
        scratch.position = late
        scratch.memory.frames, scratch.last = dict.fromkeys(range(late), frame), None
        began = time.perf_counter()
        scratch.step(picture)
        expected = time.perf_counter() - began
    assert scratch.sight is not None
    return Trial(expected, scratch.sight.size)
