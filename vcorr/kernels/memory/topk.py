"""Reading from the k largest logits alone: the k largest, of each reference or of all, by an operator, the rest in
plain torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vcorr.kernels import arguments
from vcorr.kernels.arguments import Implementation
from vcorr.kernels.cpu import largest as cpu
from vcorr.kernels.geometry import Reference, carried_type, working_type
from vcorr.kernels.memory import reference
from vcorr.kernels.window.op import nothing, pack, unpack


def read(
    query: Tensor, references: Sequence[Reference], top_k: int, wanted: Tensor | None, impl: Implementation
) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] over the top_k largest logits of all references jointly."""
    if query.shape[0] == 0:
        _check(query, references, impl)
        return nothing(query, references)
    logits, cells = _jointly(query, references, top_k, wanted, impl)  # [b h w k]
    lse = logits.logsumexp(-1)
    weights = (logits - lse.masked_fill(lse == -torch.inf, 0.0)[..., None]).exp().flatten(0, 2)
    frame = query.shape[1] * query.shape[2]
    image = frame * torch.arange(query.shape[0], device=query.device)[:, None, None, None]
    readout: Tensor | float = 0.0
    for position, member in enumerate(references):
        first = position * frame
        own = (cells >= first) & (cells < first + frame)
        place = torch.where(own, cells - first + image + 1, 0).flatten(0, 2)  # 0: of another reference, or none
        values = torch.nn.functional.pad(member.value.flatten(0, 2).to(logits.dtype), (0, 0, 1, 0))
        readout = readout + torch.nn.functional.embedding_bag(
            place, values, mode="sum", per_sample_weights=weights, padding_idx=0
        )
    assert isinstance(readout, Tensor)  # there is a reference
    return readout.to(carried_type(references[0].value)).reshape(*lse.shape, -1), lse


def largest(
    query: Tensor, references: Sequence[Reference], top_k: int, wanted: Tensor | None, impl: Implementation
) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w r k] of each reference's top_k largest logits."""
    _check(query, references, impl)
    if query.shape[0] == 0:
        shape = (*query.shape[:3], len(references), top_k)
        return query.new_empty(shape, dtype=working_type(query)), query.new_empty(shape, dtype=torch.int64)
    if impl == "reference":
        if not torch.compiler.is_compiling():
            _check_offsets(references)
        with torch.autocast(query.device.type, enabled=False):
            return reference.largest(query, references, top_k, wanted)
    chosen = arguments.resolve(impl, query, references, top_k)
    keys, _, *settings = unpack(references)
    find: Callable[..., tuple[Tensor, Tensor]] = topk_now if arguments.bare(query, references) else topk
    logits, indices = find(query, wanted, keys, *settings, top_k, chosen)
    return logits, indices


def _jointly(
    query: Tensor, references: Sequence[Reference], top_k: int, wanted: Tensor | None, impl: Implementation
) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w k] of the top_k largest logits of all references; cells are counted on from one to the
    next, and -1 where there is none.
    """
    if impl == "reference":
        return _joined(*largest(query, references, top_k, wanted, impl))
    _check(query, references, impl)
    chosen = arguments.resolve(impl, query, references, top_k)
    keys, _, *settings = unpack(references)
    find: Callable[..., tuple[Tensor, Tensor]] = joint_topk_now if arguments.bare(query, references) else joint_topk
    logits, cells = find(query, wanted, keys, *settings, top_k, chosen)
    return logits, cells


def _joined(logits: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """The k largest of all references from each one's, [b h w r k] to [b h w k]."""
    height, width, count, top_k = logits.shape[1:]
    cells = indices + height * width * torch.arange(count, device=indices.device)[:, None]
    logits, chosen = logits.flatten(3).topk(top_k)
    return logits, torch.where(indices < 0, -1, cells).flatten(3).gather(3, chosen)


def _check(query: Tensor, references: Sequence[Reference], impl: Implementation) -> None:
    if impl != "reference":
        arguments.check_transforms([query, *(r.key for r in references)])
    if torch.is_grad_enabled() and (query.requires_grad or any(r.key.requires_grad for r in references)):
        raise ValueError("top_k is for inference: query and keys must not require gradients, got some that do")


def _check_offsets(references: Sequence[Reference]) -> None:
    """As ``check_finite``, and whole."""
    arguments.check_finite(references)
    if any(r.offset is not None and bool((r.offset != r.offset.round()).any()) for r in references):
        raise ValueError("offset must be whole cells with top_k, got fractions")


def topk_now(
    query: Tensor,
    wanted: Tensor | None,
    keys: Sequence[Tensor],
    offsets: Sequence[Tensor | None],
    masks: Sequence[Tensor | None],
    radii: Sequence[int],
    dilations: Sequence[int],
    shape: str,
    border: str,
    scale: float,
    precision: str,
    top_k: int,
    impl: str,
) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w r k] of each reference's top_k largest logits."""
    references = pack(keys, keys, offsets, masks, radii, dilations, shape, border, scale, precision)
    _check_offsets(references)
    with torch.autocast(query.device.type, enabled=False):
        if impl == "triton":
            from vcorr.kernels.gpu import largest as triton

            return triton.largest(query, references, top_k, wanted)
        return cpu.largest(query, references, top_k, wanted)


topk = torch.library.custom_op("vcorr::topk", topk_now, mutates_args=(), device_types=None)


@topk.register_fake
def _(query: Tensor, wanted: Tensor | None, keys: Sequence[Tensor], *rest: Any) -> tuple[Tensor, Tensor]:
    shape = (*query.shape[:3], len(keys), rest[-2])
    return query.new_empty(shape, dtype=working_type(query)), query.new_empty(shape, dtype=torch.int64)


def joint_topk_now(
    query: Tensor,
    wanted: Tensor | None,
    keys: Sequence[Tensor],
    offsets: Sequence[Tensor | None],
    masks: Sequence[Tensor | None],
    radii: Sequence[int],
    dilations: Sequence[int],
    shape: str,
    border: str,
    scale: float,
    precision: str,
    top_k: int,
    impl: str,
) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w k] of the top_k largest logits of all references jointly."""
    references = pack(keys, keys, offsets, masks, radii, dilations, shape, border, scale, precision)
    _check_offsets(references)
    with torch.autocast(query.device.type, enabled=False):
        if impl == "triton":
            from vcorr.kernels.gpu import largest as triton

            return _joined(*triton.largest(query, references, top_k, wanted))
        return cpu.jointly(query, references, top_k, wanted)


joint_topk = torch.library.custom_op("vcorr::joint_topk", joint_topk_now, mutates_args=(), device_types=None)


@joint_topk.register_fake
def _(query: Tensor, wanted: Tensor | None, keys: Sequence[Tensor], *rest: Any) -> tuple[Tensor, Tensor]:
    shape = (*query.shape[:3], rest[-2])
    return query.new_empty(shape, dtype=working_type(query)), query.new_empty(shape, dtype=torch.int64)
