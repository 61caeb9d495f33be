"""Windows at an offset of their own for every cell, whole or fractional, by tiles of query cells.

The keys that a tile's windows cover lie in one box; its scores are one product. A tap at a fractional position is the
blend of four keys, and the blend commutes with the product: scores of the box are gathered and then blended. Weights go
back into the box the same way, transposed, so that values and gradients are products too. The rougher the offsets, the
larger the box: a tile whose box is too large is split, down to single cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vcorr.kernels.geometry import Reference, working_type
from vcorr.kernels.window.strips import LN_2, LOG2_E

TILE = 8  # cells on a side
WASTE = 3.0  # a box may hold this many times the cells that an even offset needs


@dataclass(frozen=True)
class Box:
    """The part of one reference that a tile reads: n query cells, p x p taps of the square, m cells in the box."""

    reference: Reference
    y: Tensor  # rows and columns of the tile's cells: [n]
    x: Tensor

    @cached_property
    def steps(self) -> Tensor:
        """Cells from a window's centre to its rows, or columns, of taps: [p]."""
        window = self.reference.window
        return window.dilation * torch.arange(-window.radius, window.radius + 1, device=self.y.device)

    @cached_property
    def offset(self) -> Tensor:
        assert self.reference.offset is not None
        return self.reference.offset[self.y, self.x]

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
    def bounds(self) -> tuple[int, int, int, int]:
        """First row, last row, first column, last column; they may lie outside the frame."""
        reach = int(self.steps[-1])
        top, left = (self.whole.amin(0) - reach).tolist()
        bottom, right = (self.whole.amax(0) + reach + 1).tolist()
        return top, bottom, left, right

    @property
    def shape(self) -> tuple[int, int]:
        top, bottom, left, right = self.bounds
        return bottom - top + 1, right - left + 1

    @cached_property
    def overlap(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where box and frame overlap, in the box and in the frame."""
        top, bottom, left, right = self.bounds
        height, width = self.reference.key.shape[:2]
        rows = slice(max(top, 0), max(top, 0, min(bottom + 1, height)))
        columns = slice(max(left, 0), max(left, 0, min(right + 1, width)))
        inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        return inner, (rows, columns)

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
        image[outer].add_(box.reshape(*self.shape, -1)[inner], alpha=factor)

    def cells(self, down: int, right: int) -> Tensor:
        """Cells of the box under each tap, moved by whole cells: [n p p], or [n p+1 p+1] without gaps between them."""
        steps = self.steps
        if self.adjacent:
            steps = torch.arange(int(steps[0]), int(steps[-1]) + 2, device=steps.device)
        top, _, left, _ = self.bounds
        start = (self.whole[:, 0] - top + down) * self.shape[1] + self.whole[:, 1] - left + right
        return start[:, None, None] + (steps[:, None] * self.shape[1] + steps)

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
        """What each tap finds in per-query maps of the box: [n m] -> [n p p]."""
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
        """The transpose of ``gather``: [n p p] -> [n m]."""
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
        """Taps between the centres of the frame's outermost cells: [n p p]."""
        height, width = self.reference.key.shape[:2]
        row = (self.y[:, None] + self.steps) + self.offset[:, :1]
        column = (self.x[:, None] + self.steps) + self.offset[:, 1:]
        rows, columns = (row >= 0) & (row <= height - 1), (column >= 0) & (column <= width - 1)
        return rows[:, :, None] & columns[:, None, :]

    @cached_property
    def left_out(self) -> Tensor:
        """Taps that take no mass: off the disk, outside the frame under border "mask", or on a masked key: [n p p]."""
        window, work = self.reference.window, working_type(self.reference.key)
        out = ~self.inside if window.border == "mask" else torch.zeros_like(self.inside)
        if window.shape == "disk":
            distance = self.steps[:, None] ** 2 + self.steps**2
            out = out | (distance >= (window.dilation * window.radius) ** 2)
        if self.reference.mask is not None:
            masked = self.cut((~self.reference.mask)[..., None], work)[:, 0]
            out = out | (self.gather(masked.expand(len(self.y), -1)) > 0)
        return out

    def logits(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[n p p], -inf where a tap takes no mass."""
        return self.gather(queries @ keys.T).masked_fill_(self.left_out, -torch.inf)


def read(query: Tensor, references: Sequence[Reference], readout: Tensor, lse: Tensor) -> None:
    """Read one image [h w c] into readout [h w v] and lse [h w]."""
    work = working_type(query)
    for boxes in tiles(query, references):
        y, x = boxes[0].y, boxes[0].x
        queries = query[y, x].to(work) * (references[0].window.scale * LOG2_E)
        largest = queries.new_full((len(y),), -torch.inf)
        sums, mass = queries.new_zeros(len(y), readout.shape[2]), queries.new_zeros(len(y))
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
    query: Tensor,
    grad: Tensor,
    delta: Tensor,
    level: Tensor,
    references: Sequence[Reference],
    grad_query: Tensor | None,
    grad_keys: Sequence[Tensor] | None,
    grad_values: Sequence[Tensor] | None,
) -> None:
    """Add one image's gradients; grad [h w v], delta [h w] and level = -lse / ln 2 [h w]."""
    work, scale = working_type(query), references[0].window.scale
    for boxes in tiles(query, references):
        y, x = boxes[0].y, boxes[0].x
        queries, grads = query[y, x].to(work) * (scale * LOG2_E), grad[y, x].to(work)
        for position, box in enumerate(boxes):
            keys, values = box.cut(box.reference.key, work), box.values(work)
            weights = (box.logits(queries, keys) + level[y, x][:, None, None]).exp2_()
            slopes = box.scatter((box.gather(grads @ values.T) - delta[y, x][:, None, None]).mul_(weights))
            if grad_query is not None:
                grad_query[y, x] += scale * (slopes @ keys)
            if grad_keys is not None:
                box.add(grad_keys[position], slopes.T @ queries, LN_2)
            if grad_values is not None:
                box.add(grad_values[position], box.scatter(weights).T @ grads)


def tiles(query: Tensor, references: Sequence[Reference]) -> Iterator[list[Box]]:
    """The boxes that each tile of the query reads, one for each reference."""
    window, device = references[0].window, query.device
    even = (TILE + 1 + 2 * window.dilation * window.radius) ** 2
    height, width = query.shape[:2]

    def split(rows: range, columns: range) -> Iterator[list[Box]]:
        y, x = torch.meshgrid(
            torch.tensor(list(rows), device=device), torch.tensor(list(columns), device=device), indexing="ij"
        )
        boxes = [Box(r, y.flatten(), x.flatten()) for r in references]
        if len(rows) * len(columns) == 1 or max(b.shape[0] * b.shape[1] for b in boxes) <= WASTE * even:
            yield boxes
            return
        for some_rows in _halves(rows):
            for some_columns in _halves(columns):
                yield from split(some_rows, some_columns)

    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            yield from split(range(top, min(top + TILE, height)), range(left, min(left + TILE, width)))


def _halves(cells: range) -> list[range]:
    return [cells] if len(cells) == 1 else [cells[: len(cells) // 2], cells[len(cells) // 2 :]]
