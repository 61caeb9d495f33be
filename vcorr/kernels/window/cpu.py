"""Windowed reading by column strips: batched matrix products in plain torch, nothing of size H*W*(2R+1)^2.

The query image is cut into vertical strips of ``STRIP`` columns. A key row j is seen by the query rows j-R..j+R, so the
scores of one strip are one product a key row,

    S[j] = K_j . Q_j^T + band,   K_j [k c]: the key row under the strip, Q_j [n s c]: the n = 2R+1 query rows around j,

batched over the rows. Both operands are views (those of Q overlap), and the scores of one query, spread over n key
rows, are an affine view of S (``_Strips.of_query``): maxima and sums over them run without a copy. ``band`` is 0 where a key
column lies in the query's window and -inf elsewhere. References are folded in one by one by the online softmax, so that
the workspace does not grow with them. A dilation of d is d*d readings of sub-images. Scores are in base 2: exp2 is
several times faster than exp, above all where it underflows.

The backward pass recomputes S strip by strip from the saved logsumexp:

    P = exp(S - lse),   dS = P * (g . v - delta),   delta = g . readout - g_lse
    dq = scale * sum dS k,   dk = scale * sum dS q,   dv = sum P g
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from vcorr.kernels.geometry import UNRESTRICTED, Windows, half_width, taps_outside

STRIP = 8  # columns: with R=12 a key row of 32 and products at the rate of large ones (Zen 4, two threads)
LOG2_E = math.log2(math.e)
LN_2 = math.log(2.0)


def read(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], windows: Windows) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] of a query over references that are read jointly."""
    work = _working_type(query)
    parts = []
    for group in _groups(windows):
        readout = torch.empty(*query.shape[:3], values[0].shape[3], dtype=work)
        lse = torch.empty(query.shape[:3], dtype=work)
        for cut in _sub_images(query, windows.dilations[group[0]]):
            strips = _Strips(query[cut].shape, values[0].shape[3], windows, group[0], work)
            for image in range(query.shape[0]):
                strips.read(
                    query[cut][image],
                    [(keys[r][cut][image], values[r][cut][image]) for r in group],
                    readout[cut][image],
                    lse[cut][image],
                )
        parts.append((readout, lse))
    readout, lse = _merge(parts)
    return readout.to(values[0].dtype), lse


