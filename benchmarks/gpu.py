"""Everything that is asked of a GPU, in one folder: the operators' tests at real sizes, then what is measured.

    python -m benchmarks.gpu out/gpu                    # minutes; torch, triton, numpy, pytest, hypothesis and einops
    python -m benchmarks.gpu out/gpu --only tests       # a part of it, where a GPU is lent for minutes at a time
    python -m benchmarks.gpu out/gpu --tune             # and with autotuned tiles: tiles.json says which

From the root of the repository, ``make gpu`` or as above; vcorr need not be installed.

tests: tests.log. operators-bf16, operators-fp32: time, memory, floor and peers. accuracy: errors by type. tuned:
operators-bf16 with the tiles that autotuning chose, which stand in tiles, to be carried over by hand into the table of
vcorr/kernels/gpu/tuning.py. Tables and JSON are written anew after each case. What fails, hangs or breaks the GPU's
context is told in them, the rest goes on in a new process, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import accuracy
from benchmarks.apart import Apart, Failed
from vcorr.bench import cases, clock, operators, tables
from vcorr.errors import UsageError
from vcorr.kernels.gpu import tuning

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("tests", "operators-bf16", "accuracy", "operators-fp32", "tuned")
TESTS = "tests/kernels/test_gpu.py"
MOST, SILENCE = 420, 120  # seconds that all tests may take, and that nothing may be heard of them
PYTEST = (  # with neither configuration nor plugins, which ask for more than is installed
    *("-c", os.devnull, "--rootdir=.", "--confcutdir=tests/kernels", "-p", "no:cacheprovider"),
    *("--import-mode=importlib", "--tb=short", "--durations=10", "-v", "-ra"),
)


def write(folder: Path, name: str, document: dict[str, Any], table: Iterable[str]) -> None:
    for suffix, text in ((".json", json.dumps(document, indent=2)), (".md", "\n".join(table))):
        beside = folder / f".{name}{suffix}"
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(folder / (name + suffix))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_tests(folder: Path) -> bool:
    """Whether some tests ran and all passed. A test that takes the process with it is left out of the next one."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    end, codes, seen, passed = time.monotonic() + MOST, [], [], False
    with (folder / "tests.log").open("w", encoding="utf-8", buffering=1) as log:
        while True:
            before = len(seen)
            command = [sys.executable, "-m", "pytest", *PYTEST, TESTS, *(f"--deselect={test}" for test in seen)]
            tests = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment
            )
            assert tests.stdout is not None
            interrupt = threading.Timer(end - time.monotonic(), tests.send_signal, [signal.SIGINT])  # it still reports
            interrupt.start()
            silence = threading.Timer(SILENCE, tests.kill)
            silence.start()
            for line in tests.stdout:
                silence.cancel()
                silence = threading.Timer(SILENCE, tests.kill)
                silence.start()
                log.write(line)
                say(line.rstrip())
                test = re.match(rf"({TESTS}::\w+(\[.*?\])?) ", line)
                seen += [test[1]] if test else []
                passed |= " PASSED " in line
            codes.append(tests.wait())
            interrupt.cancel()
            silence.cancel()
            cut = codes[-1] < 0 or codes[-1] == pytest.ExitCode.INTERRUPTED
            if not cut or len(seen) == before or time.monotonic() > end:
                return codes == [0] and passed
            log.write(f"\n{seen[-1]} ended the process; the rest in another:\n")


def measure_operators(folder: Path, given: argparse.Namespace, dtype: str, name: str, apart: Apart) -> bool:
    """Whether every method was right."""
    options = operators.BenchOptions(given.device, dtype, given.rounds, impl=given.impl, peers="benchmarks.peers")
    measured: dict[str, tuple[cases.Case, list[operators.OperatorRow]]] = {}
    tiles: dict[Any, tuning.Tiling] = {}
    for case_name, case in given.cases.items():
        say(f"{name}: {case_name}")
        try:
            rows = apart(operators.measure, case_name, case, options, say)
        except Failed as failure:
            rows = [operators.OperatorRow(case_name, operators.OURS, ok=False, note=f"failed: {failure}")]
        for row in rows:
            if not row.ok:
                say(f"{case_name}, {row.method}: {row.note}")
        measured[case_name] = case, rows
        everything = [row for _, found in measured.values() for row in found]
        document = tables.document("operators", given.facts, dataclasses.asdict(options), everything)
        write(folder, name, document, tables.markdown(given.command, given.facts, measured))
        if name == "tuned" and rows[0].ok:
            write_tiles(folder, apart, tiles)
    return all(row.ok for _, rows in measured.values() for row in rows)


def write_tiles(folder: Path, apart: Apart, found: dict[Any, tuning.Tiling]) -> None:
    """What the process that measured has chosen, beside what others had that are gone."""
    found |= dict(apart(tuning.choices))
    listed = [{"for": [str(part) for part in place], "tile": tile._asdict()} for place, tile in found.items()]
    lines = [f"{' '.join(row['for'])}: {row['tile']}" for row in listed]
    write(folder, "tiles", {"tiles": listed}, lines)


def measure_accuracy(folder: Path, given: argparse.Namespace, apart: Apart) -> bool:
    """Whether every case could be measured."""
    rows, right = [], True
    for name, case in accuracy.CASES.items():
        for dtype in cases.DTYPES:
            try:
                rows += apart(accuracy.measure, {name: case}, given.device, [dtype], given.impl, say)
            except Failed as failure:
                say(f"{name}, {dtype}: failed: {failure}")
                right = False
            write(
                folder,
                "accuracy",
                tables.document("accuracy", given.facts, {"device": given.device, "impl": given.impl}, rows),
                accuracy.markdown(given.command, given.facts, rows),
            )
    return right


def run(part: str, given: argparse.Namespace) -> bool:
    """Whether all of a part went well."""
    if part == "tests":
        return run_tests(given.folder)
    if part == "tuned":
        os.environ["VCORR_AUTOTUNE"] = "1"  # read by processes started from here
    apart = Apart(given.limit * (2 if part == "tuned" else 1))
    try:
        if part == "accuracy":
            return measure_accuracy(given.folder, given, apart)
        return measure_operators(given.folder, given, "fp32" if part == "operators-fp32" else "bf16", part, apart)
    finally:
        apart.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="see vcorr/bench/cases.py; default: those for a GPU")
    parser.add_argument("--only", action="append", choices=PARTS, help="as often as needed; default: all but tuned")
    parser.add_argument("--tune", action="store_true", help="that one too: mostly compilation, which takes long")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=240, help="seconds that a case may take, tuned twice as many")
    parser.add_argument("--device", default="cuda", help="cuda:1, ...; on a cpu tests are skipped: to try this script")
    given = parser.parse_intermixed_args()  # cases may follow options
    if torch.device(given.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU that torch can use; on a CPU: python -m benchmarks.operators")
    try:
        given.cases = cases.pick(given.cases or cases.default(given.device, full=False), cases.CASES)
    except UsageError as error:
        parser.error(str(error))
    given.impl = "auto" if given.device == "cpu" else "triton"  # never plain torch under another name
    given.facts, given.command = clock.machine_facts(given.device), shlex.join(["python", *sys.argv])
    given.folder.mkdir(parents=True, exist_ok=True)
    right = {part: run(part, given) for part in given.only or PARTS[: 5 if given.tune else 4]}
    for part, well in right.items():
        say(f"{part}: {'all is well' if well else 'SOMETHING IS WRONG, see above'}")
    sys.exit(not all(right.values()))


if __name__ == "__main__":
    main()
