"""Labels as they are given, of any kind, and the files in which their results lie.

A kind of label is a class that reads its files (``Given``) and one that writes its results (``Store``); what the loop
needs of it is in ``label``. Nothing else in the package knows which kinds there are: a new one is a line of ``kind_of``
and of ``read_given``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from vcorr.errors import UsageError
from vcorr.labels.earlier import Earlier
from vcorr.labels.keypoint_set import holds_points, point_files, read_keypoints
from vcorr.labels.label import Labels
from vcorr.labels.mask_names import NamedBy
from vcorr.labels.mask_set import read_mask_set
from vcorr.media.video import Video

L = TypeVar("L")

Kind = Literal["masks", "keypoints"]


class Store(Protocol[L]):
    """The files of a folder that hold the results of one kind.

    Attributes:
        path: of the file or folder that they are in.
    """

    @property
    def path(self) -> Path: ...

    def prepare(self) -> None:
        """Make what is made at once, and clear away what a kill left half written."""

    def missing(self, frames: Iterable[int]) -> set[int]:
        """Those of the frames whose result is not there, or not whole."""

    def write(self, index: int, label: L) -> None:
        """Write the label of a frame, unless it is there."""

    def read(self, index: int) -> L:
        """The label of a frame that is there, as it was written."""

    def revise(self, frames: Collection[int], labels: Mapping[int, L], before: Sequence[int] | Sequence[str]) -> None:
        """Put in labels, take out the results of the other frames named, and keep the rest.

        A kill leaves the old results or the new ones of each frame. It works before ``prepare``.

        Args:
            before: the objects of the results that are there (``Given.objects``).
        """

    def finish(self, frames: Iterable[int]) -> None:
        """Make what can only be made of the results of all frames, unless it is there."""

    def drawn(self, index: int, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture of a frame [h w 3], of any size, with its result drawn on it."""


class Given(Protocol[L]):
    """The labels that a video is given, of one kind.

    Attributes:
        kind: of the labels.
        by_frame: each label by the index of its frame, ascending.
        objects: what they label: ids of objects, names of points.
        described: the same for the manifest, with names of ids.
    """

    @property
    def kind(self) -> Kind: ...
    @property
    def by_frame(self) -> Mapping[int, L]: ...
    @property
    def objects(self) -> list[int] | list[str]: ...
    @property
    def described(self) -> dict[str, Any]: ...

    def labels(self, device: torch.device) -> Labels[L]:
        """What the loop needs of them."""

    def digest(self, frame: int) -> str:
        """SHA-256 of a label."""

    def told(self, frame: int, name: str) -> str:
        """The line that says how the label of a frame, shown to people by a name, was read."""

    def store(self, out: Path) -> Store[L]:
        """Where their results lie in an output folder."""


def read_given(
    video: Video,
    labels: Path,
    start: int,
    end: int,
    at: Mapping[int, Path] | None = None,
    named_by: NamedBy | None = None,
    kind: Kind | None = None,
    earlier: Earlier | None = None,
) -> Given[Any]:
    """Labels by frame index: a file labels frame ``start``, or the frames that it names; a folder names the frames;
    ``at`` labels more of them.

    ``earlier`` are labels that a folder of results has: of frames that are given no other, and are not taken back.

    A folder or a file may label frames outside ``start`` .. ``end - 1``, which are of no use then.

    Raises:
        InputError: a file cannot be read, does not fit the video, or its name or content can be read two ways.
        UsageError: a frame that is labelled twice, or by ``at`` outside the range; files of two kinds; ``named_by`` of
            one image; no label that is left.
    """
    at = at or {}
    for option, value, known in (("--named-by", named_by, get_args(NamedBy)), ("--kind", kind, get_args(Kind))):
        if value not in (None, *known):
            raise UsageError(f"{option} {value}", "is not known", f"give {' or '.join(known)}")
    for k, path in at.items():
        if not start <= k < end:
            raise UsageError(f"--at {k}={path}", f"frames {start} to {end - 1} are labelled", "give one of these")
    kind = kind or kind_of(labels)
    if kind == "keypoints":
        return read_keypoints(video, labels, start, at, named_by, earlier)
    return read_mask_set(video, labels, start, at, named_by, earlier)


def kind_of(path: Path) -> Kind:
    """The kind of label that a file holds."""
    if path.is_dir():
        return "keypoints" if point_files(path) else "masks"
    return "keypoints" if path.is_file() and holds_points(path) else "masks"


def told_given(video: Video, given: Given[Any]) -> list[str]:
    """One line for each label that was given: its file, the frame, what it labels, and what was decided."""
    return [given.told(k, str(k) if video.files is None else f"{k} ({video.files[k].name})") for k in given.by_frame]