def read_backward(
    grad: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    readout: Tensor,
    lse: Tensor,
    windows: Windows,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
    """Gradients to the query, the keys and the values, each only where ``needs`` asks for it."""
    work = _working_type(query)
    grad_query = torch.zeros(query.shape, dtype=work) if needs[0] else None
    grad_keys = [torch.zeros(k.shape, dtype=work) for k in keys] if needs[1] else []
    grad_values = [torch.zeros(v.shape, dtype=work) for v in values] if needs[2] else []
    delta = (grad.to(work) * readout.to(work)).sum(-1) - grad_lse.to(work)
    shift = torch.where(lse == -torch.inf, lse, -LOG2_E * lse)  # rows with nothing valid get P = 0
    for group in _groups(windows):
        for cut in _sub_images(query, windows.dilations[group[0]]):
            strips = _Strips(query[cut].shape, values[0].shape[3], windows, group[0], work)
            for image in range(query.shape[0]):
                strips.read_backward(
                    query[cut][image],
                    grad[cut][image],
                    delta[cut][image],
                    shift[cut][image],
                    [(keys[r][cut][image], values[r][cut][image]) for r in group],
                    None if grad_query is None else grad_query[cut][image],
                    [grad_keys[r][cut][image] for r in group] if needs[1] else None,
                    [grad_values[r][cut][image] for r in group] if needs[2] else None,
                )
    return (
        None if grad_query is None else grad_query.to(query.dtype),
        [g.to(k.dtype) for g, k in zip(grad_keys, keys, strict=False)],
        [g.to(v.dtype) for g, v in zip(grad_values, values, strict=False)],
    )


class _Strips:
    """The strips of images of one size, and the buffers that they share.

    Shapes: h w c v image; s strip; n = 2R+1 query rows that see a key row; k = s+2R key columns under a strip.
    """

    def __init__(
        self, image: Sequence[int], channels: int, windows: Windows, reference: int, work: torch.dtype
    ) -> None:
        self.height, self.width, features = image[1:4]
        radius = windows.radii[reference]
        self.radius = self.height + self.width if radius == UNRESTRICTED else radius
        self.shape = "square" if radius == UNRESTRICTED else windows.shape
        self.zeros = windows.border == "zeros" and radius != UNRESTRICTED
        self.scale, self.work = windows.scale, work
        self.up, self.side = min(self.radius, self.height - 1), min(self.radius, self.width - 1)
        self.strip, self.channels = min(STRIP, self.width), channels
        self.rows, self.columns = 2 * self.up + 1, self.strip + 2 * self.side
        self._bands: dict[tuple[int, int], Tensor] = {}
        self.queries = self.padded(self.strip, features)
        self.scores = torch.empty(self.height, self.columns, self.rows * self.strip, dtype=work)
        self.value_row = torch.empty(self.height, channels + 1, self.columns, dtype=work)

    def padded(self, *row: int, fill: float = 0.0) -> Tensor:
        """A buffer with ``up`` more rows above and below the image."""
        return torch.full((self.height + 2 * self.up, *row), fill, dtype=self.work)

    def body(self, buffer: Tensor) -> Tensor:
        """The rows of a padded buffer that belong to the image."""
        return buffer[self.up : self.up + self.height]

    def by_key(self, buffer: Tensor) -> Tensor:
        """Of a padded buffer [. s c], the n rows of queries that see each key row: a view [h n*s c]."""
        inner = buffer.shape[2]
        return buffer.as_strided(
            (self.height, self.rows * self.strip, inner), (self.strip * inner, inner, 1), buffer.storage_offset()
        )

    def of_query(self, buffer: Tensor) -> Tensor:
        """Of a padded buffer [. c n*s] in key rows, what belongs to each query row: a view [h n c s]."""
        row, inner = buffer.stride(0), buffer.stride(1)
        return buffer.as_strided(
            (self.height, self.rows, buffer.shape[1], self.strip),
            (row, row - self.strip, inner, 1),
            buffer.storage_offset() + 2 * self.up * self.strip,
        )

    @cached_property
    def outside(self) -> Tensor:
        """Taps outside the frame, of each cell [h w]."""
        return taps_outside(self.height, self.width, self.radius, self.shape).to(self.work)

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
            band = torch.where(seen, 0.0, -torch.inf).to(self.work)
            self._bands[bounds] = band.reshape(self.columns, self.rows * self.strip)
        return self._bands[bounds]

    def load(self, buffer: Tensor, image: Tensor, x: int, count: int, factor: float = 1.0) -> None:
        """Fill a padded buffer [. s c] with columns x..x+count of an image [h w c]."""
        rows = self.body(buffer)
        rows[:, :count].copy_(image[:, x : x + count]).mul_(factor)
        rows[:, count:].zero_()

    def key_columns(self, key: Tensor, x: int) -> Tensor:
        """The keys under the strip at x, [h k c]: a view where nothing lies outside, else a copy padded by zeros."""
        cells, inside = self.span(x)
        if cells.stop - cells.start == self.columns and key.dtype == self.work and key.stride(2) == 1:
            return key[:, cells]
        padded = torch.zeros(self.height, self.columns, key.shape[2], dtype=self.work)
        padded[:, inside] = key[:, cells]
        return padded

    def value_columns(self, value: Tensor, x: int) -> Tensor:
        """The values under the strip at x and a channel of ones, zero outside the frame: [h v+1 k]."""
        cells, inside = self.span(x)
        self.value_row.zero_()
        self.value_row[:, :-1, inside] = value[:, cells].transpose(1, 2)
        self.value_row[:, -1, inside] = 1.0
        return self.value_row

    def read(self, query: Tensor, references: Sequence[tuple[Tensor, Tensor]], readout: Tensor, lse: Tensor) -> None:
        """Read one image [h w c] into readout [h w v] and lse [h w]."""
        maxima = self.padded(1, self.rows * self.strip, fill=-torch.inf)
        shift = self.padded(self.strip, 1)
        products = self.padded(self.channels + 1, self.rows * self.strip)
        for x, count in self.starts():
            self.load(self.queries, query, x, count, self.scale * LOG2_E)
            band, queries = self.band(x), self.by_key(self.queries).transpose(1, 2)
            largest, sums = self.start(x, count, len(references))
            for key, value in references:
                self.scores.copy_(band).baddbmm_(self.key_columns(key, x), queries)
                torch.amax(self.scores, 1, out=self.body(maxima)[:, 0])
                larger = torch.maximum(largest, self.of_query(maxima).amax(1)[:, 0])
                level = larger.masked_fill(larger == -torch.inf, 0.0)  # a row with nothing valid so far
                self.body(shift)[..., 0] = level
                self.scores.sub_(self.by_key(shift).transpose(1, 2)).exp2_()
                torch.bmm(self.value_columns(value, x), self.scores, out=self.body(products))
                sums.mul_((largest - level).exp2_()[:, None]).add_(self.of_query(products).sum(1))
                largest = larger
            mass = sums[:, -1]
            lse[:, x : x + count] = (LN_2 * (largest + mass.log2()))[:, :count]
            total = mass.masked_fill(mass == 0, 1.0)[:, None]
            readout[:, x : x + count] = (sums[:, :-1] / total)[..., :count].transpose(1, 2)

    def start(self, x: int, count: int, references: int) -> tuple[Tensor, Tensor]:
        """The online softmax before any key: largest logit [h s], and sums [h v+1 s] that hold the taps outside."""
        largest = torch.full((self.height, self.strip), -torch.inf, dtype=self.work)
        sums = torch.zeros(self.height, self.channels + 1, self.strip, dtype=self.work)
        if self.zeros:
            outside = references * self.outside[:, x : x + count]
            sums[:, -1, :count] = outside
            largest[:, :count].masked_fill_(outside > 0, 0.0)
        return largest, sums

    def read_backward(
        self,
        query: Tensor,
        grad: Tensor,
        delta: Tensor,
        shift: Tensor,
        references: Sequence[tuple[Tensor, Tensor]],
        grad_query: Tensor | None,
        grad_keys: Sequence[Tensor] | None,
        grad_values: Sequence[Tensor] | None,
    ) -> None:
        """Add one image's gradients; grad [h w v], delta and shift = -lse / ln 2 [h w]."""
        shifts = self.padded(self.strip, 1, fill=-torch.inf)
        grads = self.padded(self.strip, self.channels + 1)
        slopes = torch.empty_like(self.scores)
        keys = self.padded(self.columns, query.shape[2])
        # One cell more a row makes the dS of a query, over n key rows, a matrix of one stride: [n*k s].
        pitch = self.scores[0].numel() + self.strip
        flat = torch.zeros((self.height + 2 * self.up + 1) * pitch, dtype=self.work)
        slopes_by_key = flat[self.up * pitch :].as_strided(
            self.scores.shape, (pitch, self.scores.stride(1), 1), self.up * pitch
        )
        slopes_of_query = flat.as_strided(
            (self.height, self.strip, self.rows * self.columns),
            (pitch, 1, self.rows * self.strip),
            2 * self.up * self.strip,
        )
        keys_of_query = keys.as_strided(
            (self.height, self.rows * self.columns, query.shape[2]), (keys.stride(0), query.shape[2], 1)
        )
        for x, count in self.starts():
            self.load(self.queries, query, x, count, self.scale * LOG2_E)
            self.load(shifts, shift[..., None], x, count)
            self.body(shifts)[:, count:] = -torch.inf
            self.load(grads[..., :-1], grad, x, count)
            self.load(grads[..., -1:], delta[..., None], x, count, -1.0)
            band, (cells, inside) = self.band(x), self.span(x)
            queries, readings = self.by_key(self.queries), self.by_key(grads)
            for reference, (key, value) in enumerate(references):
                keyed = self.body(keys)
                keyed.zero_()
                keyed[:, inside] = key[:, cells]
                torch.add(band, self.by_key(shifts).transpose(1, 2), out=self.scores)
                self.scores.baddbmm_(keyed, queries.transpose(1, 2)).exp2_()
                if grad_values is not None:
                    grad_values[reference][:, cells].add_(torch.bmm(self.scores, readings)[:, inside, :-1])
                torch.bmm(self.value_columns(value, x).transpose(1, 2), readings.transpose(1, 2), out=slopes)
                torch.mul(self.scores, slopes, out=slopes_by_key)
                if grad_query is not None:
                    part = torch.bmm(slopes_of_query, keys_of_query)
                    grad_query[:, x : x + count].add_(part[:, :count], alpha=self.scale)
                if grad_keys is not None:
                    part = torch.bmm(slopes_by_key, queries)
                    grad_keys[reference][:, cells].add_(part[:, inside], alpha=LN_2)


def _working_type(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _groups(windows: Windows) -> list[list[int]]:
    """References that share radius and dilation, in order of first appearance."""
    groups: dict[tuple[int, int], list[int]] = {}
    for reference, kind in enumerate(zip(windows.radii, windows.dilations, strict=True)):
        groups.setdefault(kind, []).append(reference)
    return list(groups.values())


def _sub_images(query: Tensor, dilation: int) -> list[tuple[slice, slice, slice]]:
    """Cells dilation apart see only one another: the interleaved images of every dilation-th row and column."""
    rows, columns = min(dilation, query.shape[1]), min(dilation, query.shape[2])
    return [
        (slice(None), slice(y, None, dilation), slice(x, None, dilation)) for y in range(rows) for x in range(columns)
    ]


def _merge(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The joint reading of groups that were read apart."""
    if len(parts) == 1:
        return parts[0]
    lse = torch.stack([part for _, part in parts]).logsumexp(0)
    level = lse.masked_fill(lse == -torch.inf, 0.0)
    readout = sum(readout * (part - level).exp()[..., None] for readout, part in parts)
    assert isinstance(readout, Tensor)
    return readout, lse
