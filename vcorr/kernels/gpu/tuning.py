"""Tile sizes of the Triton kernels: one table, by kernel, GPU and features.

No row has been timed on a GPU yet. Each is the largest of a few that compiles without spilled registers and within the
shared memory of every GPU it is for, by Triton 3.6 and 3.9, with and without masks, borders and many values (``make
check-kernels`` tells); 8 x 16 queries where that fits: a tile of M cells does M products for each key it reads, and at
256 channels the traffic from the second-level cache is the limit.

``VCORR_AUTOTUNE=1`` times neighbouring sizes at each first call and keeps the fastest for the process. Another run may
choose otherwise, and its sums differ in their last bits; without it they do not.
"""

from __future__ import annotations

import itertools
import logging
import os
import statistics
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Kernel = Literal["forward", "query_gradient", "key_gradient", "peaks", "negatives", "mean_negatives"]
Product = Literal["half", "tf32", "ieee"]  # float16, bfloat16 and what is rounded to it; tf32 and tf32x3; ieee
Offsets = Literal["none", "whole", "fractional"]
log = logging.getLogger("vcorr.kernels")


class Tiling(NamedTuple):
    """Cells of a tile and cells that pass at a time; most channels of one product, and of a sum that a program holds;
    warps and stages of its pipeline; registers a thread may have, None for what the assembler thinks best: it spills a
    few where one more program then fits."""

    rows: int
    columns: int
    passing: int
    channels: int
    held: int
    warps: int
    stages: int = 2
    registers: int | None = None


