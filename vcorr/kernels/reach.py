"""Finds the query cells that a label can reach. All others are background and need not be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from vcorr.kernels import arguments
from vcorr.kernels.geometry import UNRESTRICTED, Window, near
from vcorr.kernels.options import Windows, complete


def label_query_mask(
    values: Tensor | Sequence[Tensor], *, background: int | None = 0, **options: Unpack[Windows]
) -> Tensor:
    """The query cells whose window contains a label other than background in any reference, as a ``query_mask``.

    A readout is a mean of the values in a window, so a cell outside the mask reads only background, or nothing: leaving
    it out changes no label. The mask is exact for whole offsets. At fractional offsets it also contains cells whose
    taps lie beyond the outermost cell centres, which border "mask" leaves out.

    Args:
        values: labels of the references, [b r h w v] or a sequence of r tensors [b h w v]: one-hot, soft, heat maps. A
            cell has a label other than background where another channel is not 0.
        background: the channel of the background; None if there is none.
        options: ``radius``, ``dilation``, ``offset``, ``window`` and ``key_mask``, as for ``memory_read``.

    Returns:
        [b h w], True where the cell is to be read.

    Raises:
        ValueError, TypeError: if shapes, types or options do not fit.

    >>> import torch
    >>> labels = torch.zeros(1, 1, 5, 9, 2)
    >>> labels[:, :, 2, 4, 1] = 1
    >>> label_query_mask(labels, radius=1)[0].int().sum((0, 1))
    tensor(9)
    """
    given = complete("label_query_mask", options, Windows)
    frames = arguments.frames("values", values)
    if not frames:
        raise ValueError("values must hold at least one reference, got none")
    for frame in frames:
        arguments.check_tensor("value", frame)
        if frame.dim() != 4 or 0 in frame.shape[1:] or frame.shape != frames[0].shape:
            raise ValueError(
                f"values must be [b h w v] of one size and not empty, got {[tuple(f.shape) for f in frames]}"
            )
    cells = frames[0][..., :1]
    if background is not None and not 0 <= arguments.whole_number("background", background, 0) < frames[0].shape[3]:
        raise ValueError(f"background must be a channel of values, of {frames[0].shape[3]}, got {background}")
    count = len(frames)
    windows = arguments.windows(count, 1, given)
    offsets = arguments.optional_frames("offset", given["offset"], count, 4)
    masks = arguments.optional_frames("key_mask", given["key_mask"], count, 3)
    found = torch.zeros(cells.shape[:3], dtype=torch.bool, device=cells.device)
    for frame, moved, mask, view in zip(frames, offsets, masks, windows, strict=True):
        if moved is not None:
            arguments.check_offset(moved, cells, view)
        arguments.check_mask("key_mask", mask, cells)
        labelled = (frame != 0) if background is None else _without(frame != 0, background)
        labelled = labelled.any(-1) if mask is None else labelled.any(-1) & mask
        found |= _seen(labelled, moved, view)
    return found


def _without(channels: Tensor, background: int) -> Tensor:
    return torch.cat([channels[..., :background], channels[..., background + 1 :]], -1)


def _seen(labelled: Tensor, offset: Tensor | None, window: Window) -> Tensor:
    """The cells [b h w] whose window holds a labelled cell [b h w]."""
    if window.radius == UNRESTRICTED:
        return labelled.flatten(1).any(1)[:, None, None].expand_as(labelled)
    height, width = labelled.shape[1:]
    rows, columns = (torch.arange(size, device=labelled.device) for size in (height, width))
    counts = _Counts(labelled, window)
    if offset is None:
        return counts.seen_from(rows[:, None].expand_as(labelled), columns.expand_as(labelled))
    moved = near(offset if offset.is_floating_point() else offset.long())
    whole, part = moved.floor().long(), moved - moved.floor()
    y, x = whole[..., 0] + rows[:, None], whole[..., 1] + columns
    found = counts.seen_from(y, x)
    for down, right in ((0, 1), (1, 0), (1, 1)):  # the cells that a fractional tap blends
        blended = ((part[..., 0] > 0) | (down == 0)) & ((part[..., 1] > 0) | (right == 0))
        if bool(blended.any()):
            found |= counts.seen_from(y + down, x + right) & blended
    return found


class _Counts:
    """How many cells are labelled in the upper left part of each of the interleaved images of a dilation."""

    def __init__(self, labelled: Tensor, window: Window) -> None:
        self.window = window
        # As many images as there are cells to begin with, and as many cells in each: [b i j m n].
        self.images = [min(window.dilation, size) for size in labelled.shape[1:]]
        self.cells = [-(-size // window.dilation) for size in labelled.shape[1:]]
        (down, right), (rows, columns) = self.images, self.cells
        whole = torch.nn.functional.pad(
            labelled, (0, columns * right - labelled.shape[2], 0, rows * down - labelled.shape[1])
        )
        apart = whole.view(len(labelled), rows, down, columns, right).permute(0, 2, 4, 1, 3).int().cumsum(4)
        if window.shape == "square":
            apart = apart.cumsum(3)
        self.counts = torch.nn.functional.pad(apart, (1, 0, 1, 0))  # [b i j m+1 n+1], of a disk row by row
        self.batch = torch.arange(len(labelled), device=labelled.device)[:, None, None]

    def seen_from(self, y: Tensor, x: Tensor) -> Tensor:
        """Whether windows centred on cells (y, x), [b h w] each, hold a labelled cell."""
        radius, dilation = self.window.radius, self.window.dilation
        image = [centre % dilation for centre in (y, x)]
        centre = [cell.div(dilation, rounding_mode="floor") for cell in (y, x)]
        exists = (image[0] < self.images[0]) & (image[1] < self.images[1])
        own = [part.clamp(max=count - 1) for part, count in zip(image, self.images, strict=True)]

        def upper_left(row: Tensor, column: Tensor) -> Tensor:
            return self.counts[self.batch, own[0], own[1], row, column]

        def ends(axis: int, reach: Tensor | int) -> tuple[Tensor, Tensor]:
            most = self.cells[axis]
            return (centre[axis] - reach).clamp(0, most), (centre[axis] + reach + 1).clamp(0, most)

        if self.window.shape == "square":
            (top, bottom), (left, right) = ends(0, radius), ends(1, radius)
            below = upper_left(bottom, right) - upper_left(bottom, left)
            return exists & (below - upper_left(top, right) + upper_left(top, left) > 0)
        found = torch.zeros_like(exists)
        for row in range(self.cells[0]):
            tap = (row - centre[0]).abs()
            within = tap < radius
            reach = (radius**2 - 1 - torch.where(within, tap, 0).double() ** 2).sqrt().floor().long()
            left, right = ends(1, reach)
            line = torch.full_like(left, row + 1)
            found |= within & (upper_left(line, right) - upper_left(line, left) > 0)
        return exists & found
