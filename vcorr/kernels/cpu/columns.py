"""Windows without offsets, by column strips, or by panels of them where they pay; a dilation of d as d*d sub-images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vcorr.kernels.cpu import cover
from vcorr.kernels.cpu.forms import Gradients, Slopes
from vcorr.kernels.cpu.panels import Panels, PanelSlopes
from vcorr.kernels.cpu.strips import Differentiator, Strips
from vcorr.kernels.cpu.sums import Reader
from vcorr.kernels.geometry import Reference, Window, sub_images

PANELS = 0.7  # time of a score by panels, where that of one by strips, or by tiles, is 1


def read(query: Tensor, references: Sequence[Reference], wanted: Tensor | None, readout: Tensor, lse: Tensor) -> None:
    """Read a batch over references of equal windows."""
    window = references[0].window
    for cut in sub_images(query.shape[1], query.shape[2], window.dilation):
        height, width = query[0][cut].shape[:2]
        strips = Strips(height, width, window, readout.dtype, query.device)
        some = None if wanted is None else wanted[:, *cut]
        reader = Reader(strips, query.shape[3], readout.shape[3], _span(some, width))
        for image in range(query.shape[0]):
            members, part = [r.part(image, *cut) for r in references], None if some is None else some[image]
            reader.read(query[image][cut], members, part, readout[image][cut], lse[image][cut])
    if wanted is not None:
        readout.masked_fill_(~wanted[..., None], 0.0)
        lse.masked_fill_(~wanted, -torch.inf)


def add_gradients(
    query: Tensor, slopes: Slopes, references: Sequence[Reference], wanted: Tensor | None, into: Gradients
) -> None:
    """Add a batch's gradients."""
    window = references[0].window
    for cut in sub_images(query.shape[1], query.shape[2], window.dilation):
        height, width = query[0][cut].shape[:2]
        geometry = Strips(height, width, window, slopes.delta.dtype, query.device)
        sizes = geometry, query.shape[3], slopes.grad.shape[3]
        some = None if wanted is None else wanted[:, *cut]
        span = _span(some, width)
        panels = Panels.pay(geometry, query.shape[3], span)
        add = PanelSlopes(Panels.over(*sizes, span, keep=True)).add if panels else Differentiator(*sizes).add
        for image in range(query.shape[0]):
            members, part = [r.part(image, *cut) for r in references], None if some is None else some[image]
            add(query[image][cut], slopes.part(image, *cut), members, part, into.part(image, *cut))


def few(wanted: Tensor, window: Window, features: int) -> bool:
    """Whether tiles over the wanted cells [b h w] take less time than columns."""
    by_tiles, by_columns = 0, 0.0
    for cut in sub_images(wanted.shape[1], wanted.shape[2], window.dilation):
        parts = wanted[:, *cut]
        strips = Strips(parts.shape[1], parts.shape[2], window, torch.float32, wanted.device)
        speed = PANELS if Panels.pay(strips, features, (0, strips.width)) else 1.0
        for part in parts:
            by_tiles += cover.work(part, window.radius)
            by_columns += speed * strips.scores_for(part)
    return by_tiles < by_columns


def _span(wanted: Tensor | None, width: int) -> tuple[int, int]:
    """The first of the columns with wanted cells [. w], and the one after the last."""
    if wanted is None:
        return 0, width
    columns = wanted.flatten(0, -2).any(0).nonzero()[:, 0].tolist()
    return (columns[0], columns[-1] + 1) if columns else (0, 1)
