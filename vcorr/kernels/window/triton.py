"""Windowed reading on a GPU: launches of the kernels in ``triton_kernels.py``.

Several references are launches of their own, merged by their logsumexp; so is border "zeros", whose taps outside the
frame are one more part of logit 0 and value 0. A dilation is a grid axis over interleaved sub-images. Values go 64
channels at a time.

Bytes: each tile reads its halo once, (8+2R)^2 keys for 64 queries; saved for the backward pass: readout and logsumexp.
Tile sizes were chosen from the compiler's register and shared memory reports for sm_80 and sm_90, not from timings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from vcorr.kernels.geometry import UNRESTRICTED, Reference, sub_images, taps_outside
from vcorr.kernels.window.cpu import merge
from vcorr.kernels.window.triton_kernels import forward_kernel, key_gradient_kernel, query_gradient_kernel

LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Tiling:
    """Cells of a tile, cells that pass at a time, channels of one product, warps."""

    rows: int = 8
    columns: int = 8
    passing: int = 64
    passing_backward: int = 32
    warps: int = 4
    warps_backward: int = 8


DEFAULT = Tiling()
CHANNELS = 64  # values of one launch


def read(query: Tensor, references: Sequence[Reference], tiling: Tiling = DEFAULT) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] of a query over references that are read jointly."""
    channels = references[0].value.shape[3]
    chunks = [slice(first, first + CHANNELS) for first in range(0, channels, CHANNELS)]
    parts = [_read_chunk(query, [r._replace(value=r.value[..., some]) for r in references], tiling) for some in chunks]
    readout = torch.cat([part for part, _ in parts], 3)
    return readout.to(references[0].value.dtype), parts[0][1]


def read_backward(
    grad: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    references: Sequence[Reference],
    readout: Tensor,
    lse: Tensor,
    needs: tuple[bool, bool, bool],
    tiling: Tiling = DEFAULT,
) -> list[Tensor]:
    """Gradients to the query, then every key, then every value, each where ``needs`` (query, keys, values) asks."""
    of_query = torch.zeros(query.shape, dtype=torch.float32, device=query.device)
    of_keys = [torch.zeros_like(of_query) for _ in references if needs[1]]
    of_values = [torch.empty(grad.shape, dtype=torch.float32, device=query.device) for _ in references if needs[2]]
    for first in range(0, grad.shape[3], CHANNELS):
        some = slice(first, first + CHANNELS)
        delta = (grad[..., some].float() * readout[..., some].float()).sum(-1)
        if first == 0:  # dS is linear in (v, delta): the first channels carry the gradient of the logsumexp
            delta -= grad_lse
        for position, reference in enumerate(references):
            part = reference._replace(value=reference.value[..., some])
            dq, dk, dv = _gradients(query, grad[..., some], delta, lse, part, needs, tiling)
            if dq is not None:
                of_query += dq
            if dk is not None and needs[1]:
                of_keys[position] += dk
            if dv is not None and needs[2]:
                of_values[position][..., some] = dv
    return [
        *([of_query.to(query.dtype)] if needs[0] else []),
        *[dk.to(query.dtype) for dk in of_keys],
        *[dv.to(references[0].value.dtype) for dv in of_values],
    ]


def _read_chunk(query: Tensor, references: Sequence[Reference], tiling: Tiling) -> tuple[Tensor, Tensor]:
    parts = [_read_one(query, reference, tiling) for reference in references]
    parts += [part for reference in references for part in _outside(query, reference, parts[0][0])]
    return merge(parts)


