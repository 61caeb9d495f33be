"""The spans between labelled frames, and the order in which they are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vcorr.errors import UsageError


@dataclass(frozen=True)
class Span:
    """Frames gone through one after the other, starting at a labelled one.

    Attributes:
        frames: their indices, ascending or descending; the first is labelled.
        until: the labelled frame at the far end, if any; frames between two labelled ones are in two spans, one each
            way.
    """

    frames: range
    until: int | None = None

    @property
    def first(self) -> int:
        """Position of the first frame that it yields: a backward one leaves its labelled frame to the forward one."""
        return int(self.frames.step < 0)

    @property
    def waits(self) -> bool:
        """Whether what is read in it waits for the span that goes the other way: the one that comes after it."""
        return self.until is not None and self.frames.step < 0

    def __len__(self) -> int:
        """Frames that it yields."""
        return len(self.frames) - self.first


def spans(labelled: Sequence[int], start: int, end: int) -> list[Span]:
    """How the frames start .. end-1 are reached from the labelled ones.

    Between two labelled frames a < b a span goes from b towards a, and then one from a towards b. Before the first, one
    goes backwards; after the last, forwards.

    >>> for span in spans([3, 6], 1, 9):
    ...     print(span.frames, span.until)
    range(3, 0, -1) None
    range(6, 3, -1) 3
    range(3, 6) 6
    range(6, 9) None
    """
    inside = [k for k in sorted(labelled) if start <= k < end]
    if not inside:
        raise UsageError(
            "labels", f"no labelled frame within frames {start} to {end - 1}", "label one of them, or widen the range"
        )
    result = [Span(range(inside[0], start - 1, -1))] if inside[0] > start else []
    for a, b in zip(inside, [*inside[1:], None], strict=True):
        if b is not None and b - a > 1:
            result.append(Span(range(b, a, -1), a))
        result.append(Span(range(a, end if b is None else b), b))
    return result
