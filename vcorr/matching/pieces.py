"""Pieces of objects: what has come apart from an object's body is mostly no part of it.

Where an object passes something that looks like it, part of its label stays behind there, and every later frame reads
it from the frame before. Nearly always there is a gap between the two some frames later. So, where the labelled frame
shows an object in one piece, pieces that weigh much less than its body are taken for background. The weight of a piece
is the sum of the object's shares in it, times exp(LOOKS * their mean score of ``appearance``): of two pieces alike, the
body is the one that looks like the object. Pieces that lie close together for the object's size are one: a pole in
front of an object, or a bad match within, does not cut it. All is done on coarse cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.matching.coarse import COARSE, coarse_values
from vcorr.matching.origin import Origin

LEAST = 0.3  # share of objects from which on a coarse cell is part of a piece
NEAR = 0.1  # gap on either side that counts as none, in units of the side of a square as large as all objects
WIDEST = 4  # coarse cells: no such gap is wider
LOOKS = 3.0  # weight of a piece's looks
PROVEN = 0.3  # share of a piece that is seen to come from a part of the object of its own, from which on it stays ...
SPECK = 0.05  # ... unless it weighs less than so much of the body


def connected(held: Tensor) -> Tensor:
    """Numbers of the connected parts of some cells [h w], with 8 neighbours: 0 outside, else one number a part."""
    outside = held.new_zeros((), dtype=torch.float64)
    count = torch.arange(1, held.numel() + 1, dtype=torch.float64, device=held.device).view(held.shape)
    found = torch.where(held, count, outside)
    while True:
        spread = torch.where(held, F.max_pool2d(found[None, None], 3, 1, 1)[0, 0], outside)
        if torch.equal(spread, found):
            return found.long()
        # The number is that of a cell of the same part, which may have heard of a larger one.
        found = torch.where(held, spread.flatten()[(spread.long() - 1).clamp(min=0)], outside)


def in_one_piece(values: Tensor) -> Tensor:
    """Which objects are in one piece, or none: [v-1] of shares of classes [1 h w v], the background first."""
    cells = coarse_values(values)[0]
    number = _numbered(cells)
    held = [torch.unique(number[share >= LEAST]) for share in cells[..., 1:].unbind(-1)]
    return torch.tensor([len(numbers) <= 1 for numbers in held], dtype=torch.bool)


def without_pieces(
    values: Tensor, whole: Tensor, least: float, scored: Tensor | None = None, origin: Origin | None = None
) -> Tensor:
    """Shares of classes with pieces apart from the bodies of objects given to the background.

    Args:
        values: [1 h w v], the background first.
        whole: the objects that have one body [v-1] (``in_one_piece``); all pieces of the others stay.
        least: weight of a piece that stays, in units of the weight of its object's body: the heaviest piece.
        scored: scores of the classes [h w v] (``appearance.scores``); None looks at the shares alone.
        origin: of the cells: a piece that comes from another part of the object than its body stays, whatever its
            weight, as when a pole hides the middle of an object. None proves nothing.
    """
    cells = coarse_values(values)[0]
    number = _numbered(cells)
    numbers = torch.unique(number[number > 0])
    if len(numbers) < 2:
        return values
    part = (number.flatten() == numbers[:, None]).to(cells.dtype)  # [p h'w']
    shares = cells[..., 1:].flatten(0, 1)
    mass = part @ shares  # [p v-1]
    weight = mass
    if scored is not None:
        looks = part @ (shares * coarse_values(scored[None])[0, ..., 1:].flatten(0, 1)) / mass.clamp(min=1e-6)
        weight = mass * (LOOKS * looks).exp()
    heavy = weight >= least * weight.amax(0)
    if origin is not None:
        heavy |= (_own(part, shares, weight.argmax(0), origin) > PROVEN * (part @ shares.square())) & (
            weight >= SPECK * weight.amax(0)
        )
    stays = torch.where(whole.to(weight.device), heavy, mass > LEAST) & (mass > 0)
    gone = ~stays.any(1)
    if not bool(gone.any()):
        return values
    lost = (part[gone].sum(0) > 0).view(number.shape)
    lost = lost.repeat_interleave(COARSE, 0).repeat_interleave(COARSE, 1)[: values.shape[1], : values.shape[2]]
    background = torch.zeros_like(values[0, 0, 0])
    background[0] = 1
    return torch.where(lost[None, ..., None], background, values)


def _own(part: Tensor, shares: Tensor, body: Tensor, origin: Origin) -> Tensor:
    """How much of each piece comes from parts of an object in the labelled frame that its body does not come from.

    Args:
        part: which cells are in a piece [p h'w']. shares: of the objects [h'w' v-1]. body: the piece that is each
            object's body [v-1].
    """
    size, place = origin.place.shape, origin.place.flatten()
    taken = torch.zeros_like(shares).scatter_reduce_(0, place[:, None].expand_as(shares), part[body].T * shares, "amax")
    taken = F.max_pool2d(taken.T.view(1, -1, *size), 3, 1, 1).view(-1, len(place)).T[place]
    return part @ (shares * origin.trust.flatten(0, 1) * (origin.labels[..., 1:].flatten(0, 1) - taken).clamp(min=0))


def _numbered(cells: Tensor) -> Tensor:
    """Numbers of the pieces of all objects together [h' w'], of coarse shares [h' w' v]; gaps belong to pieces."""
    held = cells[..., 1:].sum(-1) >= LEAST
    near = min(max(round(NEAR * float(held.sum()) ** 0.5), 1), WIDEST)
    grown = F.max_pool2d(held[None, None].to(cells.dtype), 2 * near + 1, 1, near)[0, 0] > 0
    return connected(grown)
