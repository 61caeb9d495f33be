"""Keypoints: a channel is the heat map of a point, a Gaussian of ``SIGMA`` cells whose peak is 1.

A point is read back in two steps. Its cell is the largest of its channel; then the mean of the cells around it,
weighted by their values and by a Gaussian window that moves to the mean that it finds (mean shift), so that the
window's own edges do not pull. Its confidence is the height of the Gaussian that fits there best, sum(v g) / sum(g g):
1 where all that was read is heat of the point at that very place, less where it is spread, or where what was read does
not bear the point. Below ``LOST`` the point has no place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcorr.labels.label import Side
from vcorr.matching.cells import Grid

SIGMA = 1.0  # of a heat map, in cells
LOST = 0.1  # confidence below which a point has no place
FAINT = 0.01  # heat below this is none
REACH = 3  # cells on each side of the peak that a place is read from
ROUNDS = 8  # of the window's moving: by then it moves by less than 0.01 cells
DECIMALS = 2  # of a pixel, and of a confidence


@dataclass(frozen=True, eq=False)
class Points:
    """The keypoints of one frame.

    Attributes:
        xy: float64 [n 2], x and y in pixels of the video, pixel centres at whole numbers; NaN where a point is missing.
        confidence: float64 [n] in [0, 1]; of points that were given, 1 where they are there and 0 where not.
    """

    xy: NDArray[np.float64]
    confidence: NDArray[np.float64]

    @classmethod
    def given(cls, xy: NDArray[np.float64]) -> Points:
        """Points as they were given: sure where they are there."""
        return cls(xy, np.array(np.isfinite(xy).all(1), np.float64))

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which points have a place, bool [n]."""
        return np.array(np.isfinite(self.xy).all(1))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Points):
            return NotImplemented
        return np.array_equal(self.xy, other.xy, equal_nan=True) and np.array_equal(self.confidence, other.confidence)


@dataclass(frozen=True, eq=False)
class KeypointLabels:
    """Keypoints of a video, a channel a point.

    Attributes:
        names: of the points.
        size: (height, width) of the video, in pixels.
        device: of the computation.
    """

    names: Sequence[str]
    size: tuple[int, int]
    device: torch.device

    background = False

    @property
    def channels(self) -> int:
        return len(self.names)

    def to_cells(self, label: Points, grid: Grid) -> Tensor:
        """Points -> heat maps [1 h w n]; the map of a missing point is 0."""
        height, width = grid.shape
        present = torch.from_numpy(label.present).to(self.device)
        centre = torch.from_numpy(grid.cells_at(np.nan_to_num(label.xy))).to(self.device, torch.float32)
        x, y = (torch.arange(n, device=self.device, dtype=torch.float32)[:, None] for n in (width, height))
        across, down = (
            torch.exp(-0.5 * ((cells - c) / SIGMA) ** 2) for cells, c in ((x, centre[:, 0]), (y, centre[:, 1]))
        )
        heat = down[:, None] * across[None] * present
        return torch.where(heat < FAINT, 0.0, heat)[None]  # cells that no point reaches need not be read

    def from_cells(self, cells: Tensor, grid: Grid) -> Points:
        """Heat maps [1 h w n] -> the place of each peak, and its height."""
        maps = cells[0].permute(2, 0, 1).clamp(min=0)
        height, width = maps.shape[1:]
        index = maps.flatten(1).argmax(1)
        row, column = index // width, index % width
        steps = torch.arange(-REACH, REACH + 1, device=maps.device)
        rows, columns = row[:, None] + steps, column[:, None] + steps  # [n taps]
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
        every = torch.arange(len(maps), device=maps.device)[:, None, None]
        taps = maps[every, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]] * inside
        place = torch.stack([column, row], -1).float()
        for _ in range(ROUNDS):
            weight = taps * _window(rows, columns, place)
            mass = weight.sum((1, 2)).clamp(min=1e-12)
            place = torch.stack([(weight.sum(1) * columns).sum(1) / mass, (weight.sum(2) * rows).sum(1) / mass], -1)
        window = _window(rows, columns, place) * inside
        height_of = (taps * window).sum((1, 2)) / window.square().sum((1, 2)).clamp(min=1e-12)
        confidence = np.round(height_of.clamp(max=1).cpu().double().numpy(), DECIMALS)
        xy = np.round(grid.pixels_at(place.cpu().double().numpy()), DECIMALS)
        limit = np.array([self.size[1], self.size[0]]) - 1
        xy = np.where((confidence >= LOST)[:, None], np.clip(xy, 0, limit), np.nan)
        return Points(xy, confidence)

    def thickness(self, label: Points) -> float:
        return math.inf

    def side(self, values: Tensor, grid: Grid, start: Points) -> Side:
        """float64 [n 3]: x, y, confidence; the confidence of a point that the labelled frame does not have is NaN."""
        read = self.from_cells(values, grid)
        return np.column_stack([read.xy, np.where(start.present, read.confidence, np.nan)])

    def blend(self, near: Side, far: Side, share: float, grid: Grid) -> Points:
        """Places weighted with share and confidence. A point that one side does not know is the other's alone."""
        sides = np.stack([near, far])
        xy, confidence = sides[..., :2], sides[..., 2]
        weight = np.where(np.isnan(confidence), 0.0, np.array([[1 - share], [share]]))
        score = weight / np.maximum(weight.sum(0), 1e-12) * np.nan_to_num(confidence)
        pull = score * np.isfinite(xy).all(-1)
        place = (pull[..., None] * np.nan_to_num(xy)).sum(0) / np.maximum(pull.sum(0), 1e-12)[:, None]
        sure = np.round(score.sum(0), DECIMALS)
        there = (sure >= LOST) & (pull.sum(0) > 0)
        return Points(np.where(there[:, None], np.round(place, DECIMALS), np.nan), sure)


def _window(rows: Tensor, columns: Tensor, place: Tensor) -> Tensor:
    """A Gaussian around each place (x, y) [n 2], at rows and columns of cells [n taps]: [n taps taps]."""
    down, across = (
        torch.exp(-0.5 * ((cells - centre[:, None]) / SIGMA) ** 2)
        for cells, centre in ((rows, place[:, 1]), (columns, place[:, 0]))
    )
    return down[:, :, None] * across[:, None]
