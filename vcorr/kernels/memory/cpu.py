"""The k largest logits, of each reference or of all, from the same strips, blocks and tiles that a reading uses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vcorr.kernels.geometry import UNRESTRICTED, Reference, groups, sub_images, working_type
from vcorr.kernels.products import times
from vcorr.kernels.window.strips import Strips
from vcorr.kernels.window.tiles import tiles

LARGEST = 2**22  # scores held at once of a strip against references
BLOCK = 2**21  # scores held at once of queries against a whole frame
GROUP = 8  # key columns of which only the largest score is sorted at first


def largest(query: Tensor, references: Sequence[Reference], top_k: int) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w r k] of each reference's top_k largest logits."""
    logits, cells = _nothing(query, len(references), top_k)
    for position, reference in enumerate(references):
        _fill(query, [reference], logits[..., position, :], cells[..., position, :])
    return logits, cells


def jointly(query: Tensor, references: Sequence[Reference], top_k: int) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w k] of the top_k largest logits of all references; cells are counted on from one to the
    next.
    """
    parts = []
    for group in groups(references):
        together = references[group[0]].offset is None and references[group[0]].window.radius != UNRESTRICTED
        parts += [group] if together else [[position] for position in group]
    logits, cells = _nothing(query, len(parts), top_k)
    frame = query.shape[1] * query.shape[2]
    for i, part in enumerate(parts):
        found = cells[..., i, :]
        _fill(query, [references[position] for position in part], logits[..., i, :], found)
        position = torch.tensor(part, device=query.device)[found.div(frame, rounding_mode="floor").clamp_(min=0)]
        found.copy_(torch.where(found < 0, -1, position * frame + found % frame))
    logits, place = logits.flatten(3).topk(top_k)
    return logits, cells.flatten(3).gather(3, place)


def _nothing(query: Tensor, sets: int, top_k: int) -> tuple[Tensor, Tensor]:
    shape = (*query.shape[:3], sets, top_k)
    logits = torch.full(shape, -torch.inf, dtype=working_type(query), device=query.device)
    return logits, torch.full(shape, -1, dtype=torch.int64, device=query.device)


def _fill(query: Tensor, references: Sequence[Reference], logits: Tensor, cells: Tensor) -> None:
    """Fill logits and cells [b h w k] with the largest of references of one window; several only without offsets."""
    for image in range(query.shape[0]):
        parts = [r.part(image) for r in references]
        if parts[0].offset is not None:
            _by_tiles(query[image], parts[0], logits[image], cells[image])
        elif parts[0].window.radius == UNRESTRICTED:
            _by_blocks(query[image], parts[0], logits[image], cells[image])
        else:
            _by_strips(query[image], parts, logits[image], cells[image])


def _by_strips(query: Tensor, references: Sequence[Reference], logits: Tensor, cells: Tensor) -> None:
    """Fill logits and cells [h w k] of one image."""
    height, width = query.shape[:2]
    number = torch.arange(height * width, device=query.device).reshape(height, width)
    window = references[0].window
    for cut in sub_images(height, width, window.dilation):
        image, parts = query[cut], [r.part(*cut) for r in references]
        strips = Strips(image.shape[0], image.shape[1], window, logits.dtype, query.device)
        search = _Search(strips, query.shape[2], len(parts))
        row = torch.arange(strips.height, device=query.device)[:, None, None]
        for x, count in strips.starts():
            strips.load_queries(search.queries, image, x, count)
            found = []
            for first in range(0, len(parts), search.at_once):
                top, which, up, left = search.largest(parts[first : first + search.at_once], x, count, logits.shape[2])
                y = (row - up).clamp_(0, strips.height - 1)
                column = (x - left).clamp_(0, strips.width - 1)
                cell = number[cut][y, column].add_(which.add_(first).mul_(height * width))
                found.append((top, cell.masked_fill_(top == -torch.inf, -1)))
            top, cell = (torch.cat(each, 2) for each in zip(*found, strict=True))
            if len(found) > 1:
                top, place = top.topk(min(logits.shape[2], top.shape[2]))
                cell = cell.gather(2, place)
            if strips.zeros:
                outside = len(parts) * strips.outside[:, x : x + count]
                top, cell = _with_outside(top, cell, outside, logits.shape[2])
            logits[cut][:, x : x + count, : top.shape[2]] = top
            cells[cut][:, x : x + count, : top.shape[2]] = cell


class _Search:
    """The largest scores of the queries of a strip, in several references at once.

    A query's scores lie in groups of GROUP neighbouring key columns. Its k largest are in the k groups whose own
    largest are the largest: only the groups' largest, found for all queries at once where the scores lie, and k groups
    of each query are gathered and sorted, which takes longer a number than the products do.
    """

    def __init__(self, strips: Strips, features: int, references: int) -> None:
        self.strips = strips
        self.groups = -(-strips.columns // GROUP)  # in a key row
        wide = strips.rows * strips.strip
        buffer = (strips.height + 2 * strips.up) * self.groups * GROUP * wide
        self.at_once = max(1, min(references, LARGEST // buffer))
        self.queries = strips.queries(features)
        self.scores = strips.empty(self.at_once, strips.height + 2 * strips.up, self.groups * GROUP, wide)
        self.scores[:, : strips.up] = -torch.inf  # rows outside the frame
        self.scores[:, strips.up + strips.height :] = -torch.inf
        self.maxima = strips.padded(self.groups, wide, fill=-torch.inf)
        # Where the buffer has each query's scores [h s 1], and how far from there those of each group lie.
        row = self.scores.stride(1)
        y, own = torch.arange(strips.height)[:, None], torch.arange(strips.strip)
        self.start = (y * row + own + 2 * strips.up * strips.strip)[..., None].to(strips.device)
        which = torch.arange(self.at_once)[:, None, None] * buffer
        tap = torch.arange(strips.rows)[:, None] * (row - strips.strip) + torch.arange(self.groups * GROUP) * wide
        self.steps = (which + tap).reshape(-1, GROUP).to(strips.device)  # [r*n*groups .]
        # In which reference each group is, and how far up and left of a strip's query cells it begins: [r*n*groups 3].
        up = strips.up - torch.arange(strips.rows)
        left = strips.side - torch.arange(self.groups) * GROUP
        self.origin = torch.cartesian_prod(torch.arange(self.at_once), up, left).to(strips.device)

    def largest(
        self, references: Sequence[Reference], x: int, count: int, top_k: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The largest scores of the strip at x, in which reference, and how far up and left of the query their keys
        lie: [h s k] each.
        """
        strips = self.strips
        maxima = strips.empty(strips.height, count, len(references), strips.rows, self.groups)
        for position, reference in enumerate(references):
            scores = strips.body(self.scores[position])
            self.score(scores, reference, x)
            groups = scores.view(strips.height, self.groups, GROUP, -1)
            torch.amax(groups, 2, out=strips.body(self.maxima))
            maxima[:, :, position] = strips.of_query(self.maxima)[..., :count].permute(0, 3, 1, 2)
        maxima = maxima.flatten(2)
        _, group = maxima.topk(min(top_k, maxima.shape[2]), sorted=False)
        places = self.steps[group].flatten(2).add_(self.start[:, :count])
        top, place = self.scores.view(-1).take(places).topk(min(top_k, places.shape[2]))
        inner = place % GROUP
        which, up, left = self.origin[group.gather(2, place // GROUP)].unbind(3)
        return top, which, up, left - inner

    def score(self, scores: Tensor, reference: Reference, x: int) -> None:
        """Fill the scores [h . n*s] of a reference with the strip at x; -inf for what the window leaves out."""
        strips = self.strips
        _, inside = strips.span(x)
        scores[:, : inside.start] = -torch.inf
        scores[:, inside.stop :] = -torch.inf
        seen = scores[:, inside]
        dense = seen if seen.is_contiguous() else torch.empty_like(seen, memory_format=torch.contiguous_format)
        queries = strips.queries_by_key(self.queries)
        dense.copy_(strips.band(x)).baddbmm_(strips.keys(reference, x), queries, alpha=strips.window.scale)
        strips.hide(dense, reference, x, -torch.inf)
        if dense is not seen:  # torch multiplies into rows with gaps one by one
            seen.copy_(dense)


def _with_outside(logits: Tensor, cells: Tensor, outside: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The largest logits when so many taps of logit 0 stand ``outside`` [.], beside those found [. k]."""
    rank = torch.arange(top_k, device=logits.device)
    zeros = torch.where(rank < outside[..., None], 0.0, -torch.inf).to(logits.dtype)
    both = torch.cat([logits, zeros], -1)
    top, place = both.topk(min(top_k, both.shape[-1]))
    return top, torch.cat([cells, torch.full_like(zeros, -1, dtype=cells.dtype)], -1).gather(-1, place)


def _by_blocks(query: Tensor, reference: Reference, logits: Tensor, cells: Tensor) -> None:
    """Fill logits and cells [h w k] of one image that reads the whole frame."""
    keys = reference.key.flatten(0, 1).to(logits.dtype)
    count = min(logits.shape[2], keys.shape[0])
    number = torch.arange(query.shape[0] * query.shape[1], device=query.device)
    for some in torch.split(number, max(1, BLOCK // keys.shape[0])):
        y, x = some // query.shape[1], some % query.shape[1]
        scores = times(query[y, x].to(logits.dtype) * reference.window.scale, keys.T)
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
        row, column = box.whole[:, :1] + box.steps[0], box.whole[:, 1:] + box.steps[1]  # [n p] and [n q]
        cell = (row[:, :, None] * width + column[:, None]).masked_fill_(~box.inside | box.left_out, -1).flatten(1)
        top, tap = found.topk(min(logits.shape[2], found.shape[1]))
        cell = cell.gather(1, tap)
        if reference.window.border == "zeros":
            top, cell = _with_outside(
                top, cell, torch.full_like(box.y, min(box.unseen, logits.shape[2])), logits.shape[2]
            )
        logits[box.y, box.x, : top.shape[1]] = top
        cells[box.y, box.x, : top.shape[1]] = cell
