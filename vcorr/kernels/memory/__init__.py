"""Memory reading: every cell of a query frame reads from windows of several reference frames, in one softmax."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vcorr.kernels import arguments
from vcorr.kernels.arguments import Implementation
from vcorr.kernels.geometry import Border, Precision, Reference, Shape
from vcorr.kernels.memory import topk
from vcorr.kernels.window import read_jointly


def memory_read(
    query: Tensor,
    keys: Tensor | Sequence[Tensor],
    values: Tensor | Sequence[Tensor],
    *,
    radius: int | Sequence[int | None] | None,
    dilation: int | Sequence[int] = 1,
    offset: Tensor | Sequence[Tensor | None] | None = None,
    scale: float | None = None,
    border: Border = "mask",
    window: Shape = "square",
    key_mask: Tensor | Sequence[Tensor | None] | None = None,
    query_mask: Tensor | None = None,
    top_k: int | None = None,
    precision: Precision | None = None,
    impl: Implementation = "auto",
) -> Tensor:
    """Read values from several reference frames, in one softmax over all taps of all of them (MAST, sec. 3.4).

        readout(x) = sum_{r,d} softmax_{r,d}(scale * <query(x), key_r(p)>) * value_r(p),
        p = x + offset_r(x) + dilation_r * d

    Args:
        query: features [b h w c] of the frame that reads.
        keys: features of the references, [b r h w c], or a sequence of r tensors [b h w c]: frames that are held apart,
            or slots of a ring (``[ring[:, s] for s in slots]``), are read where they lie.
        values: what is copied, [b r h w v] or a sequence of r tensors [b h w v]. Integers and booleans count as
            float32.
        radius: R of the window, (2R+1)^2 taps; None reads from the whole frame. One, or one for each reference.
        dilation: cells between taps. One, or one for each reference.
        offset: where each cell's window is centred, relative to the cell, as (dy, dx) in cells: [b r h w 2], or a
            sequence of [b h w 2] or None. Fractional positions sample keys and values bilinearly, zero outside the
            frame. No gradient flows to it.
        scale: of the logits; default 1/sqrt(c).
        border: taps outside the frame take no part ("mask"), or count with logit 0 and value 0 ("zeros").
        window: "square", or "disk": the taps closer than R to the centre.
        key_mask: True where a key may be read, [b r h w], or a sequence of [b h w] or None; others take no part.
        query_mask: True where a cell is to be read [b h w]; the others get readout 0, logsumexp -inf and no gradient,
            and cost next to nothing. ``label_query_mask`` gives the cells that a label can reach.
        top_k: softmax over the k largest logits of all references only; among equal ones the choice is open. For
            inference: features must not require gradients, and offsets must be whole.
        precision: of float32 products on a GPU, "ieee", "tf32x3", "tf32" or "bf16"; default: torch's own setting. A CPU
            always computes in float32, or in float64 for float64 features.
        impl: "reference", "cpu" (plain torch, on any device), "triton" (a GPU of compute capability 8.0 or later; not
            yet run on one), or "auto": "triton" on such a GPU wherever it takes what is given, else "cpu".

    Returns:
        [b h w v] of values' type; 0 where nothing can be read.

    Raises:
        ValueError, TypeError: before any work, if shapes, types or options do not fit.

    >>> import torch
    >>> frame = torch.eye(12).reshape(1, 3, 4, 12)
    >>> bool(torch.allclose(memory_read(frame, [frame, frame], [frame, frame], radius=1, scale=1e3), frame))
    True
    """
    readout, _ = memory_read_lse(
        query,
        keys,
        values,
        radius=radius,
        dilation=dilation,
        offset=offset,
        scale=scale,
        border=border,
        window=window,
        key_mask=key_mask,
        query_mask=query_mask,
        top_k=top_k,
        precision=precision,
        impl=impl,
    )
    return readout


def memory_read_lse(
    query: Tensor,
    keys: Tensor | Sequence[Tensor],
    values: Tensor | Sequence[Tensor],
    *,
    radius: int | Sequence[int | None] | None,
    dilation: int | Sequence[int] = 1,
    offset: Tensor | Sequence[Tensor | None] | None = None,
    scale: float | None = None,
    border: Border = "mask",
    window: Shape = "square",
    key_mask: Tensor | Sequence[Tensor | None] | None = None,
    query_mask: Tensor | None = None,
    top_k: int | None = None,
    precision: Precision | None = None,
    impl: Implementation = "auto",
) -> tuple[Tensor, Tensor]:
    """As ``memory_read``, with the logsumexp of the logits that took part: ([b h w v], [b h w]), both differentiable.

    The logsumexp is float32 (float64 for float64 features), and -inf where nothing can be read.
    """
    arguments.choose("impl", impl, Implementation)
    key_frames, value_frames = arguments.frames("keys", keys), arguments.frames("values", values)
    references = _references(
        query,
        key_frames,
        value_frames,
        radius=radius,
        dilation=dilation,
        offset=offset,
        scale=scale,
        border=border,
        window=window,
        key_mask=key_mask,
        precision=precision,
    )
    arguments.check_mask("query_mask", query_mask, query)
    if top_k is None:
        return read_jointly(query, references, query_mask, impl)
    k = arguments.check_top_k(top_k, query, [r.window for r in references], joint=True)
    return topk.read(query, references, k, query_mask, impl)


def memory_topk(
    query: Tensor,
    keys: Tensor | Sequence[Tensor],
    *,
    top_k: int,
    radius: int | Sequence[int | None] | None,
    dilation: int | Sequence[int] = 1,
    offset: Tensor | Sequence[Tensor | None] | None = None,
    scale: float | None = None,
    border: Border = "mask",
    window: Shape = "square",
    key_mask: Tensor | Sequence[Tensor | None] | None = None,
    query_mask: Tensor | None = None,
    precision: Precision | None = None,
    impl: Implementation = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest logits of each reference, the cells they belong to, and the logsumexp over all references' taps.

    ``exp(logits - logsumexp[..., None, None])`` are the k largest weights that each reference has in the joint softmax;
    the k largest of all references are among them. For inference; arguments as for ``memory_read``.

    Returns:
        logits [b h w r k], largest first, -inf where fewer than k taps could be read; indices [b h w r k], y * w + x of
        the cell, -1 where there is none (nothing to read, or a tap outside the frame that border "zeros" counts with
        logit 0, or a cell that ``query_mask`` leaves out); logsumexp [b h w].

    >>> import torch
    >>> frame = torch.eye(12).reshape(1, 3, 4, 12)
    >>> logits, indices, logsumexp = memory_topk(frame, [frame], top_k=1, radius=1)
    >>> bool((indices.flatten() == torch.arange(12)).all())
    True
    """
    arguments.choose("impl", impl, Implementation)
    key_frames = arguments.frames("keys", keys)
    blank = [key[..., :1].detach() for key in key_frames]
    references = _references(
        query,
        key_frames,
        blank,
        radius=radius,
        dilation=dilation,
        offset=offset,
        scale=scale,
        border=border,
        window=window,
        key_mask=key_mask,
        precision=precision,
    )
    k = arguments.check_top_k(top_k, query, [r.window for r in references], joint=False)
    arguments.check_mask("query_mask", query_mask, query)
    logits, indices = topk.largest(query, references, k, query_mask, impl)
    _, lse = read_jointly(query, references, query_mask, impl)
    return logits, indices, lse


def _references(
    query: Tensor,
    keys: list[Tensor],
    values: list[Tensor],
    *,
    radius: object,
    dilation: object,
    offset: Tensor | Sequence[Tensor | None] | None,
    scale: float | None,
    border: str,
    window: str,
    key_mask: Tensor | Sequence[Tensor | None] | None,
    precision: str | None,
) -> list[Reference]:
    """The references that the arguments of the faces above describe, checked."""
    arguments.check_features("query", query, query)
    if not keys:
        raise ValueError("keys must hold at least one reference, got none")
    windows = arguments.windows(
        len(keys),
        query.shape[3],
        radius=radius,
        dilation=dilation,
        scale=scale,
        border=border,
        window=window,
        precision=precision,
    )
    offsets = arguments.optional_frames("offset", offset, len(keys), 4)
    masks = arguments.optional_frames("key_mask", key_mask, len(keys), 3)
    return arguments.references(query, keys, values, offsets, masks, windows)
