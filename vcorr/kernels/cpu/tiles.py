"""Windows at whole offsets, and readings of some cells alone, by tiles of query cells over boxes of keys.

A tile is up to 8 x 8 neighbouring cells (``cover.py``). The keys that its windows cover lie in a box, which is a view
of the frame (``boxes.py``), so that the scores of a tile are one product a key row (``scores.py``). Only cells that are
to be read are ever in a tile. A box has (8+2R)^2 keys for (2R+1)^2 taps, 1.64 at R = 12, but its scores stay in the
cache of a core.

Tiles go in bands across the image, and a band takes the references one after another: neighbouring boxes share most of
their keys, and find them near. A dilation d is d*d sub-images.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from vcorr.kernels.cpu.boxes import Box, Sight, Source, outside_of
from vcorr.kernels.cpu.cover import Band, cover
from vcorr.kernels.cpu.forms import Gradients, Slopes
from vcorr.kernels.cpu.scores import Scores
from vcorr.kernels.cpu.strips import LN_2, LOG2_E
from vcorr.kernels.cpu.sums import FAINTEST, HEADROOM
from vcorr.kernels.geometry import Reference, sub_images, working_type


def read(query: Tensor, references: Sequence[Reference], wanted: Tensor | None, readout: Tensor, lse: Tensor) -> None:
    """Read one image [h w c] into readout [h w v] and lse [h w], where a cell is wanted [h w]; references of one
    dilation.
    """
    for cut in sub_images(query.shape[0], query.shape[1], references[0].window.dilation):
        part = None if wanted is None else wanted[cut]
        _read_sub_image(query[cut], references, cut, part, readout[cut], lse[cut])


def _read_sub_image(
    query: Tensor,
    references: Sequence[Reference],
    cut: tuple[slice, slice],
    wanted: Tensor | None,
    readout: Tensor,
    lse: Tensor,
) -> None:
    size = (query.shape[0], query.shape[1])
    sights = {r.window: Sight(r.window, lse) for r in references}
    sources = [Source(r, cut, size, sights) for r in references]
    longest = [_longest(r) * abs(r.window.scale) * LOG2_E for r in references]
    scores = Scores(lse)
    for tiles in cover(wanted, *size):
        band = Band(tiles, wanted, size, query.device)
        queries = query[band.y, band.x].to(lse.dtype)
        outside = outside_of(sources, band)
        boxes = [list(itertools.chain.from_iterable(source.boxes(band))) for source in sources]
        level = (torch.linalg.vector_norm(queries, dim=1) * max(longest) - HEADROOM).clamp_(min=0.0)
        turned = (queries.T * LOG2_E).contiguous()
        lifted = bool(level.any())  # as well where it is no number
        sums = _sums(sources, boxes, turned, level if lifted else None, outside, readout.shape[2], scores)
        if lifted and not bool((sums[-1] >= FAINTEST).all()):
            level = _maxima(sources, boxes, turned, outside, scores)
            sums = _sums(sources, boxes, turned, level, outside, readout.shape[2], scores)
        mass = sums[-1]
        found = (sums[:-1] / mass.masked_fill(mass == 0, 1.0)).T  # a row with nothing valid reads 0
        own = band.cells == band.nearest
        readout[band.y[own], band.x[own]] = found[own]
        lse[band.y[own], band.x[own]] = ((level + mass.log2()) * LN_2)[own]


def _longest(reference: Reference) -> float:
    return float(torch.linalg.vector_norm(reference.key, dim=-1, dtype=working_type(reference.key)).amax())


def _sums(
    sources: Sequence[Source],
    boxes: Sequence[Sequence[Box]],
    queries: Tensor,
    level: Tensor | None,
    outside: Tensor | None,
    channels: int,
    scores: Scores,
) -> Tensor:
    """Sums [v+1 N] of 2**(S - level) times the values and 1."""
    sums = queries.new_zeros(channels + 1, queries.shape[1])
    if outside is not None:
        # A level is below 0 only where no tap is outside: there 2**-level may be infinite, and 0 times that is not 0.
        sums[-1] = outside if level is None else outside * (-level.clamp(min=0.0)).exp2_()
    for source, some in zip(sources, boxes, strict=True):
        opened = source.open(some)
        for box in some:
            here = opened[box.image]
            weights = scores.of(source, box, here, queries, level).exp2_().flatten(0, 1)
            values = scores.values(box, here)
            if isinstance(box.place, slice):
                sums[:, box.place].addmm_(values, weights)
            else:
                sums[:, box.place] += values @ weights
    return sums


def _maxima(
    sources: Sequence[Source],
    boxes: Sequence[Sequence[Box]],
    queries: Tensor,
    outside: Tensor | None,
    scores: Scores,
) -> Tensor:
    """The largest score of each cell [N], 0 where there is none."""
    found = queries.new_full(queries.shape[1:], -torch.inf)
    if outside is not None:
        found.masked_fill_(outside > 0, 0.0)
    for source, some in zip(sources, boxes, strict=True):
        opened = source.open(some)
        for box in some:
            largest = scores.of(source, box, opened[box.image], queries, None).amax((0, 1))
            found[box.place] = torch.maximum(found[box.place], largest)
    return found.masked_fill_(found == -torch.inf, 0.0)


def add_gradients(
    query: Tensor, slopes: Slopes, references: Sequence[Reference], wanted: Tensor | None, into: Gradients
) -> None:
    """Add one image's gradients."""
    (grad, delta, level), (grad_query, grad_keys, grad_values) = slopes, into
    scores, sights = Scores(level), {r.window: Sight(r.window, level) for r in references}
    for cut in sub_images(query.shape[0], query.shape[1], references[0].window.dilation):
        size = (query[cut].shape[0], query[cut].shape[1])
        part = None if wanted is None else wanted[cut]
        sources = [Source(r, cut, size, sights) for r in references]
        for tiles in cover(part, *size):
            band = Band(tiles, part, size, query.device)
            at = (band.y, band.x)
            queries = query[cut][at].to(level.dtype)
            outer = torch.cat([grad[cut][at].to(level.dtype), -delta[cut][at][:, None]], 1)  # [N v+1]
            slope_sum = None if grad_query is None else torch.zeros_like(queries)
            lift = -level[cut][at]
            turned = (queries.T * LOG2_E).contiguous()
            for position, source in enumerate(sources):
                boxes = list(itertools.chain.from_iterable(source.boxes(band)))
                opened = source.open(boxes)
                for box in boxes:
                    here, place = opened[box.image], box.place
                    weights = scores.of(source, box, here, turned, lift).exp2_().flatten(0, 1)
                    if grad_values is not None:
                        _add(grad_values[position], source, box, weights @ outer[place, :-1])
                    if grad_query is None and grad_keys is None:
                        continue
                    by_key = weights.mul_(scores.values(box, here).T @ outer[place].T)
                    if slope_sum is not None:
                        slope_sum[place] += source.window.scale * (by_key.T @ scores.keys(box, here).flatten(0, 1))
                    if grad_keys is not None:
                        _add(grad_keys[position], source, box, by_key @ queries[place], source.window.scale)
            if grad_query is not None and slope_sum is not None:
                grad_query[cut][at] += slope_sum


def _add(image: Tensor, source: Source, box: Box, part: Tensor, factor: float = 1.0) -> None:
    """Add a box [p*q .] to an image [h w .]."""
    dilation = source.window.dilation
    cut = [slice(first + dilation * low, first + dilation * (high - 1) + 1, dilation)
           for first, (low, high) in zip(box.image, (box.rows, box.columns), strict=True)]  # fmt: skip
    image[cut[0], cut[1]].add_(part.view(*box.size, -1), alpha=factor)
