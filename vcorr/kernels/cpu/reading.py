"""The joint windowed reading in plain torch, fast on a CPU and small in memory; it runs on any device.

References are read in groups: by column strips (``strips.py``), or by panels of them where they pay (``panels.py``), a
dilation of d as d*d sub-images, those of equal windows; by tiles where they have whole offsets, or where few enough
cells are read (``tiles.py``), those of equal dilation; by blocks of the whole frame where the window is unrestricted
(``blocks.py``); by tiles that gather where offsets are fractional (``fractions.py``). The groups' readings are merged
by their logsumexp. The backward pass of each part needs the joint logsumexp alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vcorr.kernels.cpu import blocks, fractions, tiles
from vcorr.kernels.cpu.panels import Panels, PanelSlopes
from vcorr.kernels.cpu.strips import LOG2_E, Differentiator, Strips
from vcorr.kernels.cpu.sums import Reader
from vcorr.kernels.geometry import (
    UNRESTRICTED,
    Reference,
    Window,
    carried_type,
    readable,
    sub_images,
    whole,
    working_type,
)

CHANNELS = 64  # values read at once: more would make the products larger than the scores
PANELS = 0.7  # time of a score by panels, where that of one by strips, or by tiles, is 1


def read(query: Tensor, references: Sequence[Reference], wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] of a query over references that are read jointly, where a cell is wanted
    [b h w]; 0 and -inf elsewhere.
    """
    work, channels = working_type(query), references[0].value.shape[3]
    query = readable(query, wanted)
    joint: tuple[Tensor, Tensor] | None = None
    for way, group in routes(references, wanted).items():
        members = [references[r].readable() for r in group]
        readout = torch.zeros(*query.shape[:3], channels, dtype=work, device=query.device)
        lse = torch.full(query.shape[:3], -torch.inf, dtype=work, device=query.device)
        for first in range(0, channels, CHANNELS):
            some = [r._replace(value=r.value[..., first : first + CHANNELS]) for r in members]
            _read_group(way, query, some, wanted, readout[..., first : first + CHANNELS], lse)
        joint = (readout, lse) if joint is None else merge(joint, (readout, lse))
    assert joint is not None  # there is a reference
    return joint[0].to(carried_type(references[0].value)), joint[1]


class Way(NamedTuple):
    """How a group of references is read, and what its members have in common."""

    name: Literal["strips", "tiles", "blocks", "fractions"]
    common: object


def routes(references: Sequence[Reference], wanted: Tensor | None = None) -> dict[Way, list[int]]:
    """Which references are read together, and how; in order of first appearance."""
    found: dict[Way, list[int]] = {}
    few: dict[Window, bool] = {}
    for position, reference in enumerate(references):
        window = reference.window
        if window.radius == UNRESTRICTED:
            way = Way("blocks", window)
        elif reference.offset is not None and not whole(reference.offset):
            way = Way("fractions", window)
        elif reference.offset is not None:
            way = Way("tiles", (window.dilation, window.border))
        else:
            if wanted is not None and window not in few:
                few[window] = _few(wanted, window, reference.key.shape[3])
            way = Way("tiles", (window.dilation, window.border)) if few.get(window) else Way("strips", window)
        found.setdefault(way, []).append(position)
    return found


def _few(wanted: Tensor, window: Window, features: int) -> bool:
    """Whether tiles over the wanted cells [b h w] take less time than strips or panels."""
    by_tiles, by_strips = 0, 0.0
    for cut in sub_images(wanted.shape[1], wanted.shape[2], window.dilation):
        parts = wanted[:, *cut]
        strips = Strips(parts.shape[1], parts.shape[2], window, torch.float32, wanted.device)
        speed = PANELS if Panels.pay(strips, features, (0, strips.width)) else 1.0
        for part in parts:
            by_tiles += tiles.work(part, window.radius)
            by_strips += speed * strips.scores_for(part)
    return by_tiles < by_strips


def _span(wanted: Tensor | None, width: int) -> tuple[int, int]:
    """The first of the columns with wanted cells [. w], and the one after the last."""
    if wanted is None:
        return 0, width
    columns = wanted.flatten(0, -2).any(0).nonzero()[:, 0].tolist()
    return (columns[0], columns[-1] + 1) if columns else (0, 1)


