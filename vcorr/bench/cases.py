"""What is measured: sizes by name, and any other size by its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from vcorr.errors import UsageError
from vcorr.kernels.arguments import MOST_FEATURES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TRAINING = "-training"  # ends the name of a case whose time is that of forward and backward

AnyCase = TypeVar("AnyCase", bound="DataclassInstance")


@dataclass(frozen=True)
class Case:
    """One reading: b images of h x w cells with c features, r references, v value channels.

    ``bank``: as many negatives for the b * h * w queries, and no window. ``top_k``: 0 is the whole softmax.

    Raises:
        ValueError: numbers that the operators do not take together.
    """

    h: int
    w: int
    c: int
    radius: int
    r: int = 1
    v: int = 4
    b: int = 1
    top_k: int = 0
    bank: int = 0
    training: bool = False

    def __post_init__(self) -> None:
        if self.bank:
            return
        if self.c > MOST_FEATURES:
            raise ValueError(f"c must be at most {MOST_FEATURES}, got {self.c}")
        if self.top_k and self.training:
            raise ValueError(f"top_k must be 0 in training, got {self.top_k}")
        if self.top_k > self.taps:
            raise ValueError(f"top_k must be at most the number of taps, {self.taps}, got {self.top_k}")

    @property
    def taps(self) -> int:
        """Of the windows of all references."""
        return self.r * (2 * self.radius + 1) ** 2

    @property
    def flops(self) -> float:
        """FLOPs of the products with features that the definition needs, windows cut at the borders.

        Logits; in training the gradients to query and keys as well, or, of a bank, the mean negative. The values'
        products are not counted: v is small beside c.
        """
        if self.bank:
            pairs, products = self.b * self.h * self.w * self.bank, 2 if self.training else 1
        else:
            pairs = self.b * self.r * reach(self.h, self.radius) * reach(self.w, self.radius)
            products = 3 if self.training else 1
        return 2.0 * pairs * self.c * products

    def __str__(self) -> str:
        images = f"{self.b} x " if self.b > 1 else ""
        if self.bank:
            return f"{self.b * self.h * self.w} queries, {self.bank} negatives, {self.c} features"
        more = f", top {self.top_k}" if self.top_k else ""
        return f"{images}{self.h}x{self.w}, {self.c} features, R {self.radius}, {self.r} ref., {self.v} values{more}"


_SIZES = {
    "read-480p-1": Case(120, 216, 64, 12),
    "read-480p-5": Case(120, 216, 64, 12, r=5),
    "read-480p-20": Case(120, 216, 64, 12, r=20),
    "window-480p-1": Case(120, 216, 256, 12, v=11),
    "window-480p-5": Case(120, 216, 256, 12, r=5, v=11),
    "window-480p-20": Case(120, 216, 256, 12, r=20, v=11),
    "window-64": Case(64, 64, 256, 6),
    "window-64-r12": Case(64, 64, 256, 12),
    "batch-64-c64": Case(64, 64, 64, 6, b=24),
    "batch-64-c256": Case(64, 64, 256, 6, b=24),
    "top-10": Case(60, 107, 256, 12, r=5, top_k=10),
    "top-10-20": Case(60, 107, 256, 12, r=20, top_k=10),
    "negatives": Case(64, 64, 256, 0, bank=5760),
    "negatives-batch": Case(64, 64, 256, 0, b=24, bank=5760),
    "negatives-large": Case(64, 64, 256, 0, b=24, bank=100_000),
}
CASES = _SIZES | {
    name + TRAINING: dataclasses.replace(case, training=True) for name, case in _SIZES.items() if not case.top_k
}
# What is run unasked: the main sizes of a CPU, and of a GPU.
QUICK = {
    "cpu": (
        *("read-480p-1", "read-480p-5", "window-480p-1", "window-64", "window-64-training", "top-10"),
        "negatives-training",
    ),
    "cuda": (
        *("read-480p-5", "window-480p-1", "window-480p-5", "batch-64-c256", "batch-64-c64-training"),
        *("batch-64-c256-training", "top-10-20", "negatives-training", "negatives-batch-training"),
    ),
}
MINUTES_ON_CPU = ("negatives-large", "negatives-large-training")  # a call; never chosen unasked


def default(device: str, full: bool) -> list[str]:
    """The cases that are run unasked."""
    kind = torch.device(device).type
    if not full:
        return list(QUICK.get(kind, QUICK["cpu"]))
    return [name for name in CASES if kind == "cuda" or name not in MINUTES_ON_CPU]


def smaller(case: Case) -> Case:
    """The same reading at a size that takes little time, though large enough to go the way of the whole one."""
    least = dataclasses.replace(case, h=min(case.h, 32), w=min(case.w, 96), b=1, r=1, top_k=0, bank=min(case.bank, 512))
    return dataclasses.replace(least, top_k=min(case.top_k, least.taps))


def pick(names: Sequence[str], cases: Mapping[str, AnyCase]) -> dict[str, AnyCase]:
    """Cases by name, or with other numbers: ``window-64:radius=8,b=2``.

    Raises:
        UsageError: no such case, no such number of it, not a whole number of at least 0 (1 for a size), or numbers that
            do not go together.
    """
    found = {}
    for text in names:
        name, _, changes = text.partition(":")
        if name not in cases:
            raise UsageError(text, "is no case", f"take one of {', '.join(cases)}, or NAME:KEY=NUMBER,...")
        numbers = _numbers(text, changes, cases[name])
        try:
            found[text] = dataclasses.replace(cases[name], **numbers)
        except ValueError as error:
            raise UsageError(text, str(error), "give other numbers") from None
    return found


def _numbers(text: str, changes: str, case: Any) -> dict[str, int]:
    """``KEY=NUMBER,...`` checked against the fields of the case."""
    keys = [f.name for f in dataclasses.fields(case) if f.type == "int"]
    numbers = {}
    for change in changes.split(",") if changes else ():
        key, _, value = change.partition("=")
        if key not in keys:
            raise UsageError(text, f"has no number {key!r}", f"give {', '.join(keys)} as KEY=NUMBER")
        least = 0 if key in ("radius", "top_k", "bank") else 1
        if not value.isdecimal() or int(value) < least:
            raise UsageError(text, f"{key} is {value!r}", f"give a whole number of at least {least}")
        numbers[key] = int(value)
    return numbers


def reach(cells: int, radius: int) -> int:
    """How many (query, key) pairs a line of cells has within the radius.

    >>> reach(4, 1)
    10
    """
    return sum(min(cells - 1, i + radius) - max(0, i - radius) + 1 for i in range(cells))


@dataclass(frozen=True)
class Setting:
    """A case on a device in a type."""

    case: Case
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class Inputs:
    """What every method is given: query [b h w c], keys r x [b h w c], values r x [b h w v], and the gradient that
    comes back [b h w v]; of a bank query [n c], one key [m c], gradient [n]."""

    query: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    grad: Tensor

    @property
    def bytes(self) -> int:
        return sum(t.nbytes for t in (self.query, *self.keys, *self.values))

    @property
    def leaves(self) -> list[Tensor]:
        return [t for t in (self.query, *self.keys) if t.requires_grad]


def draw(setting: Setting, seed: int = 0) -> Inputs:
    """Normal features and values: logits have a standard deviation of 1, values of both signs show a wrong weight."""
    case, generator = setting.case, torch.Generator().manual_seed(seed)

    def normal(*shape: int, needs: bool = False) -> Tensor:
        drawn = torch.randn(*shape, generator=generator).to(setting.device, setting.dtype)
        return drawn.requires_grad_(needs and case.training)

    if case.bank:
        rows = case.b * case.h * case.w
        query, bank = normal(rows, case.c, needs=True), normal(case.bank, case.c)
        return Inputs(query, [bank], [], torch.randn(rows, generator=generator).to(setting.device))
    cells = (case.b, case.h, case.w)
    frames = [normal(*cells, case.c, needs=True) for _ in range(case.r + 1)]
    return Inputs(frames[0], frames[1:], [normal(*cells, case.v) for _ in range(case.r)], normal(*cells, case.v))
