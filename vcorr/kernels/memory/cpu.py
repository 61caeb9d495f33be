"""The k largest logits of each reference, from the same strips, blocks and tiles that a whole reading uses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vcorr.kernels.geometry import UNRESTRICTED, Reference, sub_images, working_type
from vcorr.kernels.window.strips import Strips
from vcorr.kernels.window.tiles import tiles

LARGEST = 2**21  # scores of a block of queries against a whole frame


def largest(query: Tensor, references: Sequence[Reference], top_k: int) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w r k] of each reference's top_k largest logits."""
    shape = (*query.shape[:3], len(references), top_k)
    logits = torch.full(shape, -torch.inf, dtype=working_type(query), device=query.device)
    cells = torch.full(shape, -1, dtype=torch.int64, device=query.device)
    for image in range(query.shape[0]):
        for position, reference in enumerate(references):
            arguments = query[image], reference.part(image), logits[image, :, :, position], cells[image, :, :, position]
            if reference.offset is not None:
                _by_tiles(*arguments)
            elif reference.window.radius == UNRESTRICTED:
                _by_blocks(*arguments)
            else:
                _by_strips(*arguments)
    return logits, cells


def _by_strips(query: Tensor, reference: Reference, logits: Tensor, cells: Tensor) -> None:
    """Fill logits and cells [h w k] of one image."""
    height, width = query.shape[:2]
    number = torch.arange(height * width, device=query.device).reshape(height, width)
    for cut in sub_images(height, width, reference.window.dilation):
        image, part = query[cut], reference.part(*cut)
        strips = Strips(image.shape[0], image.shape[1], reference.window, logits.dtype, query.device)
        queries = strips.padded(strips.strip, query.shape[2])
        scores = strips.padded(strips.columns, strips.rows * strips.strip, fill=-torch.inf)
        row = torch.arange(strips.height, device=query.device)[:, None, None]
        for x, count in strips.starts():
            strips.load(queries, image, x, count, reference.window.scale)
            keys = strips.key_columns(part.key, x)
            strips.body(scores).copy_(strips.band(x)).baddbmm_(keys, strips.by_key(queries).transpose(1, 2))
            strips.hide(strips.body(scores), part, x, -torch.inf)
            seen = strips.of_query(scores)[..., :count].permute(0, 3, 1, 2).flatten(2)  # [h s n*k]
            top, tap = seen.topk(min(logits.shape[2], seen.shape[2]))
            y = (row - strips.up + tap // strips.columns).clamp(0, strips.height - 1)
            column = (x - strips.side + tap % strips.columns).clamp(0, strips.width - 1)
            cell = number[cut][y, column].masked_fill_(top == -torch.inf, -1)
            if strips.zeros:
                top, cell = _with_outside(top, cell, strips.outside[:, x : x + count], logits.shape[2])
            logits[cut][:, x : x + count, : top.shape[2]] = top
            cells[cut][:, x : x + count, : top.shape[2]] = cell


def _with_outside(logits: Tensor, cells: Tensor, outside: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The largest logits when ``outside`` taps [h s] of logit 0 stand for, beside those found [h s k]."""
    rank = torch.arange(top_k, device=logits.device)
    zeros = torch.where(rank < outside[..., None], 0.0, -torch.inf).to(logits.dtype)
    both = torch.cat([logits, zeros], 2)
    top, place = both.topk(min(top_k, both.shape[2]))
    return top, torch.cat([cells, torch.full_like(zeros, -1, dtype=cells.dtype)], 2).gather(2, place)


def _by_blocks(query: Tensor, reference: Reference, logits: Tensor, cells: Tensor) -> None:
    """Fill logits and cells [h w k] of one image that reads the whole frame."""
    keys = reference.key.flatten(0, 1).to(logits.dtype)
    count = min(logits.shape[2], keys.shape[0])
    number = torch.arange(query.shape[0] * query.shape[1], device=query.device)
    for some in torch.split(number, max(1, LARGEST // keys.shape[0])):
        y, x = some // query.shape[1], some % query.shape[1]
        scores = (query[y, x].to(logits.dtype) * reference.window.scale) @ keys.T
        if reference.mask is not None:
            scores.masked_fill_(~reference.mask.flatten(), -torch.inf)
        top, cell = scores.topk(count)
        logits[y, x, :count] = top
        cells[y, x, :count] = cell.masked_fill_(top == -torch.inf, -1)


def _by_tiles(query: Tensor, reference: Reference, logits: Tensor, cells: Tensor) -> None:
    """Fill logits and cells [h w k] of one image whose windows lie at whole offsets."""
    work, width = logits.dtype, query.shape[1]
    for (box,) in tiles(query, [reference]):
        queries = query[box.y, box.x].to(work) * reference.window.scale
        found = box.logits(queries, box.cut(reference.key, work)).flatten(1)
        row, column = (box.whole[:, None] + box.steps[:, None]).unbind(2)  # [n p] each
        cell = (row[:, :, None] * width + column[:, None, :]).masked_fill(~box.inside | box.left_out, -1)
        count = min(logits.shape[2], found.shape[1])
        top, tap = found.topk(count)
        logits[box.y, box.x, :count] = top
        cells[box.y, box.x, :count] = cell.flatten(1).gather(1, tap)
