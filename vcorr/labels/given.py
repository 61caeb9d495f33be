"""Given labels of any kind, and the files that hold their results.

A kind of label has a class that reads its files (``Given``) and one that writes its results (``Store``); ``label`` has
what the propagation loop needs. No other module knows the kinds: a new kind takes a line in ``kind_of`` and one in
``read_given``.
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
from vcorr.labels.soft import holds_values, read_soft
from vcorr.media.video import Video

L = TypeVar("L")

Kind = Literal["masks", "keypoints", "soft"]


class Store(Protocol[L]):
    """The result files of one kind in an output folder.

    Attributes:
        path: the file or folder that holds them.
    """

    @property
    def path(self) -> Path: ...

    def prepare(self) -> None:
        """Creates folders and files, and removes what a killed run left half-written."""

    def missing(self, frames: Iterable[int]) -> set[int]:
        """The frames whose result is missing or damaged."""

    def write(self, index: int, label: L) -> None:
        """Writes the label of a frame, unless it exists."""

    def read(self, index: int) -> L:
        """Reads the label of a frame as it was written."""

    def revise(self, frames: Collection[int], labels: Mapping[int, L], before: Sequence[int] | Sequence[str]) -> None:
        """Writes labels, removes the results of the other ``frames``, and keeps the rest.

        If the process is killed, each frame has its old or its new result. May be called before ``prepare``.

        Args:
            before: the objects of the present results (``Given.objects``).
        """

    def finish(self, frames: Iterable[int]) -> None:
        """Writes what needs the results of all frames, unless it exists."""

    def drawn(self, index: int, rgb: NDArray[np.uint8], *, opacity: float = 0.5) -> NDArray[np.uint8]:
        """Draws the result of a frame on its picture, [h w 3] of any size.

        Args:
            opacity: of the colours of areas, from 0 (only outlines) to 1.
        """


class Given(Protocol[L]):
    """The given labels of a video, of one kind.

    Attributes:
        kind: the kind of labels.
        by_frame: the labels by frame index, ascending.
        objects: ids of objects, or names of points.
        shown: what messages call each.
        colours: the colour of each as it is drawn, [n 3].
        described: the same for the manifest, with the names of ids.
    """

    @property
    def kind(self) -> Kind: ...
    @property
    def by_frame(self) -> Mapping[int, L]: ...
    @property
    def objects(self) -> list[int] | list[str]: ...
    @property
    def shown(self) -> list[str]: ...
    @property
    def colours(self) -> NDArray[np.uint8]: ...
    @property
    def described(self) -> dict[str, Any]: ...

    def labels(self, device: torch.device) -> Labels[L]:
        """The labels as the propagation loop needs them."""

    def digest(self, frame: int) -> str:
        """SHA-256 of a label."""

    def told(self, frame: int, name: str) -> str:
        """The line that says how the label of a frame was read; ``name`` is the frame's name for the user."""

    def store(self, out: Path) -> Store[L]:
        """The files for their results in an output folder."""


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
    """Reads the labels of a video by frame index.

    Args:
        video: the video.
        labels: a file that labels frame ``start``, or the frames that it names; or a folder of files named by frame.
        start, end: the range of frames to label. Labels of other frames in ``labels`` have no effect.
        at: files for further frames of the range.
        named_by: the meaning of file names that are ambiguous.
        kind: the kind of labels; None finds it out.
        earlier: the labels of an output folder. They count for frames without a new label that was not taken back.

    Raises:
        InputError: a file cannot be read, does not fit the video, or is ambiguous in name or content.
        UsageError: a frame is labelled twice, or by ``at`` outside the range; two kinds of files; ``named_by`` for one
            image; no label is left.
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
    if kind == "soft":
        return read_soft(video, labels, start, at, named_by, earlier)
    return read_mask_set(video, labels, start, at, named_by, earlier)


def kind_of(path: Path) -> Kind:
    """The kind of label that a file holds."""
    if holds_values(path):
        return "soft"
    if path.is_dir():
        return "keypoints" if point_files(path) else "masks"
    return "keypoints" if path.is_file() and holds_points(path) else "masks"


def told_given(video: Video, given: Given[Any]) -> list[str]:
    """One line for each given label: its file, its frame, its objects, and the decisions of reading."""
    return [given.told(k, str(k) if video.files is None else f"{k} ({video.files[k].name})") for k in given.by_frame]
