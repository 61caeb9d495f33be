"""The specification of every windowed reading: plain torch, tap by tap, any device and dtype, autograd by torch.

    s(x, d) = scale * <query(x), key_r(x + dilation_r * d)>,   d in the window of reference r
    readout(x) = sum exp(s - lse) * value,   lse(x) = log sum exp(s),   over all taps of all references jointly

It stores every logit, so it is for small frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vcorr.kernels.geometry import UNRESTRICTED, Windows, taps


def read(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], windows: Windows) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] of a query over references that are read jointly."""
    logits, readable, tapped = [], [], []  # of each tap: [b h w], [b h w], [b h w v]
    for reference, (key, value) in enumerate(zip(keys, values, strict=True)):
        for y, x, inside in tap_positions(key, windows, reference):
            logit = windows.scale * (query * key[:, y, x]).sum(-1)
            counted = inside if windows.border == "mask" else torch.ones_like(inside)
            logits.append(torch.where(inside, logit, 0.0))
            readable.append(counted.expand_as(logit))
            tapped.append(torch.where(inside[..., None], value[:, y, x], 0.0))
    logit, valid, read_value = torch.stack(logits), torch.stack(readable), torch.stack(tapped)
    largest = torch.where(valid, logit, -torch.inf).amax(0).detach()
    largest = torch.where(largest.isfinite(), largest, 0.0)  # a row with nothing valid reads 0, its logsumexp is -inf
    weight = torch.where(valid, (torch.where(valid, logit, 0.0) - largest).exp(), 0.0)
    mass = weight.sum(0)
    empty = mass == 0
    filled = torch.where(empty, 1.0, mass)
    readout = (weight[..., None] * read_value).sum(0) / filled[..., None]
    return readout.to(values[0].dtype), torch.where(empty, -torch.inf, largest + filled.log())


def tap_positions(key: Tensor, windows: Windows, reference: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each tap, the row and column read by every cell (clamped into the frame) and whether it lies inside."""
    height, width = key.shape[1:3]
    row = torch.arange(height, device=key.device)[:, None].expand(height, width)
    column = torch.arange(width, device=key.device)[None, :].expand(height, width)
    if windows.radii[reference] == UNRESTRICTED:
        everywhere = torch.ones_like(row, dtype=torch.bool)
        cells = [(y, x) for y in range(height) for x in range(width)]
        return [(torch.full_like(row, y), torch.full_like(column, x), everywhere) for y, x in cells]
    positions = []
    for dy, dx in taps(windows.radii[reference], windows.shape):
        y = row + windows.dilations[reference] * dy
        x = column + windows.dilations[reference] * dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        positions.append((y.clamp(0, height - 1), x.clamp(0, width - 1), inside))
    return positions
