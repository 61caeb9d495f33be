"""Score maps: how much each pixel belongs to each object, a file a frame.

``scores/00000.npz`` holds a map for each object by its id, uint8 [H W]: 255 is certainty, 0 none. ``numpy.load`` reads
one map at a time. Maps are written one by one, so that many objects need little memory.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vcorr.files import make_folder, remove, replacing, sweep
from vcorr.labels.label import MaskLabels
from vcorr.labels.raw_ids import Ids
from vcorr.matching.cells import Grid

SCORES = "scores"


@dataclass(frozen=True)
class ScoreFolder:
    """The score maps of a video.

    Attributes:
        path: the folder. labels: of the video.
    """

    path: Path
    labels: MaskLabels

    @property
    def objects(self) -> list[int]:
        """Ids, in the order of their maps."""
        return [int(i) for i in self.labels.classes[1:]]

    def prepare(self) -> None:
        """Make the folder, without what a kill left half written.

        Raises:
            OutputError: it cannot be made.
        """
        make_folder(self.path)
        sweep(self.path)

    def missing(self, frames: Iterable[int]) -> set[int]:
        """Frames without whole maps of these objects."""
        return {k for k in frames if not self._is_whole(k)}

    def write_given(self, index: int, mask: Ids) -> None:
        """Write the maps of a mask that was given: certainty.

        Raises:
            OutputError: they cannot be written.
        """
        self._write(index, ((i, np.where(mask == i, 255, 0).astype(np.uint8)) for i in self.objects))

    def write(self, index: int, values: Tensor, grid: Grid) -> None:
        """Write the maps of shares of classes [1 h w v] that were read.

        Raises:
            OutputError: they cannot be written.
        """
        read = ((i, shares) for i, shares in self.labels.shares(values, grid) if i)
        self._write(index, ((i, (shares.clamp(0, 1) * 255).round().byte().cpu().numpy()) for i, shares in read))

    def revise(self, frames: Collection[int]) -> None:
        """Remove the maps of frames.

        Raises:
            OutputError: it cannot be done.
        """
        for k in frames:
            remove(self._file(k))

    def _write(self, index: int, maps: Iterable[tuple[int, NDArray[np.uint8]]]) -> None:
        """Write (id, map) of each object of a frame, unless they are there."""
        if self._is_whole(index):
            return
        with replacing(self._file(index)) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for id_, scores in maps:  # as numpy.savez does, but one at a time
                with archive.open(f"{id_}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, scores, allow_pickle=False)

    def _file(self, index: int) -> Path:
        return self.path / f"{index:05d}.npz"

    def _is_whole(self, index: int) -> bool:
        try:
            with zipfile.ZipFile(self._file(index)) as archive:
                named = archive.namelist() == [f"{i}.npy" for i in self.objects]
                return named and archive.testzip() is None
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError):
            return False
