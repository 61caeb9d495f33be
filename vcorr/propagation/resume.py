"""How a stopped labelling goes on: what is left of its spans, and the state from which one goes on in its midst."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vcorr.errors import InputError, OutputError
from vcorr.labels.label import L
from vcorr.model.weights import load_tensors, save_tensors
from vcorr.propagation.plan import Span
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.results import Results
from vcorr.propagation.video import Pictures, label_span

FORMAT = "vcorr-results-1"
STATE = ".resume.safetensors"
SAVE_EVERY = 10  # frames between two states to go on from


@dataclass(frozen=True)
class Point:
    """Where labelling begins or goes on: the span, the next position in it, values of its references by position."""

    span: int = 0
    position: int = 0
    values: Mapping[int, torch.Tensor] = field(default_factory=dict)

    def first(self, plan: Sequence[Span]) -> int:
        """The position of the first frame that is yielded from here on."""
        return max(self.position, plan[self.span].first)

    def left(self, plan: Sequence[Span]) -> int:
        """Frames yielded from here to the end of the span."""
        return len(plan[self.span].frames) - self.first(plan)


def stretches_of(plan: Sequence[Span], point: Point, missing: Set[int]) -> list[Point]:
    """What of each span has to be gone through for the missing frames: from its start, or on from a point in it."""
    stretches = []
    for number, span in enumerate(plan):
        gap = next((p for p in range(span.first, len(span.frames)) if span.frames[p] in missing), None)
        if gap is not None:
            stretches.append(point if point.span == number and point.position <= gap else Point(number))
    return stretches


def label_stretches(
    frames: Pictures,
    given: Mapping[int, L],
    propagator: Propagator[L],
    plan: Sequence[Span],
    stretches: Sequence[Point],
    results: Results,
    progress: Callable[[int], None],
) -> None:
    """Write the missing labels; however this ends, the folder can be continued after the last one."""
    point, done = Point(), 0
    try:
        for point in stretches:
            number = point.span
            last = _last(plan[number], point.position, given, results)
            labelled = label_span(
                frames, plan[number], given, propagator, kept=point.values, first=point.position, last=last
            )
            for position, (index, label) in enumerate(labelled, start=point.first(plan)):
                results.store.write(index, label)
                point = Point(number, position + 1, propagator.kept())
                done += 1
                progress(done)
                if position % SAVE_EVERY == 0:
                    _save_point(results.out, point)
    except OutputError:
        with contextlib.suppress(OutputError):  # of two failures to write, the first is told
            _save_point(results.out, point)
        raise
    except BaseException:
        _save_point(results.out, point)
        raise


def _last(span: Span, position: int, given: Mapping[int, L], results: Results) -> L | None:
    """The label of the frame before a position of a span."""
    if position == 0:
        return None
    index = span.frames[position - 1]
    label: L = given[index] if position == 1 else results.store.read(index)
    return label


def _save_point(out: Path, point: Point) -> None:
    # Frames that repeat each other share their values, which a file may not.
    tensors = {str(position): values.clone() for position, values in point.values.items()}
    save_tensors(out / STATE, tensors, {"format": FORMAT, "span": point.span, "position": point.position})


def resume_point(out: Path, device: torch.device) -> Point:
    """Where to go on; the beginning if nothing was saved or what was saved is damaged."""
    try:
        tensors, meta = load_tensors(out / STATE)
        return Point(meta["span"], meta["position"], {int(k): v.to(device) for k, v in tensors.items()})
    except (InputError, KeyError, ValueError):
        return Point()
