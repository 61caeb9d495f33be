"""The joint windowed reading as a torch operator: one boundary per direction, opaque to ``torch.compile``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vcorr.kernels.arguments import check_finite
from vcorr.kernels.cpu import reading as cpu
from vcorr.kernels.geometry import Reference, Window, carried_type, working_type


def pack(
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    offsets: Sequence[Tensor | None],
    masks: Sequence[Tensor | None],
    radii: Sequence[int],
    dilations: Sequence[int],
    shape: str,
    border: str,
    scale: float,
    precision: str,
) -> list[Reference]:
    """The references from the flat lists that an operator's schema can express."""
    columns = zip(keys, values, offsets, masks, radii, dilations, strict=True)
    return [Reference(k, v, o, m, Window(r, d, shape, border, scale, precision)) for k, v, o, m, r, d in columns]


def unpack(references: Sequence[Reference]) -> tuple[Any, ...]:
    """The reverse of ``pack``."""
    window = references[0].window
    return (
        [r.key for r in references],
        [r.value for r in references],
        [r.offset for r in references],
        [r.mask for r in references],
        [r.window.radius for r in references],
        [r.window.dilation for r in references],
        window.shape,
        window.border,
        window.scale,
        window.precision,
    )


def nothing(query: Tensor, references: Sequence[Reference]) -> tuple[Tensor, Tensor]:
    """The readout and logsumexp of a batch of no image, with gradients to all that is read, as large."""
    sums = [features.sum(-1) for features in (query, *(r.key for r in references))]
    lse = torch.stack(sums).sum(0).to(working_type(query))
    readout = torch.stack([r.value for r in references]).sum(0).to(carried_type(references[0].value))
    return readout + lse[..., None].to(readout.dtype), lse


def read_now(
    query: Tensor,
    wanted: Tensor | None,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    offsets: Sequence[Tensor | None],
    masks: Sequence[Tensor | None],
    radii: Sequence[int],
    dilations: Sequence[int],
    shape: str,
    border: str,
    scale: float,
    precision: str,
    impl: str,
) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] where a cell is wanted [b h w], else 0 and -inf; the lists hold one entry
    for each reference.
    """
    references = pack(keys, values, offsets, masks, radii, dilations, shape, border, scale, precision)
    check_finite(references)
    with torch.autocast(query.device.type, enabled=False):
        if impl == "triton":
            from vcorr.kernels.gpu import reading as triton

            return triton.read(query, references, wanted)
        return cpu.read(query, references, wanted)


read = torch.library.custom_op("vcorr::read", read_now, mutates_args=(), device_types=None)


@read.register_fake
def _(
    query: Tensor, wanted: Tensor | None, keys: Sequence[Tensor], values: Sequence[Tensor], *_: Any
) -> tuple[Tensor, Tensor]:
    readout = values[0].new_empty(*query.shape[:3], values[0].shape[3], dtype=carried_type(values[0]))
    return readout, query.new_empty(query.shape[:3], dtype=working_type(query))


@torch.library.custom_op("vcorr::read_backward", mutates_args=(), device_types=None)
def read_backward(
    grad: Tensor,
    grad_lse: Tensor,
    readout: Tensor,
    lse: Tensor,
    needs: Sequence[bool],
    query: Tensor,
    wanted: Tensor | None,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    offsets: Sequence[Tensor | None],
    masks: Sequence[Tensor | None],
    radii: Sequence[int],
    dilations: Sequence[int],
    shape: str,
    border: str,
    scale: float,
    precision: str,
    impl: str,
) -> list[Tensor]:
    """Gradients to the query, then every key, then every value, each where ``needs`` (query, keys, values) asks."""
    references = pack(keys, values, offsets, masks, radii, dilations, shape, border, scale, precision)
    asked = (needs[0], needs[1], needs[2])
    if wanted is not None:  # whatever flows to what is not read
        grad, grad_lse = torch.where(wanted[..., None], grad, 0), torch.where(wanted, grad_lse, 0)
    with torch.autocast(query.device.type, enabled=False):
        if impl == "triton":
            from vcorr.kernels.gpu import reading as triton

            return triton.read_backward(grad, grad_lse, query, references, readout, lse, asked, wanted)
        return cpu.read_backward(grad, grad_lse, query, references, readout, lse, asked, wanted)


@read_backward.register_fake
def _(
    grad: Tensor,
    grad_lse: Tensor,
    readout: Tensor,
    lse: Tensor,
    needs: Sequence[bool],
    query: Tensor,
    wanted: Tensor | None,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *_: Any,
) -> list[Tensor]:
    asked = [([query], needs[0]), (keys, needs[1]), (values, needs[2])]
    return [t.new_empty(t.shape) for tensors, needed in asked if needed for t in tensors]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, wanted, keys, values, offsets, masks, *ctx.settings = inputs
    ctx.count, ctx.restricted = len(keys), wanted is not None
    ctx.has_offset, ctx.has_mask = [o is not None for o in offsets], [m is not None for m in masks]
    given = [t for t in (*offsets, *masks, wanted) if t is not None]
    ctx.save_for_backward(query, *output, *keys, *values, *given)


def _backward(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Any, ...]:
    query, readout, lse, *rest = ctx.saved_tensors
    keys, values, given = rest[: ctx.count], rest[ctx.count : 2 * ctx.count], iter(rest[2 * ctx.count :])
    offsets = [next(given) if has else None for has in ctx.has_offset]
    masks = [next(given) if has else None for has in ctx.has_mask]
    wanted = next(given) if ctx.restricted else None
    needs = [ctx.needs_input_grad[0], any(ctx.needs_input_grad[2]), any(ctx.needs_input_grad[3])]
    inputs = (query, wanted, keys, values, offsets, masks, *ctx.settings)
    grads = iter(read_backward(grad, grad_lse, readout, lse, needs, *inputs))
    of_query = next(grads) if needs[0] else None
    of_keys = [next(grads) if needs[1] else None for _ in keys]
    of_values = [next(grads) if needs[2] else None for _ in values]
    # torch takes a list for a tree of tensors where it holds tensors alone, and for one argument where it holds None.
    nothing = [[None] * ctx.count if all(has) else None for has in (ctx.has_offset, ctx.has_mask)]
    return of_query, None, of_keys, of_values, *nothing, *[None] * len(ctx.settings)


read.register_autograd(_backward, setup_context=_save)
