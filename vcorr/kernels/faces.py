"""The public operators: they check their arguments and choose an implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from vcorr.kernels import arguments, largest, ops, reference
from vcorr.kernels.arguments import Reading
from vcorr.kernels.dispatch import bare, check_transforms, resolve
from vcorr.kernels.options import Computing, Options


def windowed_attention(query: Tensor, key: Tensor, value: Tensor, **options: Unpack[Options]) -> Tensor:
    """Read values from one reference frame through the affinity of a window (MAST, eq. 1-3).

        readout(x) = sum_d softmax_d(scale * <query(x), key(p)>) * value(p),   p = x + offset(x) + dilation * d

    Args:
        query: features [b h w c] of the frame that reads.
        key: features [b h w c] of the reference frame.
        value: what is copied [b h w v]: colours, one-hot labels, heat maps. Integers and booleans count as float32.
        options: ``radius=R`` must be given; the others stand in ``vcorr.kernels.options``: ``dilation``, ``offset``,
            ``scale``, ``border``, ``window``, ``key_mask``, ``query_mask``, ``precision``, ``impl``.

    Returns:
        [b h w v] of value's type; 0 where nothing can be read.

    Raises:
        ValueError, TypeError: before any work, if shapes, types or options do not fit.

    >>> import torch
    >>> frame = torch.eye(12).reshape(1, 3, 4, 12)
    >>> bool(torch.allclose(windowed_attention(frame, frame, frame, radius=1, scale=1e3), frame))
    True
    """
    return read(arguments.reading_of_one("windowed_attention", query, key, value, options))[0]


def windowed_attention_lse(
    query: Tensor, key: Tensor, value: Tensor, **options: Unpack[Options]
) -> tuple[Tensor, Tensor]:
    """``windowed_attention`` and the logsumexp of the logits: ([b h w v], [b h w]), both differentiable.

    The logsumexp is float32 (float64 for float64 features), and -inf where nothing can be read.
    """
    return read(arguments.reading_of_one("windowed_attention_lse", query, key, value, options))


def memory_read(
    query: Tensor,
    keys: Tensor | Sequence[Tensor],
    values: Tensor | Sequence[Tensor],
    *,
    top_k: int | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Read values from several reference frames, in one softmax over all taps of all of them (MAST, sec. 3.4).

        readout(x) = sum_{r,d} softmax_{r,d}(scale_r * <query(x), key_r(p)>) * value_r(p),
        p = x + offset_r(x) + dilation_r * d

    Args:
        query: features [b h w c] of the frame that reads.
        keys: features of the references, [b r h w c], or a sequence of r tensors [b h w c]: frames that are held apart,
            or slots of a ring (``[ring[:, s] for s in slots]``), are read where they lie.
        values: what is copied, [b r h w v] or a sequence of r tensors [b h w v]. Integers and booleans count as
            float32.
        top_k: softmax over only the k largest logits of all references; the choice among equal ones is undefined. For
            inference: features must not require gradients, and offsets must be whole.
        options: as for ``windowed_attention``; ``radius``, ``dilation``, ``offset``, ``scale`` and ``key_mask`` may be
            one for each reference.

    Returns:
        [b h w v] of values' type; 0 where nothing can be read.

    Raises:
        ValueError, TypeError: before any work, if shapes, types or options do not fit.

    >>> import torch
    >>> frame = torch.eye(12).reshape(1, 3, 4, 12)
    >>> bool(torch.allclose(memory_read(frame, [frame, frame], [frame, frame], radius=1, scale=1e3), frame))
    True
    """
    return read(arguments.reading("memory_read", query, keys, values, options), top_k)[0]


def memory_read_lse(
    query: Tensor,
    keys: Tensor | Sequence[Tensor],
    values: Tensor | Sequence[Tensor],
    *,
    top_k: int | None = None,
    **options: Unpack[Options],
) -> tuple[Tensor, Tensor]:
    """``memory_read`` and the logsumexp of the logits that took part: ([b h w v], [b h w]), both differentiable.

    The logsumexp is float32 (float64 for float64 features), and -inf where nothing can be read.
    """
    return read(arguments.reading("memory_read_lse", query, keys, values, options), top_k)


