"""The scores of a tile's queries and the keys of a box: one product a key row,

    S = K . Q^T + rows + columns,   K [p q c], Q [n c], rows [p 1 n], columns [1 q n],

batched over the p rows of the box. ``rows`` and ``columns`` are 0 where a key lies in the query's window and -inf
elsewhere (a disk needs both at once, [p q n]).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vcorr.kernels.cpu.boxes import Box, Opened, Source
from vcorr.kernels.cpu.strips import front


class Scores:
    """The scores of one box after another, in one buffer."""

    def __init__(self, like: Tensor) -> None:
        self.buffer = like.new_empty(0)

    def of(
        self,
        source: Source,
        box: Box,
        opened: Opened,
        queries: Tensor,
        level: Tensor | None,
        out: Tensor | None = None,
    ) -> Tensor:
        """[p q n], less a level [n] where given; queries [c N], times what the unit of the scores asks for."""
        turned = queries[:, box.place]
        scores = self.empty(*box.size, turned.shape[1]) if out is None else out
        rows, columns = source.sight.of(box)
        if level is not None:
            rows = rows - level[box.place]
        if columns is None:
            scores.copy_(rows)
        else:
            torch.add(rows, columns, out=scores)
        keys = self.keys(box, opened)
        scores.baddbmm_(keys, turned.expand(box.size[0], *turned.shape), alpha=source.window.scale)
        if opened.hidden is not None:
            scores.masked_fill_(self.part(opened.hidden, box, opened)[..., None], -torch.inf)
        return scores

    def empty(self, *shape: int) -> Tensor:
        if self.buffer.numel() < math.prod(shape):
            self.buffer = self.buffer.new_empty(math.prod(shape))
        return front(self.buffer, *shape)

    @staticmethod
    def part(image: Tensor, box: Box, opened: Opened) -> Tensor:
        """The box of an image [p w .]."""
        return image[box.rows[0] - opened.first : box.rows[1] - opened.first, slice(*box.columns)]

    def keys(self, box: Box, opened: Opened) -> Tensor:
        """[p q c]."""
        return self.part(opened.keys, box, opened)

    def values(self, box: Box, opened: Opened) -> Tensor:
        """[v+1 p*q]."""
        rows = slice(box.rows[0] - opened.first, box.rows[1] - opened.first)
        return opened.values[:, rows, slice(*box.columns)].flatten(1)
