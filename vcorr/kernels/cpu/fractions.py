"""Windows at an offset of their own for every cell, whole or fractional, by tiles of query cells that gather.

The keys that a tile's windows cover lie in one box; its scores are one product. A tap at a fractional position is the
blend of four keys, and the blend commutes with the product: scores of the box are gathered and then blended. Weights go
back into the box the same way, transposed, so that values and gradients are products too. The rougher the offsets, the
larger the box: a tile whose box is too large is split, down to single cells.

A box holds rows and columns of the frame, and one on either side that stands for all beyond. Of a window only those
rows and columns of taps are gathered that may lie in the frame; the others are counted. A dilated window has taps in
every d-th row and column alone: boxes leave out those between where it pays, and where neighbours would need too many,
tiles are of query cells d apart, whose windows share theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from vcorr.kernels.cpu.forms import Gradients, Slopes
from vcorr.kernels.cpu.strips import LN_2, LOG2_E
from vcorr.kernels.geometry import Reference, Window, near, tap_count, working_type

TILE = 8  # cells on a side
WASTE = 3.0  # a box may hold this many times the cells that an even offset needs
LEAST = 2**26  # multiplications of a tile, below which they take no longer than the calls of four smaller ones
PASSES = 32  # multiplications that take as long as what else is done to a score, or to a number of a box
LARGEST = 2**21  # scores of a tile held at once


class Lines(NamedTuple):
    """The rows, or the columns, of a box: some of the frame, and one on either side that stands for all beyond."""

    total: int
    inner: slice  # those of the frame, in the box
    outer: slice | Tensor  # the same, in the frame
    place: Tensor | None  # where the box has each line from -1 on; None where no line between is left out

    @classmethod
    def between(cls, low: int, high: int, size: int) -> Lines:
        """All from low to high of so many in the frame."""
        low, high = min(max(low, -1), size), min(max(high, -1), size)
        outer = slice(max(low, 0), min(high + 1, size))
        return cls(high - low + 1, slice(outer.start - low, outer.stop - low), outer, None)

    @classmethod
    def only(cls, needed: Tensor, size: int) -> Lines:
        """Those needed, of so many in the frame."""
        seen = torch.zeros(size + 2, dtype=torch.bool, device=needed.device)
        seen[needed.clamp(-1, size) + 1] = True
        outer, before, after = seen[1:-1].nonzero()[:, 0], int(seen[0]), int(seen[-1])
        return cls(before + len(outer) + after, slice(before, before + len(outer)), outer, seen.cumsum(0) - 1)

    def places(self, cells: Tensor, size: int) -> Tensor:
        """Where the box has the lines of these cells."""
        if self.inner != slice(0, self.total):
            cells = cells.clamp(-1, size)
        first = self.outer.start - self.inner.start if isinstance(self.outer, slice) else -1
        return cells - first if self.place is None else self.place[cells + 1]


@dataclass(frozen=True)
class Box:
    """The part of one reference that a tile reads: n query cells, p x q taps of each, m cells in the box."""

    reference: Reference
    y: Tensor  # rows and columns of the tile's cells: [n]
    x: Tensor
    gaps: bool  # whether the box leaves out lines between those that taps need

    @property
    def window(self) -> Window:
        return self.reference.window

    @property
    def frame(self) -> tuple[int, int]:
        height, width = self.reference.key.shape[:2]
        return height, width

    @cached_property
    def offset(self) -> Tensor:
        assert self.reference.offset is not None
        return near(self.reference.offset[self.y, self.x])

    @cached_property
    def whole(self) -> Tensor:
        """The cell at or above and left of each window's centre: [n 2]."""
        return self.offset.floor().long() + torch.stack([self.y, self.x], 1)

    @cached_property
    def fraction(self) -> tuple[Tensor, Tensor]:
        """How far each window's centre lies below and right of that cell: [n 1 1] each, in the features' sums' type."""
        part = (self.offset - self.offset.floor()).to(working_type(self.reference.key))
        return part[:, 0, None, None], part[:, 1, None, None]

    @cached_property
    def even(self) -> bool:
        """Whether every window lies on whole cells."""
        return not any(bool(part.any()) for part in self.fraction)

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """First and last row, first and last column, of those cells."""
        return list(zip(self.whole.amin(0).tolist(), self.whole.amax(0).tolist(), strict=True))

    @cached_property
    def taps(self) -> list[range]:
        """Rows and columns of taps that may blend a cell of the frame, for any cell of the tile; one at least."""
        radius, dilation = self.window.radius, self.window.dilation
        found = []
        for (low, high), size in zip(self.bounds, self.frame, strict=True):
            first = min(max(-((high + (not self.even)) // dilation), -radius), radius)
            last = max(min((size - 1 - low) // dilation, radius), first)
            found.append(range(first, last + 1))
        return found

    @cached_property
    def steps(self) -> tuple[Tensor, Tensor]:
        """Cells from a window's centre to those rows and columns: [p] and [q]."""
        dilation = self.window.dilation
        rows, columns = (torch.arange(taps.start, taps.stop, device=self.y.device).mul_(dilation) for taps in self.taps)
        return rows, columns

    @cached_property
    def lines(self) -> tuple[Lines, Lines]:
        """Rows and columns of the box."""
        found = []
        for axis, ((low, high), taps, size) in enumerate(zip(self.bounds, self.taps, self.frame, strict=True)):
            if not self.gaps:
                first, last = low + self.window.dilation * taps[0], high + self.window.dilation * taps[-1]
                found.append(Lines.between(first, last + (not self.even), size))
            else:
                needed = self.whole[:, axis, None] + self.steps[axis]
                found.append(Lines.only(needed if self.even else torch.cat([needed, needed + 1], 1), size))
        return found[0], found[1]

    @property
    def shape(self) -> tuple[int, int]:
        return self.lines[0].total, self.lines[1].total

    @property
    def small(self) -> bool:
        """Whether it is not much larger than a box of windows at one offset, or costs little all the same."""
        cells, even = self.shape[0] * self.shape[1], 1
        for taps in self.taps:
            even *= (TILE + len(taps)) * (1 if self.even or self.adjacent else 2)
        return cells <= WASTE * even or (len(self.y) + PASSES) * cells * (self.reference.key.shape[2] + PASSES) <= LEAST

    @cached_property
    def overlap(self) -> tuple[tuple[slice, slice], tuple[slice | Tensor, slice | Tensor]]:
        """Where box and frame overlap, in the box and in the frame."""
        rows, columns = self.lines
        down = rows.outer if isinstance(rows.outer, slice) else rows.outer[:, None]
        return (rows.inner, columns.inner), (down, columns.outer)

    def cut(self, image: Tensor, work: torch.dtype) -> Tensor:
        """The box of an image [h w c], zero outside the frame: [m c]."""
        box = torch.zeros(*self.shape, image.shape[2], dtype=work, device=image.device)
        inner, outer = self.overlap
        box[inner] = image[outer].to(work)
        return box.flatten(0, 1)

    def values(self, work: torch.dtype) -> Tensor:
        """The box of the values, zero where the mask leaves a key out: [m v]."""
        values = self.cut(self.reference.value, work)
        if self.reference.mask is not None:
            values.masked_fill_(self.cut((~self.reference.mask)[..., None], torch.bool), 0.0)
        return values

    def add(self, image: Tensor, box: Tensor, factor: float = 1.0) -> None:
        """Add a box [m c] to an image [h w c]."""
        inner, outer = self.overlap
        part = box.reshape(*self.shape, -1)[inner]
        if self.gaps:
            image[outer] += factor * part
        else:
            image[outer].add_(part, alpha=factor)

    def cells(self, down: int, right: int) -> Tensor:
        """Cells of the box under each tap, moved by whole cells: [n p q], or [n p+1 q+1] without gaps between them."""
        places = []
        for axis, move in enumerate((down, right)):
            steps = self.steps[axis] + move
            if self.adjacent:
                steps = torch.cat([steps, steps[-1:] + 1])
            places.append(self.lines[axis].places(self.whole[:, axis, None] + steps, self.frame[axis]))
        return (places[0] * self.shape[1])[:, :, None] + places[1][:, None]

    @property
    def adjacent(self) -> bool:
        """Whether neighbouring taps blend the same cells: then one window of p+1 cells a side serves all."""
        return not self.even and self.reference.window.dilation == 1

    @cached_property
    def corners(self) -> list[tuple[Tensor, Tensor | None]]:
        """Cells of the box to gather, and the weight of each where taps do not share them."""
        if self.even or self.adjacent:
            return [(self.cells(0, 0), None)]
        low, right = self.fraction
        weights = (
            (0, 0, (1 - low) * (1 - right)),
            (0, 1, (1 - low) * right),
            (1, 0, low * (1 - right)),
            (1, 1, low * right),
        )
        return [(self.cells(y, x), weight) for y, x, weight in weights]

    def gather(self, maps: Tensor) -> Tensor:
        """What each tap finds in per-query maps of the box: [n m] -> [n p q]."""
        found = None
        for cell, weight in self.corners:
            part = maps.gather(1, cell.flatten(1)).view(cell.shape)
            part = part if weight is None else weight * part
            found = part if found is None else found + part
        assert found is not None
        if not self.adjacent:
            return found
        low, right = self.fraction
        found = torch.lerp(found[:, :-1], found[:, 1:], low)
        return torch.lerp(found[..., :-1], found[..., 1:], right)

    def scatter(self, weights: Tensor) -> Tensor:
        """The transpose of ``gather``: [n p q] -> [n m]."""
        if self.adjacent:
            low, right = self.fraction
            wide = torch.nn.functional.pad(weights, (1, 1))
            weights = torch.lerp(wide[..., 1:], wide[..., :-1], right)
            wide = torch.nn.functional.pad(weights, (0, 0, 1, 1))
            weights = torch.lerp(wide[:, 1:], wide[:, :-1], low)
        box = weights.new_zeros(weights.shape[0], self.shape[0] * self.shape[1])
        for cell, weight in self.corners:
            part = weights if weight is None else weight * weights
            box.scatter_add_(1, cell.flatten(1), part.flatten(1))
        return box

    @cached_property
    def inside(self) -> Tensor:
        """Taps between the centres of the frame's outermost cells: [n p q]."""
        (height, width), (down, right) = self.frame, self.steps
        row = (self.y[:, None] + down) + self.offset[:, :1]
        column = (self.x[:, None] + right) + self.offset[:, 1:]
        rows, columns = (row >= 0) & (row <= height - 1), (column >= 0) & (column <= width - 1)
        return rows[:, :, None] & columns[:, None, :]

    @cached_property
    def off_disk(self) -> Tensor:
        """[p q]."""
        rows, columns = (steps.double() / self.window.dilation for steps in self.steps)  # squares need not be int64
        return rows[:, None] ** 2 + columns**2 >= float(self.window.radius) ** 2

    @cached_property
    def left_out(self) -> Tensor:
        """Taps that take no mass: off the disk, outside the frame under border "mask", or on a masked key: [n p q]."""
        work = working_type(self.reference.key)
        out = ~self.inside if self.window.border == "mask" else torch.zeros_like(self.inside)
        if self.window.shape == "disk":
            out = out | self.off_disk
        if self.reference.mask is not None:
            masked = self.cut((~self.reference.mask)[..., None], work)[:, 0]
            out = out | (self.gather(masked.expand(len(self.y), -1)) > 0)
        return out

    @property
    def unseen(self) -> int:
        """How many taps of each window are not gathered, which border "zeros" counts with logit 0."""
        gathered = len(self.taps[0]) * len(self.taps[1])
        if self.window.shape == "disk":
            gathered -= int(self.off_disk.sum())
        return tap_count(self.window.radius, self.window.shape, *self.frame) - gathered

    def logits(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[n p q], -inf where a tap takes no mass."""
        return self.gather(queries @ keys.T).masked_fill_(self.left_out, -torch.inf)


def read(query: Tensor, references: Sequence[Reference], wanted: Tensor | None, readout: Tensor, lse: Tensor) -> None:
    """Read one image [h w c] into readout [h w v] and lse [h w], where a cell is wanted [h w]."""
    work = working_type(query)
    for boxes in tiles(query, references, wanted):
        y, x = boxes[0].y, boxes[0].x
        queries = query[y, x].to(work) * (references[0].window.scale * LOG2_E)
        unseen = sum(box.unseen for box in boxes) if references[0].window.border == "zeros" else 0
        largest = queries.new_full((len(y),), 0.0 if unseen else -torch.inf)
        sums, mass = queries.new_zeros(len(y), readout.shape[2]), queries.new_full((len(y),), float(unseen))
        for box in boxes:
            logits = box.logits(queries, box.cut(box.reference.key, work))
            larger = torch.maximum(largest, logits.amax((1, 2)))
            level = larger.masked_fill(larger == -torch.inf, 0.0)  # nothing valid so far
            weights = logits.sub_(level[:, None, None]).exp2_()
            shrink = (largest - level).exp2_()
            mass.mul_(shrink).add_(weights.sum((1, 2)))
            sums.mul_(shrink[:, None]).addmm_(box.scatter(weights), box.values(work))
            largest = larger
        lse[y, x] = (largest + mass.log2()) * LN_2
        readout[y, x] = sums / mass.masked_fill(mass == 0, 1.0)[:, None]


def add_gradients(
    query: Tensor, slopes: Slopes, references: Sequence[Reference], wanted: Tensor | None, into: Gradients
) -> None:
    """Add one image's gradients."""
    (grad, delta, level), (grad_query, grad_keys, grad_values) = slopes, into
    work, scale = working_type(query), references[0].window.scale
    for boxes in tiles(query, references, wanted):
        y, x = boxes[0].y, boxes[0].x
        queries, grads = query[y, x].to(work) * (scale * LOG2_E), grad[y, x].to(work)
        for position, box in enumerate(boxes):
            keys, values = box.cut(box.reference.key, work), box.values(work)
            weights = (box.logits(queries, keys) + level[y, x][:, None, None]).exp2_()
            by_key = box.scatter((box.gather(grads @ values.T) - delta[y, x][:, None, None]).mul_(weights))
            if grad_query is not None:
                grad_query[y, x] += scale * (by_key @ keys)
            if grad_keys is not None:
                box.add(grad_keys[position], by_key.T @ queries, LN_2)
            if grad_values is not None:
                box.add(grad_values[position], box.scatter(weights).T @ grads)


def tiles(query: Tensor, references: Sequence[Reference], wanted: Tensor | None = None) -> Iterator[list[Box]]:
    """The boxes that each tile of the query's wanted cells [h w] reads, one for each reference."""
    height, width, features = query.shape
    dilation = references[0].window.dilation
    apart = dilation if _scattered(height, width, features, references[0].window) else 1
    gaps = apart > 1 or dilation > TILE

    def split(rows: Sequence[int], columns: Sequence[int]) -> Iterator[list[Box]]:
        y, x = torch.meshgrid(
            torch.tensor(rows, device=query.device), torch.tensor(columns, device=query.device), indexing="ij"
        )
        y, x = y.flatten(), x.flatten()
        if wanted is not None:
            kept = wanted[y, x]
            y, x = y[kept], x[kept]
            if not y.numel():
                return
        boxes = [Box(r, y, x, gaps) for r in references]
        gathered = y.numel() * sum(len(b.taps[0]) * len(b.taps[1]) for b in boxes)
        if len(rows) * len(columns) == 1 or (gathered <= LARGEST and all(b.small for b in boxes)):
            yield boxes
            return
        for some_rows in _halves(rows):
            for some_columns in _halves(columns):
                yield from split(some_rows, some_columns)

    every_row, every_column = (
        [cell for first in range(min(apart, size)) for cell in range(first, size, apart)] for size in (height, width)
    )
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            yield from split(every_row[top : top + TILE], every_column[left : left + TILE])


def _scattered(height: int, width: int, features: int, window: Window) -> bool:
    """Whether windows of neighbours lie on so many cells that tiles are better made of cells a dilation apart."""
    cells = 1
    for size in (height, width):
        taps = min(2 * window.radius + 1, 1 + size // window.dilation)
        cells *= min(size, TILE * taps, TILE + window.dilation * (taps - 1))
    return window.dilation > 1 and (TILE**2 + PASSES) * cells * (features + PASSES) > LEAST


def _halves(cells: Sequence[int]) -> list[Sequence[int]]:
    return [cells] if len(cells) == 1 else [cells[: len(cells) // 2], cells[len(cells) // 2 :]]
