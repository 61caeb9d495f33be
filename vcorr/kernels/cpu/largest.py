"""The k largest logits, of each reference or of all, from the tiles and blocks that a reading uses.

A query's scores lie in groups of GROUP keys, and these in groups of GROUP groups. Its k largest scores are in the k
groups whose own largest are the largest, and these in the k groups of groups: only the largest of each is found for all
queries at once, while the scores are in the cache of a core, and k groups of each query are gathered and sorted, which
takes longer a number than the products do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vcorr.kernels.cpu.boxes import Box, Opened, Sight, Source, outside_of
from vcorr.kernels.cpu.cover import Band, cover
from vcorr.kernels.cpu.products import times
from vcorr.kernels.cpu.scores import Scores
from vcorr.kernels.cpu.strips import front
from vcorr.kernels.geometry import UNRESTRICTED, Reference, readable, sub_images, working_type

HELD = 2**21  # scores of some tiles against references held at once
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
            top, cell = search.largest(band, part[band.y, band.x].to(logits.dtype).T.contiguous())
            outside = outside_of(sources, band)
            if outside is not None:
                top, cell = _with_outside(top, cell, outside, logits.shape[2])
            kept = band.cells == band.nearest
            y, x = band.y[kept], band.x[kept]
            logits[cut][y, x], cells[cut][y, x] = top[kept], cell[kept]


class _Part(NamedTuple):
    """The boxes of one tile that are searched together."""

    tile: int  # in the band
    boxes: list[tuple[int, Box]]  # which reference's
    starts: list[int]  # of each box's keys, counted with those that fill the groups; and the end of the last

    @classmethod
    def of(cls, tile: int, boxes: list[tuple[int, Box]]) -> _Part:
        lengths = (-(-height * width // GROUP) * GROUP for height, width in (box.size for _, box in boxes))
        return cls(tile, boxes, [0, *itertools.accumulate(lengths)])


class _Search:
    """The largest scores of a band's cells in all references."""

    def __init__(self, sources: Sequence[Source], like: Tensor, top_k: int) -> None:
        self.sources, self.top_k = sources, top_k
        self.scores, self.held = Scores(like), like.new_empty(0)

    def largest(self, band: Band, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and cells [N k] of the band's cells; queries [c N]."""
        boxes = [source.boxes(band) for source in self.sources]
        opened = [
            source.open(itertools.chain.from_iterable(some), values=False)
            for source, some in zip(self.sources, boxes, strict=True)
        ]
        top = queries.new_full((self.top_k, queries.shape[1]), -torch.inf)
        cell = torch.full_like(top, -1, dtype=torch.int64)
        for parts in self.jobs(band, boxes):
            logits, place = self.search(band, parts, opened, queries)
            cells = self.cells(parts, place).masked_fill_(logits == -torch.inf, -1)
            for part, some_logits, some_cells in zip(parts, logits, cells, strict=True):
                own = band.place(part.tile)
                both = torch.cat([top[:, own], some_logits])
                top[:, own], chosen = both.topk(self.top_k, 0)
                cell[:, own] = torch.cat([cell[:, own], some_cells]).gather(0, chosen)
        return top.T, cell.T

    def jobs(self, band: Band, boxes: Sequence[Sequence[Sequence[Box]]]) -> Iterator[list[_Part]]:
        """What is searched at once: the boxes of several tiles of as many cells, or some of one tile's."""
        waiting: list[_Part] = []
        for tile, shape in enumerate(band.tiles):
            for part in self.parts(tile, shape.cells, [(r, box) for r, some in enumerate(boxes) for box in some[tile]]):
                together = [*waiting, part]
                cells = {band.tiles[p.tile].cells for p in together}
                if waiting and (len(cells) > 1 or len(together) * _longest(together) * shape.cells > HELD):
                    yield waiting
                    waiting = []
                waiting.append(part)
        if waiting:
            yield waiting

    @staticmethod
    def parts(tile: int, cells: int, boxes: Sequence[tuple[int, Box]]) -> Iterator[_Part]:
        """All boxes of a tile, or some after another where their scores would be too many."""
        some: list[tuple[int, Box]] = []
        for box in boxes:
            if some and _Part.of(tile, [*some, box]).starts[-1] * cells > HELD:
                yield _Part.of(tile, some)
                some = []
            some.append(box)
        if some:
            yield _Part.of(tile, some)

    def search(
        self, band: Band, parts: Sequence[_Part], opened: Sequence[dict[tuple[int, int], Opened]], queries: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The largest logits of each part's cells, and their places among its keys: [t k n] each."""
        cells, keys = band.tiles[parts[0].tile].cells, _longest(parts)
        if self.held.numel() < len(parts) * keys * cells:
            self.held = queries.new_empty(len(parts) * keys * cells)
        held = front(self.held, len(parts), keys, cells)
        maxima = queries.new_full((len(parts), keys // GROUP, cells), -torch.inf)
        for position, (source, images) in enumerate(zip(self.sources, opened, strict=True)):
            for t, part in enumerate(parts):
                for i, (r, box) in enumerate(part.boxes):
                    if r == position:
                        first, last = part.starts[i : i + 2]
                        self.fill(held[t, first:last], source, box, images[box.image], queries, band.place(part.tile))
                        groups = held[t, first:last].view(-1, GROUP, cells)
                        torch.amax(groups, 1, out=maxima[t, first // GROUP : last // GROUP])
        _, group = self.chosen(maxima.view(len(parts), -1, GROUP, cells).amax(2))
        best, group = self.among(maxima, group)
        places = _members(group)
        scores = held.gather(1, places).masked_fill_((best == -torch.inf).repeat_interleave(GROUP, 1), -torch.inf)
        top, chosen = self.chosen(scores)
        return top, places.gather(1, chosen)

    def fill(self, held: Tensor, source: Source, box: Box, opened: Opened, queries: Tensor, cells: slice) -> None:
        """Fill scores [m n] of a tile's cells with those of a box, and -inf for what belongs to none."""
        count = box.size[0] * box.size[1]
        if isinstance(box.place, slice):
            self.scores.of(source, box, opened, queries, None, out=held[:count].view(*box.size, -1))
            held[count:] = -torch.inf
        else:
            held.fill_(-torch.inf)
            held[:count, box.place - cells.start] = self.scores.of(source, box, opened, queries, None).flatten(0, 1)

    def chosen(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest along the second axis, all if there are fewer, in any order."""
        top, place = scores.topk(min(self.top_k, scores.shape[1]), 1, sorted=False)
        return top, place

    def among(self, maxima: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """The k groups with the largest maxima [t g n], of those in some groups of groups [t k n]."""
        members = _members(group)
        best, chosen = self.chosen(maxima.gather(1, members))
        return best, members.gather(1, chosen)

    def cells(self, parts: Sequence[_Part], places: Tensor) -> Tensor:
        """The cells of the references that keys at these places [t k n] are, counted on from one to the next."""
        height, width = self.sources[0].reference.key.shape[:2]
        dilation = self.sources[0].window.dilation
        most = max(len(part.boxes) for part in parts)
        rows = []
        for part in parts:
            own = [
                (start, r * height * width, box.size[1], box.image[0] + dilation * box.rows[0],
                 box.image[1] + dilation * box.columns[0])
                for start, (r, box) in zip(part.starts[:-1], part.boxes, strict=True)
            ]  # fmt: skip
            rows.append(own + [(2**62, 0, 1, 0, 0)] * (most - len(own)))
        table = torch.tensor(rows, device=places.device)  # [t s 5]
        flat = places.flatten(1)
        box = torch.searchsorted(table[..., 0].contiguous(), flat, right=True).sub_(1)
        start, first, columns, top, left = table.gather(1, box[..., None].expand(-1, -1, 5)).unbind(2)
        row, column = (flat - start).div(columns, rounding_mode="floor"), (flat - start) % columns
        cell: Tensor = first + (top + dilation * row) * width + left + dilation * column
        return cell.view_as(places)


def _longest(parts: Sequence[_Part]) -> int:
    """Keys of the part that has most, a whole number of groups of groups."""
    return -(-max(part.starts[-1] for part in parts) // GROUP**2) * GROUP**2


def _members(group: Tensor) -> Tensor:
    """What groups [t k n] hold, by number: [t k*GROUP n]."""
    member = torch.arange(GROUP, device=group.device)[:, None]
    return (group[:, :, None] * GROUP + member).flatten(1, 2)


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
