"""Reads only the k largest logits: an operator finds them, for each reference or for all; plain torch does the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from vcorr.kernels import ops, reference
from vcorr.kernels.arguments import Reading
from vcorr.kernels.dispatch import bare, check_transforms, resolve
from vcorr.kernels.geometry import carried_type, working_type


def read(reading: Reading, top_k: int) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] over the top_k largest logits of all references jointly."""
    query, references, _, _ = reading
    if query.shape[0] == 0:
        _check(reading)
        return nothing_read(reading)
    logits, cells = (found[..., 0, :] for found in _find(reading, top_k, joint=True))  # [b h w k]
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


def of_each(reading: Reading, top_k: int) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w r k] of each reference's top_k largest logits."""
    query = reading.query
    if query.shape[0] == 0:
        _check(reading)
        shape = (*query.shape[:3], len(reading.references), top_k)
        return query.new_empty(shape, dtype=working_type(query)), query.new_empty(shape, dtype=torch.int64)
    return _find(reading, top_k, joint=False)


def nothing_read(reading: Reading) -> tuple[Tensor, Tensor]:
    """The readout and logsumexp of an empty batch, with gradients to all inputs."""
    query, references, _, _ = reading
    sums = [features.sum(-1) for features in (query, *(r.key for r in references))]
    lse = torch.stack(sums).sum(0).to(working_type(query))
    readout = torch.stack([r.value for r in references]).sum(0).to(carried_type(references[0].value))
    return readout + lse[..., None].to(readout.dtype), lse


def _find(reading: Reading, top_k: int, *, joint: bool) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w r k] of each reference, or [b h w 1 k] of all, by the chosen implementation."""
    _check(reading)
    query, references, wanted, impl = reading
    if impl == "reference":
        if not torch.compiler.is_compiling():
            ops.check_whole(references)
        with torch.autocast(query.device.type, enabled=False):
            found = reference.largest(query, references, top_k, wanted)
        return ops.joined(*found) if joint else found
    call = (top_k, joint, *ops.flat(reading, resolve(impl, query, references, top_k), values=False))
    logits, cells = ops.topk_now(*call) if bare(query, references) else ops.topk(*call)
    return logits, cells


def _check(reading: Reading) -> None:
    query, references, _, impl = reading
    if impl != "reference":
        check_transforms([query, *(r.key for r in references)])
    if torch.is_grad_enabled() and (query.requires_grad or any(r.key.requires_grad for r in references)):
        raise ValueError("top_k is for inference: query and keys must not require gradients, got some that do")
