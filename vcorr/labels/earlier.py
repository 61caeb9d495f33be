"""The labels that an output folder was made from. They are among its results."""

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
        digests: SHA-256 of each label that stays, by frame index, unless its frame gets a new label.
        without: frames whose labels were taken back; LABELS no longer counts for them.
        objects: ids of objects, or names of points, in the results.
        names: the names of ids, where they have one.
        partial: new labels state only what they show; the rest of the frame stays as the results have it.
    """

    out: Path
    digests: Mapping[int, str]
    without: Collection[int]
    objects: Sequence[int] | Sequence[str]
    names: Mapping[int, str]
    partial: bool = False

    def verify(self, frames: Iterable[int], path: Callable[[int], Path], digest: Callable[[int], str]) -> None:
        """Checks that the results of labelled frames still are the labels.

        Raises:
            InputError: one differs; the advice says how to give the label again.
        """
        for k in frames:
            if digest(k) != self.digests[k]:
                raise changed(path(k), k, "it differs")


def changed(path: Path, frame: int, why: str) -> InputError:
    """The error for a result that no longer is the label of its frame."""
    what = f"is not the label that frame {frame} was given ({why})"
    return InputError(path, what, f"give that frame's label again: --at {frame}=FILE")
