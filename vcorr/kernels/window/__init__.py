"""Windowed attention: every cell of a query frame reads from a window of one reference frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vcorr.kernels import arguments
from vcorr.kernels.arguments import Implementation
from vcorr.kernels.geometry import Border, Precision, Reference, Shape
from vcorr.kernels.window import op, reference


def windowed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    radius: int | None,
    dilation: int = 1,
    offset: Tensor | None = None,
    scale: float | None = None,
    border: Border = "mask",
    window: Shape = "square",
    key_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    precision: Precision | None = None,
    impl: Implementation = "auto",
) -> Tensor:
    """Read values from one reference frame through the affinity of a window (MAST, eq. 1-3).

        readout(x) = sum_d softmax_d(scale * <query(x), key(p)>) * value(p),   p = x + offset(x) + dilation * d

    Args:
        query: features [b h w c] of the frame that reads.
        key: features [b h w c] of the reference frame.
        value: what is copied [b h w v]: colours, one-hot labels, heat maps. Integers and booleans count as float32.
        radius: R of the window, (2R+1)^2 taps; None reads from the whole frame.
        dilation: cells between taps.
        offset: where each cell's window is centred, relative to the cell: [b h w 2] as (dy, dx) in cells. Fractional
            positions sample key and value bilinearly, zero outside the frame. No gradient flows to it.
        scale: of the logits; default 1/sqrt(c).
        border: taps outside the frame take no part ("mask"), or count with logit 0 and value 0 ("zeros").
        window: "square", or "disk": the taps closer than R to the centre.
        key_mask: True where a key may be read [b h w]; others take no part.
        query_mask: True where a cell is to be read [b h w]; the others get readout 0, logsumexp -inf and no gradient,
            and cost next to nothing. ``label_query_mask`` gives the cells that a label can reach.
        precision: of float32 products on a GPU, "ieee", "tf32x3", "tf32" or "bf16"; default: torch's own setting. A CPU
            always computes in float32, or in float64 for float64 features.
        impl: "reference", "cpu" (plain torch, on any device), "triton" (a GPU of compute capability 8.0 or later; not
            yet run on one), or "auto": "triton" on such a GPU wherever it takes what is given, else "cpu".

    Returns:
        [b h w v] of value's type; 0 where nothing can be read.

    Raises:
        ValueError, TypeError: before any work, if shapes, types or options do not fit.

    >>> import torch
    >>> frame = torch.eye(12).reshape(1, 3, 4, 12)
    >>> bool(torch.allclose(windowed_attention(frame, frame, frame, radius=1, scale=1e3), frame))
    True
    """
    readout, _ = windowed_attention_lse(
        query,
        key,
        value,
        radius=radius,
        dilation=dilation,
        offset=offset,
        scale=scale,
        border=border,
        window=window,
        key_mask=key_mask,
        query_mask=query_mask,
        precision=precision,
        impl=impl,
    )
    return readout


def windowed_attention_lse(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    radius: int | None,
    dilation: int = 1,
    offset: Tensor | None = None,
    scale: float | None = None,
    border: Border = "mask",
    window: Shape = "square",
    key_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    precision: Precision | None = None,
    impl: Implementation = "auto",
) -> tuple[Tensor, Tensor]:
    """As ``windowed_attention``, with the logsumexp of the logits: ([b h w v], [b h w]), both differentiable.

    The logsumexp is float32 (float64 for float64 features), and -inf where nothing can be read.
    """
    arguments.choose("impl", impl, Implementation)
    arguments.check_features("query", query, query)
    windows = arguments.windows(
        1,
        query.shape[3],
        radius=radius,
        dilation=dilation,
        scale=scale,
        border=border,
        window=window,
        precision=precision,
    )
    arguments.check_mask("query_mask", query_mask, query)
    references = arguments.references(query, [key], [value], [offset], [key_mask], windows)
    return read_jointly(query, references, query_mask, impl)


def read_jointly(
    query: Tensor, references: Sequence[Reference], query_mask: Tensor | None, impl: Implementation
) -> tuple[Tensor, Tensor]:
    """One softmax over all references, by the implementation asked for; arguments are checked already."""
    if impl != "reference":
        arguments.check_transforms((query, *(t for r in references for t in (r.key, r.value))))
        chosen = arguments.resolve(impl, query, references)
    if query.shape[0] == 0:
        return op.nothing(query, references)
    if impl == "reference":
        if not torch.compiler.is_compiling():
            arguments.check_finite(references)
        with torch.autocast(query.device.type, enabled=False):
            return reference.read(query, references, query_mask)
    read: Callable[..., tuple[Tensor, Tensor]] = op.read_now if arguments.bare(query, references) else op.read
    readout, lse = read(query, query_mask, *op.unpack(references), chosen)
    return readout, lse
