"""The files of results: masks, the table of frames, the overlay. Which are missing, and how each is made."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcorr.errors import OutputError
from vcorr.files import replacing, sweep
from vcorr.labels.masks import is_whole, overlay, write_mask
from vcorr.labels.raw_ids import Ids, read_ids
from vcorr.media.video import Video, VideoWriter, shrunk_size

OVERLAY = "overlay.mp4"
TABLE = "frames.csv"
OVERLAY_SIDE = 480  # short side of the overlay video


@dataclass(frozen=True)
class Results:
    """The files of a request's results.

    Attributes:
        out: the folder. video: what is labelled. frames: those that are labelled. palette: of the masks.
    """

    out: Path
    video: Video
    frames: range
    palette: NDArray[np.uint8]

    def prepare(self) -> None:
        """Make what is made at once, and clear away what a kill left half written."""
        (self.out / "masks").mkdir(exist_ok=True)
        sweep(self.out)
        sweep(self.out / "masks")
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["index", "pts", "seconds"])
        pts = self.video.pts
        table.writerows([k, "" if pts is None else pts[k], f"{self.video.seconds(k):.6f}"] for k in self.frames)
        with replacing(self.out / TABLE) as file:
            file.write(text.getvalue().encode())

    def missing(self) -> set[int]:
        """Frames without a whole mask."""
        size = (self.video.height, self.video.width)
        return {k for k in self.frames if not is_whole(self._mask(k), size)}

    def write(self, index: int, ids: Ids) -> None:
        """Write a mask, unless it is there."""
        if not is_whole(self._mask(index), ids.shape):
            write_mask(self._mask(index), ids, self.palette)

    def has_overlay(self) -> bool:
        """Whether the overlay is there; it appears when it is whole."""
        return _holds_something(self.out / OVERLAY)

    def has_table(self) -> bool:
        """Whether the table of frames is there; it appears when it is whole."""
        return _holds_something(self.out / TABLE)

    def draw(self, say: Callable[[str], None]) -> bool:
        """Draw the overlay; False where its format does not hold such a video, or the disk no more."""
        say("drawing the overlay")
        height, width = shrunk_size(self.video.height, self.video.width, OVERLAY_SIDE)
        frames = self.video.frames(self.frames.start, self.frames.stop, short_side=OVERLAY_SIDE)
        try:
            with VideoWriter(self.out / OVERLAY, height=height, width=width, fps=self.video.fps) as writer:
                for index, rgb in frames:
                    writer.write(overlay(rgb, _shrunk(read_ids(self._mask(index)), height, width), self.palette))
        except OutputError as error:
            say(f"there is no overlay: {error.where} {error.what}; the masks are whole")
            return False
        return True

    def _mask(self, index: int) -> Path:
        return self.out / "masks" / f"{index:05d}.png"


def _shrunk(ids: Ids, height: int, width: int) -> Ids:
    if ids.shape == (height, width):
        return ids
    rows = (np.arange(height) + 0.5) * (ids.shape[0] / height)
    columns = (np.arange(width) + 0.5) * (ids.shape[1] / width)
    shrunk: Ids = ids[rows.astype(int)[:, None], columns.astype(int)]
    return shrunk


def _holds_something(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
