"""Windowed reading by column strips: batched matrix products in plain torch, nothing of size H*W*(2R+1)^2.

The query image is cut into vertical strips. A key row j is seen by the query rows j-R..j+R, so the scores of one strip
are one product a key row,

    S[j] = K_j . Q_j^T + band,   K_j [k c]: the key row under the strip, Q_j [n s c]: the n = 2R+1 query rows around j,

batched over the rows. Both operands are views (those of Q overlap), and the scores of one query, spread over n key
rows, are an affine view of S (``Strips.of_query``): maxima and sums over them run without a copy. ``band`` is 0 where a
key column lies in the query's window and -inf elsewhere. Scores are in base 2: exp2 is several times faster than exp,
above all where it underflows.

The softmax needs a level to subtract, near the largest score. |q| max|k| bounds the scores, and float32 has exponents
to spare: a level a fixed distance below the bound gives the same digits as the maximum, in one pass over S less, and is
common to all references. Where a row's mass then shows that the bound was too far off, the strip is read again with
true maxima, one reference after another (online softmax).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from vcorr.kernels.geometry import UNRESTRICTED, Reference, Window, half_width, taps_outside

WIDEST = 8  # columns of a strip: with R=12 a key row of 32, and products at the rate of large ones (Zen 4)
LARGEST = 2**21  # scores in one buffer
HEADROOM = 64.0  # log2: scores exceed the level by at most this much; sums and values of 2**50 still fit
FAINTEST = 2.0**-30  # least mass of a row that is exact: terms 2**-96 of it are still counted
LOG2_E = math.log2(math.e)
LN_2 = math.log(2.0)


class Strips:
    """The strips of images of one size, and the buffers that they share.

    Shapes: h w c v image; s strip; n = 2R+1 query rows that see a key row; k = s+2R key columns under a strip.
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

    def span(self, x: int) -> tuple[slice, slice]:
        """The key columns under the strip at x: in the image, and in the strip's own count."""
        left = x - self.side
        low, high = max(0, left), min(self.width, left + self.columns)
        return slice(low, high), slice(low - left, high - left)

    def band(self, x: int) -> Tensor:
        """0 where a key column lies in the frame and in the query's window, else -inf: [k n*s]."""
        _, inside = self.span(x)
        bounds = (inside.start, inside.stop)
        if bounds not in self._bands:
            key = torch.arange(self.columns)[:, None]
            off = (key - self.side - torch.arange(self.strip)).abs()[:, None]  # [k 1 s]
            reach = torch.tensor([half_width(self.up - i, self.radius, self.shape) for i in range(self.rows)])
            seen = (off <= reach[:, None]) & ((key >= inside.start) & (key < inside.stop))[:, None]
            band = torch.where(seen, 0.0, -torch.inf).reshape(self.columns, self.rows * self.strip)
            self._bands[bounds] = band.to(device=self.device, dtype=self.work)
        return self._bands[bounds]

    def load(self, buffer: Tensor, image: Tensor, x: int, count: int, factor: float = 1.0) -> None:
        """Fill a padded buffer [. s c] with columns x..x+count of an image [h w c]."""
        rows = self.body(buffer)
        rows[:, :count].copy_(image[:, x : x + count])
        if factor != 1.0:
            rows[:, :count].mul_(factor)
        if count < self.strip:
            rows[:, count:].zero_()

    def key_columns(self, key: Tensor, x: int) -> Tensor:
        """The keys under the strip at x, [h k c]: a view where nothing lies outside, else a copy padded by zeros."""
        cells, inside = self.span(x)
        if cells.stop - cells.start == self.columns and key.dtype == self.work and key.stride(2) == 1:
            return key[:, cells]
        padded = self.empty(self.height, self.columns, key.shape[2]).zero_()
        padded[:, inside] = key[:, cells]
        return padded

    def value_columns(self, buffer: Tensor, reference: Reference, x: int) -> Tensor:
        """The values under the strip at x and a channel of ones; zero outside the frame and the mask: [h v+1 k]."""
        cells, inside = self.span(x)
        if inside.stop - inside.start < self.columns:
            buffer.zero_()
        buffer[:, :-1, inside] = reference.value[:, cells].transpose(1, 2)
        buffer[:, -1, inside] = 1.0
        if reference.mask is not None:
            buffer[..., inside].masked_fill_(~reference.mask[:, None, cells], 0.0)
        return buffer

    def hide(self, scores: Tensor, reference: Reference, x: int, fill: float) -> None:
        """Overwrite the scores [h k n*s] of keys that the reference's mask leaves out."""
        if reference.mask is not None:
            cells, inside = self.span(x)
            scores[:, inside].masked_fill_(~reference.mask[:, cells, None], fill)


