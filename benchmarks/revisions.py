"""Two revisions side by side: lines of each room, and speed and memory of the operators and of ``vcorr propagate``.

    python -m benchmarks.revisions BEFORE [AFTER] [--only lines operators propagate] [--rounds 5] [--frames 12]

A revision is anything that git knows, or "." for the files as they lie here (AFTER, unless given). The two take turns,
on one thread; a number is the least of all rounds. Operators: CPU milliseconds and MB of a call, both revisions in a
process of their own. Propagation: seconds of labelling and of CPU, and peak MB, of the command on the example clip,
both with the weights of BEFORE; and how many masks are the same. Prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

PARTS = ("lines", "operators", "propagate")
ROOT = Path(__file__).parents[1]


def lines_of(tree: Path) -> Counter[str]:
    """Lines of Python by room: a package with all that is in it, or a module, directly in vcorr/."""
    found: Counter[str] = Counter()
    for path in (tree / "vcorr").rglob("*.py"):
        room = path.relative_to(tree / "vcorr").parts[0].removesuffix(".py")
        found[room] += len(path.read_text(encoding="utf-8").splitlines())
    return found


# --- within a tree --------------------------------------------------------------------------------------------------


def cases(small: bool = False) -> dict[str, Callable[[], object]]:
    """Calls of the operators, at 480p or, for a test, tiny."""
    import torch

    from vcorr import kernels

    def draw(*shape: int, seed: int = 0) -> Any:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    h, w, radius, negatives, crop = (6, 9, 1, 20, 8) if small else (60, 107, 12, 5760, 32)
    query, *keys = (draw(1, h, w, 64, seed=k) for k in range(6))
    values = [draw(1, h, w, 4, seed=k) for k in range(5)]
    bank = draw(negatives, 64)
    leaves = [draw(4, crop, crop, 64, seed=k).requires_grad_() for k in range(2)]
    colours = draw(4, crop, crop, 3)

    def train() -> object:
        readout = kernels.windowed_attention(leaves[0], leaves[1], colours, radius=min(radius, 6))
        return torch.autograd.grad(readout.sum(), leaves)

    return {
        f"windowed_attention, {w}x{h}": lambda: kernels.windowed_attention(query, keys[0], values[0], radius=radius),
        f"memory_read, 5 x {w}x{h}": lambda: kernels.memory_read(query, keys, values, radius=radius),
        "the same, top_k=10": lambda: kernels.memory_read(query, keys, values, radius=radius, top_k=10),
        f"windowed_attention and gradient, 4 x {crop}x{crop}": train,
        f"negative_logsumexp, {h * w} x {negatives}": lambda: kernels.negative_logsumexp(query.flatten(0, 2), bank),
    }


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of a call."""
    began = time.process_time()
    work()
    return 1e3 * (time.process_time() - began)


def extra_mb(work: Callable[[], object]) -> float:
    """The most MB that a call adds to the process; NaN where Linux does not tell."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed would be taken again, unseen
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _memory("VmRSS")
        work()
        return max(0.0, _memory("VmHWM") - before)
    except (OSError, AttributeError):
        return math.nan


def _memory(name: str) -> float:
    """MB of this process, by the name of a line of /proc/self/status."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def within(tree: str) -> None:
    """Answer lines of [what to measure, case] by the vcorr that imports, which must be the tree's."""
    import torch

    import vcorr

    assert Path(str(vcorr.__file__)).parent == Path(tree, "vcorr"), vcorr.__file__
    torch.set_num_threads(1)
    calls = cases()
    print(json.dumps(list(calls)), flush=True)
    for line in sys.stdin:
        what, case = json.loads(line)
        print(json.dumps({"time": cpu_ms, "memory": extra_mb}[what](calls[case])), flush=True)


# --- without --------------------------------------------------------------------------------------------------------


