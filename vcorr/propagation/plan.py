"""Which frames are labelled from which given ones, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vcorr.errors import UsageError


@dataclass(frozen=True)
class Span:
    """Frames labelled one after the other, starting at a labelled one.

    Attributes:
        frames: their indices, ascending or descending; the first is labelled.
        until: the labelled frame at the far end, if any: it is read from as well.
    """

    frames: range
    until: int | None = None

    @property
    def first(self) -> int:
        """Position of the first frame that it yields: a backward one leaves its labelled frame to the forward one."""
        return int(self.frames.step < 0)

    def __len__(self) -> int:
        """Frames that it yields."""
        return len(self.frames) - self.first


def spans(labelled: Sequence[int], start: int, end: int) -> list[Span]:
    """How the frames start .. end-1 are reached from the labelled ones.

    Between two labelled frames a < b a span goes from a towards b and reads both; before the first it goes backwards.

    >>> spans([3, 6], 1, 9)
    [Span(frames=range(3, 0, -1), until=None), Span(frames=range(3, 6), until=6), Span(frames=range(6, 9), until=None)]
    """
    inside = [k for k in sorted(labelled) if start <= k < end]
    if not inside:
        raise UsageError(
            "labels", f"no labelled frame within frames {start} to {end - 1}", "label one of them, or widen the range"
        )
    result = [Span(range(inside[0], start - 1, -1))] if inside[0] > start else []
    for a, b in zip(inside, [*inside[1:], None], strict=True):
        result.append(Span(range(a, end if b is None else b), b))
    return result
