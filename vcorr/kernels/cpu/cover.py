"""Tiles of neighbouring cells over the cells of an image that are to be read, in bands across it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

TILE = 8  # cells on a side
CALLS = 2**12  # scores of a tile that take as long as what is called for it


class Tile(NamedTuple):
    """A rectangle of query cells."""

    top: int
    left: int
    rows: int
    columns: int

    @property
    def cells(self) -> int:
        return self.rows * self.columns

    @property
    def place(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.rows), slice(self.left, self.left + self.columns)

    def parts(self) -> Iterator[Tile]:
        """Its quarters, or halves where it is one cell high or wide."""
        down, right = (self.rows + 1) // 2, (self.columns + 1) // 2
        for top, rows in ((0, down), (down, self.rows - down)):
            for left, columns in ((0, right), (right, self.columns - right)):
                if rows and columns:
                    yield Tile(self.top + top, self.left + left, rows, columns)


def cover(read: Tensor | None, height: int, width: int) -> list[list[Tile]]:
    """Tiles over the cells to read [h w], or over all, in bands; each as small as its cells allow.

    No tile goes across a multiple of TILE, so that offsets which are the same throughout such squares are the same
    throughout each tile.
    """
    tops = range(0, height, TILE)
    if read is None:
        return [[Tile(y, x, min(TILE, height - y), min(TILE, width - x)) for x in range(0, width, TILE)] for y in tops]
    bands = (list(_tiles_of_band(read[y : y + TILE].tolist(), y)) for y in tops)
    return [band for band in bands if band]


def _tiles_of_band(read: list[list[bool]], top: int) -> Iterator[Tile]:
    active = [any(column) for column in zip(*read, strict=True)]
    for x in range(0, len(active), TILE):
        columns = [c for c in range(x, min(x + TILE, len(active))) if active[c]]
        if columns:
            left, end = columns[0], columns[-1] + 1
            rows = [y for y, row in enumerate(read) if any(row[left:end])]
            yield Tile(top + rows[0], left, rows[-1] - rows[0] + 1, end - left)


def work(read: Tensor, radius: int) -> int:
    """How long tiles take over the cells to read [h w], in scores."""
    total, (height, width) = 0, read.shape
    for tile in itertools.chain.from_iterable(cover(read, height, width)):
        rows = min(height, tile.top + tile.rows + radius) - max(0, tile.top - radius)
        columns = min(width, tile.left + tile.columns + radius) - max(0, tile.left - radius)
        total += rows * columns * tile.cells + CALLS
    return total


class Band:
    """The tiles of some rows, and their N cells one after another."""

    def __init__(self, tiles: Sequence[Tile], read: Tensor | None, size: tuple[int, int], device: torch.device) -> None:
        number = torch.arange(size[0] * size[1], device=device).view(size)
        own, nearest = [], []  # of each cell its number, and that of a cell to read: itself, or one of its tile
        for tile in tiles:
            cells = number[tile.place].flatten()
            own.append(cells)
            if read is not None:
                wanted = read[tile.place].flatten()
                cells = torch.where(wanted, cells, cells[wanted.int().argmax()])
            nearest.append(cells)
        self.tiles, self.cells, self.nearest = tiles, torch.cat(own), torch.cat(nearest)
        self.starts = [0, *itertools.accumulate(tile.cells for tile in tiles)]
        self.y, self.x = self.cells // size[1], self.cells % size[1]

    def place(self, tile: int) -> slice:
        return slice(self.starts[tile], self.starts[tile + 1])
