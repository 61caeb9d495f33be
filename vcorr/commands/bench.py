"""``vcorr bench``: parses and prints. Results on stdout, progress on stderr."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vcorr.commands.console import say
from vcorr.commands.options import Device, weights_file
from vcorr.errors import InputError, UsageError, VcorrError

app = typer.Typer(help="Measure the speed and memory of the operators and of propagation on this machine.")

Cases = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CASE]...", help="Case by name; change its numbers with NAME:KEY=NUMBER,..."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: chosen by torch.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")]


class Type(StrEnum):
    """Type of features and values."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Impl(StrEnum):
    """Implementation of the operators."""

    auto = "auto"
    cpu = "cpu"
    triton = "triton"


@app.callback(invoke_without_command=True)
def bench(context: typer.Context) -> None:
    """Without a subcommand: the default cases of operators, then of propagation."""
    if context.invoked_subcommand is None:
        operators()
        propagation()


@app.command()
def operators(
    cases: Cases = None,
    threads: Threads = None,
    device: Device = "auto",
    dtype: Annotated[Type, typer.Option(help="Type of features and values.")] = Type.fp32,
    impl: Annotated[Impl, typer.Option(help="Implementation of vcorr.kernels.")] = Impl.auto,
    rounds: Annotated[int, typer.Option(min=1, help="Number of timings of each method.")] = 5,
    budget: Annotated[
        float, typer.Option(min=0, help="Seconds after which a slow method is skipped in further rounds.")
    ] = 3.0,
    memory: Annotated[bool, typer.Option(help="Measure memory; on a CPU, each case runs in its own process.")] = True,
    full: Annotated[bool, typer.Option("--full", help="Run every case; slow on a CPU.")] = False,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
) -> None:
    """Time the operators against the floor of a matrix product. A wrong result is an error."""
    _one_form(as_json, as_markdown)
    from vcorr.bench import cases as sizes
    from vcorr.bench import clock, tables
    from vcorr.bench import operators as measured

    where = _device(device, threads)
    _can(impl, where)
    chosen = sizes.pick(cases or sizes.default(where, full), sizes.CASES)
    options = measured.BenchOptions(where, dtype.value, rounds, budget, full, impl.value, memory)
    machine, results = clock.machine_facts(where), {}
    for name, case in chosen.items():
        results[name] = (case, measured.measure(name, case, options, say))
        if not (as_json or as_markdown):
            _print(tables.text(name, *results[name]))
    rows = [row for _, found in results.values() for row in found]
    if as_json:
        _json(tables.document("operators", machine, dataclasses.asdict(options), rows))
    if as_markdown:
        _print(tables.markdown(_command(), machine, results))
    wrong = [row for row in rows if not row.ok]
    if wrong:
        raise VcorrError(f"{wrong[0].case}, {wrong[0].method}", wrong[0].note, f"{len(wrong)} methods are wrong")


@app.command()
def propagation(
    cases: Cases = None,
    video: Annotated[Path | None, typer.Option(help="Video to play back and forth; default: a drawn one.")] = None,
    labels: Annotated[Path | None, typer.Option(help="With --video: mask of its first frame.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights file; default: the shipped weights.")] = None,
    threads: Threads = None,
    device: Device = "auto",
    full: Annotated[bool, typer.Option("--full", help="Run every case, including one of 600 frames.")] = False,
    as_json: AsJson = False,
    as_markdown: AsMarkdown = False,
) -> None:
    """Measure speed and peak memory of propagation, and where its time goes."""
    _one_form(as_json, as_markdown)
    if (video is None) != (labels is None):
        raise UsageError("--video and --labels", "one of them is missing", "give both, or neither to use a drawn video")
    weights = weights and weights_file(weights)
    for name, path in (("--video", video), ("--labels", labels), ("--weights", weights)):
        if path is not None and not path.exists():
            raise InputError(path, "there is no such file", f"give {name} another path")
    from vcorr.bench import cases as sizes
    from vcorr.bench import clock, tables
    from vcorr.bench import propagation as measured

    where = _device(device, threads)
    chosen = sizes.pick(cases or list(measured.FILMS if full else measured.QUICK), measured.FILMS)
    options = ["--device", where, *(("--weights", str(weights)) if weights else ())]
    rows = []
    for name, film in chosen.items():
        rows.append(measured.measure(name, film, video, labels, options, say))
        if not (as_json or as_markdown):
            _print([measured.text(rows[-1])])
    machine = clock.machine_facts(where)
    if as_json:
        _json(tables.document("propagation", machine, {"device": where, "video": str(video or "")}, rows))
    if as_markdown:
        _print(
            [
                *tables.preface(_command(), machine, "default weights" if weights is None else weights.name),
                *measured.markdown(rows),
            ]
        )


def _device(name: str, threads: int | None) -> str:
    """The device, once torch and what it starts are told how many threads to use."""
    import torch

    from vcorr.machine import pick_device

    if threads is not None:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of processes started from here
    return str(pick_device(name))


def _can(impl: Impl, device: str) -> None:
    if impl is Impl.triton and not device.startswith("cuda"):
        raise UsageError("--impl triton", f"needs a GPU, got {device}", "give --impl auto, or --device cuda")


def _one_form(as_json: bool, as_markdown: bool) -> None:
    if as_json and as_markdown:
        raise UsageError("--json and --markdown", "are both given", "give one of them")


def _command() -> str:
    """The command as it was given, to stand above its table."""
    return shlex.join(["vcorr", *sys.argv[1:]])


def _json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2))


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)
