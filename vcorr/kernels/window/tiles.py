"""Windows at an offset of their own for every cell, whole or fractional, by tiles of query cells.

The keys that a tile's windows cover lie in one box; its scores are one product. A tap at a fractional position is the
blend of four keys, and the blend commutes with the product: each tap gathers four scores of the box. Weights go back
into the box the same way, transposed, so that values and gradients are products too. The rougher the offsets, the
larger the box: a tile whose box is too large is split, down to single cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vcorr.kernels.geometry import Reference, taps, working_type
from vcorr.kernels.window.strips import LN_2, LOG2_E

TILE = 8  # cells on a side
WASTE = 3.0  # a box may hold this many times the cells that an even offset needs


@dataclass(frozen=True)
class Box:
    """The part of one reference that a tile reads: n query cells, t taps, m cells in the box."""

    reference: Reference
    y: Tensor  # rows and columns of the tile's cells: [n]
    x: Tensor
    taps: Tensor  # dilated (dy, dx): [t 2]

    @cached_property
    def offset(self) -> Tensor:
        assert self.reference.offset is not None
        return self.reference.offset[self.y, self.x].to(working_type(self.reference.offset))

    @cached_property
    def whole(self) -> Tensor:
        """Upper left cell that each query's window is centred on: [n 2]."""
        return self.offset.floor().long() + torch.stack([self.y, self.x], 1)

    @cached_property
    def frame(self) -> Tensor:
        return torch.tensor(self.reference.key.shape[:2], device=self.y.device)

    @cached_property
    def bounds(self) -> tuple[int, int, int, int]:
        """First row, last row, first column, last column; one cell of zeros around the frame is within reach."""
        reach = self.taps.abs().amax(0)
        low = torch.minimum((self.whole.amin(0) - reach).clamp(min=-1), self.frame)
        high = torch.minimum((self.whole.amax(0) + reach + 1).clamp(min=-1), self.frame)
        return int(low[0]), int(high[0]), int(low[1]), int(high[1])

    @property
    def shape(self) -> tuple[int, int]:
        top, bottom, left, right = self.bounds
        return bottom - top + 1, right - left + 1

    @cached_property
    def corners(self) -> list[tuple[Tensor, Tensor]]:
        """Cells of the box that the taps blend, and their weights: [n t] and [n 1] each."""
        top, _, left, _ = self.bounds
        fraction = self.offset - self.offset.floor()
        found = []
        for cy, cx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = (fraction[:, 0] if cy else 1 - fraction[:, 0]) * (fraction[:, 1] if cx else 1 - fraction[:, 1])
            if not weight.any():
                continue
            position = self.whole[:, None] + self.taps + torch.tensor([cy, cx], device=self.y.device)
            position = torch.minimum(position.clamp(min=-1), self.frame)
            cell = (position[..., 0] - top) * self.shape[1] + position[..., 1] - left
            found.append((cell, weight[:, None]))
        return found

    @cached_property
    def left_out(self) -> Tensor:
        """Taps that take no mass: those outside the frame under border "mask", those that blend a masked key: [n t]."""
        position = torch.stack([self.y, self.x], 1)[:, None] + self.taps + self.offset[:, None]
        out = ((position < 0) | (position > self.frame - 1)).any(-1)
        if self.reference.window.border == "zeros":
            out = torch.zeros_like(out)
        if self.reference.mask is not None:
            masked = self.cut(~self.reference.mask[..., None], torch.bool)[:, 0]
            for cell, weight in self.corners:
                out = out | (masked[cell] & (weight > 0))
        return out

    def cut(self, image: Tensor, work: torch.dtype) -> Tensor:
        """The box of an image [h w c], zero outside the frame: [m c]."""
        box = torch.zeros(*self.shape, image.shape[2], dtype=work, device=image.device)
        inner, outer = self.overlap
        box[inner] = image[outer].to(work)
        return box.flatten(0, 1)

    def add(self, image: Tensor, box: Tensor, factor: float = 1.0) -> None:
        """Add a box [m c] to an image [h w c]."""
        inner, outer = self.overlap
        image[outer].add_(box.reshape(*self.shape, -1)[inner], alpha=factor)

    @cached_property
    def overlap(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where box and frame overlap, in the box and in the frame."""
        top, bottom, left, right = self.bounds
        height, width = self.reference.key.shape[:2]
        rows = slice(max(top, 0), max(top, 0, min(bottom + 1, height)))
        columns = slice(max(left, 0), max(left, 0, min(right + 1, width)))
        inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        return inner, (rows, columns)

    def gather(self, scores: Tensor) -> Tensor:
        """What each tap finds in per-query maps of the box: [n m] -> [n t]."""
        return sum_of([weight.to(scores.dtype) * scores.gather(1, cell) for cell, weight in self.corners])

    def scatter(self, weights: Tensor) -> Tensor:
        """The transpose of ``gather``: [n t] -> [n m]."""
        box = weights.new_zeros(weights.shape[0], self.shape[0] * self.shape[1])
        for cell, weight in self.corners:
            box.scatter_add_(1, cell, weight.to(weights.dtype) * weights)
        return box

    def logits(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[n t], -inf where a tap takes no mass."""
        return self.gather(queries @ keys.T).masked_fill_(self.left_out, -torch.inf)


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


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
            larger = torch.maximum(largest, logits.amax(1))
            level = larger.masked_fill(larger == -torch.inf, 0.0)  # nothing valid so far
            weights = logits.sub_(level[:, None]).exp2_()
            shrink = (largest - level).exp2_()
            mass.mul_(shrink).add_(weights.sum(1))
            sums.mul_(shrink[:, None]).addmm_(box.scatter(weights), box.cut(box.reference.value, work))
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
            keys, values = box.cut(box.reference.key, work), box.cut(box.reference.value, work)
            weights = (box.logits(queries, keys) + level[y, x, None]).exp2_()
            slopes = box.scatter((box.gather(grads @ values.T) - delta[y, x, None]).mul_(weights))
            if grad_query is not None:
                grad_query[y, x] += scale * (slopes @ keys)
            if grad_keys is not None:
                box.add(grad_keys[position], slopes.T @ queries, LN_2)
            if grad_values is not None:
                box.add(grad_values[position], box.scatter(weights).T @ grads)


def tiles(query: Tensor, references: Sequence[Reference]) -> Iterator[list[Box]]:
    """The boxes that each tile of the query reads, one for each reference."""
    window, device = references[0].window, query.device
    steps = window.dilation * torch.tensor(taps(window.radius, window.shape), device=device)
    even = (TILE + 1 + 2 * window.dilation * window.radius) ** 2
    height, width = query.shape[:2]

    def split(rows: range, columns: range) -> Iterator[list[Box]]:
        y, x = torch.meshgrid(
            torch.tensor(list(rows), device=device), torch.tensor(list(columns), device=device), indexing="ij"
        )
        boxes = [Box(r, y.flatten(), x.flatten(), steps) for r in references]
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
