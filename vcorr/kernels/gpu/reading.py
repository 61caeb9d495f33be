"""Windowed reading on a GPU: launches of the kernels in ``kernels.py``.

References of equal windows at even steps in memory (slices of one tensor; of several, any two) are one launch; the next
launch goes on from its readout and logsumexp, so that nothing has to be merged. A dilation is a grid axis over
interleaved sub-images; windows at offsets are a launch for each reference. Values go some channels at a time.

Bytes: each tile reads its halo once, (8+2R) (16+2R) keys for 128 queries; saved for the backward pass: readout and
logsumexp. Tile sizes are those of ``vcorr/kernels/gpu/tuning.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from vcorr.kernels.geometry import UNRESTRICTED, Reference, carried_type, readable, tap_count
from vcorr.kernels.gpu import tuning
from vcorr.kernels.gpu.kernels import forward_kernel, key_gradient_kernel, query_gradient_kernel
from vcorr.kernels.gpu.tuning import Tiling

LOG2_E = math.log2(math.e)
# Values of one launch. Forward they leave room for a channel of ones, and start at multiples of 16 bytes.
CHANNELS = {torch.float16: 64, torch.bfloat16: 64, torch.float32: 32}
CHANNELS_READ = {torch.float16: 56, torch.bfloat16: 56, torch.float32: 28}


def read(query: Tensor, references: Sequence[Reference], wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Readout [b h w v] and logsumexp [b h w] of a query over references that are read jointly, where a cell is wanted
    [b h w]; 0 and -inf elsewhere.
    """
    carried = carried_type(references[0].value)
    query, references = prepared(query, [_without_masked(r, keys=r.offset is not None) for r in references])
    channels = references[0].value.shape[3]
    readout = torch.empty(*query.shape[:3], channels, dtype=torch.float32, device=query.device)
    lse = torch.empty(query.shape[:3], dtype=torch.float32, device=query.device)
    for some in _slices(channels, CHANNELS_READ[query.dtype]):
        for position, run in enumerate(runs([r._replace(value=r.value[..., some]) for r in references])):
            _read_run(query, run, wanted, readout[..., some], lse, goes_on=position > 0)
    return readout.to(carried), lse


def read_backward(
    grad: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    references: Sequence[Reference],
    readout: Tensor,
    lse: Tensor,
    needs: tuple[bool, bool, bool],
    wanted: Tensor | None = None,
) -> list[Tensor]:
    """Gradients to the query, then every key, then every value, each where ``needs`` (query, keys, values) asks."""
    features, carried = query.dtype, carried_type(references[0].value)
    query, references = prepared(readable(query, wanted), [_without_masked(r, keys=True) for r in references])
    size, channels = query.shape[:3], grad.shape[3]
    of_query = torch.empty(query.shape, dtype=torch.float32, device=query.device)
    of_keys: list[Tensor] = []
    of_values = [torch.empty(*size, channels, dtype=torch.float32, device=query.device) for _ in references if needs[2]]
    level = torch.where(lse == -torch.inf, torch.inf, LOG2_E * lse).float().contiguous()
    for some in _slices(channels, CHANNELS[query.dtype]):
        delta = (grad[..., some].float() * readout[..., some].float()).sum(-1)
        if some.start == 0:  # dS is linear in (v, delta): the first channels carry the gradient of the logsumexp
            delta -= grad_lse
        slopes = (grad[..., some].to(query.dtype).contiguous(), delta.contiguous(), level)
        keys, values = [], []
        for position, run in enumerate(runs([r._replace(value=r.value[..., some]) for r in references])):
            if needs[0]:
                _query_gradient(query, run, wanted, slopes, of_query, goes_on=some.start > 0 or position > 0)
            if needs[1] or needs[2]:
                of_run = _key_gradients(query, run, wanted, slopes)
                keys.extend(of_run[0])
                values.extend(of_run[1])
        if needs[1]:
            of_keys = keys if some.start == 0 else [total + part for total, part in zip(of_keys, keys, strict=True)]
        for total, part in zip(of_values, values, strict=False):
            total[..., some] = part
    # Those of a run's keys lie in one tensor: an operator may not return several views of it.
    of_keys = [g.to(features, copy=len(of_keys) > 1) for g in of_keys]
    return [*([of_query.to(features)] if needs[0] else []), *of_keys, *(g.to(carried) for g in of_values)]


