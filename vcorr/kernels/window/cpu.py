"""The joint windowed reading in plain torch, fast on a CPU and small in memory; it runs on any device.

References are read in groups of equal windows: by column strips (``strips.py``), or by panels of them where they pay
(``panels.py``), a dilation of d as d*d sub-images; by blocks of the whole frame where the window is unrestricted
(``blocks.py``); by tiles where a reference has offsets (``tiles.py``). The groups' readings are merged by their
logsumexp. The backward pass of each part needs the joint logsumexp alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vcorr.kernels.geometry import UNRESTRICTED, Reference, carried_type, groups, sub_images, working_type
from vcorr.kernels.window import blocks, tiles
from vcorr.kernels.window.panels import Panels, PanelSlopes
from vcorr.kernels.window.reader import Reader
from vcorr.kernels.window.strips import LOG2_E, Differentiator, Strips

CHANNELS = 64  # values read at once: more would make the products larger than the scores


def read(query: Tensor, references: Sequence[Reference]) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] of a query over references that are read jointly."""
    work, channels = working_type(query), references[0].value.shape[3]
    whole: tuple[Tensor, Tensor] | None = None
    for group in groups(references):
        members = [references[r].readable() for r in group]
        readout = torch.empty(*query.shape[:3], channels, dtype=work, device=query.device)
        lse = torch.empty(query.shape[:3], dtype=work, device=query.device)
        for first in range(0, channels, CHANNELS):
            some = slice(first, first + CHANNELS)
            _read_group(query, [r._replace(value=r.value[..., some]) for r in members], readout[..., some], lse)
        whole = (readout, lse) if whole is None else merge(whole, (readout, lse))
    assert whole is not None  # there is a reference
    return whole[0].to(carried_type(references[0].value)), whole[1]


def _read_group(query: Tensor, references: Sequence[Reference], readout: Tensor, lse: Tensor) -> None:
    window, images = references[0].window, range(query.shape[0])
    features, channels = query.shape[3], readout.shape[3]
    if references[0].offset is not None:
        for image in images:
            tiles.read(query[image], [r.part(image) for r in references], readout[image], lse[image])
    elif window.radius == UNRESTRICTED:
        for image in images:
            blocks.read(query[image], [r.part(image) for r in references], readout[image], lse[image])
    else:
        for cut in sub_images(query.shape[1], query.shape[2], window.dilation):
            height, width = query[0][cut].shape[:2]
            reader = Reader(Strips(height, width, window, readout.dtype, query.device), features, channels)
            for image in images:
                members = [r.part(image, *cut) for r in references]
                reader.read(query[image][cut], members, readout[image][cut], lse[image][cut])


def read_backward(
    grad: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    references: Sequence[Reference],
    readout: Tensor,
    lse: Tensor,
    needs: tuple[bool, bool, bool],
) -> list[Tensor]:
    """Gradients to the query, then every key, then every value, each where ``needs`` (query, keys, values) asks."""
    work, references = working_type(query), [r.readable() for r in references]

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
        for group in groups(references):
            _add_group(
                query,
                grad[..., some],
                delta,
                level,
                [references[r]._replace(value=references[r].value[..., some]) for r in group],
                grad_query,
                None if grad_keys is None else [grad_keys[r] for r in group],
                None if grad_values is None else [grad_values[r][..., some] for r in group],
            )
    tensors = [(grad_query, query)] if grad_query is not None else []
    tensors += [(g, r.key) for g, r in zip(grad_keys or [], references, strict=False)]
    tensors += [(g, r.value) for g, r in zip(grad_values or [], references, strict=False)]
    return [g.to(like.dtype) for g, like in tensors]


def _add_group(
    query: Tensor,
    grad: Tensor,
    delta: Tensor,
    level: Tensor,
    references: Sequence[Reference],
    grad_query: Tensor | None,
    grad_keys: Sequence[Tensor] | None,
    grad_values: Sequence[Tensor] | None,
) -> None:
    window = references[0].window
    strips = references[0].offset is None and window.radius != UNRESTRICTED
    height, width = query.shape[1:3]
    whole = (slice(None), slice(None))
    for cut in sub_images(height, width, window.dilation) if strips else [whole]:
        if strips:
            size = query[0][cut].shape
            geometry = Strips(size[0], size[1], window, delta.dtype, query.device)
            sizes = geometry, query.shape[3], grad.shape[3]
            panels = Panels.pay(geometry, query.shape[3])
            add = PanelSlopes(Panels.over(*sizes, keep=True)).add if panels else Differentiator(*sizes).add
        else:
            add = blocks.add_gradients if references[0].offset is None else tiles.add_gradients
        for image in range(query.shape[0]):
            add(
                query[image][cut],
                grad[image][cut],
                delta[image][cut],
                level[image][cut],
                [r.part(image, *cut) for r in references],
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
