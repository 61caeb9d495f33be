"""Memory reading: every cell of a query frame reads from windows of several reference frames, in one softmax."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vcorr.kernels import arguments
from vcorr.kernels.geometry import Border, Shape
from vcorr.kernels.window import read_jointly


def memory_read(
    query: Tensor,
    keys: Tensor | Sequence[Tensor],
    values: Tensor | Sequence[Tensor],
    *,
    radius: int | Sequence[int | None] | None,
    dilation: int | Sequence[int] = 1,
    scale: float | None = None,
    border: Border = "mask",
    window: Shape = "square",
    impl: str = "auto",
) -> Tensor:
    """Read values from several reference frames, in one softmax over all taps of all of them (MAST, sec. 3.4).

        readout(x) = sum_{r,d} softmax_{r,d}(scale * <query(x), key_r(x + dilation_r * d)>) * value_r(x + dilation_r * d)

    Args:
        query: features [b h w c] of the frame that reads.
        keys: features of the references, [b r h w c], or a sequence of r tensors [b h w c]: frames held apart, or
            slots of a ring, are read where they lie.
        values: what is copied, [b r h w v] or a sequence of r tensors [b h w v]. Integers and booleans count
            as float32.
        radius: R of the window, (2R+1)^2 taps; None reads from the whole frame. One, or one for each reference.
        dilation: cells between taps. One, or one for each reference.
        scale: of the logits; default 1/sqrt(c).
        border: taps outside the frame take no part ("mask"), or count with logit 0 and value 0 ("zeros").
        window: "square", or "disk": the taps closer than R to the centre.
        impl: "reference", "cpu", or "auto" by device.

    Returns:
        [b h w v] of values' type.

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
        scale=scale,
        border=border,
        window=window,
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
    scale: float | None = None,
    border: Border = "mask",
    window: Shape = "square",
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """As ``memory_read``, with the logsumexp of all references' logits: ([b h w v], [b h w]), both differentiable.

    The logsumexp is float32 (float64 for float64 features); -inf where nothing could be read, and the readout 0.
    """
    key_frames, value_frames = arguments.references("keys", keys), arguments.references("values", values)
    arguments.check_read(query, key_frames, value_frames, impl)
    windows = arguments.windows(len(key_frames), radius, dilation, scale, border, window, query.shape[3])
    return read_jointly(query, key_frames, value_frames, windows, impl)
