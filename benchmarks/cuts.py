"""Scene cuts found where there are none, and those found where two videos are joined.

    python -m benchmarks.cuts DIR [DIR ...]

DIR holds data sets in DAVIS's layout; each sequence is one scene. Every two of them are joined in both orders, the last
frames of one and the first of the other: the first frame of the second is to be found, and nothing else.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcorr.media.cuts import CutFinder
from vcorr.media.video import open_video

KEPT = 12  # frames of each side of a join


def found(pictures: Iterable[NDArray[np.uint8]]) -> list[int]:
    """The cuts of a video."""
    finder = CutFinder()
    for index, rgb in enumerate(pictures):
        finder.see(index, rgb)
    return finder.found()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", metavar="DIR", type=Path, nargs="+")
    folders = [
        p for root in parser.parse_args().roots for p in sorted((root / "JPEGImages/480p").iterdir()) if p.is_dir()
    ]
    ends, frames, alarms = [], 0, 0
    for folder in folders:
        with open_video(folder) as video:
            pictures = [rgb for _, rgb in video.frames(0, len(video), short_side=120)]
        frames, alarms = frames + len(pictures), alarms + len(found(pictures))
        ends.append((pictures[:KEPT], pictures[-KEPT:]))
    joins = [(one[1], other[0]) for one, other in itertools.permutations(ends, 2)]
    marks = [(found([*before, *after]), len(before)) for before, after in joins]
    hits, others = sum(k in m for m, k in marks), sum(len(set(m) - {k}) for m, k in marks)
    print(f"{len(folders)} scenes of {frames} frames: {alarms} cuts found")
    print(f"{len(joins)} joins: {hits} found, {others} other frames")


if __name__ == "__main__":
    main()
