"""Reading from the k largest logits alone: each reference's k largest by an operator, the rest in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vcorr.kernels import arguments
from vcorr.kernels.arguments import Implementation
from vcorr.kernels.geometry import Reference, working_type
from vcorr.kernels.memory import cpu, reference
from vcorr.kernels.window.op import pack, unpack


def read(query: Tensor, references: Sequence[Reference], top_k: int, impl: Implementation) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] over the top_k largest logits of all references jointly."""
    logits, indices = largest(query, references, top_k, impl)  # [b h w r k]
    batch, height, width = query.shape[:3]
    cells = indices + height * width * torch.arange(len(references), device=query.device)[:, None]
    cells = torch.where(indices < 0, -1, cells).reshape(batch, height * width, -1)
    logits, chosen = logits.reshape(batch, height * width, -1).topk(top_k)
    cells = cells.gather(2, chosen)
    lse = logits.logsumexp(-1)
    weights = (logits - lse.masked_fill(lse == -torch.inf, 0.0)[..., None]).exp() * (cells >= 0)
    values = torch.cat([r.value.reshape(batch, height * width, -1) for r in references], 1)
    readout = torch.zeros_like(values[:, : height * width], dtype=logits.dtype)
    for cell, weight in zip(cells.clamp(min=0).unbind(2), weights.unbind(2), strict=True):
        readout = readout + weight[..., None] * values.gather(1, cell[..., None].expand_as(readout))
    shape = (batch, height, width)
    return readout.to(values.dtype).reshape(*shape, -1), lse.reshape(shape)


def largest(query: Tensor, references: Sequence[Reference], top_k: int, impl: Implementation) -> tuple[Tensor, Tensor]:
    """Logits and cells [b h w r k] of each reference's top_k largest logits."""
    if torch.is_grad_enabled() and (query.requires_grad or any(r.key.requires_grad for r in references)):
        raise ValueError("top_k is for inference: query and keys must not require gradients, got some that do")
    for r in references:
        if torch.compiler.is_compiling() or r.offset is None:
            continue
        if bool((r.offset != r.offset.round()).any()):
            raise ValueError("offset must be whole cells with top_k, got fractions")
    if impl == "reference":
        with torch.autocast(query.device.type, enabled=False):
            return reference.largest(query, references, top_k)
    chosen = arguments.resolve(impl, query, references, top_k)
    keys, _, *settings = unpack(references)
    inputs = [query, *(t for r in references for t in (r.key, r.offset, r.mask))]
    find = topk_now if arguments.bare(inputs) else topk
    logits, indices = find(query, keys, *settings, top_k, chosen)
    return logits, indices


def topk_now(
    query: Tensor,
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
    with torch.autocast(query.device.type, enabled=False):
        if impl == "triton":
            from vcorr.kernels.memory import triton

            return triton.largest(query, references, top_k)
        return cpu.largest(query, references, top_k)


topk = torch.library.custom_op("vcorr::topk", topk_now, mutates_args=(), device_types=None)


@topk.register_fake
def _(query: Tensor, keys: Sequence[Tensor], *rest: Any) -> tuple[Tensor, Tensor]:
    shape = (*query.shape[:3], len(keys), rest[-2])
    return query.new_empty(shape, dtype=working_type(query)), query.new_empty(shape, dtype=torch.int64)
