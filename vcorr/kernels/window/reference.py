"""The specification of every windowed reading: plain torch, tap by tap, any device and dtype, autograd by torch.

    s(x, d) = scale * <query(x), key_r(x + offset_r(x) + dilation_r * d)>,   d in the window of reference r
    readout(x) = sum exp(s - lse) * value,   lse(x) = log sum exp(s),   over all taps of all references jointly

It stores every logit, so it is for small frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vcorr.kernels.geometry import UNRESTRICTED, Reference, carried_type, near, taps


def read(query: Tensor, references: Sequence[Reference], wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] of a query over references that are read jointly, where a cell is wanted
    [b h w]; 0 and -inf elsewhere.
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
    """Softmax over the first axis, of the logits that count; a row without any reads 0 and has the logsumexp -inf."""
    kept = torch.where(counted, logits, 0.0)
    largest = torch.where(counted, logits, -torch.inf).amax(0).detach()
    largest = torch.where(largest.isfinite(), largest, 0.0)
    weight = torch.where(counted, (kept - largest).exp(), 0.0)
    mass = weight.sum(0)
    filled = torch.where(mass == 0, 1.0, mass)
    readout = (weight[..., None] * values).sum(0) / filled[..., None]
    return readout.to(values.dtype), torch.where(mass == 0, -torch.inf, largest + filled.log())


def blanked(image: Tensor, mask: Tensor | None) -> Tensor:
    """An image [b h w .] with zeros in the cells that a mask leaves out, whatever those hold."""
    return image if mask is None else torch.where(mask[..., None], image, 0)


def positions(reference: Reference) -> Iterator[Tensor]:
    """Of each tap, the (row, column) that every cell reads: [b h w 2]."""
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
    """The values of an image [b h w c] at cells [b h w 2], the nearest ones for cells outside."""
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
    """Whether each position lies in the frame, and whether no key it blends is masked: [b h w] each."""
    unmasked = torch.ones(position.shape[:3], dtype=torch.bool, device=position.device)
    if reference.mask is not None:
        for cell, weight in corners(position):
            blended = (weight > 0) & in_frame(cell, reference.key)
            unmasked = unmasked & (~blended | pick(reference.mask[..., None], cell)[..., 0])
    return in_frame(position, reference.key), unmasked
