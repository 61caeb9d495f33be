"""Windowed reading by column strips: batched matrix products in plain torch, nothing of size H*W*(2R+1)^2.

The query image is cut into vertical strips. A key row j is seen by the query rows j-R..j+R, so the scores of one strip
are one product a key row,

    S[j] = K_j . Q_j^T + band,   K_j [k c]: the key row under the strip, Q_j [n s c]: the n = 2R+1 query rows around j,

batched over the rows. Both operands are views (those of Q overlap), and the scores of one query, spread over n key
rows, are an affine view of S (``Strips.of_query``): maxima and sums over them run without a copy. ``band`` is 0 where a
key column lies in the query's window and -inf elsewhere. Scores are in base 2: exp2 is several times faster than exp,
above all where it underflows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from vcorr.kernels.cpu import products
from vcorr.kernels.cpu.forms import Gradients, Slopes
from vcorr.kernels.geometry import UNRESTRICTED, Reference, Window, half_width, taps_outside

WIDEST = 8  # columns of a strip: with R=12 a key row of 32, and products at the rate of large ones (Zen 4)
LARGEST = 2**21  # scores in one buffer
LOG2_E = math.log2(math.e)
LN_2 = math.log(2.0)


class Strips:
    """The strips of images of one size, and the buffers that they share.

    Shapes: h w c v image; s strip; n = 2R+1 query rows that see a key row; k key columns under a strip: s+2R, of which
    only those in the image are ever computed.
    """

    def __init__(self, height: int, width: int, window: Window, work: torch.dtype, device: torch.device) -> None:
        free = window.radius == UNRESTRICTED
        self.height, self.width, self.window = height, width, window
        self.radius = height + width if free else window.radius
        self.shape = "square" if free else window.shape
        self.zeros = window.border == "zeros" and not free
        self.work, self.device = work, device
        self.up, self.side = min(self.radius, height - 1), min(self.radius, width - 1)
        self.rows = 2 * self.up + 1
        self.strip = min(WIDEST, width)
        while self.strip > 1 and height * self.rows * self.strip * (self.strip + 2 * self.side) > LARGEST:
            self.strip //= 2
        self.columns = self.strip + 2 * self.side
        self._bands: dict[tuple[int, int], Tensor] = {}

    def empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.work, device=self.device)

    def padded(self, *row: int, fill: float = 0.0) -> Tensor:
        """A buffer with ``up`` more rows above and below the image."""
        return self.empty(self.height + 2 * self.up, *row).fill_(fill)

    def body(self, buffer: Tensor) -> Tensor:
        """The rows of a padded buffer that belong to the image."""
        return buffer[self.up : self.up + self.height]

    def by_key(self, buffer: Tensor) -> Tensor:
        """Of a padded buffer [. s c], the n rows of queries that see each key row: a view [h n*s c]."""
        inner = buffer.shape[2]
        shape = (self.height, self.rows * self.strip, inner)
        return buffer.as_strided(shape, (self.strip * inner, inner, 1), buffer.storage_offset())

    def queries(self, features: int) -> Tensor:
        """A padded buffer of queries as products with keys read it fastest: [c . s] where TURNED, else [. s c]."""
        if not products.TURNED:
            return self.padded(self.strip, features)
        return self.empty(features, self.height + 2 * self.up, self.strip).zero_()

    def queries_by_key(self, buffer: Tensor) -> Tensor:
        """Of a buffer of queries, the n rows that see each key row: a view [h c n*s]."""
        if not products.TURNED:
            return self.by_key(buffer).transpose(1, 2)
        shape = (self.height, buffer.shape[0], self.rows * self.strip)
        return buffer.as_strided(shape, (self.strip, buffer.stride(0), 1), buffer.storage_offset())

    def of_query(self, buffer: Tensor) -> Tensor:
        """Of a padded buffer [. c n*s] in key rows, what belongs to each query row: a view [h n c s]."""
        row, inner = buffer.stride(0), buffer.stride(1)
        shape = (self.height, self.rows, buffer.shape[1], self.strip)
        last = buffer.storage_offset() + 2 * self.up * self.strip
        return buffer.as_strided(shape, (row, row - self.strip, inner, 1), last)

    @cached_property
    def outside(self) -> Tensor:
        """Taps outside the frame, of each cell [h w]."""
        counts = taps_outside(self.height, self.width, self.radius, self.shape)
        return counts.to(device=self.device, dtype=self.work)

    def starts(self) -> Iterator[tuple[int, int]]:
        """First column of each strip, and how many of its columns lie in the image."""
        for x in range(0, self.width, self.strip):
            yield x, min(self.strip, self.width - x)

    def span(self, x: int, columns: int | None = None) -> tuple[slice, slice]:
        """Of the key columns under a strip at x, or of so many, those in the image: there, and in their own count."""
        left = x - self.side
        low, high = max(0, left), min(self.width, left + (columns or self.columns))
        return slice(low, high), slice(low - left, high - left)

    def band(self, x: int) -> Tensor:
        """0 where a key column lies in the query's window, else -inf: [k n*s]."""
        _, inside = self.span(x)
        bounds = (inside.start, inside.stop)
        if bounds not in self._bands:
            key = torch.arange(*bounds, device=self.device)[:, None]
            off = (key - self.side - torch.arange(self.strip, device=self.device)).abs()[:, None]  # [k 1 s]
            widths = [half_width(self.up - i, self.radius, self.shape) for i in range(self.rows)]
            reach = torch.tensor(widths, device=self.device)
            band = torch.where(off <= reach[:, None], 0.0, -torch.inf).reshape(len(key), self.rows * self.strip)
            self._bands[bounds] = band.to(self.work)
        return self._bands[bounds]

    def load(self, rows: Tensor, image: Tensor, x: int, count: int) -> None:
        """Fill rows [h s .] of a buffer with columns x..x+count of an image [h w .], and with zeros beside them."""
        rows[:, :count].copy_(image[:, x : x + count])
        if count < self.strip:
            rows[:, count:].zero_()

    def load_queries(self, buffer: Tensor, image: Tensor, x: int, count: int) -> None:
        """The same of a buffer of queries."""
        if products.TURNED:
            self.load(buffer[:, self.up : self.up + self.height].permute(1, 2, 0), image, x, count)
        else:
            self.load(self.body(buffer), image, x, count)

    def seen(self, wanted: Tensor | None, x: int, count: int) -> list[slice]:
        """The key rows that a wanted cell [h w] of the strip at x sees, of so many columns; without a mask all."""
        if wanted is None:
            return [slice(0, self.height)]
        found: list[slice] = []
        for y in wanted[:, x : x + count].any(1).nonzero()[:, 0].tolist():
            low, high = max(0, y - self.up), min(self.height, y + self.up + 1)
            if found and low <= found[-1].stop:
                found[-1] = slice(found[-1].start, high)
            else:
                found.append(slice(low, high))
        return found

    def scores_for(self, wanted: Tensor) -> int:
        """How many scores strips compute where cells [h w] are wanted."""
        ranges = (self.seen(wanted, x, count) for x, count in self.starts())
        rows = sum(int(some.stop - some.start) for some in itertools.chain.from_iterable(ranges))
        return rows * self.rows * self.strip * self.columns

    def keys(self, reference: Reference, x: int, rows: slice) -> Tensor:
        """The keys of some rows under the strip at x, where they lie if their type allows: [h k c]."""
        return reference.key[rows, self.span(x)[0]].to(self.work)

    def values(self, buffer: Tensor, reference: Reference, x: int, rows: slice) -> Tensor:
        """The values of some rows under the strip at x and a channel of ones, zero where the mask leaves a key out:
        [h v+1 k].
        """
        cells, _ = self.span(x)
        part = reference.value[rows, cells].transpose(1, 2)
        values = front(buffer, len(part), part.shape[1] + 1, part.shape[2])
        values[:, :-1] = part
        values[:, -1] = 1.0
        if reference.mask is not None:
            values.masked_fill_(~reference.mask[rows, None, cells], 0.0)
        return values

    def hide(self, scores: Tensor, reference: Reference, x: int, rows: slice, fill: float) -> None:
        """Overwrite the scores [h k n*s] of keys of some rows that the reference's mask leaves out."""
        if reference.mask is not None:
            scores.masked_fill_(~reference.mask[rows, self.span(x)[0], None], fill)


