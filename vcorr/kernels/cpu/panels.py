"""Windowed reading by panels: a few key rows of many strips in one call, whose scores stay in the caches of a core.

A panel is as many strips of COLUMNS columns, side by side, as fit. Under a strip lie k = COLUMNS + 2R key columns, and
m key rows are seen by n = m + 2R query rows, so that each strip has one product of [n*COLUMNS c] queries and [m*k c]
keys; those of a panel are one call (``products.dotted``). Of what is multiplied the window asks for

    (2R+1)^2 / ((2R+m) (2R+COLUMNS)),   77 % at R = 12 and m = 5.

Scores are held of one call only, so that no softmax is in reach but one whose level is known beforehand
(``reader.py``, and the logsumexp in the backward pass): calls add to sums, and to gradients.

A product has its cells outermost, [. p .], and threads share it by strips. What follows goes strip after strip,
[p . .], so that it is shared alike and a core finds what it wrote itself, until a product wants cells outermost again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vcorr.kernels.cpu import products
from vcorr.kernels.cpu.forms import Gradients, Slopes
from vcorr.kernels.cpu.strips import LN_2, LOG2_E, Strips, front
from vcorr.kernels.geometry import Reference, half_width

COLUMNS = 4  # of a strip
# Key rows of a call: fewer multiply less in vain, more are fewer calls, which counts where windows are small. Five give
# a strip more keys than queries under any radius, in frames as wide as high. Where it has not, oneDNN shares a call
# among threads otherwise than the keys that it lays out for it, and threads wait for what others wrote: the longer the
# more features there are.
FEW, SOME, MANY = 4, 5, 8
SMALL, LONG = 8, 96  # radius, features
QUERIES = 3 * 2**20  # numbers in the queries of a panel, at most
SCORES = 2**20  # scores of a call, at most
NARROWEST = 24  # features
STEEP = 64.0  # log2 of a weight that is sure to be a number, as its products with gradients are
LEAST = 2**24  # multiplications of a call from which on panels are no slower than strips


class Size(NamedTuple):
    """Of a panel: key rows of a call, queries and keys of a strip in it, strips; multiplications of a call."""

    rows: int
    cells: int
    keys: int
    strips: int
    work: int

    @classmethod
    def of(cls, strips: Strips, features: int, width: int) -> Size:
        """For images of which so many columns are read."""
        rows = MANY if strips.up <= SMALL else SOME if features >= LONG else FEW
        cells, keys = (rows + 2 * strips.up) * COLUMNS, rows * (COLUMNS + 2 * strips.side)
        total = -(-width // COLUMNS)
        fit = min(QUERIES // (strips.height * COLUMNS * features), SCORES // (cells * keys))
        panels = -(-total // max(1, fit))
        at_once = -(-total // panels)  # all panels are of nearly one width
        return cls(rows, cells, keys, at_once, at_once * cells * keys * features)


class Step(NamedTuple):
    """One call: its first key row, the query cells [n*s] that see its rows, and what it takes of the buffers."""

    y: int
    cut: slice
    band: Tensor  # [n*s m*k]
    queries: Tensor  # [n*s p c]
    levels: Tensor  # [p n*s 1]
    values: Tensor  # [p v+1 m k]
    scores: Tensor  # [p n*s m*k]


class Panels:
    """Panels over images of one size, and the buffers that their calls share.

    Shapes: h w c v image; s COLUMNS; p strips of a panel; n query rows that see m key rows; k key columns.
    """

    def __init__(self, strips: Strips, features: int, channels: int, span: tuple[int, int]) -> None:
        self.strips, self.factor, self.read = strips, strips.window.scale * LOG2_E, span
        self.size = Size.of(strips, features, span[1] - span[0])
        height, at_once, rows = strips.height, self.size.strips, self.size.rows
        self.columns = COLUMNS + 2 * strips.side
        self.width = at_once * COLUMNS + 2 * strips.side  # key columns under a panel
        self.full_height = -(-height // rows) * rows
        self.queries = strips.empty(height, COLUMNS, at_once, features)
        self.levels = strips.empty(height, COLUMNS, at_once, 1)
        self.keys = strips.empty(rows, self.width, features)
        self.values = strips.empty(channels + 1, self.full_height, self.width)
        self.all_keys = strips.empty(at_once * max(self.size.keys, self.size.cells) * features)
        self.keys_of_strips = front(self.all_keys, at_once, self.size.keys, features)
        self.values_of_strips = strips.empty(at_once, channels + 1, self.size.keys)
        self.scores = strips.empty(at_once * self.size.cells * self.size.keys)
        self.steps = list(self.each_step())

    @classmethod
    def over(cls, strips: Strips, features: int, channels: int, span: tuple[int, int], *, keep: bool) -> Panels:
        """Panels over images of this size, of which columns in a span are read: those that this thread keeps, if they
        are, else others, to keep or not.
        """
        size = Size.of(strips, features, span[1] - span[0])
        asked = (strips.height, strips.width, strips.window, strips.work, features, channels, span, size)
        if _KEPT.panels is not None and _KEPT.asked == asked:
            return _KEPT.panels
        if not keep:
            return cls(strips, features, channels, span)
        _KEPT.panels = None  # before there are others
        _KEPT.asked, _KEPT.panels = asked, cls(strips, features, channels, span)
        return _KEPT.panels

    @staticmethod
    def pay(strips: Strips, features: int, span: tuple[int, int]) -> bool:
        """Whether panels are faster than strips."""
        size = Size.of(strips, features, span[1] - span[0])
        fits = features >= NARROWEST and size.cells * size.keys <= SCORES and size.work >= LEAST
        return fits and strips.work == torch.float32 and strips.device.type == "cpu" and products.grouped()

    def each_step(self) -> Iterator[Step]:
        """The calls of a panel, down the frame."""
        height, up, count = self.strips.height, self.strips.up, self.size.rows
        band, queries, levels = self.window(), self.queries.flatten(0, 1), self.levels.flatten(0, 1).transpose(0, 1)
        for y in range(0, height, count):
            low, high = max(0, y - up), min(height, y + count + up)
            first, cells = (low - (y - up)) * COLUMNS, (high - low) * COLUMNS
            cut = slice(low * COLUMNS, high * COLUMNS)
            values = self.under_strips(self.values[:, y : y + count], 2).permute(2, 0, 1, 3)
            scores = front(self.scores, self.size.strips, cells, self.size.keys)
            yield Step(y, cut, band[first : first + cells], queries[cut], levels[:, cut], values, scores)

    def window(self) -> Tensor:
        """0 where a key lies in the query's window, else -inf: [n*s m*k]."""
        strips, rows = self.strips, self.size.rows
        query, key = (torch.arange(count, device=strips.device) for count in (rows + 2 * strips.up, rows))
        down = key - (query - strips.up)[:, None]  # [n m]
        widths = [half_width(dy, strips.radius, strips.shape) for dy in range(rows + strips.up)]
        reach = torch.tensor(widths, device=strips.device)
        own, column = (torch.arange(count, device=strips.device) for count in (COLUMNS, self.columns))
        off = column - strips.side - own[:, None]  # [s k]
        inside = off.abs()[None, :, None] <= reach[down.abs()][:, None, :, None]  # [n s m k]
        band = torch.where(inside, 0.0, -torch.inf).flatten(2).flatten(0, 1)
        return band.to(strips.work)

    def starts(self) -> Iterator[tuple[int, int]]:
        """First column of each panel, and how many of its columns are read."""
        step = self.size.strips * COLUMNS
        for x in range(*self.read, step):
            yield x, min(step, self.read[1] - x)

    def wanted(self, wanted: Tensor | None, x: int, count: int) -> list[Step]:
        """The calls of a panel whose keys a wanted cell [h w] sees."""
        if wanted is None:
            return self.steps
        active, up = wanted[:, x : x + count].any(1), self.strips.up
        return [s for s in self.steps if bool(active[max(0, s.y - up) : s.y + self.size.rows + up].any())]

    def load_queries(self, query: Tensor) -> None:
        """Load what lies of a query image in the panel, in the unit of the scores."""
        spread(self.queries, query, self.factor)

    def load_values(self, reference: Reference, x: int) -> None:
        """Load values and a channel of ones; 0 outside the frame and where the mask leaves a key out."""
        cells, place = self.strips.span(x, self.width)
        seen = self.values.zero_()[:, : self.strips.height, place]
        seen[:-1] = reference.value[:, cells].permute(2, 0, 1)
        seen[-1] = 1.0
        if reference.mask is not None:
            seen.masked_fill_(~reference.mask[:, cells], 0.0)

    def calls(self, reference: Reference, x: int, steps: Sequence[Step]) -> Iterator[Step]:
        """Lay the keys and values of some calls, one after another, under the strips, and score them without levels."""
        cells, place = self.strips.span(x, self.width)
        key, inside = reference.key[:, cells], self.keys.zero_()[:, place]
        below = self.under_strips(self.keys, 1).permute(1, 0, 3, 2)
        keys, values = self.keys_of_strips.view(below.shape), self.values_of_strips.view(self.steps[0].values.shape)
        for step in steps:
            rows = key[step.y : step.y + self.size.rows]
            inside[: len(rows)] = rows
            if len(rows) < self.size.rows:  # below the frame
                inside[len(rows) :] = 0.0
            keys.copy_(below)
            values.copy_(step.values)
            scores = products.dotted(step.queries, self.keys_of_strips)
            torch.add(scores.transpose(0, 1), step.band, out=step.scores)
            yield step

    def under_strips(self, rows: Tensor, dim: int) -> Tensor:
        """The key columns under each strip, of rows with the columns of a panel in a dimension; the strips take its
        place, and their columns come last.
        """
        return rows.unfold(dim, self.columns, COLUMNS)