def memory_topk(
    query: Tensor, keys: Tensor | Sequence[Tensor], *, top_k: int, **options: Unpack[Options]
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
    key_frames = arguments.frames("keys", keys)
    blank = [key[..., :1].detach() for key in key_frames]
    reading = arguments.reading("memory_topk", query, key_frames, blank, options)
    k = arguments.check_top_k(top_k, reading, joint=False)
    logits, indices = largest.of_each(reading, k)
    return logits, indices, read(reading)[1]


def memory_best(query: Tensor, keys: Tensor | Sequence[Tensor], **options: Unpack[Options]) -> tuple[Tensor, Tensor]:
    """The largest logit of each reference, and its cell: ``memory_topk`` with ``top_k=1``, but faster, without the
    logsumexp.

    Returns:
        logits [b h w r], -inf where no tap could be read; indices [b h w r], as of ``memory_topk``.

    >>> import torch
    >>> frame = torch.eye(12).reshape(1, 3, 4, 12)
    >>> logits, indices = memory_best(frame, [frame], radius=1)
    >>> bool((indices.flatten() == torch.arange(12)).all())
    True
    """
    key_frames = arguments.frames("keys", keys)
    blank = [key[..., :1].detach() for key in key_frames]
    logits, indices = largest.of_each(arguments.reading("memory_best", query, key_frames, blank, options), 1)
    return logits[..., 0], indices[..., 0]


def read(reading: Reading, top_k: int | None = None) -> tuple[Tensor, Tensor]:
    """Readout and logsumexp of one softmax over all references, by the chosen implementation."""
    if top_k is not None:
        return largest.read(reading, arguments.check_top_k(top_k, reading, joint=True))
    query, references, _, impl = reading
    if impl != "reference":
        check_transforms((query, *(t for r in references for t in (r.key, r.value))))
        chosen = resolve(impl, query, references)
    if query.shape[0] == 0:
        return largest.nothing_read(reading)
    if impl == "reference":
        if not torch.compiler.is_compiling():
            arguments.check_finite(references)
        with torch.autocast(query.device.type, enabled=False):
            return reference.read(*reading[:3])
    call = ops.flat(reading, chosen)
    readout, lse = ops.read_now(*call) if bare(query, references) else ops.read(*call)
    return readout, lse


def negative_logsumexp(
    query: Tensor,
    negatives: Tensor,
    *,
    scale: float | None = None,
    query_group: Tensor | None = None,
    negative_group: Tensor | None = None,
    **options: Unpack[Computing],
) -> Tensor:
    """The logsumexp over negatives: log sum_m exp(scale * <query_n, negative_m>), without pairs of the same group.

    With the logsumexp of a window, ``intra``, it forms the intra- and inter-video affinity (LIIR, eq. 4): the window's
    readout times ``sigmoid(intra - inter)``. Nothing of size n * m is stored; with a gradient, the forward pass keeps
    each query's mean negative under the softmax, and the backward pass is one multiplication.

    Args:
        query: features [n c].
        negatives: features [m c] of the bank; m may be 0. They get no gradient.
        scale: of the logits; default 1/sqrt(c).
        query_group, negative_group: integers [n] and [m], such as the video; pairs of equal ones are left out.
        options: ``precision`` and ``impl``, as in ``vcorr.kernels.options.Computing``.

    Returns:
        [n] in float32 (float64 for float64 features); -inf where no negative is left.

    Raises:
        ValueError, TypeError: before any work, if shapes, types or options do not fit.

    >>> import torch
    >>> bank = torch.zeros(5, 8)
    >>> negative_logsumexp(torch.ones(2, 8), bank).exp().round()
    tensor([5., 5.])
    """
    impl, exactness = arguments.computing("negative_logsumexp", options)
    arguments.check_bank(query, negatives, query_group, negative_group)
    factor = arguments.scale_factor(scale, query.shape[1])
    if impl == "reference":
        with torch.autocast(query.device.type, enabled=False):
            return reference.logsumexp(query, negatives, query_group, negative_group, factor)
    check_transforms((query, negatives))
    chosen = resolve(impl, query)
    keep_mean = torch.is_grad_enabled() and query.requires_grad
    lse: Tensor
    lse, _ = ops.negative_logsumexp(query, negatives, query_group, negative_group, factor, exactness, keep_mean, chosen)
    return lse
