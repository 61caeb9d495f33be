"""The labels that an output folder was made from, which it has among its results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcorr.errors import InputError


@dataclass(frozen=True)
class Earlier:
    """The labels of an output folder.

    Attributes:
        out: the folder.
        digests: SHA-256 of each label that stays, by frame index, unless its frame is given another.
        without: frames whose labels were taken back at some time: those given with LABELS do not count any more.
        objects: ids of objects, or names of points, of the results.
        names: of the ids that have one.
    """

    out: Path
    digests: Mapping[int, str]
    without: Collection[int]
    objects: Sequence[int] | Sequence[str]
    names: Mapping[int, str]

    def verify(self, frames: Iterable[int], path: Callable[[int], Path], digest: Callable[[int], str]) -> None:
        """Refuse results of labelled frames that are not the labels any more.

        Raises:
            InputError: with how to give the label again.
        """
        for k in frames:
            if digest(k) != self.digests[k]:
                raise changed(path(k), k, "it differs")


def changed(path: Path, frame: int, why: str) -> InputError:
    """The error of a result that should be the label that its frame was given."""
    what = f"is not the label that frame {frame} was given ({why})"
    return InputError(path, what, f"give that frame's label again: --at {frame}=FILE")