def _without_masked(reference: Reference, *, keys: bool) -> Reference:
    """The reference with zeros for masked values, and for masked keys where the kernels multiply them by 0: a look at
    these waits for the GPU.
    """
    if reference.mask is None:
        return reference
    seen = reference._replace(value=reference.value.masked_fill(~reference.mask[..., None], 0))
    return seen.readable() if keys else seen


def prepared(query: Tensor, references: Sequence[Reference]) -> tuple[Tensor, list[Reference]]:
    """Features and values in the type that is multiplied, channels without gaps, windows within reach."""
    work = tuning.multiplied_type(query.dtype, references[0].window.precision)
    keys, values = (_dense([getattr(r, name) for r in references], work) for name in ("key", "value"))
    ready = [
        reference._replace(key=key, value=value, offset=_offset(reference))
        for reference, key, value in zip(references, keys, values, strict=True)
    ]
    return _dense([query], work)[0], ready


def _dense(frames: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
    """Frames of a type whose channels are dense: as they are where they are, else in one copy, at even steps in it."""
    if all(frame.dtype == dtype and frame.stride(3) == 1 for frame in frames):
        return frames
    copies = frames[0].new_empty((len(frames), *frames[0].shape), dtype=dtype).unbind(0)
    for copy, frame in zip(copies, frames, strict=True):
        copy.copy_(frame)
    return copies


def _slices(count: int, size: int) -> list[slice]:
    """Slices of so many numbers each, the last of what is left."""
    return [slice(first, first + size) for first in range(0, count, size)]


def _offset(reference: Reference) -> Tensor | None:
    """Offsets as whole numbers where they are whole: one product then does for four. Far ones all see nothing."""
    offset = reference.offset
    if offset is None:
        return None
    far = max(reference.key.shape[1:3]) + reference.window.radius * reference.window.dilation + 1
    offset = offset.clamp(-far, far)
    if offset.is_floating_point() and bool((offset != offset.round()).any()):
        return offset.to(torch.float32).contiguous()
    return offset.to(torch.int32).contiguous()


def runs(references: Sequence[Reference]) -> list[list[Reference]]:
    """References that follow one another in a softmax, cut into those that one launch can read."""
    found: list[list[Reference]] = []
    for reference in references:
        if found and _continues(found[-1], reference):
            found[-1].append(reference)
        else:
            found.append([reference])
    return found


def _continues(run: Sequence[Reference], reference: Reference) -> bool:
    """Whether one launch can read a reference behind a run: of one window, at even steps in memory, without offsets."""
    last = run[-1]
    if reference.offset is not None or last.offset is not None or reference.window != last.window:
        return False
    if (reference.mask is None) != (last.mask is None):
        return False
    for a, b in ((last.key, reference.key), (last.value, reference.value)):
        if a.stride() != b.stride() or (b.data_ptr() - a.data_ptr()) % 16:
            return False
    if len(run) == 1:
        return True
    # How far apart unrelated tensors lie is the allocator's business, and must decide nothing.
    within = _one_tensor(run[-2], last) and _one_tensor(last, reference)
    return within and _steps(run[-2], last) == _steps(last, reference)


def _one_tensor(first: Reference, second: Reference) -> bool:
    """Whether the keys of both lie in one piece of memory, and the values likewise."""
    pairs = ((first.key, second.key), (first.value, second.value))
    return all(a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() for a, b in pairs)


def _steps(first: Reference, second: Reference) -> tuple[int, int]:
    """From one reference to the next, in elements of keys and of values."""
    key = (second.key.data_ptr() - first.key.data_ptr()) // first.key.element_size()
    return key, (second.value.data_ptr() - first.value.data_ptr()) // first.value.element_size()


def inputs_of(query: Tensor, run: Sequence[Reference], wanted: Tensor | None) -> tuple[list[Tensor], list[int]]:
    """Q, K, V, MASK, OFFSET, WANTED of a run, and their steps in memory, as the kernels take them."""
    first = run[0]
    key_step, value_step = _steps(run[0], run[1]) if len(run) > 1 else (0, 0)
    masks = [r.mask for r in run if r.mask is not None]
    mask = torch.stack(masks).view(torch.uint8) if masks else query  # a pointer that is not followed
    offset = query if first.offset is None else first.offset
    steps = [
        *query.stride()[:3],
        key_step,
        *first.key.stride()[:3],
        value_step,
        *first.value.stride()[:3],
        math.prod(query.shape[:3]),
    ]
    read = query if wanted is None else wanted.contiguous().view(torch.uint8)
    return [query, first.key, first.value, mask, offset, read], steps


def reach_of(query: Tensor, reference: Reference) -> int:
    """The radius in taps; no more than spans the frame, which it cannot be told from without offsets."""
    span = query.shape[1] + query.shape[2]
    radius = reference.window.radius
    if reference.offset is None and (radius == UNRESTRICTED or radius > span):
        return span
    return radius


def taps_of(run: Sequence[Reference]) -> tuple[int, float]:
    """The taps of a run as the kernels take them: so many, each standing for as many more as 62 bits cannot count."""
    height, width = run[0].key.shape[1:3]
    total = len(run) * tap_count(run[0].window.radius, run[0].window.shape, height, width)
    counted = min(total, 2**62)
    return counted, total / counted


def programs(shape: Sequence[int], tiling: Tiling, step: int, edge: int = 0) -> int:
    """Tiles of all sub-images of all images."""
    batch, height, width = shape[:3]
    down = triton.cdiv(triton.cdiv(height, step) + edge, tiling.rows)
    across = triton.cdiv(triton.cdiv(width, step) + edge, tiling.columns)
    return int(batch * min(height, step) * min(width, step) * down * across)


def constants(query: Tensor, reference: Reference, wanted: Tensor | None, tiling: Tiling) -> dict[str, Any]:
    """What every kernel is compiled for."""
    window, features, offset = reference.window, query.shape[3], reference.offset
    block = max(16, min(tiling.channels, triton.next_power_of_2(features)))
    return {
        "STEP": window.dilation if offset is None else 1,
        "TAP": 1 if offset is None else window.dilation,
        "CORNERS": 4 if offset is not None and offset.is_floating_point() else 1,
        "HAS_OFFSET": offset is not None,
        "HAS_WANTED": wanted is not None,
        "TH": tiling.rows,
        "TW": tiling.columns,
        "BN": tiling.passing,
        "BC": block,
        "CHUNKS": triton.cdiv(features, block),
        "DISK": window.shape == "disk" and reach_of(query, reference) == window.radius,
        "ZEROS": window.border == "zeros" and window.radius != UNRESTRICTED,
        "HAS_MASK": reference.mask is not None,
        "PRECISION": tuning.product_precision(query.dtype, window.precision),
    }


def run_tuned(
    kernel: tuning.Kernel,
    query: Tensor,
    run: Sequence[Reference],
    wanted: Tensor | None,
    launch: Callable[[Tiling], None],
    *,
    repeatable: bool = True,
) -> None:
    """Launch with the tile that the table, or autotuning, has for such a reading."""
    window, offset = run[0].window, run[0].offset
    key = (window, len(run), run[0].value.shape[3], run[0].mask is not None, wanted is not None)
    offsets: tuning.Offsets = "none" if offset is None else "fractional" if offset.is_floating_point() else "whole"
    tuning.run(kernel, query, window.precision, launch, key=key, offsets=offsets, repeatable=repeatable)


def held_channels(query: Tensor, tiling: Tiling) -> int:
    """Channels of a gradient that one program holds."""
    return int(max(16, min(tiling.held, triton.next_power_of_2(query.shape[3]))))


def block_of(channels: int) -> int:
    """Value channels padded to what a product takes."""
    return int(max(16, triton.next_power_of_2(channels)))


def _read_run(
    query: Tensor, run: Sequence[Reference], wanted: Tensor | None, readout: Tensor, lse: Tensor, *, goes_on: bool
) -> None:
    """Launch the forward kernel for a run, into readout [b h w v] and lse [b h w]; goes_on: behind earlier runs."""
    first = run[0]
    tensors, steps = inputs_of(query, run, wanted)
    height, width, features = query.shape[1:]
    taps, part = taps_of(run)

    def launch(tiling: Tiling) -> None:
        fixed = constants(query, first, wanted, tiling)
        forward_kernel[(programs(query.shape, tiling, fixed["STEP"]),)](
            *tensors, readout, lse, *steps, readout.stride(2),
            len(run), height, width, features, readout.shape[3], reach_of(query, first), taps, part,
            first.window.scale * LOG2_E,
            **fixed, BV=block_of(readout.shape[3] + 1), GOES_ON=goes_on, **tuning.options(tiling),
        )  # fmt: skip

    run_tuned("forward", query, run, wanted, launch, repeatable=not goes_on)


def _query_gradient(
    query: Tensor,
    run: Sequence[Reference],
    wanted: Tensor | None,
    slopes: tuple[Tensor, ...],
    of_query: Tensor,
    *,
    goes_on: bool,
) -> None:
    """Launch the kernel that adds a run's part of dQ to of_query [b h w c]; goes_on: behind earlier runs."""
    first, grad = run[0], slopes[0]
    tensors, steps = inputs_of(query, run, wanted)

    def launch(tiling: Tiling) -> None:
        fixed, held = constants(query, first, wanted, tiling), held_channels(query, tiling)
        grid = (programs(query.shape, tiling, fixed["STEP"]), triton.cdiv(query.shape[3], held))
        query_gradient_kernel[grid](
            *tensors, *slopes, of_query, *steps, grad.shape[3],
            len(run), *query.shape[1:], grad.shape[3], reach_of(query, first), first.window.scale,
            **fixed, BO=held, BV=block_of(grad.shape[3]), GOES_ON=goes_on, **tuning.options(tiling),
        )  # fmt: skip

    run_tuned("query_gradient", query, run, wanted, launch, repeatable=not goes_on)


def _key_gradients(
    query: Tensor, run: Sequence[Reference], wanted: Tensor | None, slopes: tuple[Tensor, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients to the run's keys and values, of one value chunk."""
    first, grad = run[0], slopes[0]
    tensors, steps = inputs_of(query, run, None)
    if wanted is not None:
        tensors[-1] = _bounds_of(wanted)
    batch, height, width, features = query.shape
    corners = 4 if first.offset is not None and first.offset.is_floating_point() else 1
    edge = 1 if corners == 4 else 0
    shape = (len(run), corners, batch, height + edge, width + edge)
    of_keys = torch.empty(*shape, features, dtype=torch.float32, device=query.device)
    of_values = torch.empty(*shape, grad.shape[3], dtype=torch.float32, device=query.device)
    bounds = query
    if first.offset is not None:
        least, most = first.offset.flatten(1, 2).floor().to(torch.int32).aminmax(dim=1)
        bounds = torch.stack([least, most], 2).contiguous()  # [b (y x) (least most)]

    def launch(tiling: Tiling) -> None:
        fixed, held = constants(query, first, wanted, tiling), held_channels(query, tiling)
        grid = (
            programs(query.shape, tiling, fixed["STEP"], edge),
            triton.cdiv(features, held) * corners,
            len(run),
        )
        key_gradient_kernel[grid](
            *tensors, bounds, *slopes, of_keys, of_values, *steps, grad.shape[3],
            batch, height, width, features, grad.shape[3], reach_of(query, first), first.window.scale,
            **fixed, BO=held, BV=block_of(grad.shape[3]), **tuning.options(tiling),
        )  # fmt: skip

    run_tuned("key_gradient", query, run, wanted, launch)
    return list(_gathered(of_keys).unbind(0)), list(_gathered(of_values).unbind(0))


def _bounds_of(wanted: Tensor) -> Tensor:
    """First and last row, first and last column of the cells [b h w] that are wanted, in each image: int32 [b 4]."""
    bounds = []
    for axis in (2, 1):
        lines = wanted.any(axis)
        number = torch.arange(lines.shape[1], dtype=torch.int32, device=lines.device)
        bounds += [torch.where(lines, number, 2**28).amin(1), torch.where(lines, number, -1).amax(1)]
    return torch.stack(bounds, 1).to(torch.int32)


def _gathered(parts: Tensor) -> Tensor:
    """The sum of what each corner leaves in the cells that it blends: [r corner b h+1 w+1 .] to [r b h w .]."""
    if parts.shape[1] == 1:
        return parts[:, 0]
    upper_left, upper_right, lower_left, lower_right = parts.unbind(1)
    total = upper_left[:, :, 1:, 1:] + upper_right[:, :, 1:, :-1]
    return total + lower_left[:, :, :-1, 1:] + lower_right[:, :, :-1, :-1]
