"""Windows that follow what moves: where a cell lay in a frame far back, carried along from frame to frame.

A window around a cell's own place loses a reference as soon as the object has moved further than the window reaches.
Each cell x of frame t has its best match in frame t-1, at x + s(x); so its place in a reference is

    o_t(x) = s(x) + o_{t-1}(x + s(x)),

corrected by the best match in a window around it. Errors would add up, so that the place must prove itself at every
frame: the carried window stands where its best match is better by ``margin`` than that around the cell's own place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vcorr.kernels import memory_best


def best_match(
    query: Tensor, key: Tensor, *, radius: int, offset: Tensor | None = None, query_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The best match of each cell in a window of a reference.

    Args:
        query, key: features [b h w c] of the frame and of the reference.
        radius: of the window, in cells. offset: where it is centred, [b h w 2] as (dy, dx) in whole cells.
        query_mask: where a match is looked for [b h w]; None is everywhere.

    Returns:
        The product of the features [b h w], -inf where the window lies outside the frame or none is looked for; and how
        far the match lies from the cell, [b h w 2] as (dy, dx) in whole cells, of query's type; 0 where there is none.
    """
    height, width = query.shape[1:3]
    logits, cells = memory_best(query, [key], radius=radius, scale=1.0, offset=[offset], query_mask=query_mask)
    cell = cells[..., 0]
    found = torch.stack([cell // width, cell % width], -1).to(query.dtype)
    moved = torch.where((cell >= 0)[..., None], found - places(height, width, query), 0.0)
    return logits[..., 0], moved


def carried(offset: Tensor, step: Tensor) -> Tensor:
    """Where cells lie in a reference, from where their matches in the frame before lay.

    Args:
        offset: o_{t-1}, [b h w 2] as (dy, dx) in whole cells. step: s, likewise, within the frame.

    Returns:
        o_t, of a place within the frame.
    """
    height, width = offset.shape[1:3]
    place = places(height, width, step)
    before = (place + step).long()
    cell = before[..., 0] * width + before[..., 1]
    moved = step + offset.flatten(1, 2).gather(1, cell.flatten(1)[..., None].expand(-1, -1, 2)).view_as(offset)
    limit = place.new_tensor([height - 1, width - 1])
    return (place + moved).clamp(min=0).minimum(limit) - place


def follow(
    query: Tensor,
    key: Tensor,
    offset: Tensor,
    step: Tensor,
    *,
    radius: int,
    near: int,
    margin: float,
    query_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Where the windows of a reference go, and where its cells are looked for at the next frame.

    Args:
        query, key: features [b h w c] of the frame and of the reference.
        offset: where the cells of the frame before lay in the reference. step: how far each cell's best match in the
            frame before lies from it. Both [b h w 2] as (dy, dx) in whole cells.
        radius: of the window around a cell's own place. near: of that around the carried place.
        margin: of the product of the features.
        query_mask: the cells that are followed [b h w]; all others stay in their own place.

    Returns:
        Offsets of the windows, and those to carry on: the best matches found, both [b h w 2].
    """
    moved = carried(offset, step)
    there, match = best_match(query, key, radius=near, offset=moved, query_mask=query_mask)
    here, own = best_match(query, key, radius=radius, query_mask=query_mask)
    proven = ((there >= here + margin) & (there > -torch.inf))[..., None]
    return torch.where(proven, moved, 0.0), torch.where(proven, match, own)


def places(height: int, width: int, like: Tensor) -> Tensor:
    """(y, x) of each cell, [h w 2] of a tensor's type and device."""
    y, x = (torch.arange(n, dtype=like.dtype, device=like.device) for n in (height, width))
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)
