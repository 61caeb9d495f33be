"""The mass of negatives: the logsumexp of a query's logits against a bank of features from other videos."""

from __future__ import annotations

import torch
from torch import Tensor

from vcorr.kernels import arguments
from vcorr.kernels.arguments import Implementation
from vcorr.kernels.geometry import Precision
from vcorr.kernels.negatives import op, reference


def negative_logsumexp(
    query: Tensor,
    negatives: Tensor,
    *,
    scale: float | None = None,
    query_group: Tensor | None = None,
    negative_group: Tensor | None = None,
    precision: Precision | None = None,
    impl: Implementation = "auto",
) -> Tensor:
    """Log of the negatives' total weight: log sum_m exp(scale * <query_n, negative_m>), pairs of one group left out.

    With the logsumexp of a window, ``intra``, it forms the intra- and inter-video affinity (LIIR, eq. 4): the window's
    readout times ``sigmoid(intra - inter)``. Nothing of size n * m is stored; with a gradient, the forward pass keeps
    each query's mean negative under the softmax, and the backward pass is one multiplication.

    Args:
        query: features [n c].
        negatives: features [m c] of the bank; m may be 0. They get no gradient.
        scale: of the logits; default 1/sqrt(c).
        query_group, negative_group: whole numbers [n] and [m], such as the video: pairs of equal numbers are left out.
        precision: of float32 products on a GPU, "ieee", "tf32x3", "tf32" or "bf16"; default: torch's own setting. A CPU
            always computes in float32, or in float64 for float64 features.
        impl: "reference", "cpu" (plain torch, on any device), "triton" (a GPU of compute capability 8.0 or later; not
            yet run on one), or "auto": "triton" on such a GPU wherever it takes what is given, else "cpu".

    Returns:
        [n] in float32 (float64 for float64 features); -inf where no negative is left.

    Raises:
        ValueError, TypeError: before any work, if shapes, types or options do not fit.

    >>> import torch
    >>> bank = torch.zeros(5, 8)
    >>> negative_logsumexp(torch.ones(2, 8), bank).exp().round()
    tensor([5., 5.])
    """
    arguments.choose("impl", impl, Implementation)
    _check(query, negatives, query_group, negative_group)
    factor = arguments.scale_factor(scale, query.shape[1])
    exactness = arguments.exactness(precision)
    if impl == "reference":
        with torch.autocast(query.device.type, enabled=False):
            return reference.logsumexp(query, negatives, query_group, negative_group, factor)
    arguments.check_transforms((query, negatives))
    chosen = arguments.resolve(impl, query)
    keep_mean = torch.is_grad_enabled() and query.requires_grad
    lse: Tensor
    lse, _ = op.negative_logsumexp(query, negatives, query_group, negative_group, factor, exactness, keep_mean, chosen)
    return lse


def _check(query: Tensor, negatives: Tensor, query_group: Tensor | None, negative_group: Tensor | None) -> None:
    for name, tensor in (("query", query), ("negatives", negatives)):
        arguments.check_tensor(name, tensor)
        if tensor.dim() != 2 or tensor.shape[1] == 0:
            raise ValueError(f"{name} must be [rows c], got shape {tuple(tensor.shape)}")
        arguments.check_type(name, tensor)
    if query.shape[1] != negatives.shape[1]:
        raise ValueError(f"negatives must have the {query.shape[1]} channels of query, got {negatives.shape[1]}")
    if negatives.dtype != query.dtype:
        raise TypeError(f"negatives must have the type of query, {query.dtype}, got {negatives.dtype}")
    if negatives.requires_grad:
        raise ValueError("negatives must not require gradients, which flow to query alone; detach them")
    if (query_group is None) != (negative_group is None):
        raise ValueError("query_group and negative_group must be given together, got one of them")
    for name, group, like in (("query_group", query_group, query), ("negative_group", negative_group, negatives)):
        if group is None:
            continue
        arguments.check_tensor(name, group)
        if tuple(group.shape) != (like.shape[0],):
            raise ValueError(f"{name} must have shape {(like.shape[0],)}, got {tuple(group.shape)}")
        if group.dtype not in arguments.WHOLE:
            raise TypeError(f"{name} must be whole numbers, signed or bytes, got {group.dtype}")
    for name, other in (("negatives", negatives), ("query_group", query_group), ("negative_group", negative_group)):
        if other is not None and other.device != query.device:
            raise ValueError(f"{name} must be on the device of query, {query.device}, got {other.device}")
