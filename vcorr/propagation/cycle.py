"""Whether labels find back: frames are divided into stretches, and each is labelled backwards from its far end.

What comes back at the near end is compared with the label there, by J. A stretch that loses an object, or takes on
something else, does not find back. Stretches begin at labelled frames and go on from one another, so the product of
their J estimates how much of the given label is left. It costs as much as labelling once more.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vcorr.files import replacing
from vcorr.labels.raw_ids import Ids
from vcorr.propagation.confidence import overlap
from vcorr.propagation.plan import Span
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import Pictures, label_span

Check = Literal["cycle"]

TABLE = "cycle.csv"
STEP = 10  # frames of a stretch, at most


@dataclass(frozen=True)
class Reach:
    """A stretch of frames.

    Attributes:
        near: its end towards a labelled frame, or that frame. far: its other end, which belongs to it.
    """

    near: int
    far: int

    @property
    def back(self) -> Span:
        """From the far end to the near one."""
        step = 1 if self.near > self.far else -1
        return Span(range(self.far, self.near + step, step))

    @property
    def frames(self) -> range:
        """Its frames, the nearest first: the near end belongs to the stretch before it."""
        step = 1 if self.far > self.near else -1
        return range(self.near + step, self.far + step, step)


def reaches(labelled: Sequence[int], frames: range) -> list[list[Reach]]:
    """Stretches of all frames, in chains that begin at labelled ones; between two, each has the frames nearer to it.

    >>> [[(r.near, r.far) for r in chain] for chain in reaches([3], range(15))]
    [[(3, 0)], [(3, 13), (13, 14)]]
    """
    inside = [k for k in sorted(labelled) if k in frames]
    chains = []
    for before, k, after in zip([None, *inside[:-1]], inside, [*inside[1:], None], strict=True):
        first = frames.start if before is None else (before + k) // 2 + 1
        last = frames.stop - 1 if after is None else (k + after) // 2
        for end, step in ((first, -STEP), (last, STEP)):
            ends = [*range(k, end, step), end]
            if end != k:
                chains.append([Reach(a, b) for a, b in pairwise(ends)])
    return chains


def found_back(
    pictures: Pictures,
    chains: Sequence[Sequence[Reach]],
    frames: range,
    masks: Callable[[int], Ids],
    objects: Sequence[int],
    propagator: Propagator[Ids],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float64]:
    """How much of the given label is left in each frame, by object [frames objects], in [0, 1].

    Args:
        masks: gives the mask of a frame. progress: takes (frames done, frames in all).
    """
    left = np.ones((len(frames), len(objects)))
    total, done = sum(len(reach.back.frames) for chain in chains for reach in chain), 0
    for chain in chains:
        so_far = np.ones(len(objects))
        for reach in chain:
            start, back = masks(reach.far), None
            for _, _, mask in label_span(pictures, reach.back, {reach.far: start}, propagator):
                back = mask
                done += 1
                progress(done, total)
            assert back is not None
            wanted = masks(reach.near)
            so_far = so_far * [overlap(back == i, wanted == i) for i in objects]
            for k in reach.frames:
                left[k - frames.start] = so_far
    return left


def write_table(out: Path, left: NDArray[np.float64], frames: range, objects: Sequence[int]) -> None:
    """Write ``cycle.csv``.

    Raises:
        OutputError: it cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["frame", "object", "left"])
    for k, row in zip(frames, left, strict=True):
        table.writerows([k, i, f"{value:.4f}"] for i, value in zip(objects, row, strict=True))
    with replacing(out / TABLE) as file:
        file.write(text.getvalue().encode())


def read_table(out: Path, frames: range, objects: Sequence[int]) -> NDArray[np.float64] | None:
    """What ``write_table`` wrote [frames objects]; None where it is not there, damaged, or of other objects."""
    found: Mapping[tuple[int, int], float]
    try:
        rows = list(csv.reader(io.StringIO((out / TABLE).read_text(encoding="utf-8"))))
        found = {(int(k), int(i)): float(value) for k, i, value in rows[1:]}
        return np.array([[found[k, i] for i in objects] for k in frames]).reshape(len(frames), len(objects))
    except (OSError, ValueError, KeyError):
        return None
