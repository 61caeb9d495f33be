"""The specification of the operators: plain torch, tap by tap, any device and dtype, autograd by torch.

    s(x, d) = scale * <query(x), key_r(x + offset_r(x) + dilation_r * d)>,   d in the window of reference r
    readout(x) = sum exp(s - lse) * value,   lse(x) = log sum exp(s),   over all taps of all references jointly

It stores all logits, so it is for small frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vcorr.kernels.geometry import UNRESTRICTED, Reference, carried_type, near, taps, working_type


def read(query: Tensor, references: Sequence[Reference], wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] over all references jointly, of the wanted cells [b h w]; 0 and -inf
    elsewhere.
    """
    if wanted is not None:
        readout, lse = read(blanked(query, wanted), references)
        return blanked(readout, wanted), torch.where(wanted, lse, -torch.inf)
    logits, counted, values = [], [], []  # of each tap: [b h w], [b h w], [b h w v]
    for reference in references:
        key, value = blanked(reference.key, reference.mask), blanked(reference.value, reference.mask)
        for position in positions(reference):
            inside, unmasked = where(reference, position)
            logits.append(reference.window.scale * (query * sample(key, position)).sum(-1))
            values.append(sample(value.to(carried_type(value)), position))
            counted.append(unmasked & (inside | (reference.window.border == "zeros")))
    return softmax_sum(torch.stack(logits), torch.stack(counted), torch.stack(values))


def softmax_sum(logits: Tensor, counted: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the first axis of the logits that count. A row without any has readout 0 and logsumexp -inf."""
    kept = torch.where(counted, logits, 0.0)
    largest = torch.where(counted, logits, -torch.inf).amax(0).detach()
    largest = torch.where(largest.isfinite(), largest, 0.0)
    weight = torch.where(counted, (kept - largest).exp(), 0.0)
    mass = weight.sum(0)
    filled = torch.where(mass == 0, 1.0, mass)
    readout = (weight[..., None] * values).sum(0) / filled[..., None]
    return readout.to(values.dtype), torch.where(mass == 0, -torch.inf, largest + filled.log())


def blanked(image: Tensor, mask: Tensor | None) -> Tensor:
    """An image [b h w .] with zeros in the cells that a mask leaves out, even for NaN."""
    return image if mask is None else torch.where(mask[..., None], image, 0)


def positions(reference: Reference) -> Iterator[Tensor]:
    """Yields the (row, column) that every cell reads, [b h w 2], for each tap."""
    batch, height, width = reference.key.shape[:3]
    rows, columns = (torch.arange(size, device=reference.key.device) for size in (height, width))
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).expand(batch, height, width, 2)
    window = reference.window
    if window.radius == UNRESTRICTED:
        for cell in grid[0].reshape(-1, 2):
            yield cell.expand_as(grid)
        return
    for tap in taps(window.radius, window.shape):
        moved = grid + window.dilation * torch.tensor(tap, device=grid.device)
        yield moved if reference.offset is None else moved + near(reference.offset)


def corners(position: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The four cells [b h w 2] around each position and their bilinear weights [b h w]."""
    whole = position.floor()
    part = position - whole
    for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = torch.where(torch.tensor(step, device=part.device) == 1, part, 1 - part).prod(-1)
        yield (whole + torch.tensor(step, device=part.device)).long(), weight


def in_frame(cell: Tensor, image: Tensor) -> Tensor:
    """Whether a cell or position [b h w 2] lies between the first and last rows and columns: [b h w]."""
    height, width = image.shape[1:3]
    y, x = cell.unbind(-1)
    return (y >= 0) & (y <= height - 1) & (x >= 0) & (x <= width - 1)


def pick(image: Tensor, cell: Tensor) -> Tensor:
    """The values of an image [b h w c] at cells [b h w 2]; cells outside read the nearest one."""
    batch, height, width = image.shape[:3]
    y, x = cell[..., 0].clamp(0, height - 1), cell[..., 1].clamp(0, width - 1)
    return image[torch.arange(batch, device=image.device)[:, None, None], y, x]


def sample(image: Tensor, position: Tensor) -> Tensor:
    """Bilinear samples of an image [b h w c] at positions [b h w 2]; cells outside the frame are 0."""
    total = torch.zeros_like(image)
    for cell, weight in corners(position):
        blended = (in_frame(cell, image) & (weight > 0))[..., None]
        total = total + torch.where(blended, weight[..., None].to(image.dtype) * pick(image, cell), 0.0)
    return total


def where(reference: Reference, position: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each position lies in the frame, and whether none of its keys is masked, [b h w] each."""
    unmasked = torch.ones(position.shape[:3], dtype=torch.bool, device=position.device)
    if reference.mask is not None:
        for cell, weight in corners(position):
            blended = (weight > 0) & in_frame(cell, reference.key)
            unmasked = unmasked & (~blended | pick(reference.mask[..., None], cell)[..., 0])
    return in_frame(position, reference.key), unmasked


def largest(
    query: Tensor, references: Sequence[Reference], top_k: int, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The top_k largest logits of each reference and their cells [b h w r k], of the wanted cells [b h w]."""
    if wanted is not None:
        logits, cells = largest(query, references, top_k)
        kept = wanted[..., None, None]
        return torch.where(kept, logits, -torch.inf), torch.where(kept, cells, -1)
    found = [_largest_of(query, reference, top_k) for reference in references]
    return torch.stack([logits for logits, _ in found], -2), torch.stack([cells for _, cells in found], -2)


def _largest_of(query: Tensor, reference: Reference, top_k: int) -> tuple[Tensor, Tensor]:
    logits, cells = [], []
    for position in positions(reference):
        inside, unmasked = where(reference, position)
        logit = reference.window.scale * (query * sample(reference.key, position)).sum(-1)
        counted = unmasked & (inside | (reference.window.border == "zeros"))
        cell = position.long()[..., 0] * query.shape[2] + position.long()[..., 1]
        logits.append(torch.where(counted, logit.to(working_type(query)), -torch.inf))
        cells.append(torch.where(counted & inside, cell, -1))
    for _ in range(top_k - len(logits)):
        logits.append(torch.full_like(logits[0], -torch.inf))
        cells.append(torch.full_like(cells[0], -1))
    top, tap = torch.stack(logits, -1).topk(top_k)
    return top, torch.stack(cells, -1).gather(-1, tap)


def logsumexp(
    query: Tensor, negatives: Tensor, query_group: Tensor | None, negative_group: Tensor | None, scale: float
) -> Tensor:
    """log sum_m exp(scale * <query_n, negative_m>) over pairs of different groups: [n], -inf if there are none."""
    logits = scale * (query @ negatives.T)
    counted = torch.ones_like(logits, dtype=torch.bool)
    if query_group is not None and negative_group is not None:
        counted = query_group[:, None] != negative_group
    some = counted.any(1)
    kept = torch.where(counted | ~some[:, None], logits, -torch.inf)  # empty rows get any number, not NaN
    lse = kept.logsumexp(1) if negatives.shape[0] else kept.sum(1)
    lse_type = torch.promote_types(query.dtype, torch.float32)
    return torch.where(some, lse, -torch.inf).to(lse_type)