class _Kept(threading.local):
    """The panels that a thread keeps, and for what: those of its last backward pass.

    A training reads images of one size again and again, and new buffers would often be new pages, which take time to
    get. Without gradients nothing is kept: the encoder of the next frame needs that memory.
    """

    asked: object = None
    panels: Panels | None = None


_KEPT = _Kept()


class PanelSums:
    """What the forward pass sums, panel by panel."""

    def __init__(self, panels: Panels) -> None:
        self.panels = panels
        strips = panels.strips
        self.sums = strips.empty(panels.size.strips, panels.values.shape[0], strips.height * COLUMNS)

    def starts(self) -> Iterator[tuple[int, int]]:
        """First column of each panel, and how many of its columns lie in the image."""
        return self.panels.starts()

    def sum_below(
        self,
        query: Tensor,
        levels: Tensor | None,
        references: Sequence[Reference],
        wanted: Tensor | None,
        x: int,
        count: int,
    ) -> Tensor:
        """Sums [v+1 h count] of 2**(S - level) under the levels [h w], or under 0, where a cell is wanted [h w]."""
        panels, here = self.panels, slice(x, x + count)
        panels.load_queries(query[:, here])
        if levels is not None:
            spread(panels.levels, levels[:, here, None])
        self.sums.zero_()
        steps = panels.wanted(wanted, x, count)
        for reference in references:
            panels.load_values(reference, x)
            for step in panels.calls(reference, x, steps):
                if levels is not None:
                    step.scores.sub_(step.levels)
                self.sums[..., step.cut] += torch.bmm(panels.values_of_strips, step.scores.exp2_().mT)
        by_row = self.sums.view(*self.sums.shape[:2], panels.strips.height, COLUMNS)
        return by_row.permute(1, 2, 0, 3).flatten(2)[..., :count]


