"""What a benchmark asks to be labelled: plain data, so that scores are counted without what labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcorr.labels.raw_ids import Ids


@dataclass(frozen=True)
class Task:
    """A video to label, as its benchmark wants it.

    Args:
        name: of the video, for messages.
        images: the folder of its frames.
        out: the folder of its results.
        size: (height, width) of its frames and masks.
        wanted: the frames to write, by index, and the names of their files without the suffix.
        given: makes the masks that are given, by frame index; the first is the whole frame's, later ones add the
            objects that begin in them. Called in the process that labels, so it must be picklable.
        classes: class of each id, where a list is wanted beside each mask: 00000.txt, with the class and the mean soft
            value of the id k in line k.
        read: (height, width) at which frames are read, proportions or not; None is 480 on the short side.
    """

    name: str
    images: Path
    out: Path
    size: tuple[int, int]
    wanted: Mapping[int, str]
    given: Callable[[], Mapping[int, Ids]]
    read: tuple[int, int] | None = None
    classes: Mapping[int, int] | None = None

    @property
    def files(self) -> dict[int, Path]:
        """The files of the results, by frame index."""
        return {k: self.out / f"{name}.png" for k, name in self.wanted.items()}

    @property
    def length(self) -> int:
        """How many frames are read, about."""
        return max(self.wanted) - min(self.wanted)


@dataclass(frozen=True)
class PointTask:
    """A video whose points are to be carried from frame 0 on.

    Args:
        name: of the video, for messages.
        images: the folder of its frames.
        out: the folder of its results, keypoints.csv.
        size: (height, width) of its frames.
        frames: how many are labelled.
        points: their names.
        given: makes the places of frame 0, float64 [n 2], NaN where one is missing; picklable.
        read: (height, width) at which frames are read, proportions or not.
    """

    name: str
    images: Path
    out: Path
    size: tuple[int, int]
    frames: int
    points: tuple[str, ...]
    given: Callable[[], NDArray[np.float64]]
    read: tuple[int, int]

    @property
    def length(self) -> int:
        """How many frames are read."""
        return self.frames