def _read_group(
    way: Way,
    query: Tensor,
    references: Sequence[Reference],
    wanted: Tensor | None,
    readout: Tensor,
    lse: Tensor,
) -> None:
    window, images = references[0].window, range(query.shape[0])
    if way.name != "strips":
        read_image = {"tiles": tiles.read, "blocks": blocks.read, "fractions": fractions.read}[way.name]
        for image in images:
            some = None if wanted is None else wanted[image]
            read_image(query[image], [r.part(image) for r in references], some, readout[image], lse[image])
        return
    for cut in sub_images(query.shape[1], query.shape[2], window.dilation):
        height, width = query[0][cut].shape[:2]
        strips = Strips(height, width, window, readout.dtype, query.device)
        some = None if wanted is None else wanted[:, *cut]
        reader = Reader(strips, query.shape[3], readout.shape[3], _span(some, width))
        for image in images:
            members, part = [r.part(image, *cut) for r in references], None if some is None else some[image]
            reader.read(query[image][cut], members, part, readout[image][cut], lse[image][cut])
    if wanted is not None:
        readout.masked_fill_(~wanted[..., None], 0.0)
        lse.masked_fill_(~wanted, -torch.inf)


def read_backward(
    grad: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    references: Sequence[Reference],
    readout: Tensor,
    lse: Tensor,
    needs: tuple[bool, bool, bool],
    wanted: Tensor | None = None,
) -> list[Tensor]:
    """Gradients to the query, then every key, then every value, each where ``needs`` (query, keys, values) asks."""
    work, references = working_type(query), [r.readable() for r in references]
    query = readable(query, wanted)

    def zeros(like: Tensor) -> Tensor:
        return torch.zeros(like.shape, dtype=work, device=like.device)

    grad_query = zeros(query) if needs[0] else None
    grad_keys = [zeros(r.key) for r in references] if needs[1] else None
    grad_values = [zeros(r.value) for r in references] if needs[2] else None
    level = torch.where(lse == -torch.inf, lse, -LOG2_E * lse)  # rows with nothing valid: P = 0
    for first in range(0, readout.shape[3], CHANNELS):
        some = slice(first, first + CHANNELS)
        delta = (grad[..., some].to(work) * readout[..., some].to(work)).sum(-1)
        if first == 0:  # dS is linear in (v, delta): the first channels carry the gradient of the logsumexp
            delta -= grad_lse
        for way, group in routes(references, wanted).items():
            _add_group(
                way,
                query,
                grad[..., some],
                delta,
                level,
                [references[r]._replace(value=references[r].value[..., some]) for r in group],
                wanted,
                grad_query,
                None if grad_keys is None else [grad_keys[r] for r in group],
                None if grad_values is None else [grad_values[r][..., some] for r in group],
            )
    tensors = [(grad_query, query)] if grad_query is not None else []
    tensors += [(g, r.key) for g, r in zip(grad_keys or [], references, strict=False)]
    tensors += [(g, r.value) for g, r in zip(grad_values or [], references, strict=False)]
    return [g.to(like.dtype) for g, like in tensors]


def _add_group(
    way: Way,
    query: Tensor,
    grad: Tensor,
    delta: Tensor,
    level: Tensor,
    references: Sequence[Reference],
    wanted: Tensor | None,
    grad_query: Tensor | None,
    grad_keys: Sequence[Tensor] | None,
    grad_values: Sequence[Tensor] | None,
) -> None:
    if way.name != "strips":
        ways = {"tiles": tiles.add_gradients, "blocks": blocks.add_gradients, "fractions": fractions.add_gradients}
        for image in range(query.shape[0]):
            ways[way.name](
                query[image],
                grad[image],
                delta[image],
                level[image],
                [r.part(image) for r in references],
                None if wanted is None else wanted[image],
                None if grad_query is None else grad_query[image],
                None if grad_keys is None else [g[image] for g in grad_keys],
                None if grad_values is None else [g[image] for g in grad_values],
            )
        return
    for cut in sub_images(query.shape[1], query.shape[2], references[0].window.dilation):
        size = query[0][cut].shape
        geometry = Strips(size[0], size[1], references[0].window, delta.dtype, query.device)
        sizes = geometry, query.shape[3], grad.shape[3]
        some = None if wanted is None else wanted[:, *cut]
        span = _span(some, size[1])
        panels = Panels.pay(geometry, query.shape[3], span)
        add = PanelSlopes(Panels.over(*sizes, span, keep=True)).add if panels else Differentiator(*sizes).add
        for image in range(query.shape[0]):
            add(
                query[image][cut],
                grad[image][cut],
                delta[image][cut],
                level[image][cut],
                [r.part(image, *cut) for r in references],
                None if some is None else some[image],
                None if grad_query is None else grad_query[image][cut],
                None if grad_keys is None else [g[image][cut] for g in grad_keys],
                None if grad_values is None else [g[image][cut] for g in grad_values],
            )


def merge(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The joint reading of groups that were read apart; overwrites both."""
    lse = torch.logaddexp(one[1], other[1])
    level = lse.masked_fill(lse == -torch.inf, 0.0)
    for readout, own in (one, other):
        readout.mul_(own.sub_(level).exp_()[..., None])
    return one[0].add_(other[0]), lse
