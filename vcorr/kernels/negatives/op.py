"""The negatives' mass as a torch operator; the mean negative makes its backward pass one multiplication."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vcorr.kernels.cpu import negatives as cpu
from vcorr.kernels.geometry import working_type


@torch.library.custom_op("vcorr::negative_logsumexp", mutates_args=(), device_types=None)
def negative_logsumexp(
    query: Tensor,
    negatives: Tensor,
    query_group: Tensor | None,
    negative_group: Tensor | None,
    scale: float,
    precision: str,
    keep_mean: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    """Logsumexp [n], and the mean negative [n c] under the softmax, [0 c] where it is not kept."""
    with torch.autocast(query.device.type, enabled=False):
        if impl == "triton":
            from vcorr.kernels.gpu import negatives as triton

            return triton.logsumexp(query, negatives, query_group, negative_group, scale, precision, keep_mean)
        return cpu.logsumexp(query, negatives, query_group, negative_group, scale, keep_mean)


@negative_logsumexp.register_fake
def _(
    query: Tensor,
    negatives: Tensor,
    query_group: Tensor | None,
    negative_group: Tensor | None,
    scale: float,
    precision: str,
    keep_mean: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    work = working_type(query)
    rows = query.shape[0] if keep_mean else 0
    return query.new_empty(query.shape[0], dtype=work), query.new_empty(rows, query.shape[1], dtype=work)


@torch.library.custom_op("vcorr::negative_logsumexp_backward", mutates_args=(), device_types=None)
def backward(grad: Tensor, mean: Tensor, query: Tensor, scale: float) -> Tensor:
    """Gradient to the query [n c]. An operator, and of the query too, so that a second derivative, to which the mean is
    no constant, is an error rather than wrong.
    """
    return (scale * grad[:, None] * mean).to(query.dtype)


@backward.register_fake
def _(grad: Tensor, mean: Tensor, query: Tensor, scale: float) -> Tensor:
    return query.new_empty(query.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, mean = output
    ctx.scale = inputs[4]
    ctx.mark_non_differentiable(mean)
    ctx.save_for_backward(inputs[0], mean)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    query, mean = ctx.saved_tensors
    return backward(grad, mean, query, ctx.scale), None, None, None, None, None, None, None


negative_logsumexp.register_autograd(_backward, setup_context=_save)
