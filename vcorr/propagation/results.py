"""The files of results: labels, the table of frames, the overlay. Which are missing, and how each is made."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vcorr.errors import InputError, OutputError
from vcorr.files import replacing, sweep
from vcorr.labels.given import Given, Store
from vcorr.labels.scores import SCORES, ScoreFolder
from vcorr.media.cuts import CutFinder, Picture
from vcorr.media.video import Video, VideoWriter, shrunk_size
from vcorr.media.writer import is_whole_video
from vcorr.propagation import cycle, review
from vcorr.propagation.blend import Step
from vcorr.propagation.confidence import confidence, overlap, signals
from vcorr.propagation.confidence_table import TABLE as CONFIDENCE
from vcorr.propagation.confidence_table import ConfidenceTable
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import Pictures

OVERLAY = "overlay.mp4"
TABLE = "frames.csv"
REVIEW = "review.html"
PROPAGATED = "propagated"  # the folder of masks that a network is fitted to; its own take the place of the results
OVERLAY_SIDE = 480  # short side of the overlay video


@dataclass(frozen=True)
class Results:
    """The files of a request's results.

    Attributes:
        out: the folder. video: what is labelled. frames: those that are labelled. store: where their labels go.
        given: labels that were given, by frame index.
        sure: how sure the others are, of masks; keypoints say it themselves.
        final: where the results go: the same, unless a network makes them from what was propagated.
        scores: where the score maps go; None without.
        rated: whether anything says how sure the labels are.
        checked: whether masks are labelled back for that (``cycle``).
    """

    out: Path
    video: Video
    frames: range
    store: Store[Any]
    given: Mapping[int, Any]
    sure: ConfidenceTable | None
    final: Store[Any]
    scores: ScoreFolder | None = None
    rated: bool = True
    checked: bool = False

    @classmethod
    def of(
        cls,
        out: Path,
        video: Video,
        frames: range,
        given: Given[Any],
        *,
        adapted: bool = False,
        soft: bool = False,
        checked: bool = False,
    ) -> Results:
        """Those of the labels that a video is given.

        Args:
            adapted: a network makes masks from the propagated ones. soft: with score maps.
            checked: masks are labelled back.
        """
        ids = [i for i in given.objects if isinstance(i, int)]
        sure = ConfidenceTable(out / CONFIDENCE, ids, frames) if given.kind == "masks" else None
        final = store = given.store(out)
        if adapted:
            store = replace(final, path=out / PROPAGATED)  # type: ignore[type-var]
        scores = ScoreFolder(out / SCORES, given.labels(torch.device("cpu"))) if soft else None  # type: ignore[arg-type]
        return cls(out, video, frames, store, given.by_frame, sure, final, scores, given.kind != "soft", checked)

    @property
    def adapted(self) -> bool:
        """Whether a network makes the results from what is propagated."""
        return self.final is not self.store

    def prepare(self) -> None:
        """Make what is made at once, and clear away what a kill left half written.

        Raises:
            OutputError: the folder cannot be written.
        """
        sweep(self.out)
        self.store.prepare()
        self.final.prepare()
        if self.sure:
            self.sure.prepare()
        if self.scores:
            self.scores.prepare()
            for k in self.given.keys() & set(self.frames):
                self.scores.write_given(k, self.given[k])
        with replacing(self.out / TABLE) as file:
            file.write(self._table())

    def missing(self) -> set[int]:
        """Frames without a whole label or score map, or of which nothing says how sure it is."""
        missing = self.store.missing(self.frames) | (self.sure.missing() - self.given.keys() if self.sure else set())
        return missing if self.adapted or not self.scores else missing | self.scores.missing(self.frames)

    def unadapted(self) -> set[int]:
        """Frames that lack what a network makes."""
        missing = self.final.missing(self.frames)
        return missing | self.scores.missing(self.frames) if self.scores else missing

    def write(self, step: Step[Any], propagator: Propagator[Any]) -> None:
        """Write the label of a frame that was gone through, unless it waits, its scores, and how sure it is.

        Args:
            propagator: that the frame went through.

        Raises:
            OutputError: it cannot be written.
        """
        if step.label is None:
            return
        self.store.write(step.index, step.label)
        if self.sure and step.values is not None:
            self.sure.write(step.index, signals(step.values))
        if self.scores and not self.adapted and step.values is not None and step.picture is not None:
            self.scores.write(step.index, step.values, propagator.grid(step.picture))

    def has_overlay(self) -> bool:
        """Whether the overlay is there, from its first byte to its last."""
        return is_whole_video(self.out / OVERLAY)

    def has_table(self) -> bool:
        """Whether the table of frames is there as it was written."""
        try:
            return (self.out / TABLE).read_bytes() == self._table()
        except OSError:
            return False

    def draw(
        self, say: Callable[[str], None], drew: Callable[[int], None] = lambda index: None
    ) -> tuple[bool, list[int]]:
        """Draw the overlay, and find the scene cuts on the way. ``drew`` takes the index of each frame.

        Returns:
            Whether there is an overlay: not where its format does not hold such a video, the disk no more, or a mask
            no ids; and the first frames of new scenes.
        """
        say("drawing the overlay")
        height, width = shrunk_size(self.video.height, self.video.width, OVERLAY_SIDE)
        cuts = CutFinder()
        try:
            with VideoWriter(self.out / OVERLAY, height=height, width=width, fps=self.video.fps) as writer:
                for index, rgb in self._pictures():
                    cuts.see(index, rgb)
                    writer.write(self.final.drawn(index, rgb))
                    drew(index)
        except (InputError, OutputError) as error:
            say(f"there is no overlay: {error.where} {error.what}")
            return False, self.cuts()
        return True, cuts.found()

    def cuts(self) -> list[int]:
        """First frames of new scenes."""
        cuts = CutFinder()
        for index, rgb in self._pictures():
            cuts.see(index, rgb)
        return cuts.found()

    def has_confidence(self) -> bool:
        """Whether the table of confidences is there, and whole."""
        return self.sure is None or self.sure.is_whole(self.given)

    def rate(self, cuts: Sequence[int]) -> None:
        """Write how sure each label is, which hangs on the scenes."""
        if self.sure:
            given = {k: np.isin(self.sure.objects, self.given[k]) for k in sorted(self.given) if k in self.frames}
            sure = confidence(self.sure.signals, self.frames, given, cuts)
            if self.adapted:
                sure *= self._agreement()
            if self.checked and (left := self.found_back()) is not None:
                sure *= left
            self.sure.finish(sure)

    def found_back(self) -> NDArray[np.float64] | None:
        """How much of the given masks is left, of each object [frames objects]; None before it is known."""
        return cycle.read_table(self.out, self.frames, self.sure.objects) if self.sure else None

    def check(self, pictures: Pictures, propagator: Propagator[Any], progress: Callable[[int, int], None]) -> None:
        """Label the masks back.

        Raises:
            OutputError: the table cannot be written.
        """
        assert self.sure is not None
        chains = cycle.reaches(list(self.given), self.frames)
        objects, frames = self.sure.objects, self.frames
        left = cycle.found_back(pictures, chains, frames, self.final.read, objects, propagator, progress)
        cycle.write_table(self.out, left, frames, objects)

    def _agreement(self) -> NDArray[np.float64]:
        """J of the propagated mask and the one that a network made of it, of each object [frames objects]."""
        assert self.sure is not None
        rows = []
        for k in self.frames:
            one, other = self.store.read(k), self.final.read(k)
            rows.append([overlap(one == i, other == i) for i in self.sure.objects])
        return np.array(rows)

    def confidence(self) -> NDArray[np.floating[Any]]:
        """How sure the label of each object or point is in each frame [frames objects], once all are rated."""
        if self.sure:
            return self.sure.confidence
        return np.stack([self.store.read(k).confidence for k in self.frames])

    def has_review(self) -> bool:
        """Whether the page that says where to look is there, to its end."""
        if not self.rated:
            return True
        try:
            return (self.out / REVIEW).read_bytes().endswith(b"</html>\n")
        except OSError:
            return False

    def review(self, given: Given[Any], cuts: Sequence[int], commands: Callable[[int], Sequence[str]]) -> None:
        """Write the page that says where to look, if anything says that.

        Args:
            given: the labels that the video was given. commands: that label frame N anew.
        """
        if not self.rated:
            return
        look = review.Look(
            self.video.path.name or str(self.video.path),
            given.shown,
            given.colours,
            self.confidence(),
            self.frames.start,
            [k for k in sorted(self.given) if k in self.frames],
            cuts,
            commands,
        )
        with replacing(self.out / REVIEW) as file:
            file.write(review.page(look, self.outlined).encode())

    def told(self, names: Sequence[str], cuts: Sequence[int]) -> str:
        """The line that says where to look first; empty where nothing says how sure the labels are."""
        if not self.rated:
            return ""
        found = review.stretches(self.confidence(), self.frames.start, sorted(self.given), cuts)
        return review.told(found, names, cuts)

    def outlined(self, index: int) -> Picture:
        """A frame as the review shows it."""
        height, width = self.video.height, self.video.width
        short = max(1, round(review.SIDE * min(height, width) / max(height, width)))
        _, rgb = next(self.video.frames(index, index + 1, short_side=short))
        return self.final.drawn(index, rgb, opacity=review.TINT)

    def _pictures(self) -> Iterator[tuple[int, Picture]]:
        """Every frame, at the size of the overlay."""
        return self.video.frames(self.frames.start, self.frames.stop, short_side=OVERLAY_SIDE)

    def _table(self) -> bytes:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["index", "pts", "seconds"])
        pts = self.video.pts
        table.writerows([k, "" if pts is None else pts[k], f"{self.video.seconds(k):.6f}"] for k in self.frames)
        return text.getvalue().encode()
