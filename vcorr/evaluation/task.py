"""The labelling tasks of a benchmark, as plain data, so that scoring does not import propagation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcorr.labels.raw_ids import Ids


@dataclass(frozen=True)
class Task:
    """A video to label with masks.

    Args:
        name: of the video, for messages.
        images: the folder of its frames.
        out: the folder of its results.
        size: (height, width) of its frames and masks.
        wanted: frames to write: index -> file name without suffix.
        given: makes the given masks by frame index. The first covers the whole frame; later ones add the objects that
            begin in them. Picklable, because the labelling process calls it.
        classes: class of each id, to write a list beside each mask: 00000.txt, with the class and the mean soft value
            of id k in line k; None writes none.
        read: (height, width) at which frames are read, without regard to proportions; None for a short side of 480.
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
        """The approximate number of frames to read."""
        return max(self.wanted) - min(self.wanted)


@dataclass(frozen=True)
class PointTask:
    """A video to label with points, from frame 0 on.

    Args:
        name: of the video, for messages.
        images: the folder of its frames.
        out: the folder of its results, keypoints.csv.
        size: (height, width) of its frames.
        frames: the number of frames.
        points: their names.
        given: makes the points of frame 0, float64 [n 2], NaN for missing ones; picklable.
        read: (height, width) at which frames are read, without regard to proportions.
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
        """The number of frames to read."""
        return self.frames
