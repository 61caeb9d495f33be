"""What the encoder sees of a frame: the parts in which its objects can be, at the size that they need.

Objects lie within reach of where they were: a label is read in windows around the cells of recent frames, so what is
further away than that is background whatever it looks like. The parts are boxes around every cell that held an object
in a recent frame, with a margin. Cells outside have features of zeros, which are like nothing. Encoding takes most of
the time, and so less of it.

Where objects are thin, frames are enlarged, so that a cell is fewer pixels (``zoom``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vcorr.model.encoder import Encode, EncodeBoth, Picture

GRID = 32  # pixels: parts begin and end at multiples, as every level's cells do, so that few sizes occur
AROUND = 32  # pixels around a part that are seen too: at the very edge features lack their surroundings
APART = 2 * AROUND // GRID + 1  # empty steps of GRID between two parts, so that two together are less work than one
AT_ONCE = 2**18  # pixels of a whole frame that are seen at once: memory grows with them
AROUND_STRIPS = 64  # pixels around what is seen of a whole frame at once: it is the labelled one, which counts most
CONTEXT = 8  # pixels a cell of context features

Size: TypeAlias = tuple[int, int]


class Part(NamedTuple):
    """Pixels of a frame as the encoder sees it: rows top .. bottom-1, columns left .. right-1."""

    top: int
    left: int
    bottom: int
    right: int

    def grown(self, by: int, size: Size) -> Part:
        """With so many pixels more on each side, inside a frame of a size (h, w)."""
        top, left = max(0, self.top - by), max(0, self.left - by)
        return Part(top, left, min(size[0], self.bottom + by), min(size[1], self.right + by))


Parts: TypeAlias = tuple[Part, ...]


@dataclass(frozen=True)
class Sight:
    """How the encoder sees the frames of a span.

    Attributes:
        frame: their (height, width). cell: side of a cell in their pixels. stride: in those that the encoder sees.
    """

    frame: Size
    cell: int
    stride: int

    @property
    def size(self) -> Size:
        """(height, width) of a frame as it is seen; one that is enlarged is whole cells."""
        if self.cell == self.stride:
            return self.frame
        height, width = (-(-side // self.cell) * self.stride for side in self.frame)
        return height, width

    @property
    def whole(self) -> Parts:
        """One part, the whole frame."""
        return (Part(0, 0, *self.size),)

    @property
    def strips(self) -> Parts:
        """Parts that make up the whole frame, few enough pixels in each."""
        height, width = self.size
        rows = max(1, AT_ONCE // width // GRID) * GRID
        return tuple(Part(top, 0, min(height, top + rows), width) for top in range(0, height, rows))

    def parts(self, recent: Sequence[Tensor], lasting: Sequence[Tensor], margin: int) -> Parts:
        """The parts of the next frame that may hold an object; the whole of it where none was seen.

        Args:
            recent, lasting: values [1 h w v] of the frames that are read, the background first. Lasting ones count for
                objects that no recent one holds.
            margin: cells around those that held an object.
        """
        held = _held(recent or lasting)
        lost = ~held.flatten(1).any(1)
        if bool(lost.any()) and lasting:
            held = torch.where(lost[:, None, None], _held(lasting), held)
        near = F.max_pool2d(held.any(0)[None, None].float(), 2 * margin + 1, 1, margin)
        blocks = F.max_pool2d(near, GRID // self.stride, ceil_mode=True)[0, 0] > 0
        found = [Part(*(GRID * edge for edge in box)).grown(0, self.size) for box in _boxes(blocks.cpu().numpy())]
        return tuple(found) or self.strips

    def shown(self, picture: Picture, of: Part) -> Picture:
        """A part of a picture as it is seen; the last rows and columns are repeated to make up cells."""
        if self.cell == self.stride:
            return picture if (of,) == self.whole else picture[of.top : of.bottom, of.left : of.right]
        top, left, bottom, right = (edge // self.stride * self.cell for edge in of)
        part = picture[top:bottom, left:right]
        lack = (bottom - top - part.shape[0], right - left - part.shape[1])
        if any(lack):
            part = np.pad(part, ((0, lack[0]), (0, lack[1]), (0, 0)), mode="edge")
        wanted = (of.right - of.left, of.bottom - of.top)
        return np.array(Image.fromarray(part).resize(wanted, Image.Resampling.BICUBIC))

    def features(self, encode: Encode, picture: Picture, parts: Parts) -> Tensor:
        """Features [1 h w c] of a frame by an encoder, zeros outside some parts of it."""
        placed = _Placed(self.size)
        for part, around in self._around(parts):
            placed.put(encode(self.shown(picture, around)), around, part, self.stride)
        return placed.whole[self.stride]

    def with_context(self, encode: EncodeBoth, picture: Picture, parts: Parts) -> tuple[Tensor, Tensor]:
        """Features and context features of a frame, as ``features``."""
        placed = _Placed(self.size)
        for part, around in self._around(parts):
            for seen, side in zip(encode(self.shown(picture, around)), (self.stride, CONTEXT), strict=True):
                placed.put(seen, around, part, side)
        return placed.whole[self.stride], placed.whole[CONTEXT]

    def _around(self, parts: Parts) -> Iterator[tuple[Part, Part]]:
        """Each part, and what is seen with it."""
        by = AROUND_STRIPS if parts == self.strips else AROUND
        return ((part, part.grown(by, self.size)) for part in parts)


def known(feature: Tensor) -> Tensor:
    """The cells [1 h w] of features [1 h w c] that the encoder has seen."""
    return feature.any(-1)


class _Placed:
    """Features of parts, in their places in a frame of a size (h, w); ``whole`` is by the pixels of a cell."""

    def __init__(self, size: Size) -> None:
        self.size, self.whole = size, dict[int, Tensor]()

    def put(self, seen: Tensor, around: Part, part: Part, stride: int) -> None:
        """Put the features [1 h' w' c] of what was seen of a frame, those of the part alone."""
        if part == (0, 0, *self.size):
            self.whole[stride] = seen
            return
        if stride not in self.whole:
            height, width = (-(-side // stride) for side in self.size)
            self.whole[stride] = seen.new_zeros(1, height, width, seen.shape[-1])
        top, left = part.top // stride, part.left // stride
        bottom, right = -(-part.bottom // stride), -(-part.right // stride)
        down, across = around.top // stride, around.left // stride
        own = seen[:, top - down : bottom - down, left - across : right - across]
        self.whole[stride][:, top:bottom, left:right] = own


def _held(values: Iterable[Tensor]) -> Tensor:
    """The cells that hold each object in one of several frames [v-1 h w]."""
    return torch.stack([frame[0, ..., 1:].permute(2, 0, 1) > 0 for frame in values]).any(0)


def _boxes(blocks: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Boxes (top, left, bottom, right) that hold all blocks [m n], cut wherever ``APART`` rows or columns are empty."""
    ends = []
    for axis in (1, 0):
        some = np.flatnonzero(blocks.any(axis))
        if not len(some):
            return []
        gaps = np.flatnonzero(np.diff(some) > APART)
        ends.append(list(zip(some[np.r_[0, gaps + 1]].tolist(), (some[np.r_[gaps, -1]] + 1).tolist(), strict=True)))
    cut = [(top, left, bottom, right) for top, bottom in ends[0] for left, right in ends[1]]
    if len(cut) == 1:
        return cut
    inner = ((box, _boxes(blocks[box[0] : box[2], box[1] : box[3]])) for box in cut)
    return [(y + t, x + s, y + b, x + r) for (y, x, _, _), found in inner for t, s, b, r in found]
