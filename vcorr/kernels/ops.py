"""The custom operators of torch: one for each direction, opaque to ``torch.compile``.

All readings share one schema: flat lists with one entry for each reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vcorr.kernels.arguments import Reading, check_finite
from vcorr.kernels.cpu import largest as cpu_largest
from vcorr.kernels.cpu import negatives as cpu_negatives
from vcorr.kernels.cpu import reading as cpu_reading
from vcorr.kernels.geometry import Reference, Window, carried_type, working_type

READING = (
    "Tensor query, Tensor? wanted, Tensor[] keys, Tensor[] values, Tensor?[] offsets, Tensor?[] masks, int[] radii,"
    " int[] dilations, float[] scales, str shape, str border, str precision, str impl"
)


class Flat(NamedTuple):
    """A reading as the schema has it; values may be left out where none are read."""

    query: Tensor
    wanted: Tensor | None
    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    offsets: Sequence[Tensor | None]
    masks: Sequence[Tensor | None]
    radii: Sequence[int]
    dilations: Sequence[int]
    scales: Sequence[float]
    shape: str
    border: str
    precision: str
    impl: str

    def references(self) -> list[Reference]:
        columns = zip(
            self.keys,
            self.values or self.keys,
            self.offsets,
            self.masks,
            self.radii,
            self.dilations,
            self.scales,
            strict=True,
        )
        return [
            Reference(k, v, o, m, Window(r, d, self.shape, self.border, s, self.precision))
            for k, v, o, m, r, d, s in columns
        ]


def flat(reading: Reading, impl: str, *, values: bool = True) -> Flat:
    """A reading by an implementation, as the schema has it."""
    query, references, wanted, _ = reading
    windows = [r.window for r in references]
    return Flat(
        query,
        wanted,
        [r.key for r in references],
        [r.value for r in references] if values else [],
        [r.offset for r in references],
        [r.mask for r in references],
        [w.radius for w in windows],
        [w.dilation for w in windows],
        [w.scale for w in windows],
        windows[0].shape,
        windows[0].border,
        windows[0].precision,
        impl,
    )


# --- reading --------------------------------------------------------------------------------------------------------


def read_now(*given: Any) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] of the wanted cells [b h w]; 0 and -inf elsewhere."""
    call = Flat(*given)
    references = call.references()
    check_finite(references)
    with torch.autocast(call.query.device.type, enabled=False):
        if call.impl == "triton":
            from vcorr.kernels.gpu import reading

            return reading.read(call.query, references, call.wanted)
        return cpu_reading.read(call.query, references, call.wanted)


read = torch.library.custom_op(
    "vcorr::read", read_now, mutates_args=(), device_types=None, schema=f"({READING}) -> (Tensor, Tensor)"
)


@read.register_fake
def _(*given: Any) -> tuple[Tensor, Tensor]:
    call = Flat(*given)
    value, size = call.values[0], call.query.shape[:3]
    readout = value.new_empty(*size, value.shape[3], dtype=carried_type(value))
    return readout, call.query.new_empty(size, dtype=working_type(call.query))


def _read_backward(
    grad: Tensor, grad_lse: Tensor, readout: Tensor, lse: Tensor, needs: Sequence[bool], *given: Any
) -> list[Tensor]:
    """Gradients of the query, of every key and of every value; ``needs`` (query, keys, values) selects them."""
    call = Flat(*given)
    asked = (needs[0], needs[1], needs[2])
    if call.wanted is not None:  # whatever flows to what is not read
        grad, grad_lse = torch.where(call.wanted[..., None], grad, 0), torch.where(call.wanted, grad_lse, 0)
    inputs = (grad, grad_lse, call.query, call.references(), readout, lse, asked, call.wanted)
    with torch.autocast(call.query.device.type, enabled=False):
        if call.impl == "triton":
            from vcorr.kernels.gpu import reading

            return reading.read_backward(*inputs)
        return cpu_reading.read_backward(*inputs)


read_backward = torch.library.custom_op(
    "vcorr::read_backward",
    _read_backward,
    mutates_args=(),
    device_types=None,
    schema=f"(Tensor grad, Tensor grad_lse, Tensor readout, Tensor lse, bool[] needs, {READING}) -> Tensor[]",
)


