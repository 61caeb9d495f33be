"""Rows of the affinity, written out: where a few query cells look, and how sharp their softmax is.

The operators never store the affinity. Here a few of its rows are, for a person to look at and for two numbers that
warn of the failure that training by reconstruction is prone to: logits grow until one weight holds all the mass, and
then no gradient passes through the softmax.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vcorr.matching.settings import Matching

GRID = 8  # query cells on each axis that the numbers are taken over


@dataclass(frozen=True, eq=False)
class Views:
    """What a loss compares in a batch of clips.

    Attributes:
        query: features [b h w c] of the query frame.
        keys: features of its references, r tensors [b h w c].
        matching: how they are compared, and how cells meet pixels.
        frame: index of the query frame in the clip; references: indices of the references, in the order of the keys.
            None is the first r frames.
    """

    query: Tensor
    keys: Sequence[Tensor]
    matching: Matching
    frame: int = -1
    references: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        wrong = [list(key.shape) for key in self.keys if key.shape != self.query.shape]
        if self.query.ndim != 4 or not self.keys or wrong:
            got = wrong[0] if wrong else f"{len(self.keys)} keys"
            raise ValueError(f"keys must be [b h w c] like query, {list(self.query.shape)}, at least one, got {got}")
        if self.references is not None and len(self.references) != len(self.keys):
            raise ValueError(f"references must be {len(self.keys)}, one a key, got {self.references}")

    @property
    def frames(self) -> tuple[int, ...]:
        """Indices of the references in the clip."""
        return tuple(range(len(self.keys))) if self.references is None else self.references

    def first(self, clips: int) -> Views:
        """A copy of the first clips alone, without gradient: nothing of the batch is kept alive by it."""
        query, keys = self.query[:clips].detach().clone(), [key[:clips].detach().clone() for key in self.keys]
        return dataclasses.replace(self, query=query, keys=keys)


@dataclass(frozen=True)
class Rows:
    """The softmax of n query cells over the windows of all references jointly.

    Attributes:
        weights: [n r h w], 0 outside the window.
        outside: [n], the weight of one tap outside the frame, where the border is ``zeros``; else 0.
        taps: [n], how many taps share the mass; beyond: [n], how many of them lie outside the frame.
    """

    weights: Tensor
    outside: Tensor
    taps: Tensor
    beyond: Tensor

    @property
    def largest(self) -> Tensor:
        """[n] the largest weight, in (0, 1]."""
        inside: Tensor = self.weights.flatten(1).amax(1)
        return torch.maximum(inside, self.outside)

    @property
    def entropy(self) -> Tensor:
        """[n] entropy over its largest possible value, log(taps): 1 is blind, 0 is one tap alone; of one tap, 0."""
        inside: Tensor = torch.special.entr(self.weights).flatten(1).sum(1)
        entropy: Tensor = inside + self.beyond * torch.special.entr(self.outside)
        return entropy / self.taps.clamp(min=2).to(entropy.dtype).log()


@torch.no_grad()
def rows(views: Views, sample: int, cells: Tensor) -> Rows:
    """The affinity of some query cells of one clip.

    Args:
        sample: index of the clip in the batch.
        cells: (y, x) of the query cells, integers [n 2].

    Returns:
        Rows in float32, or float64 for such features.
    """
    precise = torch.promote_types(views.query.dtype, torch.float32)
    query, keys = views.query[sample].to(precise), torch.stack([key[sample].to(precise) for key in views.keys])
    (r, h, w, c), device = keys.shape, keys.device
    y, x = cells.to(device).unbind(1)
    radius = views.matching.radius
    scale = c**-0.5 if views.matching.scale is None else views.matching.scale
    with torch.autocast(device.type, enabled=False):
        logits = torch.einsum("nc,rhwc->nrhw", query[y, x] * scale, keys)
    near = torch.ones(len(y), h, w, dtype=torch.bool, device=device)
    if radius is not None:
        high = (torch.arange(h, device=device) - y[:, None]).abs() <= radius
        wide = (torch.arange(w, device=device) - x[:, None]).abs() <= radius
        near = high[:, :, None] & wide[:, None, :]
    logits = logits.masked_fill(~near[:, None], -torch.inf)
    taps = near.flatten(1).sum(1) * r
    beyond = torch.zeros_like(taps)
    if views.matching.border == "zeros" and radius is not None:
        beyond = r * (2 * radius + 1) ** 2 - taps
    # Cells outside are one more column, that of logit 0 as often as it counts.
    column = torch.where(beyond > 0, beyond.to(precise).log(), -torch.inf)
    weights = torch.cat([logits.flatten(1), column[:, None]], 1).softmax(1)
    outside = weights[:, -1] / beyond.clamp(min=1)
    return Rows(weights[:, :-1].view(len(y), r, h, w), outside, taps + beyond, beyond)


def saturation(views: Views) -> dict[str, float]:
    """How sharp the softmax is, over an even grid of query cells of every clip.

    Returns:
        ``weight_max``, the mean largest weight, in (0, 1]; ``entropy``, the mean entropy relative to log taps, in
        [0, 1]. Nothing where a softmax is over one tap alone.
    """
    b, h, w, _ = views.query.shape
    if views.matching.radius == 0 and len(views.keys) == 1:
        return {}
    cells = torch.cartesian_prod(_spread(h), _spread(w))
    seen = [rows(views, sample, cells) for sample in range(b)]
    largest, entropy = torch.cat([s.largest for s in seen]), torch.cat([s.entropy for s in seen])
    return {"weight_max": float(largest.mean()), "entropy": float(entropy.mean())}


def _spread(size: int) -> Tensor:
    """At most GRID cells, evenly spread over an axis."""
    count = min(GRID, size)
    return (torch.arange(count) * 2 + 1) * size // (2 * count)