def front(buffer: Tensor, *shape: int) -> Tensor:
    """The first numbers of a flat buffer in a shape."""
    return buffer[: math.prod(shape)].view(shape)


class Sums:
    """What the forward pass over images of one size sums, strip by strip."""

    def __init__(self, strips: Strips, features: int, channels: int) -> None:
        self.strips = strips
        wide = strips.rows * strips.strip
        self.factor = strips.window.scale * LOG2_E
        self.queries = strips.queries(features)
        self.queries_by_key = strips.queries_by_key(self.queries)
        levels = strips.padded(strips.strip, 1)
        self.levels, self.levels_by_key = strips.body(levels)[..., 0], strips.by_key(levels).transpose(1, 2)
        self.scores = strips.empty(strips.height * strips.columns * wide)
        sums = strips.padded(channels + 1, wide)
        self.products, self.products_of_query = strips.body(sums), strips.of_query(sums)
        self.values = strips.empty(strips.height * (channels + 1) * strips.columns)

    def starts(self) -> Iterator[tuple[int, int]]:
        """First column of each strip, and how many of its columns lie in the image."""
        return self.strips.starts()

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
        strips, band = self.strips, self.strips.band(x)
        strips.load_queries(self.queries, query, x, count)
        if levels is None:
            self.levels.zero_()
        else:
            strips.load(self.levels, levels, x, count)
        lift = -self.levels_by_key
        for rows in strips.seen(wanted, x, count):
            scores = front(self.scores, rows.stop - rows.start, *band.shape)
            queries, sums = self.queries_by_key[rows], self.products[rows]
            for position, reference in enumerate(references):
                torch.add(band, lift[rows], out=scores)
                scores.baddbmm_(strips.keys(reference, x, rows), queries, alpha=self.factor).exp2_()
                values = strips.values(self.values, reference, x, rows)
                if position == 0:
                    torch.bmm(values, scores, out=sums)
                else:
                    sums.baddbmm_(values, scores)
        return self.products_of_query.sum(1).transpose(0, 1)[..., :count]

    def sum_online(
        self,
        query: Tensor,
        levels: Tensor,
        references: Sequence[Reference],
        wanted: Tensor | None,
        x: int,
        count: int,
    ) -> Tensor:
        """Fill the levels [h w] with the largest scores, one reference after another, and sum as ``sum_below``."""
        sums = []
        for left in range(x, x + count, self.strips.strip):
            part = min(self.strips.strip, x + count - left)
            level, some = self.sum_strip_online(query, references, wanted, left, part)
            levels[:, left : left + part] = level[:, :part]
            sums.append(some[..., :part])
        return torch.cat(sums, 2).transpose(0, 1)

    def sum_strip_online(
        self, query: Tensor, references: Sequence[Reference], wanted: Tensor | None, x: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """Levels [h s], the largest scores, and sums [h v+1 s] of 2**(S - level), one reference after another."""
        strips = self.strips
        strips.load_queries(self.queries, query, x, count)
        largest = strips.empty(strips.height, strips.strip).fill_(-torch.inf)
        sums = strips.empty(strips.height, self.products.shape[1], strips.strip).zero_()
        if strips.zeros:
            outside = len(references) * strips.outside[:, x : x + count]
            sums[:, -1, :count] = outside
            largest[:, :count].masked_fill_(outside > 0, 0.0)
        maxima = strips.padded(1, strips.rows * strips.strip, fill=-torch.inf)
        band, level = strips.band(x), largest
        ranges = strips.seen(wanted, x, count)
        every = front(self.scores, sum(rows.stop - rows.start for rows in ranges), *band.shape)
        parts = torch.split(every, [rows.stop - rows.start for rows in ranges])
        for reference in references:
            for rows, scores in zip(ranges, parts, strict=True):
                keys = strips.keys(reference, x, rows)
                scores.copy_(band).baddbmm_(keys, self.queries_by_key[rows], alpha=self.factor)
                strips.hide(scores, reference, x, rows, -torch.inf)
                strips.body(maxima)[rows, 0] = scores.amax(1)
            larger = torch.maximum(largest, strips.of_query(maxima).amax(1)[:, 0])
            level = larger.masked_fill(larger == -torch.inf, 0.0)  # nothing valid so far
            self.levels.copy_(level)
            for rows, scores in zip(ranges, parts, strict=True):
                scores.sub_(self.levels_by_key[rows]).exp2_()
                torch.bmm(strips.values(self.values, reference, x, rows), scores, out=self.products[rows])
            sums.mul_((largest - level).exp2_()[:, None]).add_(self.products_of_query.sum(1))
            largest = larger
        return level, sums


class Differentiator:
    """The backward pass over images of one size: S is computed again from the saved logsumexp,

    P = exp(S - lse),   dS = P * (g . v - delta),   delta = g . readout - g_lse
    dq = scale * sum dS k,   dk = scale * sum dS q,   dv = sum P g
    """

    def __init__(self, strips: Strips, features: int, channels: int) -> None:
        self.strips = strips
        height, wide = strips.height, strips.rows * strips.strip
        self.queries = strips.padded(strips.strip, features)
        self.right = strips.queries(features) if products.TURNED else self.queries  # operand of the scores
        self.levels = strips.padded(strips.strip, 1, fill=-torch.inf)
        self.grads = strips.padded(strips.strip, channels + 1)
        self.values = strips.empty(height * (channels + 1) * strips.columns)
        self.all_scores = strips.empty(height * strips.columns * wide)
        self.all_products = torch.empty_like(self.all_scores)
        self.all_slopes = strips.empty((height + 2 * strips.up + 1) * (strips.columns * wide + strips.strip))
        self.all_keys = strips.empty((height + 2 * strips.up) * strips.columns * features)
        self.of_query = strips.empty(height, strips.strip, features)
        self.of_key = strips.empty(height * strips.columns * features)
        self.columns = 0

    def lay_out(self, columns: int) -> None:
        """Shape the buffers for so many key columns; what lies above and below the image is zero."""
        if columns == self.columns:  # as it was left
            return
        strips, features = self.strips, self.queries.shape[2]
        height, rows, wide = strips.height, strips.rows, strips.rows * strips.strip
        self.columns = columns
        self.scores = front(self.all_scores, height, columns, wide)
        self.products = front(self.all_products, height, columns, wide)
        # With a row longer by s, the dS of a query, spread over n key rows, is a matrix of one stride: [n*k s].
        pitch = columns * wide + strips.strip
        flat = self.all_slopes.zero_()
        self.slopes = flat.as_strided(self.scores.shape, (pitch, wide, 1), strips.up * pitch)
        self.slopes_of_query = flat.as_strided(
            (height, strips.strip, rows * columns), (pitch, 1, wide), 2 * strips.up * strips.strip
        )
        keys = front(self.all_keys, height + 2 * strips.up, columns, features)
        keys[: strips.up] = 0.0
        keys[strips.up + height :] = 0.0
        self.keys = strips.body(keys)
        self.keys_of_query = keys.as_strided((height, rows * columns, features), (columns * features, features, 1))

    def add(
        self, query: Tensor, slopes: Slopes, references: Sequence[Reference], wanted: Tensor | None, into: Gradients
    ) -> None:
        """Add one image's gradients."""
        (grad, delta, level), (grad_query, grad_keys, grad_values) = slopes, into
        strips, scale = self.strips, self.strips.window.scale
        lift = strips.by_key(self.levels).transpose(1, 2)
        queries, right = strips.by_key(self.queries), strips.queries_by_key(self.right)
        grads, outer = strips.by_key(self.grads), torch.cat([grad, -delta[..., None]], 2)
        for x, count in strips.starts():
            strips.load(strips.body(self.queries), query, x, count)
            if self.right is not self.queries:
                strips.load_queries(self.right, query, x, count)
            strips.load(strips.body(self.levels), level[..., None], x, count)
            if count < strips.strip:
                strips.body(self.levels)[:, count:] = -torch.inf
            strips.load(strips.body(self.grads), outer, x, count)
            band, (cells, _) = strips.band(x), strips.span(x)
            self.lay_out(band.shape[0])
            ranges = strips.seen(wanted, x, count)
            for position, rows in itertools.product(range(len(references)), ranges):
                reference = references[position]
                keys, scores, by_value = (part[rows] for part in (self.keys, self.scores, self.products))
                keys.copy_(reference.key[rows, cells])
                torch.add(band, lift[rows], out=scores)
                scores.baddbmm_(keys, right[rows], alpha=scale * LOG2_E).exp2_()
                strips.hide(scores, reference, x, rows, 0.0)
                if grad_values is not None:
                    part = torch.bmm(grads[rows].transpose(1, 2), scores.transpose(1, 2))  # few rows, not few columns
                    grad_values[position][rows, cells].add_(part[:, :-1].transpose(1, 2))
                if grad_query is None and grad_keys is None:
                    continue
                values = strips.values(self.values, reference, x, rows)
                torch.bmm(values.transpose(1, 2), grads[rows].transpose(1, 2), out=by_value)
                torch.mul(scores, by_value, out=self.slopes[rows])
                if grad_query is not None:
                    # The query rows whose key rows are all among these; what is read of others is not wanted.
                    first = rows.start + strips.up if rows.start else 0
                    inner = slice(first, rows.stop - strips.up if rows.stop < strips.height else rows.stop)
                    torch.bmm(self.slopes_of_query[inner], self.keys_of_query[inner], out=self.of_query[inner])
                    grad_query[inner, x : x + count].add_(self.of_query[inner, :count], alpha=scale)
                if grad_keys is not None:
                    part = front(self.of_key, *keys.shape)
                    torch.bmm(self.slopes[rows], queries[rows], out=part)
                    grad_keys[position][rows, cells].add_(part, alpha=scale)
