"""Checks the arguments of the public functions before anything runs. Errors state the rule, then the value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from vcorr.kernels.dispatch import constant
from vcorr.kernels.geometry import UNRESTRICTED, Reference, Window, tap_count
from vcorr.kernels.options import Border, Computing, Implementation, Precision, Shape, complete

MOST_FEATURES = 4096
MOST_CELLS = 2**31 - 1  # the largest radius or dilation
MOST_SCALE = 2.0**100  # times log2 e it is a number in float32

FEATURES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Reading(NamedTuple):
    """The checked arguments of one softmax over the windows of all references; ``wanted`` [b h w]: cells to compute."""

    query: Tensor
    references: list[Reference]
    wanted: Tensor | None
    impl: str


def reading(
    face: str,
    query: Tensor,
    keys: Tensor | Sequence[Tensor],
    values: Tensor | Sequence[Tensor],
    given: Mapping[str, Any],
) -> Reading:
    """Checks the arguments for several references."""
    options = complete(face, given)
    choose("impl", options["impl"], Implementation)
    key_frames = frames("keys", keys)
    value_frames = frames("values", values)
    check_features("query", query, query)
    if not key_frames:
        raise ValueError("keys must hold at least one reference, got none")
    count = len(key_frames)
    sights = windows(count, query.shape[3], options)
    offsets = optional_frames("offset", options["offset"], count, 4)
    masks = optional_frames("key_mask", options["key_mask"], count, 3)
    read = references(query, key_frames, value_frames, offsets, masks, sights)
    check_mask("query_mask", options["query_mask"], query)
    return Reading(query, read, options["query_mask"], options["impl"])


def reading_of_one(face: str, query: Tensor, key: Tensor, value: Tensor, given: Mapping[str, Any]) -> Reading:
    """Checks the arguments for one reference, whose tensors have no axis of references."""
    one = {name: [given[name]] for name in ("offset", "key_mask") if given.get(name) is not None}
    return reading(face, query, [key], [value], {**given, **one})


def computing(face: str, given: Mapping[str, Any]) -> tuple[str, str]:
    """Checks implementation and precision."""
    options = complete(face, given, Computing)
    choose("impl", options["impl"], Implementation)
    return options["impl"], exactness(options["precision"])


def choose(name: str, given: object, options: object) -> None:
    """``given`` must be one of a Literal's values."""
    if given not in get_args(options):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(options)))}, got {given!r}")


def whole_number(name: str, given: object, least: int) -> int:
    if isinstance(given, bool) or not isinstance(given, (int, Integral)):  # numpy's too
        raise TypeError(f"{name} must be a whole number, got {given!r}")
    number = int(given)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    if number > MOST_CELLS:
        raise ValueError(f"{name} must be at most {MOST_CELLS}, got {number}")
    return number


