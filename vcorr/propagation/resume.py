"""How a stopped labelling goes on: what is left of its spans, and the state from which one goes on in its midst."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vcorr.errors import InputError, OutputError
from vcorr.labels.label import L
from vcorr.model.weights import load_tensors, save_tensors
from vcorr.propagation.blend import Waiting, go_through
from vcorr.propagation.plan import Span
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.results import Results
from vcorr.propagation.span import Pictures, Start

FORMAT = "vcorr-results-1"
STATE = ".resume.safetensors"
WAITING = ".waiting"  # what was read of a span from one side
_NAME = re.compile(
    r"values|sight|whole|(values|places|parts)\.\d+|target\.(first|later)\.(context|fine)\.(features|shares)"
)  # of the tensors of a state
SAVE_EVERY = 10  # frames between two states to go on from


@dataclass(frozen=True)
class Point:
    """Where labelling begins or goes on: the number of the span, and where in it."""

    span: int = 0
    start: Start = Start()  # noqa: RUF009 (frozen)

    def first(self, plan: Sequence[Span]) -> int:
        """The position of the first frame that is yielded from here on."""
        return max(self.start.position, plan[self.span].first)

    def left(self, plan: Sequence[Span]) -> int:
        """Frames yielded from here to the end of the span."""
        return len(plan[self.span].frames) - self.first(plan)


def stretches_of(plan: Sequence[Span], point: Point, missing: Set[int], waiting: Waiting) -> list[Point]:
    """What of each span has to be gone through for the missing frames: from its start, or on from a point in it."""
    stretches = []
    for number, span in enumerate(plan):
        reached = range(span.first, len(span.frames))
        wanted = (p for p in reached if span.frames[p] in missing)
        if span.waits:
            wanted = (p for p in wanted if waiting.read(span.frames[p]) is None)
        gap = next(wanted, None)
        if gap is not None:
            stretches.append(point if point.span == number and point.start.position <= gap else Point(number))
    return stretches


def label_stretches(
    frames: Pictures,
    given: Mapping[int, L],
    propagator: Propagator[L],
    plan: Sequence[Span],
    stretches: Sequence[Point],
    results: Results,
    progress: Callable[[int], None],
    wrote: Callable[[int, Any], None] = lambda index, label: None,
    wanted: Set[int] | None = None,
) -> None:
    """Write the missing labels; however this ends, the folder can be continued after the last one.

    Args:
        wrote: takes the index and the label of each frame that was written.
        wanted: frames after the last of which a span needs not be gone through; None is to its end.
    """
    point, done, waiting = Point(), 0, Waiting(results.out / WAITING)
    try:
        for point in stretches:
            number, span = point.span, plan[point.span]
            last = _last(span, point.start.position, given, results)
            enough = _enough(span, wanted)
            labelled = go_through(frames, span, given, propagator, waiting, point.start, last)
            for position, step in enumerate(labelled, start=point.first(plan)):
                results.write(step, propagator)
                point = Point(number, Start(position + 1, propagator.state()))
                done += 1
                if step.label is not None:
                    wrote(step.index, step.label)
                progress(done)
                if position % SAVE_EVERY == 0 or position == enough:
                    _save_point(results.out, point)
                if position == enough < len(span.frames) - 1:
                    break
    except OutputError:
        with contextlib.suppress(OutputError):  # of two failures to write, the first is told
            _save_point(results.out, point)
        raise
    except BaseException:
        _save_point(results.out, point)
        raise


def _enough(span: Span, wanted: Set[int] | None) -> int:
    """The position in a span after which no frame is wanted; its last where it waits, as the other way needs it all."""
    end = len(span.frames) - 1
    if wanted is None or span.waits:
        return end
    return max((p for p, k in enumerate(span.frames) if k in wanted), default=end)


def _last(span: Span, position: int, given: Mapping[int, L], results: Results) -> L | None:
    """The label of the frame before a position of a span."""
    if position == 0:
        return None
    # Of frames that are blended it is not the propagator's own, but then only their values count.
    index = span.frames[position - 1]
    label: L = given[span.frames[0]] if position == 1 or span.until is not None else results.store.read(index)
    return label


def _save_point(out: Path, point: Point) -> None:
    # Frames that repeat each other share their values, which a file may not.
    start = point.start
    tensors = {name: tensor.clone() for name, tensor in start.state.items()}
    save_tensors(out / STATE, tensors, {"format": FORMAT, "span": point.span, "position": start.position})


def resume_point(out: Path, device: torch.device) -> Point:
    """Where to go on; the beginning if nothing was saved or what was saved is damaged."""
    try:
        tensors, meta = load_tensors(out / STATE)
        state = {name: tensor.to(device) for name, tensor in tensors.items() if _NAME.fullmatch(name)}
        if len(state) < len(tensors):
            return Point()  # of another version
        return Point(meta["span"], Start(meta["position"], state))
    except (InputError, KeyError, ValueError):
        return Point()
