"""The masks that a video is given, and the folder of those that it gets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vcorr.files import sweep
from vcorr.labels.label import MaskLabels
from vcorr.labels.masks import Mask, is_whole, overlay, read_masks, write_mask
from vcorr.labels.raw_ids import Ids, read_ids


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """Masks by frame index, in one space of ids; as ``given.Given`` says.

    Attributes:
        masks: as they were read. size: (height, width) of the video.
    """

    masks: Mapping[int, Mask]
    size: tuple[int, int]
    kind: Literal["masks"] = "masks"

    @cached_property
    def by_frame(self) -> dict[int, Ids]:
        typed = self.labels(torch.device("cpu")).typed
        return {k: typed(mask.ids) for k, mask in self.masks.items()}

    @property
    def objects(self) -> list[int]:
        return sorted({int(i) for mask in self.masks.values() for i in np.unique(mask.ids) if i})

    def labels(self, device: torch.device) -> MaskLabels:
        return MaskLabels.of([mask.ids for mask in self.masks.values()], self.size, device)

    def digest(self, frame: int) -> str:
        ids = self.masks[frame].ids
        return hashlib.sha256(f"{ids.shape}".encode() + ids.tobytes()).hexdigest()

    def told(self, frame: int, name: str) -> str:
        return self.masks[frame].told(name)

    def store(self, out: Path) -> MaskFolder:
        return MaskFolder(out / "masks", self.size, next(iter(self.masks.values())).palette)


def read_mask_set(files: Mapping[int, Path], corrections: Mapping[int, Path], size: tuple[int, int]) -> GivenMasks:
    """The masks of files by frame index, as ``masks.read_masks`` reads them."""
    return GivenMasks(read_masks(files, corrections, size=size), size)


@dataclass(frozen=True, eq=False)
class MaskFolder:
    """A PNG a frame, named by frame index; as ``given.Store`` says.

    Attributes:
        path: of the folder. size: (height, width) of the masks. palette: uint8 [256 3], their colours.
    """

    path: Path
    size: tuple[int, int]
    palette: NDArray[np.uint8]

    def prepare(self) -> None:
        self.path.mkdir(exist_ok=True)
        sweep(self.path)

    def missing(self, frames: Iterable[int]) -> set[int]:
        return {k for k in frames if not is_whole(self._file(k), self.size)}

    def write(self, index: int, label: Ids) -> None:
        if not is_whole(self._file(index), label.shape):
            write_mask(self._file(index), label, self.palette)

    def read(self, index: int) -> Ids:
        return read_ids(self._file(index))

    def finish(self, frames: Iterable[int]) -> None:
        pass

    def drawn(self, index: int, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = rgb.shape[:2]
        drawn: NDArray[np.uint8] = overlay(rgb, _shrunk(self.read(index), height, width), self.palette)
        return drawn

    def _file(self, index: int) -> Path:
        return self.path / f"{index:05d}.png"


def _shrunk(ids: Ids, height: int, width: int) -> Ids:
    if ids.shape == (height, width):
        return ids
    rows = (np.arange(height) + 0.5) * (ids.shape[0] / height)
    columns = (np.arange(width) + 0.5) * (ids.shape[1] / width)
    shrunk: Ids = ids[rows.astype(int)[:, None], columns.astype(int)]
    return shrunk