def frames(name: str, given: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The references' tensors: the slices of [b r h w c], without a copy, or the sequence's own."""
    if isinstance(given, Tensor):
        if given.dim() != 5:
            raise ValueError(f"{name} must be [b r h w c] or a sequence of [b h w c], got shape {tuple(given.shape)}")
        return list(given.unbind(1))
    if not isinstance(given, Sequence):
        raise TypeError(f"{name} must be [b r h w c] or a sequence of [b h w c], got {type(given).__name__}")
    for frame in given:
        check_tensor(name, frame)
    return list(given)


def optional_frames(
    name: str, given: Tensor | Sequence[Tensor | None] | None, count: int, dims: int
) -> list[Tensor | None]:
    """As ``frames``, where all or some may be missing."""
    if given is None:
        return [None] * count
    if isinstance(given, Tensor):
        if given.dim() != dims + 1:
            raise ValueError(f"{name} must have {dims + 1} axes, [b r h w ...], got shape {tuple(given.shape)}")
        return list(given.unbind(1))
    if not isinstance(given, Sequence):
        raise TypeError(f"{name} must be a tensor, or a sequence of tensors and None, got {type(given).__name__}")
    return list(given)


def per_reference(name: str, given: object, count: int) -> list[object]:
    """Spreads one value over all references, or checks that there is one for each."""
    several = list(given) if isinstance(given, (list, tuple)) else [given] * count
    if len(several) != count:
        raise ValueError(f"{name} must be one, or one for each of {count} references, got {len(several)}")
    return several


def windows(count: int, channels: int, options: Mapping[str, Any]) -> list[Window]:
    """The window of each reference."""
    border, shape, precision = options["border"], options["window"], options["precision"]
    choose("border", border, Border)
    choose("window", shape, Shape)
    least = 1 if shape == "disk" else 0
    given = per_reference("radius", options["radius"], count)
    radii = [UNRESTRICTED if r is None else whole_number("radius", r, least) for r in given]
    dilations = [whole_number("dilation", d, 1) for d in per_reference("dilation", options["dilation"], count)]
    for r, d in zip(radii, dilations, strict=True):
        if r == UNRESTRICTED and d > 1:
            raise ValueError(f"dilation must be 1 where radius is None (the whole frame), got {d}")
    scales = [scale_factor(s, channels) for s in per_reference("scale", options["scale"], count)]
    digits = exactness(precision)
    parts = zip(radii, dilations, scales, strict=True)
    return [Window(r, d, shape, border, scale, digits) for r, d, scale in parts]


def scale_factor(scale: object, channels: int) -> float:
    """The scale of the logits: 1/sqrt(channels) unless given."""
    if scale is None:
        return 1.0 / math.sqrt(channels)
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise TypeError(f"scale must be a number, got {type(scale).__name__}; one that is learned multiplies query")
    if not abs(scale) <= MOST_SCALE:  # type: ignore[operator]  # NaN fails too
        raise ValueError(f"scale must be finite, at most 2^100 in size, got {scale}")
    return float(scale)


def exactness(precision: str | None) -> str:
    """The precision of float32 products: torch's own setting unless given."""
    if precision is None:
        return str(_torch_precision())
    choose("precision", precision, Precision)
    return precision


# Compiled code is guarded on torch's global settings already.
@constant
def _torch_precision() -> str:
    return {"highest": "ieee", "high": "tf32", "medium": "bf16"}[torch.get_float32_matmul_precision()]


def references(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    offsets: Sequence[Tensor | None],
    masks: Sequence[Tensor | None],
    windows: Sequence[Window],
) -> list[Reference]:
    """The references of a reading, checked against the query and one another."""
    check_features("query", query, query)
    for name, given in (("values", values), ("offset", offsets), ("key_mask", masks)):
        if len(given) != len(keys):
            raise ValueError(f"{name} must hold one for each of {len(keys)} references, got {len(given)}")
    found = []
    for key, value, offset, mask, window in zip(keys, values, offsets, masks, windows, strict=True):
        check_features("key", key, query)
        check_value(value, values[0], query)
        if offset is not None:
            check_offset(offset, query, window)
            wide = torch.int64  # fewer bits cannot count the cells of a frame
            if offset.is_floating_point():
                wide = torch.promote_types(offset.dtype, torch.float32)
            offset = offset.to(wide)
        check_mask("key_mask", mask, query)
        found.append(Reference(key, value, offset, mask, window))
    return found


def check_mask(name: str, mask: Tensor | None, query: Tensor) -> None:
    """A mask, if there is one, has a boolean for each cell of the query."""
    if mask is None:
        return
    check_cells(name, mask, query, query.shape[:3])
    if mask.dtype != torch.bool:
        raise TypeError(f"{name} must be boolean, True where a cell may be read, got {mask.dtype}")


def check_tensor(name: str, given: object) -> None:
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(given).__name__}")
    if given.layout != torch.strided or given.is_quantized:
        raise TypeError(f"{name} must be dense and not quantized, got {given.layout} of {given.dtype}")


def check_type(name: str, tensor: Tensor) -> None:
    """Features are of a type that every implementation multiplies."""
    if not tensor.dtype.is_floating_point:
        raise TypeError(f"{name} must be floating point, got {tensor.dtype}")
    if tensor.dtype not in FEATURES:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")


