"""The truth for every reading of windows: one dense formula, with the whole affinity written out.

Each tap of each cell is a row of bilinear weights over all cells of the reference (tent functions; a single 1 where the
position is whole, all 0 outside the frame). Everything else is an einsum.
"""

from __future__ import annotations

import torch


def read(query, keys, values, *, radius, dilation=1, offset=None, scale=None, border="mask", window="square",
         key_mask=None, query_mask=None, top_k=None):  # fmt: skip
    """Readout [b h w v] and logsumexp [b h w]; lists of options, and None entries, as in the faces."""
    logits, tapped = every_logit(
        query, keys, values, radius=radius, dilation=dilation, offset=offset, scale=scale, border=border,
        window=window, key_mask=key_mask
    )  # fmt: skip
    if top_k is not None:
        logits, kept = logits.topk(top_k, dim=-1)
        tapped = tapped.gather(2, kept[..., None].expand(*kept.shape, tapped.shape[-1]))
    empty = (logits == -torch.inf).all(-1)
    safe = torch.where(empty[..., None], 0.0, logits)
    weights = torch.where(empty[..., None], 0.0, safe.softmax(-1))
    readout = torch.einsum("bpt,bptv->bpv", weights, tapped).unflatten(1, query.shape[1:3])
    lse = torch.where(empty, -torch.inf, safe.logsumexp(-1)).unflatten(1, query.shape[1:3])
    if query_mask is not None:
        readout, lse = torch.where(query_mask[..., None], readout, 0), torch.where(query_mask, lse, -torch.inf)
    return readout, lse


def every_logit(query, keys, values, *, radius, dilation, offset, scale, border, window, key_mask):
    """Logits [b p t] and values [b p t v] of all taps of all references, -inf where a tap takes no mass."""
    count = len(keys)
    radii = list(radius) if isinstance(radius, (list, tuple)) else [radius] * count
    dilations = list(dilation) if isinstance(dilation, (list, tuple)) else [dilation] * count
    scales = list(scale) if isinstance(scale, (list, tuple)) else [scale] * count
    logits, tapped = [], []
    for r in range(count):
        weights, inside = tap_weights(
            query.shape, radii[r], dilations[r], window, None if offset is None else offset[r], query.dtype
        )
        scale = query.shape[3] ** -0.5 if scales[r] is None else scales[r]
        logit = scale * torch.einsum("bpc,bptn,bnc->bpt", query.flatten(1, 2), weights, keys[r].flatten(1, 2))
        counted = inside if border == "mask" else torch.ones_like(inside)
        if key_mask is not None and key_mask[r] is not None:
            hidden = (~key_mask[r]).flatten(1).to(weights.dtype)
            counted = counted & (torch.einsum("bptn,bn->bpt", weights, hidden) == 0)
        logits.append(torch.where(counted, logit, -torch.inf))
        tapped.append(torch.einsum("bptn,bnv->bptv", weights, values[r].flatten(1, 2).to(weights.dtype)))
    return torch.cat(logits, 2), torch.cat(tapped, 2)


def tap_weights(shape, radius, dilation, window, offset, dtype):
    """Bilinear weights [b p t n] of each tap, and whether its position lies in the frame [b p t]."""
    batch, height, width = shape[:3]
    y, x = (g.flatten().to(dtype) for g in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    if radius is None:
        tap_y, tap_x = y.expand(batch, len(y), -1), x.expand(batch, len(x), -1)
    else:
        steps = [(i, j) for i in range(-radius, radius + 1) for j in range(-radius, radius + 1)]
        steps = torch.tensor([s for s in steps if window == "square" or s[0] ** 2 + s[1] ** 2 < radius**2], dtype=dtype)
        moved = torch.zeros(batch, len(y), 2, dtype=dtype) if offset is None else offset.flatten(1, 2).to(dtype)
        tap_y = y[:, None] + dilation * steps[:, 0] + moved[..., :1]
        tap_x = x[:, None] + dilation * steps[:, 1] + moved[..., 1:]
    weights = (1 - (tap_y[..., None] - y).abs()).clamp(min=0) * (1 - (tap_x[..., None] - x).abs()).clamp(min=0)
    inside = (tap_y >= 0) & (tap_y <= height - 1) & (tap_x >= 0) & (tap_x <= width - 1)
    return weights, inside
