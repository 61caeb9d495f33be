"""The operators against their floors and everything else that could do the same work: the tables of docs/kernels.md.

    python -m benchmarks.operators --threads 2
    python -m benchmarks.operators --device cuda --dtype bf16 --json > operators.json

From the root of the repository; it needs torch and einops alone, vcorr need not be installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys

import torch

from vcorr.bench import cases, clock, operators, tables
from vcorr.errors import UsageError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="see vcorr/bench/cases.py; NAME:KEY=NUMBER,...")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=cases.DTYPES, default="fp32")
    parser.add_argument("--impl", choices=("auto", "cpu", "triton"), default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--full", action="store_true", help="every case and every peer")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_intermixed_args()  # cases may follow options
    if given.threads:
        torch.set_num_threads(given.threads)
    options = operators.BenchOptions(
        given.device, given.dtype, given.rounds, full=given.full, impl=given.impl, peers="benchmarks.peers"
    )
    try:
        chosen = cases.pick(given.cases or cases.default(given.device, given.full), cases.CASES)
    except UsageError as error:
        parser.error(str(error))
    measured = {}
    for name, case in chosen.items():
        measured[name] = case, operators.measure(name, case, options, lambda line: print(line, file=sys.stderr))
    rows = [row for _, found in measured.values() for row in found]
    facts = clock.machine_facts(given.device)
    if given.json:
        print(json.dumps(tables.document("operators", facts, dataclasses.asdict(options), rows), indent=2))
    else:
        print(
            *tables.markdown(shlex.join(["python", "-m", "benchmarks.operators", *sys.argv[1:]]), facts, measured),
            sep="\n",
        )
    sys.exit(not all(row.ok for row in rows))


if __name__ == "__main__":
    main()
