"""Windowed reading by panels: a few key rows of many strips in one call, whose scores stay in the caches of a core.

A panel is as many strips of COLUMNS columns, side by side, as fit. Under a strip lie k = COLUMNS + 2R key columns, and
m key rows are seen by n = m + 2R query rows, so that each strip has one product of [n*COLUMNS c] queries and [m*k c]
keys; those of a panel are one call (``products.dotted``). Of what is multiplied the window asks for

    (2R+1)^2 / ((2R+m) (2R+COLUMNS)),   80 % at R = 12.

Scores are held of one call only, so that no softmax is in reach but one whose level is known beforehand
(``reader.py``, and the logsumexp in the backward pass): calls add to sums, and to gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vcorr.kernels import products
from vcorr.kernels.geometry import Reference, half_width
from vcorr.kernels.window.strips import LN_2, LOG2_E, Strips

COLUMNS = 4  # of a strip
FEW, MANY = 4, 8  # key rows of a call; where windows are small, fewer calls are worth more that is multiplied in vain
SMALL = 8  # radius
QUERIES = 3 * 2**20  # numbers in the queries of a panel, at most
SCORES = 2**20  # scores of a call, at most
NARROWEST = 24  # features
LEAST = 2**24  # multiplications of a call from which on panels are no slower than strips


class Size(NamedTuple):
    """Of a panel: key rows of a call, queries and keys of a strip in it, strips; multiplications of a call."""

    rows: int
    cells: int
    keys: int
    strips: int
    work: int

    @classmethod
    def of(cls, strips: Strips, features: int) -> Size:
        rows = FEW if strips.up > SMALL else MANY
        cells, keys = (rows + 2 * strips.up) * COLUMNS, rows * (COLUMNS + 2 * strips.side)
        total = -(-strips.width // COLUMNS)
        fit = min(QUERIES // (strips.height * COLUMNS * features), SCORES // (cells * keys))
        panels = -(-total // max(1, fit))
        at_once = -(-total // panels)  # all panels are of nearly one width
        return cls(rows, cells, keys, at_once, at_once * cells * keys * features)


class Panels:
    """Panels over images of one size, and the buffers that their calls share.

    Shapes: h w c v image; s COLUMNS; p strips of a panel; n query rows that see m key rows; k key columns.
    """

    def __init__(self, strips: Strips, features: int, channels: int) -> None:
        self.strips, self.factor = strips, strips.window.scale * LOG2_E
        self.size = Size.of(strips, features)
        height, at_once, rows = strips.height, self.size.strips, self.size.rows
        self.columns = COLUMNS + 2 * strips.side
        self.width = at_once * COLUMNS + 2 * strips.side  # key columns under a panel
        self.full_height = -(-height // rows) * rows
        self.queries = strips.empty(height, COLUMNS, at_once, features)
        self.levels = strips.empty(height, COLUMNS, at_once, 1)
        self.keys = strips.empty(rows, self.width, features)
        self.values = strips.empty(channels + 1, self.full_height, self.width)
        self.keys_of_strips = strips.empty(at_once, self.size.keys, features)
        self.values_of_strips = strips.empty(at_once, channels + 1, self.size.keys)
        self.band = self.window()

    @staticmethod
    def pay(strips: Strips, features: int) -> bool:
        """Whether panels are faster than strips."""
        size = Size.of(strips, features)
        fits = features >= NARROWEST and size.cells * size.keys <= SCORES and size.work >= LEAST
        return products.GROUPED and strips.work == torch.float32 and strips.device.type == "cpu" and fits

    def window(self) -> Tensor:
        """0 where a key lies in the query's window, else -inf: [n*s p m*k]."""
        strips, rows = self.strips, self.size.rows
        down = torch.arange(rows) - (torch.arange(rows + 2 * strips.up) - strips.up)[:, None]  # [n m]
        reach = torch.tensor([half_width(dy, strips.radius, strips.shape) for dy in range(rows + strips.up)])
        off = torch.arange(self.columns) - strips.side - torch.arange(COLUMNS)[:, None]  # [s k]
        inside = off.abs()[None, :, None] <= reach[down.abs()][:, None, :, None]  # [n s m k]
        band = torch.where(inside, 0.0, -torch.inf).flatten(2).flatten(0, 1)
        band = band.to(device=strips.device, dtype=strips.work)
        return band[:, None].expand(-1, self.size.strips, -1).contiguous()

    def starts(self) -> Iterator[tuple[int, int]]:
        """First column of each panel, and how many of its columns lie in the image."""
        step = self.size.strips * COLUMNS
        for x in range(0, self.strips.width, step):
            yield x, min(step, self.strips.width - x)

    def load_values(self, reference: Reference, x: int) -> None:
        """Load values and a channel of ones; 0 outside the frame and where the mask leaves a key out."""
        cells, place = self.strips.span(x, self.width)
        seen = self.values.zero_()[:, : self.strips.height, place]
        seen[:-1] = reference.value[:, cells].permute(2, 0, 1)
        seen[-1] = 1.0
        if reference.mask is not None:
            seen.masked_fill_(~reference.mask[:, cells], 0.0)

    def calls(self, reference: Reference, x: int) -> Iterator[tuple[int, slice, Tensor]]:
        """Lay the rows of one call after another under the strips: the first key row; the query cells that see them;
        the band of their scores.
        """
        height, up, count = self.strips.height, self.strips.up, self.size.rows
        cells, place = self.strips.span(x, self.width)
        self.keys.zero_()  # beside the frame
        for y in range(0, height, count):
            rows = reference.key[y : y + count, cells]
            self.keys[: len(rows), place] = rows
            keys = self.under_strips(self.keys, 1).permute(1, 0, 3, 2)
            self.keys_of_strips.view(keys.shape).copy_(keys)
            values = self.under_strips(self.values[:, y : y + count], 2).permute(2, 0, 1, 3)
            self.values_of_strips.view(values.shape).copy_(values)
            low, high = max(0, y - up), min(height, y + count + up)
            first = (low - (y - up)) * COLUMNS
            cut = slice(low * COLUMNS, high * COLUMNS)
            yield y, cut, self.band[first : first + cut.stop - cut.start]

    def under_strips(self, rows: Tensor, dim: int) -> Tensor:
        """The key columns under each strip, of rows with the columns of a panel in a dimension; the strips take its
        place, and their columns come last.
        """
        return rows.unfold(dim, self.columns, COLUMNS)