def check_features(name: str, tensor: Tensor, query: Tensor) -> None:
    check_tensor(name, tensor)
    if tensor.dim() != 4 or 0 in tensor.shape[1:]:
        raise ValueError(f"{name} must be [b h w c] with no axis but b of length 0, got shape {tuple(tensor.shape)}")
    check_type(name, tensor)
    if tensor.shape[3] > MOST_FEATURES:
        raise ValueError(f"{name} must have at most {MOST_FEATURES} channels, got {tensor.shape[3]}")
    check_cells(name, tensor, query, query.shape)
    if tensor.dtype != query.dtype:
        raise TypeError(f"{name} must have the type of query, {query.dtype}, got {tensor.dtype}")


def check_value(value: Tensor, first: Tensor, query: Tensor) -> None:
    check_tensor("value", value)
    if value.dim() != 4 or 0 in value.shape[1:]:
        raise ValueError(f"value must be [b h w v] with no axis but b of length 0, got shape {tuple(value.shape)}")
    check_cells("value", value, query, (*query.shape[:3], first.shape[-1]))
    if value.dtype != first.dtype or value.dtype.is_complex:
        raise TypeError(f"values must be real and of one type, got {value.dtype} and {first.dtype}")
    if value.dtype.is_floating_point:
        check_type("value", value)


def check_offset(offset: Tensor, query: Tensor, window: Window) -> None:
    check_cells("offset", offset, query, (*query.shape[:3], 2))
    if window.radius == UNRESTRICTED:
        raise ValueError("offset must be None where radius is None (the whole frame), got a tensor")
    if offset.requires_grad:
        raise ValueError("offset must not require gradients, which flow to query, keys and values alone; detach it")
    if offset.dtype not in (*FEATURES, *WHOLE):
        raise TypeError(f"offset must be real, floating point or whole, got {offset.dtype}")


def check_finite(references: Sequence[Reference]) -> None:
    """Offsets, wherever the numbers are there to be looked at; compiled code has none until the operator runs."""
    if any(r.offset is not None and not bool(torch.isfinite(r.offset).all()) for r in references):
        raise ValueError("offset must be finite, got infinite or undefined values")


def check_cells(name: str, tensor: Tensor, query: Tensor, shape: Sequence[int]) -> None:
    """Shape and device of a tensor that goes with the query."""
    check_tensor(name, tensor)
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(
            f"{name} must have shape {tuple(shape)} to go with query {tuple(query.shape)}, got {tuple(tensor.shape)}"
        )
    if tensor.device != query.device:
        raise ValueError(f"{name} must be on the device of query, {query.device}, got {tensor.device}")


def check_top_k(top_k: object, reading: Reading, *, joint: bool) -> int:
    """``top_k`` must be within the number of taps: of all references jointly, or of each."""
    k = whole_number("top_k", top_k, 1)
    # A window of radius k has k taps already: no larger one need be counted.
    height, width = reading.query.shape[1:3]
    sights = [r.window for r in reading.references]
    counts = [tap_count(min(w.radius, k), w.shape, height, width) for w in sights]
    most = sum(counts) if joint else min(counts)
    if k > most:
        raise ValueError(f"top_k must be at most the number of taps, {most}, got {k}")
    return k


def check_bank(query: Tensor, negatives: Tensor, query_group: Tensor | None, negative_group: Tensor | None) -> None:
    """Queries [n c] and a bank of negatives [m c], and their groups [n] and [m] where given."""
    for name, tensor in (("query", query), ("negatives", negatives)):
        check_tensor(name, tensor)
        if tensor.dim() != 2 or tensor.shape[1] == 0:
            raise ValueError(f"{name} must be [rows c], got shape {tuple(tensor.shape)}")
        check_type(name, tensor)
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
        check_tensor(name, group)
        if tuple(group.shape) != (like.shape[0],):
            raise ValueError(f"{name} must have shape {(like.shape[0],)}, got {tuple(group.shape)}")
        if group.dtype not in WHOLE:
            raise TypeError(f"{name} must be whole numbers, signed or bytes, got {group.dtype}")
    for name, other in (("negatives", negatives), ("query_group", query_group), ("negative_group", negative_group)):
        if other is not None and other.device != query.device:
            raise ValueError(f"{name} must be on the device of query, {query.device}, got {other.device}")