@read_backward.register_fake
def _(grad: Tensor, grad_lse: Tensor, readout: Tensor, lse: Tensor, needs: Sequence[bool], *given: Any) -> list[Tensor]:
    call = Flat(*given)
    asked = [([call.query], needs[0]), (call.keys, needs[1]), (call.values, needs[2])]
    return [t.new_empty(t.shape) for tensors, needed in asked if needed for t in tensors]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    call = Flat(*inputs)
    ctx.settings, ctx.count, ctx.restricted = call[6:], len(call.keys), call.wanted is not None
    ctx.has_offset, ctx.has_mask = ([t is not None for t in some] for some in (call.offsets, call.masks))
    given = [t for t in (*call.offsets, *call.masks, call.wanted) if t is not None]
    ctx.save_for_backward(call.query, *output, *call.keys, *call.values, *given)


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
    # torch treats a list of tensors as a tree, but a list with None as one argument.
    nothing = [[None] * ctx.count if all(has) else None for has in (ctx.has_offset, ctx.has_mask)]
    return of_query, None, of_keys, of_values, *nothing, *[None] * len(ctx.settings)


read.register_autograd(_backward, setup_context=_save)


# --- the k largest --------------------------------------------------------------------------------------------------


def check_whole(references: Sequence[Reference]) -> None:
    """Offsets are finite, and whole."""
    check_finite(references)
    if any(r.offset is not None and bool((r.offset != r.offset.round()).any()) for r in references):
        raise ValueError("offset must be whole cells with top_k, got fractions")


def topk_now(top_k: int, joint: bool, *given: Any) -> tuple[Tensor, Tensor]:
    """Logits and cells of the top_k largest logits: of each reference [b h w r k], or of all jointly [b h w 1 k]."""
    call = Flat(*given)
    references = call.references()
    check_whole(references)
    with torch.autocast(call.query.device.type, enabled=False):
        if call.impl == "triton":
            from vcorr.kernels.gpu import largest

            found = largest.largest(call.query, references, top_k, call.wanted)
            return joined(*found) if joint else found
        if joint:
            logits, cells = cpu_largest.jointly(call.query, references, top_k, call.wanted)
            return logits[..., None, :], cells[..., None, :]
        return cpu_largest.largest(call.query, references, top_k, call.wanted)


topk = torch.library.custom_op(
    "vcorr::topk",
    topk_now,
    mutates_args=(),
    device_types=None,
    schema=f"(int top_k, bool joint, {READING}) -> (Tensor, Tensor)",
)


@topk.register_fake
def _(top_k: int, joint: bool, *given: Any) -> tuple[Tensor, Tensor]:
    call = Flat(*given)
    shape = (*call.query.shape[:3], 1 if joint else len(call.keys), top_k)
    return call.query.new_empty(shape, dtype=working_type(call.query)), call.query.new_empty(shape, dtype=torch.int64)


def joined(logits: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """The k largest of all references from the k largest of each, [b h w r k] to [b h w 1 k].

    The numbers of cells go on from one reference to the next.
    """
    height, width, count, top_k = logits.shape[1:]
    cells = indices + height * width * torch.arange(count, device=indices.device)[:, None]
    logits, chosen = logits.flatten(3).topk(top_k)
    cells = torch.where(indices < 0, -1, cells).flatten(3).gather(3, chosen)
    return logits[..., None, :], cells[..., None, :]


# --- negatives ------------------------------------------------------------------------------------------------------


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
    """Logsumexp [n], and the mean negative under the softmax [n c], or [0 c] if it is not kept."""
    with torch.autocast(query.device.type, enabled=False):
        if impl == "triton":
            from vcorr.kernels.gpu import negatives as gpu

            return gpu.logsumexp(query, negatives, query_group, negative_group, scale, precision, keep_mean)
        return cpu_negatives.logsumexp(query, negatives, query_group, negative_group, scale, keep_mean)


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
def negatives_backward(grad: Tensor, mean: Tensor, query: Tensor, scale: float) -> Tensor:
    """The gradient of the query [n c].

    It is an operator that takes the query, so that a second derivative raises an error: the mean is not constant there.
    """
    return (scale * grad[:, None] * mean).to(query.dtype)


@negatives_backward.register_fake
def _(grad: Tensor, mean: Tensor, query: Tensor, scale: float) -> Tensor:
    return query.new_empty(query.shape)


def _save_mean(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, mean = output
    ctx.scale = inputs[4]
    ctx.mark_non_differentiable(mean)
    ctx.save_for_backward(inputs[0], mean)


def _negatives_backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    query, mean = ctx.saved_tensors
    return negatives_backward(grad, mean, query, ctx.scale), None, None, None, None, None, None, None


negative_logsumexp.register_autograd(_negatives_backward, setup_context=_save_mean)