class PanelSums(Panels):
    """What the forward pass sums, panel by panel."""

    def __init__(self, strips: Strips, features: int, channels: int) -> None:
        super().__init__(strips, features, channels)
        self.sums = strips.empty(self.size.strips, channels + 1, strips.height * COLUMNS)

    def sum_below(
        self, query: Tensor, levels: Tensor | None, references: Sequence[Reference], x: int, count: int
    ) -> Tensor:
        """Sums [v+1 h count] of 2**(S - level) under the levels [h w], or under 0."""
        here = slice(x, x + count)
        spread(self.queries, query[:, here])
        queries = self.queries.mul_(self.factor).flatten(0, 1)
        if levels is not None:
            spread(self.levels, levels[:, here, None])
        self.sums.zero_()
        for reference in references:
            self.load_values(reference, x)
            for _, cut, band in self.calls(reference, x):
                scores = products.dotted(queries[cut], self.keys_of_strips)
                if levels is not None:
                    scores.sub_(self.levels.flatten(0, 1)[cut])
                scores.add_(band).exp2_()
                self.sums[..., cut] += torch.bmm(self.values_of_strips, scores.permute(1, 2, 0))
        by_row = self.sums.view(*self.sums.shape[:2], self.strips.height, COLUMNS)
        return by_row.permute(1, 2, 0, 3).flatten(2)[..., :count]


