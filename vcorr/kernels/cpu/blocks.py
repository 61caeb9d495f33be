"""Reading the whole frame, in blocks of keys and queries with an online softmax: no matrix of all pairs is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vcorr.kernels.cpu.forms import Gradients, Slopes
from vcorr.kernels.cpu.products import times
from vcorr.kernels.cpu.strips import LN_2, LOG2_E
from vcorr.kernels.geometry import Reference, working_type

QUERIES, KEYS = 1024, 512  # one block of scores is 2 MB


def read(query: Tensor, references: Sequence[Reference], wanted: Tensor | None, readout: Tensor, lse: Tensor) -> None:
    """Read one image [h w c] over whole frames into readout [h w v] and lse [h w], where a cell is wanted [h w]."""
    work, channels, width = working_type(query), readout.shape[2], query.shape[1]
    for some, queries in _query_blocks(query, wanted, references[0].window.scale * LOG2_E):
        largest = queries.new_full((queries.shape[0],), -torch.inf)
        sums = queries.new_zeros(channels + 1, queries.shape[0])
        for reference in references:
            for cells in _cells(reference.key, KEYS):
                scores = times(_flat(reference.key, cells, work), queries.T)  # [k q]
                _hide(scores, reference, cells, -torch.inf)
                larger = torch.maximum(largest, scores.amax(0))
                level = larger.masked_fill(larger == -torch.inf, 0.0)  # nothing valid so far
                scores.sub_(level).exp2_()
                values = _with_ones(reference, cells, work)
                sums.mul_((largest - level).exp2_()).add_(times(values.T, scores))
                largest = larger
        mass = sums[-1]
        y, x = some // width, some % width
        lse[y, x] = (largest + mass.log2()) * LN_2
        readout[y, x] = (sums[:-1] / mass.masked_fill(mass == 0, 1.0)).T


def add_gradients(
    query: Tensor, slopes: Slopes, references: Sequence[Reference], wanted: Tensor | None, into: Gradients
) -> None:
    """Add one image's gradients."""
    (grad, delta, level), (grad_query, grad_keys, grad_values) = slopes, into
    work, width = working_type(query), query.shape[1]
    scale = references[0].window.scale
    for some, queries in _query_blocks(query, wanted, scale * LOG2_E):
        y, x = some // width, some % width
        grads = torch.cat([grad[y, x].to(work), -delta[y, x, None]], 1)  # [q v+1]
        slope_sum = torch.zeros_like(queries)
        for position, reference in enumerate(references):
            for cells in _cells(reference.key, KEYS):
                keys = _flat(reference.key, cells, work)
                weights = times(keys, queries.T, level[y, x]).exp2_()  # [k q]
                _hide(weights, reference, cells, 0.0)
                rows, columns = cells // width, cells % width
                if grad_values is not None:
                    grad_values[position][rows, columns] += times(weights, grads)[:, :-1]
                by_key = times(_with_ones(reference, cells, work), grads.T).mul_(weights)
                slope_sum.add_(times(by_key.T, keys))
                if grad_keys is not None:
                    grad_keys[position][rows, columns] += LN_2 * times(by_key, queries)
        if grad_query is not None:
            grad_query[y, x] += scale * slope_sum


def _cells(image: Tensor, size: int) -> Iterator[Tensor]:
    """Numbers of the cells of an image [h w .], row by row, ``size`` at a time."""
    yield from torch.split(torch.arange(image.shape[0] * image.shape[1], device=image.device), size)


def _query_blocks(query: Tensor, wanted: Tensor | None, factor: float) -> Iterator[tuple[Tensor, Tensor]]:
    every = _cells(query, QUERIES) if wanted is None else torch.split(wanted.flatten().nonzero()[:, 0], QUERIES)
    for cells in every:
        yield cells, _flat(query, cells, working_type(query)) * factor


def _flat(image: Tensor, cells: Tensor, work: torch.dtype) -> Tensor:
    """The chosen cells of an image [h w c] as rows."""
    width = image.shape[1]
    return image[cells // width, cells % width].to(work)


def _with_ones(reference: Reference, cells: Tensor, work: torch.dtype) -> Tensor:
    """The chosen cells' values and a channel of ones, whose reading is the mass, 0 where the mask leaves a key out:
    [k v+1].
    """
    values = torch.nn.functional.pad(_flat(reference.value, cells, work), (0, 1), value=1.0)
    if reference.mask is not None:
        values.masked_fill_(~reference.mask.flatten()[cells, None], 0.0)
    return values


def _hide(scores: Tensor, reference: Reference, cells: Tensor, fill: float) -> None:
    """Overwrite the scores [k q] of keys that the reference's mask leaves out."""
    if reference.mask is not None:
        scores.masked_fill_(~reference.mask.flatten()[cells, None], fill)
