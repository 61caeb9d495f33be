"""Frames between two labelled ones, reached from both sides.

They are gone through twice. On the way back from the far end, what is read of each frame waits on the disk. On the way
forwards it is blended with what is read there: of the way from the near end to the far one, the share that lies behind
a frame is the weight of the far end.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np
from torch import Tensor

from vcorr.errors import OutputError
from vcorr.files import replacing
from vcorr.labels.label import L, Side, mixed
from vcorr.model.encoder import Picture
from vcorr.propagation.plan import Span
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import Pictures, Start, label_span


@dataclass(frozen=True)
class Waiting:
    """What was read of frames from one side, until the other side comes by: a file a frame, of one span at a time.

    Attributes:
        folder: for these files alone; made when it is needed.
    """

    folder: Path

    def write(self, index: int, side: Side) -> None:
        """Keep what was read of a frame.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(self._file(index), parents=True) as file:
            np.savez_compressed(file, side=side)

    def read(self, index: int) -> Side | None:
        """What was read of a frame; None where nothing is kept, or what is was damaged."""
        try:
            side: Side = np.load(io.BytesIO(self._file(index).read_bytes()), allow_pickle=False)["side"]
            return side
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def clear(self) -> None:
        """Remove the files and their folder.

        Raises:
            OutputError: it cannot be done.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.folder)
        except OSError as error:
            raise OutputError(self.folder, f"cannot be removed ({error.strerror})", "check its rights") from error

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:05d}.npz"


@dataclass(frozen=True)
class Step(Generic[L]):
    """A frame of a span, gone through.

    Attributes:
        index: of the frame.
        label: None of a frame that waits, or of which nothing waits.
        values: shares of classes [1 h w v] that the label was made of; None where it was given, or is of another kind.
        picture: the frame, where there are values.
    """

    index: int
    label: L | None
    values: Tensor | None = None
    picture: Picture | None = None


def go_through(
    pictures: Pictures,
    span: Span,
    given: Mapping[int, L],
    propagator: Propagator[L],
    waiting: Waiting,
    start: Start = Start(),  # noqa: B008 (frozen)
    last: L | None = None,
) -> Iterator[Step[L]]:
    """Label the frames of a span of a plan; arguments as in ``span.label_span``.

    Args:
        waiting: where what is read of a frame waits for the other side.
    """
    labels, first = propagator.labels, given[span.frames[0]]
    steps = label_span(pictures, span, given, propagator, start, last)
    for position, (index, picture, label) in enumerate(steps, start=start.position):
        if position == 0 or span.until is None:
            if position >= span.first:
                values = propagator.values if labels.background and position > 0 else None
                yield Step(index, label, values, picture)
            continue
        grid = propagator.grid(picture)
        assert propagator.values is not None
        near = labels.side(propagator.values, grid, first)
        if span.waits:
            waiting.write(index, near)
            yield Step(index, None)
        elif (far := waiting.read(index)) is None:
            yield Step(index, None)
        else:
            share = position / (span.until - span.frames[0])
            values = mixed(near, far, share, propagator.values.device) if labels.background else None
            yield Step(index, labels.blend(near, far, share, grid), values, picture)
    if not span.waits:
        waiting.clear()