class PanelSlopes(Panels):
    """The backward pass, panel by panel; the equations are those of ``strips.Differentiator``."""

    @staticmethod
    def pay(strips: Strips, features: int) -> bool:
        """Whether panels are faster than strips: not where windows are small, by two threads."""
        return strips.up > SMALL and Panels.pay(strips, features)

    def __init__(self, strips: Strips, features: int, channels: int) -> None:
        super().__init__(strips, features, channels)
        rows, at_once, keys = self.size.rows, self.size.strips, self.size.keys
        self.grads = strips.empty(strips.height, COLUMNS, at_once, channels + 1)
        self.hidden = strips.empty(self.full_height, self.width)
        self.hidden_of_strips = strips.empty(at_once, keys)
        self.of_keys = torch.empty_like(self.keys)
        self.of_values = strips.empty(channels + 1, rows, self.width)

    def add(
        self,
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
        outer = torch.cat([grad, -delta[..., None]], 2)
        for x, count in self.starts():
            here = slice(x, x + count)
            spread(self.queries, query[:, here])
            self.queries.mul_(self.factor)
            spread(self.grads, outer[:, here])
            spread(self.levels, level[:, here, None])
            for position, reference in enumerate(references):
                self.load_values(reference, x)
                self.load_hidden(reference, x)
                self.add_reference(
                    reference,
                    x,
                    None if grad_query is None else grad_query[:, here],
                    None if grad_keys is None else grad_keys[position],
                    None if grad_values is None else grad_values[position],
                )

    def load_hidden(self, reference: Reference, x: int) -> None:
        """Load -inf for keys outside the frame and those that the mask leaves out, else 0."""
        cells, place = self.strips.span(x, self.width)
        seen = self.hidden.fill_(-torch.inf)[: self.strips.height, place]
        seen.zero_()
        if reference.mask is not None:
            seen.masked_fill_(~reference.mask[:, cells], -torch.inf)

    def add_reference(
        self,
        reference: Reference,
        x: int,
        grad_query: Tensor | None,
        grad_key: Tensor | None,
        grad_value: Tensor | None,
    ) -> None:
        """Add what one reference gives in the panel at x; grad_query is of the panel's columns alone."""
        cells, place = self.strips.span(x, self.width)
        rows = self.size.rows
        queries, levels = self.queries.flatten(0, 1), self.levels.flatten(0, 1)
        grads = self.grads.flatten(0, 1)
        for y, cut, band in self.calls(reference, x):
            hidden = self.under_strips(self.hidden[y : y + rows], 1).permute(1, 0, 2)
            self.hidden_of_strips.view(hidden.shape).copy_(hidden)
            scores = products.dotted(queries[cut], self.keys_of_strips, self.hidden_of_strips)
            scores.add_(levels[cut]).add_(band).exp2_()
            outer = grads[cut].transpose(0, 1)  # [p n*s v+1]
            height = min(rows, self.strips.height - y)
            if grad_value is not None:
                part = torch.bmm(outer.transpose(1, 2), scores.transpose(0, 1))  # [p v+1 m*k]
                part = part.view(*part.shape[:2], rows, self.columns)
                self.gather(self.of_values, 2, part.permute(1, 2, 0, 3))
                grad_value[y : y + rows, cells].add_(self.of_values[:-1, :height, place].permute(1, 2, 0))
            if grad_key is None and grad_query is None:
                continue
            slopes = scores.mul_(torch.bmm(outer, self.values_of_strips).transpose(0, 1))
            if grad_query is not None:
                part = products.mixed(slopes, self.keys_of_strips)
                part = part.view(-1, COLUMNS, *part.shape[1:])
                add_spread(grad_query[cut.start // COLUMNS : cut.stop // COLUMNS], part, self.strips.window.scale)
            if grad_key is not None:
                turned = slopes.permute(2, 1, 0).contiguous()  # [m*k p n*s]
                part = products.mixed(turned, queries[cut].transpose(0, 1))
                part = part.view(rows, self.columns, *part.shape[1:])  # [m k p c]
                self.gather(self.of_keys, 1, part.permute(0, 2, 3, 1))
                grad_key[y : y + rows, cells].add_(self.of_keys[:height, place], alpha=LN_2)

    def gather(self, rows: Tensor, dim: int, parts: Tensor) -> None:
        """Fill rows with the columns of a panel in a dimension with the sum of what each strip gives: the inverse of
        ``under_strips``.
        """
        rows.zero_()
        apart = -(-self.columns // COLUMNS)  # strips so far apart share no key column
        for first in range(min(apart, self.size.strips)):
            columns = rows.narrow(dim, first * COLUMNS, rows.shape[dim] - first * COLUMNS)
            some = parts.movedim(dim, 0)[first::apart].movedim(0, dim)
            columns.unfold(dim, self.columns, apart * COLUMNS).add_(some)


def spread(strips: Tensor, image: Tensor) -> None:
    """Lay the columns of an image [h w .] out in strips [h s p .], with zeros beside them."""
    full, rest = divmod(image.shape[1], COLUMNS)
    strips[:, :, full:] = 0.0
    strips[:, :, :full] = _cut(image, full).transpose(1, 2)
    if rest:
        strips[:, :rest, full] = image[:, full * COLUMNS :]


def add_spread(image: Tensor, strips: Tensor, alpha: float) -> None:
    """Add alpha times what lies in strips [h s p .] to an image [h w .]: the inverse of ``spread``."""
    full, rest = divmod(image.shape[1], COLUMNS)
    _cut(image, full).add_(strips[:, :, :full].transpose(1, 2), alpha=alpha)
    if rest:
        image[:, full * COLUMNS :].add_(strips[:, :rest, full], alpha=alpha)


def _cut(image: Tensor, full: int) -> Tensor:
    """The columns of the full strips of an image [h w .]: a view [h p s .]."""
    return image[:, : full * COLUMNS].view(len(image), full, COLUMNS, image.shape[2])
