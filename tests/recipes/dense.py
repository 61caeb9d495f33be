"""The reconstruction losses of a toy, written out with dense matrices: 16 pixels, 4 x 4 cells, border ``zeros``."""

from __future__ import annotations

import torch

SIDE, CELLS, RADIUS = 16, 4, 1
TAPS = (2 * RADIUS + 1) ** 2


def window():
    """Whether cell j lies in the window of cell i [16 16]."""
    y, x = torch.arange(CELLS**2) // CELLS, torch.arange(CELLS**2) % CELLS
    return ((y[:, None] - y).abs() <= RADIUS) & ((x[:, None] - x).abs() <= RADIUS)


def copied(query, keys, values, *, scale, others=0.0):
    """Values of cells [b 16], one softmax over all keys' windows and ``others``: the mass of negatives [b 16].

    Taps outside the frame have logit 0 and value 0. Features [b 4 4 c], values on pixels [b 16 16].
    """
    near = window()
    mass, total = 0.0, others + len(keys) * (TAPS - near.sum(1))
    for key, value in zip(keys, values, strict=True):
        weights = (scale * query.flatten(1, 2) @ key.flatten(1, 2).mT).exp() * near
        total = total + weights.sum(-1)
        mass = mass + (weights @ value[:, ::4, ::4].flatten(1)[..., None])[..., 0]
    return mass / total


def huber(cells, truth):
    """Of values of cells, enlarged with half-pixel centres, against those of pixels [b 16 16]."""
    cells = cells.unflatten(1, (CELLS, CELLS))[:, None]
    rebuilt = torch.nn.functional.interpolate(cells, (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    error = 20 * (rebuilt - truth).abs()
    return torch.where(error < 1, error.square() / 2, error - 1 / 2).mean()
