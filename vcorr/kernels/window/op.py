"""The joint windowed reading as a torch operator: one boundary per direction, opaque to ``torch.compile``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vcorr.kernels.geometry import Windows
from vcorr.kernels.window import cpu


@torch.library.custom_op("vcorr::read", mutates_args=(), device_types="cpu")
def read(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    radii: Sequence[int],
    dilations: Sequence[int],
    scale: float,
    border: str,
    shape: str,
) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w]; keys and values hold one tensor for each reference."""
    return cpu.read(query, keys, values, Windows(tuple(radii), tuple(dilations), scale, border, shape))


@read.register_fake
def _(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], *_windows: Any) -> tuple[Tensor, Tensor]:
    lse_type = torch.float64 if query.dtype == torch.float64 else torch.float32
    return (
        values[0].new_empty(*query.shape[:3], values[0].shape[3]),
        query.new_empty(query.shape[:3], dtype=lse_type),
    )


@torch.library.custom_op("vcorr::read_backward", mutates_args=(), device_types="cpu")
def read_backward(
    grad: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    readout: Tensor,
    lse: Tensor,
    needs: Sequence[bool],
    radii: Sequence[int],
    dilations: Sequence[int],
    scale: float,
    border: str,
    shape: str,
) -> list[Tensor]:
    """Gradients to the query, then all keys, then all values, as ``needs`` (query, keys, values) asks."""
    windows = Windows(tuple(radii), tuple(dilations), scale, border, shape)
    asked = (needs[0], needs[1], needs[2])
    of_query, of_keys, of_values = cpu.read_backward(grad, grad_lse, query, keys, values, readout, lse, windows, asked)
    return [*([] if of_query is None else [of_query]), *of_keys, *of_values]


@read_backward.register_fake
def _(
    grad: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    readout: Tensor,
    lse: Tensor,
    needs: Sequence[bool],
    *_windows: Any,
) -> list[Tensor]:
    asked = [([query], needs[0]), (keys, needs[1]), (values, needs[2])]
    return [t.new_empty(t.shape) for tensors, needed in asked if needed for t in tensors]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, keys, values, *ctx.windows = inputs
    ctx.references = len(keys)
    ctx.save_for_backward(query, *keys, *values, *output)


def _backward(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Any, ...]:
    query, *rest = ctx.saved_tensors
    keys, values = rest[: ctx.references], rest[ctx.references : -2]
    needs = [ctx.needs_input_grad[0], any(ctx.needs_input_grad[1]), any(ctx.needs_input_grad[2])]
    grads = iter(read_backward(grad, grad_lse, query, keys, values, *rest[-2:], needs, *ctx.windows))
    of_query = next(grads) if needs[0] else None
    of_keys = [next(grads) if needs[1] else None for _ in keys]
    of_values = [next(grads) if needs[2] else None for _ in values]
    return of_query, of_keys, of_values, *[None] * len(ctx.windows)


read.register_autograd(_backward, setup_context=_save)
