"""The joint windowed reading in plain torch, fast on a CPU and small in memory; it runs on any device.

References are read in groups, each by one of four forms (``forms.py``): by columns, those of equal windows
(``columns.py``: ``strips.py``, ``panels.py``); by tiles where they have whole offsets, or where few enough cells are
read, those of equal dilation (``tiles.py``); by blocks of the whole frame where the window is unrestricted
(``blocks.py``); by tiles that gather where offsets are fractional (``fractions.py``). The groups' readings are merged
by their logsumexp. The backward pass of each part needs the joint logsumexp alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vcorr.kernels.cpu import blocks, columns, fractions, tiles
from vcorr.kernels.cpu.forms import EachImage, Form, Gradients, Slopes
from vcorr.kernels.cpu.strips import LOG2_E
from vcorr.kernels.geometry import (
    UNRESTRICTED,
    Reference,
    Window,
    carried_type,
    readable,
    whole,
    working_type,
)

CHANNELS = 64  # values read at once: more would make the products larger than the scores
FORMS: dict[str, Form] = {
    "columns": columns,
    "tiles": EachImage(tiles),
    "blocks": EachImage(blocks),
    "fractions": EachImage(fractions),
}


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
            FORMS[way.form].read(query, some, wanted, readout[..., first : first + CHANNELS], lse)
        joint = (readout, lse) if joint is None else merge(joint, (readout, lse))
    assert joint is not None  # there is a reference
    return joint[0].to(carried_type(references[0].value)), joint[1]


class Way(NamedTuple):
    """How a group of references is read, and what its members have in common."""

    form: Literal["columns", "tiles", "blocks", "fractions"]
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
                few[window] = columns.few(wanted, window, reference.key.shape[3])
            way = Way("tiles", (window.dilation, window.border)) if few.get(window) else Way("columns", window)
        found.setdefault(way, []).append(position)
    return found


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
            members = [references[r]._replace(value=references[r].value[..., some]) for r in group]
            into = Gradients(
                grad_query,
                None if grad_keys is None else [grad_keys[r] for r in group],
                None if grad_values is None else [grad_values[r][..., some] for r in group],
            )
            FORMS[way.form].add_gradients(query, Slopes(grad[..., some], delta, level), members, wanted, into)
    tensors = [(grad_query, query)] if grad_query is not None else []
    tensors += [(g, r.key) for g, r in zip(grad_keys or [], references, strict=False)]
    tensors += [(g, r.value) for g, r in zip(grad_values or [], references, strict=False)]
    return [g.to(like.dtype) for g, like in tensors]


def merge(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The joint reading of groups that were read apart; overwrites both."""
    lse = torch.logaddexp(one[1], other[1])
    level = lse.masked_fill(lse == -torch.inf, 0.0)
    for readout, own in (one, other):
        readout.mul_(own.sub_(level).exp_()[..., None])
    return one[0].add_(other[0]), lse
