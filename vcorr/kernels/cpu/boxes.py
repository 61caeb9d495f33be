"""The boxes of keys that the windows of a tile cover, and what of a box each window sees.

Where the offsets of a tile agree they are those of a plain window, and the box lies elsewhere; where they differ the
box is the union, and a tile whose box is too large is split. Windows at offsets lie in the sub-image of keys that the
offset leads to, and a tile whose offsets lead to several has a box in each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vcorr.kernels.cpu.cover import Band, Tile
from vcorr.kernels.geometry import Reference, Window, near, taps_outside_at, working_type

LARGEST = 2**21  # scores of a tile held at once
SPLIT = 2**15  # scores more than those of four smaller tiles, from which on these take no longer


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


def outside_of(sources: Sequence[Source], band: Band) -> Tensor | None:
    """How many taps outside the frame count for each of a band's cells [N], if they do."""
    if not sources[0].window.zeros:
        return None
    return torch.stack([source.outside(band) for source in sources]).sum(0)