ALL = 255  # the registers of a thread
SCARCE = {(8, 6), (8, 9), (12, 0), (12, 1)}  # 99 KB of shared memory a program; other GPUs have 163 KB or more
# By kernel and product, the tile where shared memory is ample and where it is scarce.
TABLE: dict[tuple[Kernel, Product], tuple[Tiling, Tiling]] = {
    ("forward", "half"): (Tiling(8, 16, 32, 256, 256, 8, 2, ALL), Tiling(8, 8, 32, 256, 256, 4)),
    ("query_gradient", "half"): (Tiling(8, 8, 32, 256, 256, 8, 2, ALL), Tiling(8, 8, 32, 256, 256, 8)),
    ("key_gradient", "half"): (Tiling(8, 8, 32, 256, 128, 8, 1), Tiling(8, 8, 32, 256, 128, 8, 1)),
    ("peaks", "half"): (Tiling(8, 8, 64, 256, 256, 8, 2, ALL), Tiling(8, 8, 64, 256, 256, 8, 2, ALL)),
    ("negatives", "half"): (Tiling(8, 16, 64, 256, 256, 8), Tiling(8, 16, 64, 256, 256, 8)),
    ("mean_negatives", "half"): (Tiling(8, 8, 64, 256, 256, 8), Tiling(8, 8, 32, 256, 256, 8)),
    ("forward", "tf32"): (Tiling(8, 8, 32, 32, 32, 8, 2, ALL), Tiling(8, 8, 32, 32, 32, 8)),
    ("query_gradient", "tf32"): (Tiling(8, 8, 32, 32, 64, 8), Tiling(8, 8, 32, 32, 32, 8)),
    ("key_gradient", "tf32"): (Tiling(8, 8, 16, 32, 64, 8), Tiling(8, 8, 16, 32, 32, 8)),
    ("peaks", "tf32"): (Tiling(8, 8, 32, 32, 32, 8), Tiling(8, 8, 32, 32, 32, 8, 2, ALL)),
    ("negatives", "tf32"): (Tiling(8, 8, 64, 32, 32, 8), Tiling(8, 8, 64, 32, 32, 8)),
    ("mean_negatives", "tf32"): (Tiling(8, 8, 32, 32, 64, 8), Tiling(8, 8, 32, 32, 64, 8)),
    ("forward", "ieee"): (Tiling(8, 8, 32, 16, 32, 8, 2, ALL), Tiling(8, 8, 32, 16, 32, 8, 2, ALL)),
    ("query_gradient", "ieee"): (Tiling(8, 8, 16, 32, 32, 8, 2, ALL), Tiling(8, 8, 16, 32, 32, 8, 2, ALL)),
    ("key_gradient", "ieee"): (Tiling(8, 8, 16, 32, 32, 8), Tiling(8, 8, 16, 32, 32, 8)),
    ("peaks", "ieee"): (Tiling(8, 8, 32, 16, 32, 8, 2, ALL), Tiling(8, 8, 32, 16, 32, 8, 2, ALL)),
    ("negatives", "ieee"): (Tiling(8, 8, 32, 32, 32, 8), Tiling(8, 8, 32, 32, 32, 8)),
    ("mean_negatives", "ieee"): (Tiling(8, 8, 32, 32, 32, 8, 2, ALL), Tiling(8, 8, 32, 32, 32, 8)),
}
# Up to so many channels masks and exponentials weigh more than the traffic of keys: 8 x 8 queries.
NARROW, NARROW_FORWARD = 128, Tiling(8, 8, 32, 256, 256, 4, 2, ALL)
# Features of half types that are no longer held whole.
WIDE = 256
WIDE_HALF: dict[Kernel, Tiling] = {
    "forward": Tiling(8, 8, 32, 128, 256, 8, 2, ALL),
    "query_gradient": Tiling(8, 8, 32, 64, 128, 8),
    "key_gradient": Tiling(8, 8, 32, 32, 64, 8),
    "peaks": Tiling(8, 8, 32, 64, 128, 8, 2, ALL),
    "negatives": Tiling(8, 16, 64, 64, 256, 8),
    "mean_negatives": Tiling(8, 8, 64, 64, 256, 8),
}
# Whole offsets need registers for where each window lies, fractional ones for four products.
WHOLE_OFFSETS: dict[tuple[Kernel, Product], Tiling] = {
    ("forward", "half"): Tiling(8, 8, 32, 256, 256, 8),
    ("query_gradient", "half"): Tiling(8, 8, 32, 256, 256, 8),
    ("key_gradient", "half"): Tiling(8, 8, 32, 32, 64, 8),
    ("peaks", "half"): Tiling(8, 8, 32, 256, 256, 8, 2, ALL),
    ("forward", "tf32"): Tiling(8, 8, 32, 32, 32, 8, 2, ALL),
    ("query_gradient", "tf32"): Tiling(8, 8, 32, 32, 32, 8),
    ("key_gradient", "tf32"): Tiling(8, 8, 16, 32, 32, 8, 2, ALL),
    ("peaks", "tf32"): Tiling(8, 8, 32, 32, 32, 8),
    ("forward", "ieee"): Tiling(8, 8, 16, 32, 32, 8, 2, ALL),
    ("query_gradient", "ieee"): Tiling(8, 8, 16, 32, 32, 8, 2, ALL),
    ("key_gradient", "ieee"): Tiling(8, 8, 16, 32, 32, 8),
    ("peaks", "ieee"): Tiling(8, 8, 16, 32, 32, 8, 2, ALL),
}
FRACTIONAL_OFFSETS: dict[tuple[Kernel, Product], Tiling] = {
    ("forward", "half"): Tiling(4, 8, 16, 32, 32, 8, 1, ALL),
    ("query_gradient", "half"): Tiling(4, 8, 16, 32, 32, 8, 1),
    ("key_gradient", "half"): Tiling(4, 8, 16, 32, 32, 8, 1),
    ("forward", "tf32"): Tiling(4, 8, 16, 32, 32, 8, 1),
    ("query_gradient", "tf32"): Tiling(4, 8, 16, 32, 32, 8, 1),
    ("key_gradient", "tf32"): Tiling(4, 4, 16, 16, 16, 4, 1, ALL),
    ("forward", "ieee"): Tiling(4, 4, 16, 32, 32, 8, 1, ALL),
    ("query_gradient", "ieee"): Tiling(4, 4, 16, 32, 32, 8, 1, ALL),
    ("key_gradient", "ieee"): Tiling(4, 4, 16, 32, 32, 8, 1, ALL),
}


def tiling(kernel: Kernel, product: Product, features: int, offsets: Offsets, capability: tuple[int, int]) -> Tiling:
    """The table's tile for a kernel."""
    if offsets == "fractional":
        return FRACTIONAL_OFFSETS[kernel, product]
    if product == "half" and features > WIDE:
        return WIDE_HALF[kernel]
    if offsets == "whole":
        return WHOLE_OFFSETS[kernel, product]
    if (kernel, product) == ("forward", "half") and features <= NARROW:
        return NARROW_FORWARD
    ample, scarce = TABLE[kernel, product]
    return scarce if capability in SCARCE else ample


