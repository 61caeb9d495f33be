"""Frames at half the resolution of their features: a sixteenth of the work where that is fine enough to decide on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.kernels import memory_read
from vcorr.matching.cells import downsample

COARSE = 2  # cells a side in one coarse cell
MARGIN = 1  # coarse cells around those that hold an object, in which its edge may lie


def coarse_features(feature: Tensor) -> Tensor:
    """Mean features of coarse cells, of unit length: [1 h w c] to [1 h' w' c], h' = ceil(h / 2), w' likewise."""
    return F.normalize(coarse_values(feature), dim=-1)


def coarse_values(cells: Tensor) -> Tensor:
    """Means over coarse cells, [1 h w v] to [1 h' w' v]; those at the far edges stand for what they lack."""
    return downsample(cells.permute(0, 3, 1, 2), COARSE, alignment="cell")


def within(cells: Tensor, radius: int) -> Tensor:
    """The cells [b h w] that have one of some cells [b h w] in the square window around them."""
    some = F.max_pool2d(cells[:, None].float(), (2 * radius + 1, 1), 1, (radius, 0))
    return F.max_pool2d(some, (1, 2 * radius + 1), 1, (0, radius))[:, 0] > 0


def screen(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    radius: int,
    scale: float | None,
    least: float,
    size: tuple[int, int],
) -> Tensor:
    """The cells that may hold an object, by a coarse reading.

    Args:
        query, keys: coarse features [1 h' w' c] of a frame and of its references.
        values: coarse shares of classes of the references [1 h' w' v], the background first.
        radius: of the windows in coarse cells. scale: of the logits.
        least: share of objects above which a coarse cell may hold one.
        size: (h, w) in cells.

    Returns:
        [1 h w].
    """
    labelled = torch.stack([1 - value[..., 0] for value in values]).amax(0) > 0
    reached = within(labelled, radius)
    found = memory_read(query, keys, values, radius=radius, scale=scale, query_mask=reached)
    held = within(found[..., 1:].sum(-1) > least, MARGIN)
    return held.repeat_interleave(COARSE, 1).repeat_interleave(COARSE, 2)[:, : size[0], : size[1]]
