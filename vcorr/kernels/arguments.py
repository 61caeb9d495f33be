"""Checks of what the public faces are given: the rule first, then what came. Nothing runs before they pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from vcorr.kernels.geometry import UNRESTRICTED, Border, Shape, Windows

IMPLEMENTATIONS = ("auto", "reference", "cpu")


def references(name: str, given: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The references as a list of [b h w c]: the slices of [b r h w c] (no copy), or the sequence itself."""
    if isinstance(given, Tensor):
        if given.dim() != 5:
            raise ValueError(f"{name} must be [b r h w c], or a sequence of [b h w c], got shape {tuple(given.shape)}")
        return list(given.unbind(1))
    return list(given)


def windows(
    count: int,
    radius: int | Sequence[int | None] | None,
    dilation: int | Sequence[int],
    scale: float | None,
    border: str,
    window: str,
    channels: int,
) -> Windows:
    """The windows of ``count`` references."""
    if border not in get_args(Border):
        raise ValueError(f"border must be one of {', '.join(get_args(Border))}, got {border!r}")
    if window not in get_args(Shape):
        raise ValueError(f"window must be one of {', '.join(get_args(Shape))}, got {window!r}")
    radii = [radius] * count if radius is None or isinstance(radius, int) else list(radius)
    dilations = [dilation] * count if isinstance(dilation, int) else list(dilation)
    for name, given in (("radius", radii), ("dilation", dilations)):
        if len(given) != count:
            raise ValueError(f"{name} must be one number or one for each of {count} references, got {len(given)}")
    least = 1 if window == "disk" else 0
    for r in radii:
        if r is not None and r < least:
            raise ValueError(f"radius must be None or at least {least} with window {window!r}, got {r}")
    for r, d in zip(radii, dilations, strict=True):
        if d < 1 or (r is None and d > 1):
            raise ValueError(f"dilation must be at least 1, and 1 where radius is None, got {d} with radius {r}")
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    return Windows(
        tuple(UNRESTRICTED if r is None else r for r in radii),
        tuple(dilations),
        1.0 / math.sqrt(channels) if scale is None else float(scale),
        border,
        window,
    )


def check_read(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], impl: str) -> None:
    """Shapes, types and devices of one reading."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if not keys or len(keys) != len(values):
        raise ValueError(
            f"keys and values must hold the same references, at least one, got {len(keys)} and {len(values)}"
        )
    for name, tensors in (("query", [query]), ("key", keys), ("value", values)):
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
            if tensor.dim() != 4 or 0 in tensor.shape:
                raise ValueError(f"{name} must be [b h w channels] and not empty, got shape {tuple(tensor.shape)}")
            if tensor.device != query.device:
                raise ValueError(f"{name} must be on the device of query, {query.device}, got {tensor.device}")
    if not query.dtype.is_floating_point:
        raise TypeError(f"query must be floating point, got {query.dtype}")
    for key in keys:
        if key.shape != query.shape:
            raise ValueError(f"key must have the shape of query, {tuple(query.shape)}, got {tuple(key.shape)}")
        if key.dtype != query.dtype:
            raise TypeError(f"key must have the type of query, {query.dtype}, got {key.dtype}")
    for value in values:
        if value.shape[:3] != query.shape[:3] or value.shape != values[0].shape:
            raise ValueError(
                f"values must be [b h w v] with b h w of query, {tuple(query.shape[:3])}, and one v,"
                f" got {tuple(value.shape)}"
            )
        if value.dtype != values[0].dtype or value.dtype.is_complex:
            raise TypeError(f"values must have one real type, got {value.dtype} and {values[0].dtype}")


def carried(value: Tensor) -> Tensor:
    """Values as the operators carry them: one-hot maps of integers or booleans become float32."""
    return value if value.dtype.is_floating_point else value.to(torch.float32)