class Reader:
    """The forward pass over images of one size."""

    def __init__(self, strips: Strips, features: int, channels: int) -> None:
        self.strips = strips
        wide = strips.rows * strips.strip
        self.queries = strips.padded(strips.strip, features)
        self.levels = strips.padded(strips.strip, 1)
        self.scores = strips.empty(strips.height, strips.columns, wide)
        self.products = strips.padded(channels + 1, wide)
        self.values = strips.empty(strips.height, channels + 1, strips.columns)

    def read(self, query: Tensor, references: Sequence[Reference], readout: Tensor, lse: Tensor) -> None:
        """Read one image [h w c] into readout [h w v] and lse [h w]."""
        strips = self.strips
        mass = torch.empty_like(lse)
        longest = max(float(torch.linalg.vector_norm(r.key, dim=-1, dtype=strips.work).amax()) for r in references)
        bounded = math.isfinite(longest)
        for x, count in strips.starts():
            strips.load(self.queries, query, x, count, strips.window.scale * LOG2_E)
            if bounded:
                level, sums = self.sum_below(longest, references, x, count)
                bounded = float(sums[:, -1].amin()) >= FAINTEST
            if not bounded:
                level, sums = self.sum_online(references, x, count)
            lse[:, x : x + count] = level[:, :count]
            mass[:, x : x + count] = sums[:, -1, :count]
            readout[:, x : x + count] = sums[:, :-1, :count].transpose(1, 2)
        readout.div_(mass.masked_fill(mass == 0, 1.0)[..., None])  # a row with nothing valid reads 0
        lse.add_(mass.log2_()).mul_(LN_2)

    def sum_below(self, longest: float, references: Sequence[Reference], x: int, count: int) -> tuple[Tensor, Tensor]:
        """Levels [h s] at a fixed distance below the bound of the scores, and sums [h v+1 s] of 2**(S - level)."""
        strips = self.strips
        level = torch.linalg.vector_norm(strips.body(self.queries), dim=-1).mul_(longest).sub_(HEADROOM)
        torch.neg(level, out=strips.body(self.levels)[..., 0])
        band, lift = strips.band(x), strips.by_key(self.levels).transpose(1, 2)
        queries, products = strips.by_key(self.queries).transpose(1, 2), strips.body(self.products)
        for position, reference in enumerate(references):
            torch.add(band, lift, out=self.scores)
            self.scores.baddbmm_(strips.key_columns(reference.key, x), queries).exp2_()
            values = strips.value_columns(self.values, reference, x)
            if position == 0:
                torch.bmm(values, self.scores, out=products)
            else:
                products.baddbmm_(values, self.scores)
        sums = strips.of_query(self.products).sum(1)
        if strips.zeros:
            outside = len(references) * strips.outside[:, x : x + count]
            sums[:, -1, :count].add_(outside * (-level[:, :count]).exp2_())
        return level, sums

    def sum_online(self, references: Sequence[Reference], x: int, count: int) -> tuple[Tensor, Tensor]:
        """Levels [h s], the largest scores, and sums [h v+1 s] of 2**(S - level), one reference after another."""
        strips = self.strips
        largest = strips.empty(strips.height, strips.strip).fill_(-torch.inf)
        sums = strips.empty(strips.height, self.products.shape[1], strips.strip).zero_()
        if strips.zeros:
            outside = len(references) * strips.outside[:, x : x + count]
            sums[:, -1, :count] = outside
            largest[:, :count].masked_fill_(outside > 0, 0.0)
        maxima = strips.padded(1, strips.rows * strips.strip, fill=-torch.inf)
        band, queries = strips.band(x), strips.by_key(self.queries).transpose(1, 2)
        level = largest
        for reference in references:
            self.scores.copy_(band).baddbmm_(strips.key_columns(reference.key, x), queries)
            strips.hide(self.scores, reference, x, -torch.inf)
            strips.body(maxima)[:, 0] = self.scores.amax(1)
            larger = torch.maximum(largest, strips.of_query(maxima).amax(1)[:, 0])
            level = larger.masked_fill(larger == -torch.inf, 0.0)  # nothing valid so far
            strips.body(self.levels)[..., 0] = level
            self.scores.sub_(strips.by_key(self.levels).transpose(1, 2)).exp2_()
            torch.bmm(strips.value_columns(self.values, reference, x), self.scores, out=strips.body(self.products))
            sums.mul_((largest - level).exp2_()[:, None]).add_(strips.of_query(self.products).sum(1))
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
        self.keys = strips.padded(strips.columns, features)
        self.levels = strips.padded(strips.strip, 1, fill=-torch.inf)
        self.grads = strips.padded(strips.strip, channels + 1)
        self.values = strips.empty(height, channels + 1, strips.columns)
        self.scores = strips.empty(height, strips.columns, wide)
        self.products = torch.empty_like(self.scores)
        # With a row longer by s, the dS of a query, spread over n key rows, is a matrix of one stride: [n*k s].
        pitch = strips.columns * wide + strips.strip
        flat = strips.empty((height + 2 * strips.up + 1) * pitch).zero_()
        self.slopes = flat.as_strided(self.scores.shape, (pitch, wide, 1), strips.up * pitch)
        self.slopes_of_query = flat.as_strided(
            (height, strips.strip, strips.rows * strips.columns), (pitch, 1, wide), 2 * strips.up * strips.strip
        )
        self.keys_of_query = self.keys.as_strided(
            (height, strips.rows * strips.columns, features), (strips.columns * features, features, 1)
        )

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
        strips = self.strips
        for x, count in strips.starts():
            strips.load(self.queries, query, x, count, strips.window.scale * LOG2_E)
            strips.load(self.levels, level[..., None], x, count)
            strips.body(self.levels)[:, count:] = -torch.inf
            strips.load(self.grads[..., :-1], grad, x, count)
            strips.load(self.grads[..., -1:], delta[..., None], x, count, -1.0)
            band, (cells, inside) = strips.band(x), strips.span(x)
            lift, keys = strips.by_key(self.levels).transpose(1, 2), strips.body(self.keys)
            queries, grads = strips.by_key(self.queries), strips.by_key(self.grads)
            for position, reference in enumerate(references):
                if inside.stop - inside.start < strips.columns:
                    keys.zero_()
                keys[:, inside] = reference.key[:, cells]
                torch.add(band, lift, out=self.scores)
                self.scores.baddbmm_(keys, queries.transpose(1, 2)).exp2_()
                strips.hide(self.scores, reference, x, 0.0)
                if grad_values is not None:
                    part = torch.bmm(self.scores, grads)
                    grad_values[position][:, cells].add_(part[:, inside, :-1])
                if grad_query is None and grad_keys is None:
                    continue
                values = strips.value_columns(self.values, reference, x)
                torch.bmm(values.transpose(1, 2), grads.transpose(1, 2), out=self.products)
                torch.mul(self.scores, self.products, out=self.slopes)
                if grad_query is not None:
                    part = torch.bmm(self.slopes_of_query, self.keys_of_query)
                    grad_query[:, x : x + count].add_(part[:, :count], alpha=strips.window.scale)
                if grad_keys is not None:
                    part = torch.bmm(self.slopes, queries)
                    grad_keys[position][:, cells].add_(part[:, inside], alpha=LN_2)
