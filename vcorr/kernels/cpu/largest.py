"""The k largest logits, of each reference or of all, from the tiles and blocks that a reading uses.

The scores of a query are one row. Every GROUP-th part of it holds a member of each group, and so again with the groups'
maxima. The k largest scores are in the k groups whose own largest are the largest, and these in the k groups of groups:
only the largest of each is found for all queries at once, while the scores are in the cache of a core, and k groups of
each query are gathered and sorted, which takes longer a number than the products do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vcorr.kernels.cpu.boxes import Box, Sight, Source, outside_of
from vcorr.kernels.cpu.cover import Band, cover
from vcorr.kernels.cpu.products import times
from vcorr.kernels.cpu.scores import Scores
from vcorr.kernels.cpu.strips import front
from vcorr.kernels.geometry import UNRESTRICTED, Reference, readable, sub_images, working_type

HELD = 2**19  # scores of some tiles against references held at once: 2 MB, which a core finds near
BLOCK = 2**21  # scores held at once of queries against a whole frame
GROUP = 8


def largest(
    query: Tensor, references: Sequence[Reference], top_k: int, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w r k] of each reference's top_k largest logits, where a cell is wanted [b h w]."""
    logits, cells = _nothing(query, len(references), top_k)
    query = readable(query, wanted)
    for position, reference in enumerate(references):
        _fill(query, [reference], wanted, logits[..., position, :], cells[..., position, :])
    return logits, cells


