"""Other ways to the logsumexp of queries against a bank of negatives."""

# mypy: disable-error-code="no-untyped-call,no-any-return"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vcorr.bench.cases import Setting
from vcorr.bench.operators import Method

CHUNK = 1024  # queries at a time
WIDEST_ATTENTION = 256  # channels that fused attention on a GPU takes


def full_matrix(setting: Setting) -> Method:
    """The matrix of all logits, and its logsumexp."""
    return lambda query, keys, values: (query @ keys[0].T * setting.case.c**-0.5).logsumexp(1)


def compiled_matrix(setting: Setting) -> Method:
    """The same, compiled."""
    compiled: Method = torch.compile(full_matrix(setting), dynamic=False)
    return compiled


def recomputed_chunks(setting: Setting) -> Method:
    """A chunk of queries after the other; in training its logits are computed again."""
    scale = setting.case.c**-0.5

    def mass(rows: Tensor, bank: Tensor) -> Tensor:
        return (rows @ bank.T * scale).logsumexp(1)

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        if query.requires_grad:
            return torch.cat([checkpoint(mass, rows, keys[0], use_reentrant=False) for rows in query.split(CHUNK)])
        return torch.cat([mass(rows, keys[0]) for rows in query.split(CHUNK)])

    return run


class _Attended(torch.autograd.Function):
    """Fused attention of the bank to itself as values: its output is the mean negative, so the gradient is known."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, bank: Tensor, scale: float) -> Tensor:
        heads = query[None, None], bank[None, None], bank[None, None]
        if query.device.type == "cuda":
            mean, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(*heads, scale=scale)
        else:
            mean, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*heads, scale=scale)
        ctx.save_for_backward(mean[0, 0])
        ctx.scale = scale
        return lse.flatten()[: query.shape[0]]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (mean,) = ctx.saved_tensors
        return (ctx.scale * grad[:, None] * mean).to(mean.dtype), None, None


def attention(setting: Setting) -> Method:
    """torch's fused attention with the bank as keys and as values."""
    return lambda query, keys, values: _Attended.apply(query, keys[0], setting.case.c**-0.5)


def no_attention(setting: Setting) -> str | None:
    """Why fused attention cannot do it here."""
    cuda = setting.device.type == "cuda"
    if cuda and (setting.dtype == torch.float32 or setting.case.c > WIDEST_ATTENTION):
        return f"fused attention takes half precision and at most {WIDEST_ATTENTION} channels"
    name = "_scaled_dot_product_flash_attention" + ("" if cuda else "_for_cpu")
    return None if hasattr(torch.ops.aten, name) else f"this torch has no {name}"


def cut_cross_entropy(setting: Setting) -> Method:
    """Cut cross-entropy against negative 0, plus that logit."""
    from cut_cross_entropy import linear_cross_entropy

    scale = setting.case.c**-0.5

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        rows = query * scale
        targets = torch.zeros(rows.shape[0], dtype=torch.int64, device=rows.device)
        loss: Tensor = linear_cross_entropy(rows, keys[0], targets, reduction="none", impl="cce_exact")
        return loss + (rows * keys[0][0]).sum(1)

    return run
