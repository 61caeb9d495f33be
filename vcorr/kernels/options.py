"""The keyword options of the operators: types, defaults and meanings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, Required, TypedDict

from torch import Tensor

Border = Literal["mask", "zeros"]
Shape = Literal["square", "disk"]
Precision = Literal["ieee", "tf32x3", "tf32", "bf16"]
Implementation = Literal["auto", "reference", "cpu", "triton"]


class Computing(TypedDict, total=False):
    """How an operator computes.

    Args:
        precision: of float32 products on a GPU, "ieee", "tf32x3", "tf32" or "bf16"; default: torch's own setting. A CPU
            always computes in float32, or in float64 for float64 features.
        impl: "reference", "cpu" (plain torch, on any device), "triton" (a GPU of compute capability 8.0 or later; not
            yet run on one), or "auto": "triton" on such a GPU if it supports the arguments, else "cpu".
    """

    precision: Precision | None
    impl: Implementation


class Windows(TypedDict, total=False):
    """The window that a query cell reads. Each reference may have its own.

    Args:
        radius: R of the window, (2R+1)^2 taps; None reads the whole frame. Required.
        dilation: cells between taps; default 1.
        offset: the centre of each cell's window relative to the cell, (dy, dx) in cells, [b h w 2]. Fractional
            positions sample key and value bilinearly, with zeros outside the frame. It gets no gradient.
        window: "square" (default), or "disk": the taps closer than R to the centre. One for all.
        key_mask: [b h w], True for keys that may be read.

    For several references, ``radius`` and ``dilation`` are one number or a sequence with one for each; ``offset`` and
    ``key_mask`` are one tensor, [b r h w 2] and [b r h w], or a sequence of tensors and None.
    """

    radius: Required[int | Sequence[int | None] | None]
    dilation: int | Sequence[int]
    offset: Tensor | Sequence[Tensor | None] | None
    window: Shape
    key_mask: Tensor | Sequence[Tensor | None] | None


class Options(Windows, Computing, total=False):
    """All options for reading windows.

    Args:
        scale: of the logits; default 1/sqrt(c). One, or one for each reference.
        border: taps outside the frame take no part ("mask", the default), or count with logit 0 and value 0 ("zeros").
        query_mask: [b h w], True for cells to read. The others get readout 0, logsumexp -inf and no gradient, and cost
            almost nothing. ``label_query_mask`` finds the cells that a label can reach.
    """

    scale: float | Sequence[float] | None
    border: Border
    query_mask: Tensor | None


DEFAULTS: Mapping[str, Any] = {
    "dilation": 1,
    "offset": None,
    "window": "square",
    "key_mask": None,
    "scale": None,
    "border": "mask",
    "query_mask": None,
    "precision": None,
    "impl": "auto",
}


def complete(face: str, given: Mapping[str, Any], options: type = Options) -> dict[str, Any]:
    """Adds the defaults to the given options of a function."""
    known = list(options.__annotations__)
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise TypeError(f"{face} takes no option {name!r}; {hint}")
    if "radius" in known and "radius" not in given:
        raise TypeError(f"{face} needs radius=R, the radius of the window in taps, or None for the whole frame")
    return {**DEFAULTS, **given}