class Gathered:
    """Rows with the columns of a panel in a dimension, which sum what strips give: the inverse of ``under_strips``."""

    def __init__(self, rows: Tensor, dim: int, columns: int) -> None:
        self.rows, self.before = rows, (slice(None),) * dim
        apart = -(-columns // COLUMNS)  # strips so far apart share no key column
        starts = range(0, rows.shape[dim] - columns + 1, COLUMNS)[:apart]
        after = [rows.narrow(dim, start, rows.shape[dim] - start) for start in starts]
        self.columns = [some.unfold(dim, columns, apart * COLUMNS) for some in after]

    def sum(self, parts: Tensor) -> Tensor:
        """The rows, of what strips give; these are in place of the columns, and their key columns last."""
        self.rows.zero_()
        for first, columns in enumerate(self.columns):
            columns.add_(parts[(*self.before, slice(first, None, len(self.columns)))])
        return self.rows


class PanelSlopes:
    """The backward pass, panel by panel; the equations are those of ``strips.Differentiator``."""

    def __init__(self, panels: Panels) -> None:
        self.panels = panels
        strips, rows, at_once, channels = panels.strips, panels.size.rows, panels.size.strips, len(panels.values)
        self.grads = strips.empty(strips.height, COLUMNS, at_once, channels)
        self.hidden = strips.empty(panels.full_height, panels.width)
        self.hidden_of_strips = strips.empty(at_once, 1, panels.size.keys)
        self.more = torch.empty_like(panels.scores)  # for what has as many numbers as the scores
        self.of_keys = Gathered(torch.empty_like(panels.keys), 1, panels.columns)
        self.of_values = Gathered(strips.empty(channels, rows, panels.width), 2, panels.columns)

    def add(
        self, query: Tensor, slopes: Slopes, references: Sequence[Reference], wanted: Tensor | None, into: Gradients
    ) -> None:
        """Add one image's gradients."""
        (grad, delta, level), (grad_query, grad_keys, grad_values) = slopes, into
        panels = self.panels
        outer = torch.cat([grad, -delta[..., None]], 2)
        # A key beside the frame has values of 0 and the score 0; 0 times its weight is not 0 if that is no number.
        steep = not float(level.amax()) < STEEP
        for x, count in panels.starts():
            here = slice(x, x + count)
            panels.load_queries(query[:, here])
            spread(self.grads, outer[:, here])
            spread(panels.levels, level[:, here, None])
            steps = panels.wanted(wanted, x, count)
            for position, reference in enumerate(references):
                panels.load_values(reference, x)
                hidden = steep or reference.mask is not None
                if hidden:
                    self.load_hidden(reference, x)
                self.add_reference(
                    reference,
                    x,
                    steps,
                    hidden,
                    None if grad_query is None else grad_query[:, here],
                    None if grad_keys is None else grad_keys[position],
                    None if grad_values is None else grad_values[position],
                )

    def load_hidden(self, reference: Reference, x: int) -> None:
        """Load -inf for keys outside the frame and those that the mask leaves out, else 0."""
        cells, place = self.panels.strips.span(x, self.panels.width)
        seen = self.hidden.fill_(-torch.inf)[: self.panels.strips.height, place]
        seen.zero_()
        if reference.mask is not None:
            seen.masked_fill_(~reference.mask[:, cells], -torch.inf)

    def hide(self, step: Step) -> None:
        """Add what is loaded to the scores of a call."""
        hidden = self.hidden[step.y : step.y + self.panels.size.rows]
        rows = self.panels.under_strips(hidden, 1).permute(1, 0, 2)
        self.hidden_of_strips.view(rows.shape).copy_(rows)
        step.scores.add_(self.hidden_of_strips)

    def add_reference(
        self,
        reference: Reference,
        x: int,
        steps: Sequence[Step],
        hidden: bool,
        grad_query: Tensor | None,
        grad_key: Tensor | None,
        grad_value: Tensor | None,
    ) -> None:
        """Add what one reference gives in the panel at x; grad_query is of the panel's columns alone. Whether keys are
        hidden that only their values of 0 would leave out.
        """
        panels = self.panels
        cells, place = panels.strips.span(x, panels.width)
        rows, columns, features = panels.size.rows, panels.columns, panels.keys.shape[2]
        all_grads = self.grads.flatten(0, 1).transpose(0, 1)  # [p h*s v+1]
        for step in panels.calls(reference, x, steps):
            if hidden:
                self.hide(step)
            scores, grads = step.scores.add_(step.levels).exp2_(), all_grads[:, step.cut]
            height = min(rows, panels.strips.height - step.y)
            if grad_value is not None:
                part = torch.bmm(grads.mT, scores)  # [p v+1 m*k]
                part = part.view(*part.shape[:2], rows, columns)
                of_values = self.of_values.sum(part.permute(1, 2, 0, 3))[:-1, :height, place]
                grad_value[step.y : step.y + rows, cells] += of_values.permute(1, 2, 0)
            if grad_key is None and grad_query is None:
                continue
            by_value = torch.bmm(grads, panels.values_of_strips, out=front(self.more, *scores.shape))
            slopes = scores.mul_(by_value)  # [p n*s m*k]
            strips, count, keys = slopes.shape
            if grad_query is not None:
                by_cell = front(self.more, count, strips, keys).copy_(slopes.transpose(0, 1))
                part = products.mixed(by_cell, panels.keys_of_strips).view(-1, COLUMNS, strips, features)
                seen = slice(step.cut.start // COLUMNS, step.cut.stop // COLUMNS)
                add_spread(grad_query[seen], part, panels.strips.window.scale)
            if grad_key is not None:
                turned = front(self.more, strips, keys, count).copy_(slopes.mT)
                by_key = front(panels.scores, keys, strips, count).copy_(turned.transpose(0, 1))
                queries = front(panels.all_keys, strips, count, features).copy_(step.queries.transpose(0, 1))
                part = products.mixed(by_key, queries).view(rows, columns, strips, features)
                of_keys = self.of_keys.sum(part.permute(0, 2, 3, 1))[:height, place]
                grad_key[step.y : step.y + rows, cells].add_(of_keys, alpha=LN_2)


def spread(strips: Tensor, image: Tensor, factor: float = 1.0) -> None:
    """Lay the columns of an image [h w .], times a factor, out in strips [h s p .], with zeros beside them."""
    full, rest = divmod(image.shape[1], COLUMNS)
    image = image.to(strips.dtype)  # a half type would be multiplied as such
    strips[:, :, full:] = 0.0
    torch.mul(_cut(image, full).transpose(1, 2), factor, out=strips[:, :, :full])
    if rest:
        torch.mul(image[:, full * COLUMNS :], factor, out=strips[:, :rest, full])


def add_spread(image: Tensor, strips: Tensor, alpha: float) -> None:
    """Add alpha times what lies in strips [h s p .] to an image [h w .]: the inverse of ``spread``."""
    full, rest = divmod(image.shape[1], COLUMNS)
    _cut(image, full).add_(strips[:, :, :full].transpose(1, 2), alpha=alpha)
    if rest:
        image[:, full * COLUMNS :].add_(strips[:, :rest, full], alpha=alpha)


def _cut(image: Tensor, full: int) -> Tensor:
    """The columns of the full strips of an image [h w .]: a view [h p s .]."""
    return image[:, : full * COLUMNS].view(len(image), full, COLUMNS, image.shape[2])
