"""What the faces of the operators take by name: each option, its default and its meaning, once."""

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
            yet run on one), or "auto": "triton" on such a GPU wherever it takes what is given, else "cpu".
    """

    precision: Precision | None
    impl: Implementation


class Windows(TypedDict, total=False):
    """Where a query cell reads: the taps of the windows around it. Several references may each have their own.

    Args:
        radius: R of the window, (2R+1)^2 taps; None reads from the whole frame. Must be given.
        dilation: cells between taps; default 1.
        offset: where each cell's window is centred, relative to the cell, as (dy, dx) in cells: [b h w 2]. Fractional
            positions sample key and value bilinearly, zero outside the frame. No gradient flows to it.
        window: "square" (default), or "disk": the taps closer than R to the centre. One for all.
        key_mask: True where a key may be read [b h w]; others take no part.

    Of several references, ``radius`` and ``dilation`` are one number or a sequence of one for each, ``offset`` and
    ``key_mask`` one tensor, [b r h w 2] and [b r h w], or a sequence of tensors and None.
    """

    radius: Required[int | Sequence[int | None] | None]
    dilation: int | Sequence[int]
    offset: Tensor | Sequence[Tensor | None] | None
    window: Shape
    key_mask: Tensor | Sequence[Tensor | None] | None


class Options(Windows, Computing, total=False):
    """How windows are read, besides ``Windows`` and ``Computing``.

    Args:
        scale: of the logits; default 1/sqrt(c). One, or one for each reference.
        border: taps outside the frame take no part ("mask", the default), or count with logit 0 and value 0 ("zeros").
        query_mask: True where a cell is to be read [b h w]; the others get readout 0, logsumexp -inf and no gradient,
            and cost next to nothing. ``label_query_mask`` gives the cells that a label can reach.
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
    """What a face was given of its options, and the defaults of all others."""
    known = list(options.__annotations__)
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise TypeError(f"{face} takes no option {name!r}; {hint}")
    if "radius" in known and "radius" not in given:
        raise TypeError(f"{face} needs radius=R, the radius of the window in taps, or None for the whole frame")
    return {**DEFAULTS, **given}
