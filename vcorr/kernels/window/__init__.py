"""Windowed attention: every cell of a query frame reads from a window of one reference frame."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vcorr.kernels import arguments
from vcorr.kernels.geometry import Border, Shape, Windows
from vcorr.kernels.window import op, reference


def windowed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    radius: int | None,
    dilation: int = 1,
    scale: float | None = None,
    border: Border = "mask",
    window: Shape = "square",
    impl: str = "auto",
) -> Tensor:
    """Read values from one reference frame through the affinity of a window (MAST, eq. 1-3).

        readout(x) = sum_d softmax_d(scale * <query(x), key(x + dilation * d)>) * value(x + dilation * d)

    Args:
        query: features [b h w c] of the frame that reads.
        key: features [b h w c] of the reference frame.
        value: what is copied [b h w v]: colours, one-hot labels, heat maps. Integers and booleans count as float32.
        radius: R of the window, (2R+1)^2 taps; None reads from the whole frame.
        dilation: cells between taps.
        scale: of the logits; default 1/sqrt(c).
        border: taps outside the frame take no part ("mask"), or count with logit 0 and value 0 ("zeros").
        window: "square", or "disk": the taps closer than R to the centre.
        impl: "reference", "cpu", or "auto" by device.

    Returns:
        [b h w v] of value's type.

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
        scale=scale,
        border=border,
        window=window,
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
    scale: float | None = None,
    border: Border = "mask",
    window: Shape = "square",
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """As ``windowed_attention``, with the logsumexp of the logits: ([b h w v], [b h w]), both differentiable.

    The logsumexp is float32 (float64 for float64 features); -inf where nothing could be read, and the readout 0.
    """
    arguments.check_read(query, [key], [value], impl)
    windows = arguments.windows(1, radius, dilation, scale, border, window, query.shape[3])
    return read_jointly(query, [key], [value], windows, impl)


def read_jointly(
    query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], windows: Windows, impl: str
) -> tuple[Tensor, Tensor]:
    """One softmax over all references, by the implementation asked for; arguments are checked already."""
    carried = [arguments.carried(value) for value in values]
    if impl == "reference":
        return reference.read(query, keys, carried, windows)
    return op.read(query, keys, carried, windows.radii, windows.dilations, windows.scale, windows.border, windows.shape)