class Side:
    """A process that measures the operators of one tree."""

    def __init__(self, tree: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--within", str(tree)],
            env=_environment(tree), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.cases: list[str] = self._answer()

    def __call__(self, what: str, case: str) -> float:
        assert self._process.stdin is not None
        print(json.dumps([what, case]), file=self._process.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise SystemExit("a revision cannot run the cases")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


def _environment(tree: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}


def propagate(tree: Path, weights: Path, frames: int, out: Path) -> tuple[float, float, float]:
    """Label the first frames of the example clip; seconds of labelling, CPU seconds and peak MB of the command."""
    clip, mask = ROOT / "examples/goat.mp4", ROOT / "examples/goat_mask.png"
    words = ["propagate", clip, mask, "--out", out, "--weights", weights, "--end", frames, "--device", "cpu"]
    command = [sys.executable, "-m", "vcorr", *map(str, words)]
    process = subprocess.Popen(
        command, cwd=tree, env=_environment(tree), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{tree}: {said.strip()[-2000:]}")
    seconds = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["seconds"]
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def compare_lines(trees: Sequence[Path]) -> str:
    before, after = map(lines_of, trees)
    rows: list[Sequence[object]] = [
        (room, before[room], after[room], f"{after[room] - before[room]:+}") for room in sorted(before | after)
    ]
    total = [sum(side.values()) for side in (before, after)]
    return table(("lines of vcorr/", "before", "after", "change"), [*rows, ("all", *total, f"{total[1] - total[0]:+}")])


def compare_operators(trees: Sequence[Path], rounds: int) -> str:
    rows: list[Sequence[object]] = []
    with Side(trees[0]) as before, Side(trees[1]) as after:
        sides = before, after
        for case in before.cases:
            mb = [side("memory", case) for side in sides]
            found: list[list[float]] = [[], []]
            for _ in range(rounds):
                for results, side in zip(found, sides, strict=True):
                    results.append(side("time", case))
            ms = [min(results) for results in found]
            rows.append((case, *(f"{x:.1f}" for x in ms), f"{ms[1] / ms[0]:.2f}", *(f"{x:.1f}" for x in mb)))
    return table(("operator", "CPU ms before", "after", "ratio", "MB before", "after"), rows)


def compare_propagate(trees: Sequence[Path], rounds: int, frames: int, scratch: Path) -> str:
    weights = trees[0] / "vcorr/weights/default.safetensors"
    found: list[list[tuple[float, float, float]]] = [[], []]
    for k in range(rounds):
        for results, tree, side in zip(found, trees, ("before", "after"), strict=True):
            results.append(propagate(tree, weights, frames, scratch / f"{side}{k}"))
    least = [[min(column) for column in zip(*results, strict=True)] for results in found]
    names = ("seconds of labelling", "CPU seconds", "peak MB")
    rows: list[Sequence[object]] = [
        (name, f"{a:.2f}", f"{b:.2f}", f"{b / a:.2f}") for name, a, b in zip(names, *least, strict=True)
    ]
    pairs = [
        [path.read_bytes() for path in sorted((scratch / f"{side}0/masks").iterdir())] for side in ("before", "after")
    ]
    same = sum(a == b for a, b in zip(*pairs, strict=True))
    head = (f"propagate, {frames} frames", "before", "after", "ratio")
    return table(head, rows) + f"\n{same} of {len(pairs[0])} masks are the same.\n"


def main() -> None:
    from benchmarks.same_weights import lay_out

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="BEFORE")
    parser.add_argument("after", metavar="AFTER", nargs="?", default=".")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=12)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vcorr-") as name:
        scratch = Path(name)
        trees = [lay_out(revision, scratch / side) for revision, side in ((given.before, "b"), (given.after, "a"))]
        if "lines" in given.only:
            print(compare_lines(trees), flush=True)
        if "operators" in given.only:
            print(compare_operators(trees, given.rounds), flush=True)
        if "propagate" in given.only:
            print(compare_propagate(trees, given.rounds, given.frames, scratch), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--within"]:
        within(sys.argv[2])
    else:
        main()
