"""What the result should be: dense float64 on parts of the case, so that a wrong method is an error and not a number.

Two corners are cut from the frame, large enough that some windows reach no border, and read by a matrix of all pairs
with a mask. Near the cuts windows are not whole: there, nothing is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vcorr.bench.cases import Case, Inputs

INNER = 4  # cells of a corner, each way, whose windows reach no border
QUERIES = 64  # at either end of a bank's queries
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
COARSE = 20  # times the tolerance where logits and sums are rounded: their k largest are other ones then


@dataclass(frozen=True)
class Part:
    """A corner of one image: the cells that are read, and of these the queries and keys whose results are whole."""

    image: int
    cells: tuple[slice, slice]
    queries: tuple[slice, slice]
    keys: tuple[slice, slice]


def parts(case: Case) -> Iterator[Part]:
    """The first corner of the first image, the last of the last."""
    margin, trusted = case.radius, case.radius + INNER
    for image, last in ((0, False), (case.b - 1, True)):
        spans = []
        for size in (case.h, case.w):
            keys = trusted
            queries = keys + (margin if case.training else 0)  # a key's gradient comes from all that see it
            ends = [min(size, end) for end in (queries + margin, queries, keys)]
            spans.append([slice(size - end, size) if last else slice(0, end) for end in ends])
        cells, queried, keyed = (tuple(axis) for axis in zip(*spans, strict=True))
        yield Part(image, cells, queried, keyed)


def read(case: Case, query: Tensor, keys: list[Tensor], values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Readout [n v] and logsumexp [n] of a patch [h w .] in its own type, by the matrix of all pairs."""
    height, width = query.shape[:2]
    y, x = torch.arange(height * width) // width, torch.arange(height * width) % width
    near = ((y[:, None] - y).abs() <= case.radius) & ((x[:, None] - x).abs() <= case.radius)
    key, value = (torch.cat([f.flatten(0, 1) for f in frames]) for frames in (keys, values))
    logits = query.flatten(0, 1) @ key.T * case.c**-0.5
    logits = logits.masked_fill(~near.repeat(1, len(keys)), -torch.inf)
    if case.top_k:
        logits, cells = logits.topk(min(case.top_k, logits.shape[1]))
        return (logits.softmax(1)[..., None] * value[cells]).sum(1), logits.logsumexp(1)
    return logits.softmax(1) @ value, logits.logsumexp(1)


def tolerance(dtype: torch.dtype, coarse: bool = False) -> float:
    """The relative error that a right result may have."""
    return TOLERANCE[dtype] * (COARSE if coarse and dtype != torch.float32 else 1)


def relative(found: Tensor, wanted: Tensor) -> float:
    """The length of the difference over that of what is wanted; NaN where anything is."""
    return float(torch.linalg.vector_norm(found.cpu().double() - wanted) / torch.linalg.vector_norm(wanted))


def error(case: Case, inputs: Inputs, output: Tensor, grads: list[Tensor], interior: bool = False) -> float:
    """The largest relative error of the output and of the gradients to query and keys, in the parts looked at.

    Args:
        output, grads: a method's results on the inputs; grads is empty where the case has none.
        interior: compare only cells whose windows reach no border.
    """
    if case.bank:
        return max(_bank_errors(case, inputs, output, grads))
    return max(e for part in parts(case) for e in _part_errors(case, inputs, output, grads, part, interior))


def _part_errors(
    case: Case, inputs: Inputs, output: Tensor, grads: list[Tensor], part: Part, interior: bool
) -> Iterator[float]:
    def cut(frame: Tensor) -> Tensor:
        return frame.detach()[part.image][part.cells].cpu().double()

    def whole(where: tuple[slice, slice]) -> Tensor:
        mask = torch.zeros(case.h, case.w, dtype=torch.bool)
        mask[where] = True
        if interior:
            inner = torch.zeros_like(mask)
            inner[case.radius : case.h - case.radius, case.radius : case.w - case.radius] = True
            mask &= inner
        return mask

    queries, keys = whole(part.queries), whole(part.keys)
    frames = [cut(f).requires_grad_(bool(grads)) for f in (inputs.query, *inputs.keys)]
    wanted, _ = read(case, frames[0], frames[1:], [cut(f) for f in inputs.values])
    wanted = wanted.reshape(*frames[0].shape[:2], -1)
    kept = queries[part.cells]
    yield relative(output.detach()[part.image].cpu()[queries], wanted.detach()[kept])
    if grads and not interior:
        wanted_grads = torch.autograd.grad(wanted, frames, cut(inputs.grad) * kept[..., None])
        for found, right, where in zip(grads, wanted_grads, [queries] + [keys] * len(inputs.keys), strict=True):
            yield relative(found[part.image].cpu()[where], right[where[part.cells]])


def _bank_errors(case: Case, inputs: Inputs, output: Tensor, grads: list[Tensor]) -> Iterator[float]:
    bank = inputs.keys[0].cpu().double()
    for some in (slice(0, QUERIES), slice(-QUERIES, None)):
        query = inputs.query.detach()[some].cpu().double().requires_grad_(bool(grads))
        wanted = (query @ bank.T * case.c**-0.5).logsumexp(1)
        yield relative(output.detach()[some], wanted.detach())
        if grads:
            (right,) = torch.autograd.grad(wanted, query, inputs.grad[some].cpu().double())
            yield relative(grads[0][some], right)


def results(method: Callable[..., Tensor], inputs: Inputs) -> tuple[Tensor, list[Tensor]]:
    """A method's output and the gradients to those inputs that want one."""
    output = method(inputs.query, inputs.keys, inputs.values)
    if not inputs.leaves:
        return output, []
    return output, list(torch.autograd.grad(output, inputs.leaves, inputs.grad.to(output.dtype)))
