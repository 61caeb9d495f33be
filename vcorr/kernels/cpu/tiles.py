"""Windows at whole offsets, and readings of some cells alone, by tiles of query cells over boxes of keys.

A tile is up to 8 x 8 neighbouring cells. The keys that its windows cover lie in a box, which is a view of the frame, so
that the scores of a tile are one product a key row,

    S = K . Q^T + rows + columns,   K [p q c], Q [n c], rows [p 1 n], columns [1 q n],

batched over the p rows of the box. ``rows`` and ``columns`` are 0 where a key lies in the query's window and -inf
elsewhere (a disk needs both at once, [p q n]). Where the offsets of a tile agree they are those of a plain window, and
the box lies elsewhere; where they differ the box is the union, and a tile whose box is too large is split. Only cells
that are to be read are ever in a tile. A box has (8+2R)^2 keys for (2R+1)^2 taps, 1.64 at R = 12, but its scores stay
in the cache of a core.

Tiles go in bands across the image, and a band takes the references one after another: neighbouring boxes share most of
their keys, and find them near. A dilation d is d*d sub-images; windows at offsets then lie in the sub-image of keys
that the offset leads to, and a tile whose offsets lead to several reads each of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vcorr.kernels.cpu.forms import Gradients, Slopes
from vcorr.kernels.cpu.strips import LN_2, LOG2_E, front
from vcorr.kernels.cpu.sums import FAINTEST, HEADROOM
from vcorr.kernels.geometry import Reference, Window, near, sub_images, taps_outside_at, working_type

TILE = 8  # cells on a side
LARGEST = 2**21  # scores of a tile held at once
CALLS = 2**12  # scores of a tile that take as long as what is called for it
SPLIT = 2**15  # scores more than those of four smaller tiles, from which on these take no longer


class Tile(NamedTuple):
    """A rectangle of query cells."""

    top: int
    left: int
    rows: int
    columns: int

    @property
    def cells(self) -> int:
        return self.rows * self.columns

    @property
    def place(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.rows), slice(self.left, self.left + self.columns)

    def parts(self) -> Iterator[Tile]:
        """Its quarters, or halves where it is one cell high or wide."""
        down, right = (self.rows + 1) // 2, (self.columns + 1) // 2
        for top, rows in ((0, down), (down, self.rows - down)):
            for left, columns in ((0, right), (right, self.columns - right)):
                if rows and columns:
                    yield Tile(self.top + top, self.left + left, rows, columns)


def cover(read: Tensor | None, height: int, width: int) -> list[list[Tile]]:
    """Tiles over the cells to read [h w], or over all, in bands; each as small as its cells allow."""
    if read is None:
        tops = range(0, height, TILE)
        return [[Tile(y, x, min(TILE, height - y), min(TILE, width - x)) for x in range(0, width, TILE)] for y in tops]
    found, active, y = [], read.any(1).tolist(), 0
    while y < height:
        if active[y]:
            found.append(list(_tiles_of_band(read[y : y + TILE].tolist(), y)))
        y += TILE if active[y] else 1
    return found


def _tiles_of_band(read: list[list[bool]], top: int) -> Iterator[Tile]:
    active = [any(column) for column in zip(*read, strict=True)]
    x = 0
    while x < len(active):
        if not active[x]:
            x += 1
            continue
        last = max(c for c in range(x, min(x + TILE, len(active))) if active[c])
        rows = [y for y, row in enumerate(read) if any(row[x : last + 1])]
        yield Tile(top + rows[0], x, rows[-1] - rows[0] + 1, last - x + 1)
        x = last + 1


def work(read: Tensor, radius: int) -> int:
    """How long tiles take over the cells to read [h w], in scores."""
    total, (height, width) = 0, read.shape
    for tile in itertools.chain.from_iterable(cover(read, height, width)):
        rows = min(height, tile.top + tile.rows + radius) - max(0, tile.top - radius)
        columns = min(width, tile.left + tile.columns + radius) - max(0, tile.left - radius)
        total += rows * columns * tile.cells + CALLS
    return total


class Band:
    """The tiles of some rows, and their N cells one after another."""

    def __init__(self, tiles: Sequence[Tile], read: Tensor | None, size: tuple[int, int], device: torch.device) -> None:
        number = torch.arange(size[0] * size[1], device=device).view(size)
        own, nearest = [], []  # of each cell its number, and that of a cell to read: itself, or one of its tile
        for tile in tiles:
            cells = number[tile.place].flatten()
            own.append(cells)
            if read is not None:
                wanted = read[tile.place].flatten()
                cells = torch.where(wanted, cells, cells[wanted.int().argmax()])
            nearest.append(cells)
        self.tiles, self.cells, self.nearest = tiles, torch.cat(own), torch.cat(nearest)
        self.starts = [0, *itertools.accumulate(tile.cells for tile in tiles)]
        self.y, self.x = self.cells // size[1], self.cells % size[1]

    def place(self, tile: int) -> slice:
        return slice(self.starts[tile], self.starts[tile + 1])


class Box(NamedTuple):
    """The keys of one reference that a tile reads, in one of the reference's sub-images."""

    place: slice | Tensor  # of the tile's n cells in the band
    image: tuple[int, int]  # first row and column of the sub-image
    rows: tuple[int, int]  # in the sub-image, from the first to past the last
    columns: tuple[int, int]
    tile: Tile | None  # where all windows are centred on cells that lie as this tile's do; else
    centres: tuple[Tensor, Tensor] | None  # rows and columns of the centres, [n] each, and
    outside: Tensor | None  # whether they lie in another sub-image [n]

    @property
    def size(self) -> tuple[int, int]:
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def cut(self, cells: int) -> Iterator[Box]:
        """Boxes of some rows each, whose scores can be held at once."""
        most = max(1, LARGEST // (self.size[1] * cells))
        for first in range(*self.rows, most):
            yield self._replace(rows=(first, min(first + most, self.rows[1])))


class Sight:
    """What windows of one kind add to the scores of a box: 0 where a key lies in a query's window, else -inf."""

    def __init__(self, window: Window, like: Tensor) -> None:
        self.disk, self.like = window.shape == "disk", like
        self.limit = window.radius if self.disk else window.radius + 1  # what is so far off is no tap
        self.known: dict[tuple[object, ...], Tensor] = {}

    def of(self, box: Box) -> tuple[Tensor, Tensor | None]:
        """Rows [p 1 n] and columns [1 q n], which are to be added, or all at once [p q n]."""
        if box.tile is None:
            assert box.centres is not None
            off = [self.off(span, centre) for span, centre in zip((box.rows, box.columns), box.centres, strict=True)]
            if box.outside is not None:
                off[0].masked_fill_(box.outside, self.limit)
            return (self.seen(off[0], off[1]), None) if self.disk else (self.seen(off[0])[:, None], self.seen(off[1]))
        tile = box.tile
        rows = (box.rows[0] - tile.top, box.rows[1] - tile.top)
        columns = (box.columns[0] - tile.left, box.columns[1] - tile.left)
        if self.disk:
            return self.around(tile.rows, tile.columns, rows, columns), None
        return self.around(tile.rows, tile.columns, rows, None), self.around(tile.rows, tile.columns, None, columns)

    def around(self, height: int, width: int, rows: tuple[int, int] | None, columns: tuple[int, int] | None) -> Tensor:
        """For windows centred on the cells of a rectangle: of keys in these rows or columns, or both, counted from its
        first cell.
        """
        name = (height, width, rows, columns)
        if name not in self.known:
            down, right = (torch.arange(size, device=self.like.device) for size in (height, width))
            y, x = down.repeat_interleave(width), right.repeat(height)
            off = [self.off(span, centre) for span, centre in ((rows, y), (columns, x)) if span]
            seen = self.seen(*off)
            self.known[name] = seen[:, None] if columns is None else seen
        return self.known[name]

    def off(self, span: tuple[int, int], centre: Tensor) -> Tensor:
        """How far rows or columns lie from the centres of windows [n], at most as far as no tap is: [p n]."""
        return (torch.arange(*span, device=centre.device)[:, None] - centre).abs_().clamp_(max=self.limit)

    def seen(self, off: Tensor, more: Tensor | None = None) -> Tensor:
        """Of so far off along one axis, or along both."""
        if more is None:
            return torch.where(off < self.limit, 0.0, -torch.inf).to(self.like.dtype)
        squared = off.square()[:, None] + more.square()
        return torch.where(squared < self.limit**2, 0.0, -torch.inf).to(self.like.dtype)


class Opened(NamedTuple):
    """Rows of a sub-image as boxes read them."""

    first: int
    keys: Tensor  # [p w c]
    values: Tensor  # with a channel of ones; 0 where the mask leaves a key out: [v+1 p w]
    hidden: Tensor | None  # keys that the mask leaves out: [p w]


class Source:
    """A reference as the tiles of a sub-image of queries read it."""

    def __init__(
        self, reference: Reference, cut: tuple[slice, slice], size: tuple[int, int], sights: dict[Window, Sight]
    ) -> None:
        self.reference, self.window, self.sight = reference, reference.window, sights[reference.window]
        self.first = (cut[0].start or 0, cut[1].start or 0)
        self.work = working_type(reference.key)
        if reference.offset is not None:
            device, dilation = reference.key.device, self.window.dilation
            grid = [torch.arange(n, device=device) for n in size]
            own = torch.stack(torch.meshgrid(*grid, indexing="ij"), -1)
            moved = own * dilation + torch.tensor(self.first, device=device) + near(reference.offset[cut]).long()
            self.centres = moved.div(dilation, rounding_mode="floor").flatten(0, 1)  # [h*w 2]
            self.image = (moved % dilation).flatten(0, 1)
            self.shift = self.centres - own.flatten(0, 1)

    def boxes(self, band: Band) -> list[list[Box]]:
        """The boxes of each of a band's tiles; none where the windows lie outside the frame."""
        places = [band.place(i) for i in range(len(band.tiles))]
        if self.reference.offset is None:
            return [list(self.around(*some, self.first)) for some in zip(band.tiles, places, strict=True)]
        every = torch.cat([self.centres, self.shift, self.image], 1)[band.nearest]  # [N 6]
        group = torch.arange(len(band.tiles), device=every.device).repeat_interleave(
            torch.tensor([tile.cells for tile in band.tiles], device=every.device)
        )
        blank = every.new_zeros(len(band.tiles), 6)
        bounds = [
            blank.scatter_reduce(0, group[:, None].expand(-1, 6), every, how, include_self=False).tolist()
            for how in ("amin", "amax")
        ]
        return [
            list(self.split(tile, place, every[place], low, high))
            for tile, place, low, high in zip(band.tiles, places, *bounds, strict=True)
        ]

    def split(self, tile: Tile, place: slice | Tensor, cells: Tensor, low: list[int], high: list[int]) -> Iterator[Box]:
        """The boxes of a tile, of whose cells [n 6] centres, shifts and sub-images lie between low and high."""
        if low[2:] == high[2:]:
            moved = tile._replace(top=tile.top + low[2], left=tile.left + low[3])
            yield from self.around(moved, place, (low[4], low[5]))
            return
        radius = self.window.radius
        images = min(tile.cells, (high[4] - low[4] + 1) * (high[5] - low[5] + 1))
        every = images * tile.cells
        for axis in (0, 1):
            every *= min(high[axis] - low[axis] + 1 + 2 * radius, self.reference.key.shape[axis])
        least = tile.cells
        for axis, span in ((0, tile.rows), (1, tile.columns)):
            least *= min((span + 1) // 2 + 2 * radius, self.reference.key.shape[axis])
        if tile.cells == 1 or every - least < SPLIT:
            yield from self.of_each_image(place, cells)
            return
        number = torch.arange(tile.cells, device=cells.device).view(tile.rows, tile.columns)
        for part in tile.parts():
            inner = number[part._replace(top=part.top - tile.top, left=part.left - tile.left).place].flatten()
            some = cells[inner]
            inside = inner + place.start if isinstance(place, slice) else place[inner]
            yield from self.split(part, inside, some, some.amin(0).tolist(), some.amax(0).tolist())

    def of_each_image(self, place: slice | Tensor, cells: Tensor) -> Iterator[Box]:
        """A box in each sub-image that windows of a tile lie in."""
        for image in torch.unique(cells[:, 4:], dim=0).tolist():
            outside = (cells[:, 4] != image[0]) | (cells[:, 5] != image[1])
            own = cells[~outside]
            low, high = own[:, :2].amin(0).tolist(), own[:, :2].amax(0).tolist()
            rows, columns = self.bounds(low, high, (image[0], image[1]))
            if rows[0] < rows[1] and columns[0] < columns[1]:
                centres = (cells[:, 0], cells[:, 1])
                yield from Box(place, (image[0], image[1]), rows, columns, None, centres, outside).cut(len(cells))

    def around(self, tile: Tile, place: slice | Tensor, image: tuple[int, int]) -> Iterator[Box]:
        """The box of windows centred on the cells of a tile in a sub-image."""
        last = [tile.top + tile.rows - 1, tile.left + tile.columns - 1]
        rows, columns = self.bounds([tile.top, tile.left], last, image)
        if rows[0] < rows[1] and columns[0] < columns[1]:
            yield from Box(place, image, rows, columns, tile, None, None).cut(tile.cells)

    def bounds(self, low: list[int], high: list[int], image: tuple[int, int]) -> list[tuple[int, int]]:
        """Rows and columns of a sub-image that windows see whose centres lie between low and high."""
        radius, found = self.window.radius, []
        for axis in (0, 1):
            size = -(-(self.reference.key.shape[axis] - image[axis]) // self.window.dilation)
            found.append((min(max(0, low[axis] - radius), size), max(0, min(size, high[axis] + radius + 1))))
        return found

    def open(self, boxes: Iterable[Box], *, values: bool = True) -> dict[tuple[int, int], Opened]:
        """The rows of each sub-image that boxes lie in; with values, or none."""
        spans: dict[tuple[int, int], tuple[int, int]] = {}
        for box in boxes:
            low, high = spans.get(box.image, box.rows)
            spans[box.image] = (min(low, box.rows[0]), max(high, box.rows[1]))
        found, dilation = {}, self.window.dilation
        for image, (low, high) in spans.items():
            cut = (slice(image[0] + dilation * low, image[0] + dilation * (high - 1) + 1, dilation),
                   slice(image[1], None, dilation))  # fmt: skip
            keys = self.reference.key[cut].to(self.work)
            hidden = None if self.reference.mask is None else ~self.reference.mask[cut]
            carried = self.values(cut, hidden) if values else keys
            found[image] = Opened(low, keys if keys.stride(2) == 1 else keys.contiguous(), carried, hidden)
        return found

    def values(self, cut: tuple[slice, slice], hidden: Tensor | None) -> Tensor:
        """The values of some cells and a channel of ones, 0 where hidden: [v+1 p w]."""
        part = self.reference.value[cut]
        values = torch.ones(part.shape[2] + 1, *part.shape[:2], dtype=self.work, device=part.device)
        values[:-1] = part.permute(2, 0, 1)
        return values if hidden is None else values.masked_fill_(hidden, 0.0)

    def outside(self, band: Band) -> Tensor:
        """How many taps outside the frame the windows of a band's cells have: [N]."""
        at = torch.stack([band.y, band.x], 1) * self.window.dilation + torch.tensor(self.first, device=band.y.device)
        if self.reference.offset is not None:
            at = self.centres[band.nearest] * self.window.dilation + self.image[band.nearest]
        height, width = self.reference.key.shape[:2]
        return taps_outside_at(self.window, height, width, at[:, 0], at[:, 1]).to(self.work)


class Scores:
    """The scores of one box after another, in one buffer."""

    def __init__(self, like: Tensor) -> None:
        self.buffer = like.new_empty(0)

    def of(
        self,
        source: Source,
        box: Box,
        opened: Opened,
        queries: Tensor,
        level: Tensor | None,
        out: Tensor | None = None,
    ) -> Tensor:
        """[p q n], less a level [n] where given; queries [c N], times what the unit of the scores asks for."""
        turned = queries[:, box.place]
        scores = self.empty(*box.size, turned.shape[1]) if out is None else out
        rows, columns = source.sight.of(box)
        if level is not None:
            rows = rows - level[box.place]
        if columns is None:
            scores.copy_(rows)
        else:
            torch.add(rows, columns, out=scores)
        keys = self.keys(box, opened)
        scores.baddbmm_(keys, turned.expand(box.size[0], *turned.shape), alpha=source.window.scale)
        if opened.hidden is not None:
            scores.masked_fill_(self.part(opened.hidden, box, opened)[..., None], -torch.inf)
        return scores

    def empty(self, *shape: int) -> Tensor:
        if self.buffer.numel() < math.prod(shape):
            self.buffer = self.buffer.new_empty(math.prod(shape))
        return front(self.buffer, *shape)

    @staticmethod
    def part(image: Tensor, box: Box, opened: Opened) -> Tensor:
        """The box of an image [p w .]."""
        return image[box.rows[0] - opened.first : box.rows[1] - opened.first, slice(*box.columns)]

    def keys(self, box: Box, opened: Opened) -> Tensor:
        """[p q c]."""
        return self.part(opened.keys, box, opened)

    def values(self, box: Box, opened: Opened) -> Tensor:
        """[v+1 p*q]."""
        rows = slice(box.rows[0] - opened.first, box.rows[1] - opened.first)
        return opened.values[:, rows, slice(*box.columns)].flatten(1)


def read(query: Tensor, references: Sequence[Reference], wanted: Tensor | None, readout: Tensor, lse: Tensor) -> None:
    """Read one image [h w c] into readout [h w v] and lse [h w], where a cell is wanted [h w]; references of one
    dilation.
    """
    for cut in sub_images(query.shape[0], query.shape[1], references[0].window.dilation):
        part = None if wanted is None else wanted[cut]
        _read_sub_image(query[cut], references, cut, part, readout[cut], lse[cut])


def _read_sub_image(
    query: Tensor,
    references: Sequence[Reference],
    cut: tuple[slice, slice],
    wanted: Tensor | None,
    readout: Tensor,
    lse: Tensor,
) -> None:
    size = (query.shape[0], query.shape[1])
    sights = {r.window: Sight(r.window, lse) for r in references}
    sources = [Source(r, cut, size, sights) for r in references]
    longest = [_longest(r) * abs(r.window.scale) * LOG2_E for r in references]
    scores = Scores(lse)
    for tiles in cover(wanted, *size):
        band = Band(tiles, wanted, size, query.device)
        queries = query[band.y, band.x].to(lse.dtype)
        outside = outside_of(sources, band)
        boxes = [list(itertools.chain.from_iterable(source.boxes(band))) for source in sources]
        level = (torch.linalg.vector_norm(queries, dim=1) * max(longest) - HEADROOM).clamp_(min=0.0)
        turned = (queries.T * LOG2_E).contiguous()
        lifted = bool(level.any())  # as well where it is no number
        sums = _sums(sources, boxes, turned, level if lifted else None, outside, readout.shape[2], scores)
        if lifted and not bool((sums[-1] >= FAINTEST).all()):
            level = _maxima(sources, boxes, turned, outside, scores)
            sums = _sums(sources, boxes, turned, level, outside, readout.shape[2], scores)
        mass = sums[-1]
        found = (sums[:-1] / mass.masked_fill(mass == 0, 1.0)).T  # a row with nothing valid reads 0
        own = band.cells == band.nearest
        readout[band.y[own], band.x[own]] = found[own]
        lse[band.y[own], band.x[own]] = ((level + mass.log2()) * LN_2)[own]


def outside_of(sources: Sequence[Source], band: Band) -> Tensor | None:
    """How many taps outside the frame count for each of a band's cells [N], if they do."""
    if not sources[0].window.zeros:
        return None
    return torch.stack([source.outside(band) for source in sources]).sum(0)


def _longest(reference: Reference) -> float:
    return float(torch.linalg.vector_norm(reference.key, dim=-1, dtype=working_type(reference.key)).amax())


def _sums(
    sources: Sequence[Source],
    boxes: Sequence[Sequence[Box]],
    queries: Tensor,
    level: Tensor | None,
    outside: Tensor | None,
    channels: int,
    scores: Scores,
) -> Tensor:
    """Sums [v+1 N] of 2**(S - level) times the values and 1."""
    sums = queries.new_zeros(channels + 1, queries.shape[1])
    if outside is not None:
        sums[-1] = outside if level is None else outside * (-level).exp2_()
    for source, some in zip(sources, boxes, strict=True):
        opened = source.open(some)
        for box in some:
            here = opened[box.image]
            weights = scores.of(source, box, here, queries, level).exp2_().flatten(0, 1)
            values = scores.values(box, here)
            if isinstance(box.place, slice):
                sums[:, box.place].addmm_(values, weights)
            else:
                sums[:, box.place] += values @ weights
    return sums


def _maxima(
    sources: Sequence[Source],
    boxes: Sequence[Sequence[Box]],
    queries: Tensor,
    outside: Tensor | None,
    scores: Scores,
) -> Tensor:
    """The largest score of each cell [N], 0 where there is none."""
    found = queries.new_full(queries.shape[1:], -torch.inf)
    if outside is not None:
        found.masked_fill_(outside > 0, 0.0)
    for source, some in zip(sources, boxes, strict=True):
        opened = source.open(some)
        for box in some:
            largest = scores.of(source, box, opened[box.image], queries, None).amax((0, 1))
            found[box.place] = torch.maximum(found[box.place], largest)
    return found.masked_fill_(found == -torch.inf, 0.0)


def add_gradients(
    query: Tensor, slopes: Slopes, references: Sequence[Reference], wanted: Tensor | None, into: Gradients
) -> None:
    """Add one image's gradients."""
    (grad, delta, level), (grad_query, grad_keys, grad_values) = slopes, into
    scores, sights = Scores(level), {r.window: Sight(r.window, level) for r in references}
    for cut in sub_images(query.shape[0], query.shape[1], references[0].window.dilation):
        size = (query[cut].shape[0], query[cut].shape[1])
        part = None if wanted is None else wanted[cut]
        sources = [Source(r, cut, size, sights) for r in references]
        for tiles in cover(part, *size):
            band = Band(tiles, part, size, query.device)
            at = (band.y, band.x)
            queries = query[cut][at].to(level.dtype)
            outer = torch.cat([grad[cut][at].to(level.dtype), -delta[cut][at][:, None]], 1)  # [N v+1]
            slope_sum = None if grad_query is None else torch.zeros_like(queries)
            lift = -level[cut][at]
            turned = (queries.T * LOG2_E).contiguous()
            for position, source in enumerate(sources):
                boxes = list(itertools.chain.from_iterable(source.boxes(band)))
                opened = source.open(boxes)
                for box in boxes:
                    here, place = opened[box.image], box.place
                    weights = scores.of(source, box, here, turned, lift).exp2_().flatten(0, 1)
                    if grad_values is not None:
                        _add(grad_values[position], source, box, weights @ outer[place, :-1])
                    if grad_query is None and grad_keys is None:
                        continue
                    by_key = weights.mul_(scores.values(box, here).T @ outer[place].T)
                    if slope_sum is not None:
                        slope_sum[place] += source.window.scale * (by_key.T @ scores.keys(box, here).flatten(0, 1))
                    if grad_keys is not None:
                        _add(grad_keys[position], source, box, by_key @ queries[place], source.window.scale)
            if grad_query is not None and slope_sum is not None:
                grad_query[cut][at] += slope_sum


def _add(image: Tensor, source: Source, box: Box, part: Tensor, factor: float = 1.0) -> None:
    """Add a box [p*q .] to an image [h w .]."""
    dilation = source.window.dilation
    cut = [slice(first + dilation * low, first + dilation * (high - 1) + 1, dilation)
           for first, (low, high) in zip(box.image, (box.rows, box.columns), strict=True)]  # fmt: skip
    image[cut[0], cut[1]].add_(part.view(*box.size, -1), alpha=factor)
