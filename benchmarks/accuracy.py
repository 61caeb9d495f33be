"""How exact the operators are in each type, against dense float64 on the same rounded inputs.

    python -m benchmarks.accuracy --device cpu

From the root of the repository; it needs torch and einops alone.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vcorr.bench import cases, clock, tables, truth
from vcorr.bench.cases import Case, Inputs, Setting
from vcorr.errors import UsageError
from vcorr.kernels import memory_read_lse, negative_logsumexp
from vcorr.kernels.options import Implementation

CASES = {
    "window": Case(64, 64, 256, 6, training=True),
    "read": Case(60, 107, 64, 12, r=5, training=True),
    "top-10": Case(60, 107, 256, 12, r=5, top_k=10),
    "negatives": Case(32, 32, 256, 0, bank=5760, training=True),
}


@dataclass(frozen=True)
class Row:
    """Errors of one result of an operator in a type.

    Attributes:
        largest: the largest error of any element, over the largest element; typical: the length of the error over that
            of the result.
    """

    case: str
    dtype: str
    result: str
    largest: float
    typical: float


def measure(
    chosen: dict[str, Case], device: str, dtypes: Sequence[str], impl: Implementation, say: Callable[[str], None]
) -> list[Row]:
    """A row for each result of each case in each type."""
    rows = []
    for name, case in chosen.items():
        for dtype in dtypes:
            say(f"{name}: {dtype}")
            setting = Setting(case, torch.device(device), cases.DTYPES[dtype])
            compare = _bank if case.bank else _window
            for result, found, wanted in compare(case, cases.draw(setting), impl):
                off = found.detach().cpu().double() - wanted
                largest = float(off.abs().max() / wanted.abs().max())
                rows.append(Row(name, dtype, result, largest, truth.relative(found.detach(), wanted)))
    return rows


def _window(case: Case, inputs: Inputs, impl: Implementation) -> Iterable[tuple[str, Tensor, Tensor]]:
    """(name, found, wanted) of each result, in the first corner of the frame."""
    part = next(truth.parts(case))
    values = [v.requires_grad_(case.training) for v in inputs.values]
    readout, lse = memory_read_lse(
        inputs.query, inputs.keys, values, radius=case.radius, top_k=case.top_k or None, impl=impl
    )
    frames = [f.detach()[part.image][part.cells].cpu().double() for f in (inputs.query, *inputs.keys, *values)]
    for frame in frames:
        frame.requires_grad_(case.training)
    size, references = frames[0].shape[:2], case.r
    wanted, wanted_lse = truth.read(case, frames[0], frames[1 : 1 + references], frames[1 + references :])
    wanted, wanted_lse = wanted.reshape(*size, -1), wanted_lse.reshape(size)
    where = (part.image, *part.queries)
    yield "readout", readout[where], wanted[part.queries].detach()
    yield "logsumexp", lse[where], wanted_lse[part.queries].detach()
    if not case.training:
        return
    grad = torch.zeros_like(readout)
    grad[where] = inputs.grad[where]
    leaves = [inputs.query, *inputs.keys, *values]
    found = torch.autograd.grad((readout, lse), leaves, (grad, grad[..., 0].to(lse.dtype)))
    right_grad = grad[part.image][part.cells].cpu().double()
    right = torch.autograd.grad((wanted, wanted_lse), frames, (right_grad, right_grad[..., 0]))
    for name, some in (
        ("dquery", slice(0, 1)),
        ("dkey", slice(1, 1 + references)),
        ("dvalue", slice(-references, None)),
    ):
        whole = part.queries if name == "dquery" else part.keys
        yield (
            name,
            torch.stack([g[part.image][whole] for g in found[some]]),
            torch.stack([g[whole] for g in right[some]]),
        )


def _bank(case: Case, inputs: Inputs, impl: Implementation) -> Iterable[tuple[str, Tensor, Tensor]]:
    query = inputs.query.detach().cpu().double().requires_grad_(case.training)
    wanted = (query @ inputs.keys[0].cpu().double().T * case.c**-0.5).logsumexp(1)
    found = negative_logsumexp(inputs.query, inputs.keys[0], impl=impl)
    yield "logsumexp", found, wanted.detach()
    if not case.training:
        return
    (grad,) = torch.autograd.grad(found, inputs.query, inputs.grad)
    (right,) = torch.autograd.grad(wanted, query, inputs.grad.cpu().double())
    yield "dquery", grad, right


def markdown(command: str, machine: tables.Machine, rows: Sequence[Row]) -> Iterable[str]:
    """A line for each result, the largest and the typical error of each type."""
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    yield from tables.preface(command, machine, "largest error (typical error), relative")
    yield f"| case | result | {' | '.join(dtypes)} |"
    yield "|---|---|" + "---|" * len(dtypes)
    for case, result in dict.fromkeys((row.case, row.result) for row in rows):
        cells = [f"{r.largest:.0e} ({r.typical:.0e})" for r in rows if (r.case, r.result) == (case, result)]
        yield f"| {case} | {result} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="a name, or NAME:KEY=NUMBER,...; default: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=cases.DTYPES, action="append", help="as often as needed; default: all")
    parser.add_argument("--impl", choices=("auto", "cpu", "triton"), default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_intermixed_args()  # cases may follow options
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        chosen = cases.pick(given.cases or list(CASES), CASES)
    except UsageError as error:
        parser.error(str(error))
    rows = measure(
        chosen, given.device, given.dtype or list(cases.DTYPES), given.impl, lambda line: print(line, file=sys.stderr)
    )
    facts = clock.machine_facts(given.device)
    if given.json:
        print(
            json.dumps(tables.document("accuracy", facts, {"device": given.device, "impl": given.impl}, rows), indent=2)
        )
    else:
        command = shlex.join(["python", "-m", "benchmarks.accuracy", *sys.argv[1:]])
        print(*markdown(command, facts, rows), sep="\n")


if __name__ == "__main__":
    main()