def jointly(
    query: Tensor, references: Sequence[Reference], top_k: int, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w k] of the top_k largest logits of all references; cells are counted on from one to the
    next.
    """
    parts: dict[tuple[object, ...], list[int]] = {}
    for position, reference in enumerate(references):
        window = reference.window
        alone = window.radius == UNRESTRICTED
        parts.setdefault((position,) if alone else (window.dilation, window.border), []).append(position)
    logits, cells = _nothing(query, len(parts), top_k)
    query, frame = readable(query, wanted), query.shape[1] * query.shape[2]
    for i, part in enumerate(parts.values()):
        found = cells[..., i, :]
        _fill(query, [references[position] for position in part], wanted, logits[..., i, :], found)
        member = torch.tensor(part, device=query.device)[found.div(frame, rounding_mode="floor").clamp_(min=0)]
        found.copy_(torch.where(found < 0, -1, member * frame + found % frame))
    if len(parts) == 1:
        return logits[..., 0, :], cells[..., 0, :]
    logits, place = logits.flatten(3).topk(top_k)
    return logits, cells.flatten(3).gather(3, place)


def _nothing(query: Tensor, sets: int, top_k: int) -> tuple[Tensor, Tensor]:
    shape = (*query.shape[:3], sets, top_k)
    logits = torch.full(shape, -torch.inf, dtype=working_type(query), device=query.device)
    return logits, torch.full(shape, -1, dtype=torch.int64, device=query.device)


def _fill(query: Tensor, references: Sequence[Reference], wanted: Tensor | None, logits: Tensor, cells: Tensor) -> None:
    """Fill logits and cells [b h w k] with the largest of references of one dilation, or of one whole frame."""
    for image in range(query.shape[0]):
        some = None if wanted is None else wanted[image]
        parts = [r.part(image) for r in references]
        if parts[0].window.radius == UNRESTRICTED:
            _by_blocks(query[image], parts[0], some, logits[image], cells[image])
        else:
            _by_tiles(query[image], parts, some, logits[image], cells[image])


def _by_tiles(
    query: Tensor, references: Sequence[Reference], wanted: Tensor | None, logits: Tensor, cells: Tensor
) -> None:
    """Fill logits and cells [h w k] of one image."""
    sights = {r.window: Sight(r.window, logits) for r in references}
    for cut in sub_images(query.shape[0], query.shape[1], references[0].window.dilation):
        part, own = query[cut], None if wanted is None else wanted[cut]
        size = (part.shape[0], part.shape[1])
        sources = [Source(r, cut, size, sights) for r in references]
        search = _Search(sources, logits, logits.shape[2])
        for tiles in cover(own, *size):
            band = Band(tiles, own, size, query.device)
            top, cell = search.largest(band, part[band.y, band.x].to(logits.dtype))
            outside = outside_of(sources, band)
            if outside is not None:
                top, cell = _with_outside(top, cell, outside, logits.shape[2])
            kept = band.cells == band.nearest
            y, x = band.y[kept], band.x[kept]
            logits[cut][y, x], cells[cut][y, x] = top[kept], cell[kept]


class _Alike(NamedTuple):
    """Boxes in the same place of references that follow one another, of one window; often of one reference."""

    first: int  # the first reference
    references: int
    box: Box

    @property
    def keys(self) -> int:
        return self.references * math.prod(self.box.size)


class _Part(NamedTuple):
    """The boxes of one tile that are searched together."""

    tile: int  # in the band
    boxes: list[_Alike]

    @property
    def keys(self) -> int:
        return sum(alike.keys for alike in self.boxes)


class _Search:
    """The largest scores of cells, band by band, in all references."""

    def __init__(self, sources: Sequence[Source], like: Tensor, top_k: int) -> None:
        self.sources, self.top_k = sources, top_k
        self.held = like.new_empty(0)

    def largest(self, band: Band, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and cells [N k] of the band's cells; queries [N c]."""
        boxes = [source.boxes(band) for source in self.sources]
        top = queries.new_full((queries.shape[0], self.top_k), -torch.inf)
        number = torch.full_like(top, -1, dtype=torch.int64)  # keys of all parts, counted on from one to the next
        begun: set[int] = set()
        done: list[_Alike] = []
        count = 0
        for some in self.together(band, boxes):
            keys = _Keys(self.sources, boxes, some)
            for parts in self.jobs(band, boxes, some):
                logits, places = self.search(band, parts, keys, queries)
                for part, found, place in zip(parts, logits, places, strict=True):
                    own = band.place(part.tile)
                    place += count
                    if part.tile in begun:
                        both, every = torch.cat([top[own], found], 1), torch.cat([number[own], place], 1)
                        top[own], chosen = both.topk(self.top_k)
                        number[own] = every.gather(1, chosen)
                    else:
                        top[own, : found.shape[1]], number[own, : found.shape[1]] = found, place
                        begun.add(part.tile)
                    done += part.boxes
                    count += part.keys
        return top, self.cells(done, number).masked_fill_(top == -torch.inf, -1)

    def together(self, band: Band, boxes: Sequence[Sequence[Sequence[Box]]]) -> Iterator[range]:
        """References whose boxes of any tile can be searched at once."""
        first = held = 0
        for r, each in enumerate(boxes):
            tiles = zip(band.tiles, each, strict=True)
            most = max(tile.cells * sum(math.prod(box.size) for box in some) for tile, some in tiles)
            if first < r and held + most > HELD:
                yield range(first, r)
                first, held = r, 0
            held += most
        yield range(first, len(boxes))

    def jobs(self, band: Band, boxes: Sequence[Sequence[Sequence[Box]]], members: range) -> Iterator[list[_Part]]:
        """What is searched at once of some references: the boxes of several tiles of as many cells, or some of one
        tile's.
        """
        waiting: list[_Part] = []
        for tile, shape in enumerate(band.tiles):
            for part in self.parts(tile, shape.cells, [(r, box) for r in members for box in boxes[r][tile]]):
                if waiting and (
                    band.tiles[waiting[0].tile].cells != shape.cells
                    or (len(waiting) + 1) * _longest([*waiting, part]) * shape.cells > HELD
                ):
                    yield waiting
                    waiting = []
                waiting.append(part)
        if waiting:
            yield waiting

    def parts(self, tile: int, cells: int, boxes: Sequence[tuple[int, Box]]) -> Iterator[_Part]:
        """All boxes of a tile, or some after another where their scores would be too many."""
        some: list[_Alike] = []
        keys = 0
        for r, box in boxes:
            keys += math.prod(box.size)
            if some and keys * cells > HELD:
                yield _Part(tile, some)
                some, keys = [], math.prod(box.size)
            if some and self.follows(some[-1], r, box):
                some[-1] = some[-1]._replace(references=some[-1].references + 1)
            else:
                some.append(_Alike(r, 1, box))
        if some:
            yield _Part(tile, some)

    def follows(self, alike: _Alike, r: int, box: Box) -> bool:
        """Whether a reference's box is in the same place as those of the references right before it."""
        sources = self.sources[alike.first], self.sources[r]
        plain = all(source.reference.offset is None for source in sources)
        place = box.image == alike.box.image and box.rows == alike.box.rows  # and columns, those of one tile's window
        return plain and place and r == alike.first + alike.references and sources[0].window == sources[1].window

    def search(self, band: Band, parts: Sequence[_Part], keys: _Keys, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The largest logits of each part's cells, and their places among its keys: [t n k] each."""
        cells, most = band.tiles[parts[0].tile].cells, _longest(parts)
        if self.held.numel() < len(parts) * cells * most:
            self.held = queries.new_empty(len(parts) * cells * most)
        held = front(self.held, len(parts), cells, most)
        for scores, part in zip(held, parts, strict=True):
            first = 0
            for alike in part.boxes:
                self.fill(scores[:, first : first + alike.keys], alike, keys, queries, band.place(part.tile))
                first += alike.keys
            scores[:, first:] = -torch.inf
        maxima = held.view(len(parts), cells, GROUP, -1).amax(2)
        _, group = self.chosen(maxima.view(len(parts), cells, GROUP, -1).amax(2))
        _, group = self.among(maxima, group)
        return self.among(held, group, in_order=True)

    def fill(self, held: Tensor, alike: _Alike, keys: _Keys, queries: Tensor, cells: slice) -> None:
        """Fill scores [n m] of a tile's cells, in the order of the keys; -inf where a key belongs to none."""
        box, source = alike.box, self.sources[alike.first]
        own = queries[box.place]
        seen = held if isinstance(box.place, slice) else held.new_empty(own.shape[0], held.shape[1])
        scores = seen.view(own.shape[0], box.size[1], alike.references, box.size[0])  # [n q r p]
        rows, columns = source.sight.of(box)
        rows = rows.permute(2, 1, 0)[:, :, None].expand(-1, -1, alike.references, -1)
        if columns is None:
            scores.copy_(rows)
        else:
            torch.add(rows.contiguous(), columns.T[:, :, None, None], out=scores)
        seen.addmm_(own, keys.of(alike).T, alpha=source.window.scale)
        for i in range(alike.references):
            if (hidden := keys.hidden(alike.first + i, box)) is not None:
                scores[:, :, i].masked_fill_(hidden, -torch.inf)
        if seen is not held:
            held.fill_(-torch.inf)
            held[box.place - cells.start] = seen

    def chosen(self, scores: Tensor, *, in_order: bool = False) -> tuple[Tensor, Tensor]:
        """The k largest along the last axis, all if there are fewer."""
        top, place = scores.topk(min(self.top_k, scores.shape[-1]), sorted=in_order)
        return top, place

    def among(self, scores: Tensor, group: Tensor, *, in_order: bool = False) -> tuple[Tensor, Tensor]:
        """The k largest scores [t n m], and their places, of those that some groups [t n k] hold."""
        step = scores.shape[2] // GROUP
        members = (group[..., None] + torch.arange(0, scores.shape[2], step, device=group.device)).flatten(2)
        top, chosen = self.chosen(scores.gather(2, members), in_order=in_order)
        return top, members.gather(2, chosen)

    def cells(self, boxes: Sequence[_Alike], number: Tensor) -> Tensor:
        """The cells of the references that keys of these numbers [N k] are, counted on from one to the next."""
        if not boxes:
            return number
        height, width = self.sources[0].reference.key.shape[:2]
        dilation = self.sources[0].window.dilation
        table, start = [], 0
        for alike in boxes:
            box = alike.box
            corner = (box.image[0] + dilation * box.rows[0]) * width + box.image[1] + dilation * box.columns[0]
            table.append((start, alike.first * height * width + corner, alike.references, box.size[0]))
            start += alike.keys
        every = torch.tensor(table, device=number.device)
        which = torch.searchsorted(every[:, 0].contiguous(), number, right=True).sub_(1).clamp_(min=0)
        start_of, first, count, rows = every[which].unbind(-1)
        line = (number - start_of).div(rows, rounding_mode="floor")  # keys of one column, [q r p]
        row = number - start_of - line * rows
        column = line.div(count, rounding_mode="floor")
        cell: Tensor = first + (line - column * count) * height * width + dilation * (row * width + column)
        return cell


class _Keys:
    """The keys of a band's boxes in some references, column after column, so that those of a box lie in one piece:
    [w r p c].
    """

    def __init__(self, sources: Sequence[Source], boxes: Sequence[Sequence[Sequence[Box]]], members: range) -> None:
        self.sources = sources
        every = {r: list(itertools.chain.from_iterable(boxes[r])) for r in members}
        self.opened = {r: sources[r].open(some, values=False) for r, some in every.items()}
        columns = [box.columns for box in itertools.chain.from_iterable(every.values())]
        self.span = (min(c[0] for c in columns), max(c[1] for c in columns)) if columns else (0, 0)
        self.known: dict[tuple[object, ...], Tensor] = {}

    def of(self, alike: _Alike) -> Tensor:
        """[m c], in the order of columns, references and rows."""
        box, image = alike.box, self.opened[alike.first][alike.box.image]
        if self.sources[alike.first].reference.offset is not None or len(image.keys) != box.size[0]:
            return self.columns(alike, box.columns).flatten(0, 2)
        name = (alike.first, alike.references, box.image)  # boxes of all rows: neighbours share most of their columns
        if name not in self.known:
            self.known[name] = self.columns(alike, self.span)
        return self.known[name][box.columns[0] - self.span[0] : box.columns[1] - self.span[0]].flatten(0, 2)

    def columns(self, alike: _Alike, columns: tuple[int, int]) -> Tensor:
        """Some columns of the rows of a box: [q r p c]."""
        images = [self.opened[r][alike.box.image] for r in range(alike.first, alike.first + alike.references)]
        parts = [
            Scores.part(image.keys, alike.box._replace(columns=columns), image).transpose(0, 1) for image in images
        ]
        return torch.stack(parts, 1)

    def hidden(self, r: int, box: Box) -> Tensor | None:
        """The keys of a box that the mask of a reference leaves out: [q p]."""
        image = self.opened[r][box.image]
        return None if image.hidden is None else Scores.part(image.hidden, box, image).T


def _longest(parts: Sequence[_Part]) -> int:
    """Keys of the part that has most, a whole number of groups of groups."""
    return -(-max(part.keys for part in parts) // GROUP**2) * GROUP**2


def _with_outside(logits: Tensor, cells: Tensor, outside: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The largest logits when so many taps of logit 0 stand ``outside`` [.], beside those found [. k]."""
    rank = torch.arange(top_k, device=logits.device)
    zeros = torch.where(rank < outside[..., None], 0.0, -torch.inf).to(logits.dtype)
    top, place = torch.cat([logits, zeros], -1).topk(top_k)
    return top, torch.cat([cells, torch.full_like(zeros, -1, dtype=cells.dtype)], -1).gather(-1, place)


def _by_blocks(query: Tensor, reference: Reference, wanted: Tensor | None, logits: Tensor, cells: Tensor) -> None:
    """Fill logits and cells [h w k] of one image that reads the whole frame."""
    keys = reference.key.flatten(0, 1).to(logits.dtype)
    count = min(logits.shape[2], keys.shape[0])
    number = torch.arange(query.shape[0] * query.shape[1], device=query.device)
    if wanted is not None:
        number = number[wanted.flatten()]
    for some in torch.split(number, max(1, BLOCK // keys.shape[0])):
        y, x = some // query.shape[1], some % query.shape[1]
        scores = times(query[y, x].to(logits.dtype) * reference.window.scale, keys.T)
        if reference.mask is not None:
            scores.masked_fill_(~reference.mask.flatten(), -torch.inf)
        top, cell = scores.topk(count)
        logits[y, x, :count] = top
        cells[y, x, :count] = cell.masked_fill_(top == -torch.inf, -1)
