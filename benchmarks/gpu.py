"""Everything that is measured on a GPU, as tables and JSON in one folder; ``make gpu`` runs it after the tests.

    python benchmarks/gpu.py out/gpu                    # minutes; needs torch, triton and einops
    python benchmarks/gpu.py out/gpu --tune             # and with autotuned tiles: tiles.json says which

operators-bf16, operators-fp32: time, memory, floor and peers. accuracy: errors by type. tiles: what autotuning chose
beside the table of vcorr/kernels/tuning.py, to be carried over into it by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from vcorr.bench import accuracy, cases, clock, operators, tables
from vcorr.kernels import tuning


def write(folder: Path, name: str, document: dict[str, Any], table: Iterable[str]) -> None:
    for suffix, text in ((".json", json.dumps(document, indent=2)), (".md", "\n".join(table))):
        beside = folder / f".{name}{suffix}"
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(folder / (name + suffix))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure_operators(folder: Path, dtype: str, names: list[str], rounds: int, suffix: str = "") -> bool:
    """Whether every method was right."""
    options = operators.Options("cuda", dtype, rounds)
    measured = {}
    for name, case in cases.pick(names or cases.default("cuda", full=False), cases.CASES).items():
        say(f"{dtype}{suffix}: {name}")
        measured[name] = case, operators.measure(name, case, options, say)
    rows = [row for _, found in measured.values() for row in found]
    facts = clock.machine_facts("cuda")
    document = tables.document("operators", facts, dataclasses.asdict(options), rows)
    command = shlex.join(["python", *sys.argv])
    write(folder, f"operators-{dtype}{suffix}", document, tables.markdown(command, facts, measured))
    return all(row.ok for row in rows)


def measure_accuracy(folder: Path) -> None:
    chosen = cases.pick(["window-64", "negatives"], cases.CASES)
    rows = accuracy.measure(chosen, "cuda", list(cases.DTYPES), "auto", say)
    facts = clock.machine_facts("cuda")
    command = shlex.join(["python", *sys.argv])
    write(folder, "accuracy", tables.document("accuracy", facts, {}, rows), accuracy.markdown(command, facts, rows))


def write_tiles(folder: Path) -> None:
    listed = [{"for": [str(part) for part in place], "tile": tile._asdict()} for place, tile in tuning.choices()]
    lines = [f"{' '.join(row['for'])}: {row['tile']}" for row in listed]
    write(folder, "tiles", {"tiles": listed}, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="see vcorr/bench/cases.py; default: those for a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tune", action="store_true", help="again in bf16, with the fastest tiles found")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no GPU that torch can use; on a CPU: python benchmarks/operators.py")
    given.folder.mkdir(parents=True, exist_ok=True)
    right = measure_operators(given.folder, "bf16", given.cases, given.rounds)
    measure_accuracy(given.folder)
    right = measure_operators(given.folder, "fp32", given.cases, given.rounds) and right
    if given.tune:
        os.environ["VCORR_AUTOTUNE"] = "1"
        right = measure_operators(given.folder, "bf16", given.cases, given.rounds, "-tuned") and right
        write_tiles(given.folder)
    sys.exit(not right)


if __name__ == "__main__":
    main()
