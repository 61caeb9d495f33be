"""What ``vcorr.kernels`` chooses by the processor, each way in turn in one process: the library of large products, how
a strip's queries lie, strips or panels. Medians, and how many times as long the first way takes.

    python benchmarks/products.py [--threads 1 2] [--rounds 9]

On any processor whose torch has oneDNN; a ratio below 1 says that the first way is the faster one there.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from unittest import mock

import torch

from vcorr.bench import cases, clock, operators
from vcorr.bench.cases import Case, Setting
from vcorr.kernels import windowed_attention
from vcorr.kernels.cpu import products

LIBRARY, QUERIES, WINDOWS = ("MKL", "oneDNN"), ("turned", "as they lie"), ("strips", "panels")
NAMES = ("read-480p-1", "window-480p-1", "window-64", "window-64-training")
WIDE = {f"120x216, {c} features, R {r}": Case(120, 216, c, r, v=11) for c, r in ((128, 12), (128, 20), (256, 6))}
TRAINED = {f"{n}x{n}, 256 features, R 12, with gradients": Case(n, n, 256, 12, training=True) for n in (48, 96)}


@contextlib.contextmanager
def taking(way: str) -> Iterator[None]:
    """One of the ways, with what vcorr chooses here in everything else."""
    with contextlib.ExitStack() as stack:
        if way in LIBRARY:
            stack.enter_context(mock.patch.object(products, "ONEDNN", way == "oneDNN"))
        elif way in QUERIES:
            stack.enter_context(mock.patch.object(products, "TURNED", way == "turned"))
            stack.enter_context(mock.patch.object(products, "GROUPED", False))
        else:
            stack.enter_context(mock.patch.object(products, "GROUPED", way == "panels"))
        yield


def of_case(case: Case) -> Callable[[], object]:
    setting = Setting(case, torch.device("cpu"), torch.float32)
    return operators.call(operators.ours(case, "cpu"), setting, cases.draw(setting))


def whole_frame(training: bool) -> Callable[[], object]:
    query, key = (torch.randn(1, 64, 64, 256, requires_grad=training) for _ in range(2))
    value = torch.randn(1, 64, 64, 4)

    def run() -> object:
        readout = windowed_attention(query, key, value, radius=None)
        return torch.autograd.grad(readout.sum(), (query, key)) if training else readout

    return run


def compare(ways: tuple[str, str], run: Callable[[], object], rounds: int) -> list[float]:
    """Median milliseconds of each way."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, taken in times.items():
            with taking(way):
                start = time.perf_counter()
                run()
                taken.append(time.perf_counter() - start)
    return [1e3 * statistics.median(taken[1:]) for taken in times.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.manual_seed(0)
    rows = [
        (LIBRARY, "bank of 5760, 4096 queries, with gradients", of_case(cases.CASES["negatives-training"])),
        (LIBRARY, "whole frame 64x64, 256 features", whole_frame(training=False)),
        (LIBRARY, "whole frame 64x64, 256 features, with gradients", whole_frame(training=True)),
        *((QUERIES, name, of_case(cases.CASES[name])) for name in ("read-480p-1", "window-64", "window-64-training")),
        *((WINDOWS, name, of_case(cases.CASES[name])) for name in NAMES),
        *((WINDOWS, name, of_case(case)) for name, case in {**WIDE, **TRAINED}.items()),
    ]
    machine = clock.machine_facts("cpu")
    print(f"{machine['date']}: {machine['device']}; torch {machine['torch']}\n")
    print("| threads | what | first | second | ms | ms | ratio |\n|---|---|---|---|---|---|---|")
    for threads in given.threads:
        torch.set_num_threads(threads)
        for ways, name, run in rows:
            first, second = compare(ways, run, given.rounds)
            print(
                f"| {threads} | {name} | {ways[0]} | {ways[1]} | {first:.1f} | {second:.1f} | {first / second:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
