"""Position encodings: they mark where a cell of the encoder's first map lies (LIIR, Li et al. 2022, eq. 6).

    features(I) = rest(stem(I) + P),   P [c h w] of the stem's output, at half the picture's resolution

| kind    | P                                                                    | parameters           |
|---------|----------------------------------------------------------------------|----------------------|
| `none`  | nothing is added                                                     |                      |
| `2dspe` | sines and cosines of x in the first half of the channels, of y in the second | none         |
| `1dape` | one learned map                                                      | c x size x size      |
| `2dape` | a learned table of x and one of y, side by side in the channels      | 2 x (c / 2 x size)   |

Learned maps begin at 0, so that training starts from the network without them. Maps of another size than the learned
one are resized bicubically: the map spans the picture, whatever the picture's size and shape. Sines have no size: cell
(y, x) has the same code in every picture, so pictures larger than those of the training hold codes never trained on.

Features of other videos that serve as negatives are encoded with a modulated P, so that no query can tell them by their
position (``modulate``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr import rng as random
from vcorr.model.nn import Tensors

Kind = Literal["none", "2dspe", "1dape", "2dape"]
Modulation = Literal["none", "shifting", "shuffling"]
LONGEST = 10_000.0  # wavelength over 2 pi of the slowest sine, cells


@dataclass(frozen=True)
class PositionConfig:
    """A position encoding.

    Attributes:
        kind: see above.
        size: side of a learned map, cells of the stem: half of the training crop's, so that training resizes nothing.
    """

    kind: Kind = "none"
    size: int = 128

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")


def check(cfg: PositionConfig, channels: int) -> None:
    """Raise ``ValueError`` unless the stem's channels can be shared out between x and y (and sine and cosine)."""
    share = {"none": 1, "1dape": 1, "2dape": 2, "2dspe": 4}[cfg.kind]
    if channels % share:
        raise ValueError(f"the stem must have a multiple of {share} channels for position {cfg.kind}, got {channels}")


def init(cfg: PositionConfig, channels: int) -> Tensors:
    """Parameters for a stem of so many channels: all 0, none for kinds that learn nothing."""
    if cfg.kind == "1dape":
        return {"position.map": torch.zeros(channels, cfg.size, cfg.size, dtype=torch.float32)}
    if cfg.kind == "2dape":
        return {f"position.{axis}": torch.zeros(channels // 2, cfg.size, dtype=torch.float32) for axis in "xy"}
    return {}


def encode(cfg: PositionConfig, params: Tensors, channels: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """P [channels h w] for a stem's output of size (h, w), differentiable in the learned maps.

    Raises:
        ValueError: kind is ``none``.
    """
    if cfg.kind == "none":
        raise ValueError("kind must be 2dspe, 1dape or 2dape for there to be an encoding, got none")
    if cfg.kind == "2dspe":
        return _sines(channels, size, device)
    if cfg.kind == "1dape":
        learned = params["position.map"]
    else:
        x, y = params["position.x"], params["position.y"]
        learned = torch.cat([x[:, None, :].expand(-1, cfg.size, -1), y[:, :, None].expand(-1, -1, cfg.size)])
    if learned.shape[1:] == size:
        return learned
    return F.interpolate(learned[None], size, mode="bicubic", align_corners=False)[0]


def at_half(cfg: PositionConfig, params: Tensors, channels: int, size: tuple[int, int]) -> Tensor | None:
    """P [channels ceil(h/2) ceil(w/2)] for images of a size (h, w), on the parameters' device; None for ``none``."""
    if cfg.kind == "none":
        return None
    cells = (-(-size[0] // 2), -(-size[1] // 2))
    return encode(cfg, params, channels, cells, params["head.weight"].device)


def _sines(channels: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Vaswani et al. 2017, an axis in each half: channel 2i is sin(x / 10000^(4i / c)), channel 2i + 1 its cosine."""
    pairs = torch.arange(channels // 4, dtype=torch.float64)
    rates = torch.exp(-math.log(LONGEST) * 4 * pairs / channels)
    halves = []
    for cells in reversed(size):  # x, then y
        phase = rates[:, None] * torch.arange(cells, dtype=torch.float64)
        halves.append(torch.stack([phase.sin(), phase.cos()], 1).flatten(0, 1).float())
    x, y = halves
    height, width = size
    both = torch.cat([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)])
    return both.to(device)


def modulate(place: Tensor, how: Modulation, rngs: Sequence[torch.Generator]) -> Tensor:
    """P as negatives get it: one for each picture, without gradient (LIIR, section 3.2).

    Args:
        place: P [c h w].
        how: ``shifting`` rolls it round by (dy, dx), uniform over the whole map; ``shuffling`` permutes its positions;
            ``none`` leaves it.
        rngs: a generator for each picture, which draws its shift or its permutation.

    Returns:
        [b c h w], b the number of generators.

    >>> place = torch.arange(12.0).reshape(1, 3, 4)
    >>> moved = modulate(place, "shifting", [torch.Generator().manual_seed(0)])
    >>> moved.shape, bool((moved.flatten().sort().values == place.flatten()).all())
    (torch.Size([1, 1, 3, 4]), True)
    """
    if how not in get_args(Modulation):
        raise ValueError(f"modulation must be one of {', '.join(get_args(Modulation))}, got {how!r}")
    place = place.detach()
    if how == "none":
        return place.expand(len(rngs), *place.shape)
    height, width = place.shape[1:]
    moved = []
    for rng in rngs:
        if how == "shifting":
            dy, dx = random.integer(0, height, rng), random.integer(0, width, rng)
            moved.append(torch.roll(place, (dy, dx), (1, 2)))
        else:
            order = torch.randperm(height * width, generator=rng).to(place.device)
            moved.append(place.flatten(1)[:, order].view_as(place))
    return torch.stack(moved)
