"""What propagation needs of a label: to turn it into values of cells, and values of cells into a label.

Whatever is carried through a video is values of cells [1 h w v]: shares of classes, heat maps of points, or values as
they are. A kind of label says how many channels it has and how it gets there and back; the loop asks nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vcorr.labels.raw_ids import Ids
from vcorr.matching.cells import Grid
from vcorr.matching.guided import upsample_guided

L = TypeVar("L")

Side = NDArray[Any]
"""What was read of a frame from one labelled frame, as it is kept until it is blended: small."""

AT_ONCE = 8  # classes upsampled to full size at a time


class Labels(Protocol[L]):
    """One kind of label, L, of one video.

    Attributes:
        size: (height, width) of the labels, in pixels.
        channels: values of a cell.
        background: whether a cell's values are shares of 1, the first of them what belongs to no object. Else each
            channel stands for itself, and a cell's values need not sum to anything.
    """

    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def channels(self) -> int: ...
    @property
    def background(self) -> bool: ...

    def to_cells(self, label: L, grid: Grid) -> Tensor:
        """Values [1 h w v] of a label, on the device of the computation."""

    def from_cells(self, cells: Tensor, grid: Grid) -> L:
        """The label of values [1 h w v]."""

    def thickness(self, label: L) -> float:
        """Mean width of a label's objects, in its pixels; infinite where there are none."""

    def side(self, values: Tensor, grid: Grid, start: L) -> Side:
        """What to keep of values [1 h w v] that were read from a labelled frame, whose label is ``start``."""

    def blend(self, near: Side, far: Side, share: float, grid: Grid) -> L:
        """The label of what was read from two labelled frames; ``share`` in [0, 1] is the weight of the far one."""


@dataclass(frozen=True, eq=False)
class MaskLabels:
    """Masks of object ids: a channel is the share of a class in each cell.

    A class at full size is as large as the frame, so that few of them are held at a time, however many objects there
    are.

    Attributes:
        classes: id of each channel, of the type that masks have; 0, the background, first.
        size: (height, width) of the masks.
        device: of the computation.
    """

    classes: Ids
    size: tuple[int, int]
    device: torch.device

    background = True

    @classmethod
    def of(cls, masks: Iterable[NDArray[np.integer]], size: tuple[int, int], device: torch.device) -> MaskLabels:
        """The classes of all masks of a video; they come back as uint16 where an id is above 255, else as uint8."""
        ids = np.unique(np.concatenate([np.unique(m) for m in masks]))
        kind: Any = np.uint16 if ids.max() > 255 else np.uint8
        return cls(np.concatenate([[0], ids[ids > 0]]).astype(kind), size, device)

    @property
    def channels(self) -> int:
        return len(self.classes)

    def typed(self, mask: NDArray[np.integer]) -> Ids:
        """A mask in the type that all of the video's have."""
        kind: Any = self.classes.dtype
        return mask.astype(kind)

    def to_cells(self, label: NDArray[np.integer], grid: Grid) -> Tensor:
        """Ids [H W] -> share of each class in each cell [1 h w v]."""
        full = torch.from_numpy(label.astype(np.int32)).to(self.device)
        cells: list[Tensor] = []
        for value in self.classes:
            cells.append(grid.downsample((full == int(value)).float()[None, None]))
        return torch.cat(cells, -1)

    def from_cells(self, cells: Tensor, grid: Grid) -> Ids:
        """Scores of the classes [1 h w v] -> the best class of every pixel [H W], the first of equal ones."""
        best, choice = _shares(cells[..., :AT_ONCE], grid).max(0)
        for first in range(AT_ONCE, self.channels, AT_ONCE):
            top, index = _shares(cells[..., first : first + AT_ONCE], grid).max(0)
            better = top > best
            best, choice = torch.where(better, top, best), torch.where(better, index + first, choice)
        ids: Ids = self.classes[choice.cpu().numpy()]
        return ids

    def shares(self, cells: Tensor, grid: Grid) -> Iterator[tuple[int, Tensor]]:
        """(id, share of every pixel [H W]) of each class, from scores [1 h w v]."""
        for first in range(0, self.channels, AT_ONCE):
            some = _shares(cells[..., first : first + AT_ONCE], grid)
            yield from zip(map(int, self.classes[first : first + AT_ONCE]), some, strict=True)

    def thickness(self, label: NDArray[np.integer]) -> float:
        """Twice the area of an object over the length of its border along the pixels: the harmonic mean of them all."""
        return mean_width(label, [int(value) for value in self.classes[1:]])

    def side(self, values: Tensor, grid: Grid, start: NDArray[np.integer]) -> Side:
        """uint8 [h w v], shares in steps of 1/255. Where a class was seen nowhere else, the frame states that too."""
        shares = values[0] / values[0].sum(-1, keepdim=True).clamp(min=1e-6)
        return (shares.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()

    def blend(self, near: Side, far: Side, share: float, grid: Grid) -> Ids:
        return self.from_cells(mixed(near, far, share, self.device), grid)


def mean_width(ids: NDArray[np.integer], objects: Iterable[int]) -> float:
    """Harmonic mean over objects of twice the area over the length of the border [H W]; infinite where there are none.

    A long strip has its own width. A disc has half its diameter, as its border runs along pixels, and a square too.
    """
    thin = []
    for value in objects:
        inside = ids == value
        if area := int(inside.sum()):
            border = int((inside[1:] != inside[:-1]).sum()) + int((inside[:, 1:] != inside[:, :-1]).sum())
            thin.append(border / (2 * area))
    return 1 / max(1e-6, sum(thin) / len(thin)) if thin else math.inf


def mixed(near: Side, far: Side, share: float, device: torch.device) -> Tensor:
    """Scores of the classes [1 h w v] from what ``MaskLabels.side`` kept; ``share`` is the weight of the far side.

    The far side may have been read at another size: its cells are brought to those of the near one.
    """
    here, there = torch.from_numpy(near).to(device), torch.from_numpy(far).to(device)
    if near.shape != far.shape:
        fitted = F.interpolate(
            there.permute(2, 0, 1)[None].float(), near.shape[:2], mode="bilinear", align_corners=False
        )
        there = fitted[0].permute(1, 2, 0)
    return ((1 - share) * here + share * there)[None]


def _shares(cells: Tensor, grid: Grid) -> Tensor:
    """Shares of classes in cells [1 h w v] -> on pixels at full size [v H W]."""
    if grid.guide is None:
        return grid.upsample(cells)[0]
    return grid.enlarge(upsample_guided(cells, grid.guide, grid.stride))[0]