def product_of(dtype: torch.dtype, precision: str) -> Product:
    """What kind of matrix product features of a type go through."""
    if multiplied_type(dtype, precision) != torch.float32:
        return "half"
    return "ieee" if precision == "ieee" else "tf32"


def multiplied_type(dtype: torch.dtype, precision: str) -> torch.dtype:
    """What features of a type are multiplied in. float32 is rounded before the launch where it is to go as bfloat16: a
    kernel that rounds what it loads moves twice the bytes for every tile, and holds them."""
    return torch.bfloat16 if dtype == torch.float32 and precision == "bf16" else dtype


def product_precision(dtype: torch.dtype, precision: str) -> str:
    """tl.dot's own name for it, which means nothing for half types."""
    return precision if dtype == torch.float32 else "ieee"


def options(chosen: Tiling) -> dict[str, Any]:
    """Launch options; fusion of products and sums is stated because its default differs between versions of Triton."""
    given = {"num_warps": chosen.warps, "num_stages": chosen.stages, "enable_fp_fusion": True}
    return given if chosen.registers is None else {**given, "maxnreg": chosen.registers}


@cache
def capability_of(device: torch.device) -> tuple[int, int]:
    """The compute capability (major, minor) of a GPU; that of an A100 where there is none."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (8, 0)


_fastest: dict[tuple[object, ...], Tiling] = {}


def run(
    kernel: Kernel,
    query: Tensor,
    precision: str,
    launch: Callable[[Tiling], None],
    *,
    key: tuple[object, ...] = (),
    offsets: Offsets = "none",
    repeatable: bool = True,
) -> None:
    """Launch with the table's tile, or where VCORR_AUTOTUNE is set with the fastest found.

    ``key`` distinguishes what deserves a choice of its own; ``repeatable``: launching again changes nothing.
    """
    product, capability = product_of(query.dtype, precision), capability_of(query.device)
    chosen = tiling(kernel, product, query.shape[-1], offsets, capability)
    if query.device.type == "cuda" and os.environ.get("VCORR_AUTOTUNE") == "1":
        place = (kernel, product, capability, tuple(query.shape), offsets, key)
        if place not in _fastest and repeatable:
            with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
                _fastest[place] = _tune(place, chosen, launch)
        chosen = _fastest.get(place, chosen)
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]  # where Triton launches
        launch(chosen)


def choices() -> list[tuple[tuple[object, ...], Tiling]]:
    """What autotuning has chosen so far in this process."""
    return list(_fastest.items())


def _tune(place: tuple[object, ...], first: Tiling, launch: Callable[[Tiling], None]) -> Tiling:
    """The fastest of the table's tile and its neighbours, each launched some times; one that fails is passed over."""
    times = {}
    for candidate in _neighbours(first):
        try:
            times[candidate] = _milliseconds(launch, candidate)
        except Exception as failure:  # what a candidate may fail with is Triton's affair; the table's own must run
            if candidate == first:
                raise
            log.debug("%s: %s failed: %s", place, candidate, failure)
    fastest = min(times, key=lambda candidate: times[candidate])
    log.info("%s: %s, %.3f ms; the table's %s, %.3f ms", place, fastest, times[fastest], first, times[first])
    return fastest


def _neighbours(first: Tiling) -> Iterator[Tiling]:
    """The table's tile, then tiles of other sides, blocks of keys, warps and stages."""
    yield first
    sizes = [(8, 8), (8, 16), (16, 16)]
    for (rows, columns), passing, warps, stages in itertools.product(sizes, (32, 64, 128), (4, 8), (2, 3)):
        other = first._replace(rows=rows, columns=columns, passing=passing, warps=warps, stages=stages)
        if other != first:
            yield other


def _milliseconds(launch: Callable[[Tiling], None], candidate: Tiling) -> float:
    """The median of ten launches after two."""
    for _ in range(2):
        launch(candidate)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(11)]  # type: ignore[no-untyped-call]
    for step, mark in enumerate(marks):
        mark.record()
        if step < 10:
            launch(candidate)
    torch.cuda.synchronize()
    return float(statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(marks)))
