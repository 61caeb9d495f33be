"""The files of results: labels, the table of frames, the overlay. Which are missing, and how each is made."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcorr.errors import InputError, OutputError
from vcorr.files import replacing, sweep
from vcorr.labels.given import Store
from vcorr.media.video import Video, VideoWriter, shrunk_size
from vcorr.media.writer import is_whole_video

OVERLAY = "overlay.mp4"
TABLE = "frames.csv"
OVERLAY_SIDE = 480  # short side of the overlay video


@dataclass(frozen=True)
class Results:
    """The files of a request's results.

    Attributes:
        out: the folder. video: what is labelled. frames: those that are labelled. store: where their labels go.
    """

    out: Path
    video: Video
    frames: range
    store: Store[Any]

    def prepare(self) -> None:
        """Make what is made at once, and clear away what a kill left half written.

        Raises:
            OutputError: the folder cannot be written.
        """
        sweep(self.out)
        self.store.prepare()
        with replacing(self.out / TABLE) as file:
            file.write(self._table())

    def missing(self) -> set[int]:
        """Frames without a whole label."""
        return self.store.missing(self.frames)

    def has_overlay(self) -> bool:
        """Whether the overlay is there, from its first byte to its last."""
        return is_whole_video(self.out / OVERLAY)

    def has_table(self) -> bool:
        """Whether the table of frames is there as it was written."""
        try:
            return (self.out / TABLE).read_bytes() == self._table()
        except OSError:
            return False

    def draw(self, say: Callable[[str], None]) -> bool:
        """Draw the overlay; False where its format does not hold such a video, the disk no more, or a mask no ids."""
        say("drawing the overlay")
        height, width = shrunk_size(self.video.height, self.video.width, OVERLAY_SIDE)
        frames = self.video.frames(self.frames.start, self.frames.stop, short_side=OVERLAY_SIDE)
        try:
            with VideoWriter(self.out / OVERLAY, height=height, width=width, fps=self.video.fps) as writer:
                for index, rgb in frames:
                    writer.write(self.store.drawn(index, rgb))
        except (InputError, OutputError) as error:
            say(f"there is no overlay: {error.where} {error.what}")
            return False
        return True

    def _table(self) -> bytes:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["index", "pts", "seconds"])
        pts = self.video.pts
        table.writerows([k, "" if pts is None else pts[k], f"{self.video.seconds(k):.6f}"] for k in self.frames)
        return text.getvalue().encode()