def _outside(query: Tensor, reference: Reference, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Border "zeros": the taps outside the frame as a part of their own, of logit 0 and value 0."""
    window = reference.window
    if window.border != "zeros" or window.radius == UNRESTRICTED:
        return []
    height, width = query.shape[1:3]
    count = torch.empty(height, width, dtype=torch.float64)
    for cut in sub_images(height, width, window.dilation):
        rows, columns = count[cut].shape
        count[cut] = taps_outside(rows, columns, window.radius, window.shape)
    lse = count.log().to(like.device, like.dtype).expand(query.shape[:3])
    return [(torch.zeros_like(like), lse)]


def _read_one(query: Tensor, reference: Reference, tiling: Tiling) -> tuple[Tensor, Tensor]:
    batch, height, width = query.shape[:3]
    channels = reference.value.shape[3]
    readout = torch.empty(batch, height, width, channels, dtype=torch.float32, device=query.device)
    lse = torch.empty(batch, height, width, dtype=torch.float32, device=query.device)
    q, k, v, mask = _dense(query), _dense(reference.key), _values(reference, query), _mask(reference, query)
    forward_kernel[_grid(query, reference, tiling, 1)](
        q, k, v, mask, readout, lse,
        *_strides(q, k, v, mask, readout, lse),
        *_sizes(query, reference),
        reference.window.scale * LOG2_E,
        **constants(query, reference, tiling, tiling.passing),
        num_warps=tiling.warps,
    )  # fmt: skip
    return readout, lse


def _gradients(
    query: Tensor,
    grad: Tensor,
    delta: Tensor,
    lse: Tensor,
    reference: Reference,
    needs: tuple[bool, bool, bool],
    tiling: Tiling,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """One reference's gradients to query, key and value, of one value chunk; float32. ``lse`` is the joint one."""
    q, k, v, mask = _dense(query), _dense(reference.key), _values(reference, query), _mask(reference, query)
    g, delta = grad.to(v.dtype).contiguous(), delta.float().contiguous()
    level = torch.where(lse == -torch.inf, torch.inf, LOG2_E * lse).float().contiguous()
    options = backward_constants(query, reference, tiling)
    grid = _grid(query, reference, tiling, triton.cdiv(query.shape[3], options["BO"]))
    common = (*_sizes(query, reference), reference.window.scale)
    options["num_warps"] = tiling.warps_backward
    of_query = of_key = of_value = None
    if needs[0]:
        of_query = torch.empty(query.shape, dtype=torch.float32, device=query.device)
        steps = _strides(q, k, v, mask, g, level, of_query)
        query_gradient_kernel[grid](q, k, v, mask, g, delta, level, of_query, *steps, *common, **options)
    if needs[1] or needs[2]:
        of_key = torch.empty(query.shape, dtype=torch.float32, device=query.device)
        of_value = torch.empty(v.shape, dtype=torch.float32, device=query.device)
        steps = _strides(q, k, v, mask, g, level, of_key, of_value)
        key_gradient_kernel[grid](q, k, v, mask, g, delta, level, of_key, of_value, *steps, *common, **options)
    return of_query, of_key, of_value


def _dense(frame: Tensor) -> Tensor:
    """Kernels step through channels by one."""
    return frame if frame.stride(3) == 1 else frame.contiguous()


def _values(reference: Reference, query: Tensor) -> Tensor:
    """Values in the features' type: both go into one kind of product."""
    return _dense(reference.value.to(query.dtype))


def _mask(reference: Reference, query: Tensor) -> Tensor:
    if reference.mask is None:
        return torch.empty(1, 1, 1, dtype=torch.int8, device=query.device)
    return reference.mask.to(torch.int8)


def _strides(*tensors: Tensor) -> list[int]:
    """Steps by image, row and column of each tensor."""
    return [step for tensor in tensors for step in tensor.stride()[:3]]


def _sizes(query: Tensor, reference: Reference) -> tuple[int, int, int, int, int]:
    height, width, features = query.shape[1:]
    radius = reference.window.radius
    reach = height + width if radius == UNRESTRICTED else radius
    return height, width, features, reference.value.shape[3], reach


def _grid(query: Tensor, reference: Reference, tiling: Tiling, chunks: int) -> tuple[int, int, int]:
    batch, height, width = query.shape[:3]
    d = reference.window.dilation
    down, across = triton.cdiv(triton.cdiv(height, d), tiling.rows), triton.cdiv(triton.cdiv(width, d), tiling.columns)
    return down * across, d * d * chunks, batch


def constants(query: Tensor, reference: Reference, tiling: Tiling, passing: int) -> dict[str, Any]:
    """What the forward kernel is compiled for."""
    window, features = reference.window, query.shape[3]
    exact = query.dtype == torch.float32 and window.precision != "bf16"
    widest = 32 if exact else 256  # one product of 256 float32 channels spills registers
    block = max(16, min(widest, triton.next_power_of_2(features)))
    return {
        "D": window.dilation,
        "TH": tiling.rows,
        "TW": tiling.columns,
        "BN": passing,
        "BC": block,
        "CHUNKS": -(-features // block),
        "BV": max(16, triton.next_power_of_2(reference.value.shape[3])),
        "DISK": window.shape == "disk" and window.radius != UNRESTRICTED,
        "HAS_MASK": reference.mask is not None,
        "PRECISION": window.precision if exact else "ieee",
        "CAST": query.dtype == torch.float32 and window.precision == "bf16",
    }


def backward_constants(query: Tensor, reference: Reference, tiling: Tiling) -> dict[str, Any]:
    """What the backward kernels are compiled for; BO channels of the gradient are one program's."""
    common = constants(query, reference, tiling, tiling.passing_backward)
    block = min(128, common["BC"])  # sums of 256 channels spill
    return {**common, "BC": block, "CHUNKS": triton.cdiv(query.shape[3], block), "BO": block}
