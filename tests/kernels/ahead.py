"""The Triton kernels, compiled without a GPU for those that they are meant for.

    python -m tests.kernels.ahead                 # every row of the table of tiles, on every GPU: minutes
    python -m tests.kernels.ahead 80 90 --only forward

Launches are recorded with the arguments of a real call, so that what is compiled is what would run: pointers and steps
divisible by 16 are known to be, steps of 1 are constants. For each: registers a thread, stack (spilled registers) and
shared memory a program, from the compiler's report. Exit code 1 where a kernel spills or asks for too much.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vcorr.kernels.geometry import Reference, Window
from vcorr.kernels.gpu import largest as peaks
from vcorr.kernels.gpu import negatives as negatives
from vcorr.kernels.gpu import reading as window
from vcorr.kernels.gpu import tuning

SHARED_KB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int32: "i32",
         torch.int64: "i64", torch.uint8: "u8"}  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """One kernel with the arguments and options of a call."""

    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Report:
    registers: int
    stack: int
    shared: int
    assembly: str


class Recorder:
    """Stands in a kernel's place and notes what it is launched with."""

    def __init__(self, kernel: Any, launches: list[Launch]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *arguments, **options: self.launches.append(Launch(self.kernel, arguments, options))


@contextlib.contextmanager
def recorded(capability: int) -> Iterator[list[Launch]]:
    """The launches that calls inside would make on a GPU of that compute capability."""
    launches: list[Launch] = []
    places = [(window, "forward_kernel"), (window, "query_gradient_kernel"), (window, "key_gradient_kernel"),
              (peaks, "peaks_kernel"), (negatives, "forward_kernel")]  # fmt: skip
    kept = [getattr(module, name) for module, name in places]
    capability_of = tuning.capability_of
    for (module, name), kernel in zip(places, kept, strict=True):
        setattr(module, name, Recorder(kernel, launches))
    tuning.capability_of = lambda device: (capability // 10, capability % 10)
    try:
        yield launches
    finally:
        tuning.capability_of = capability_of
        for (module, name), kernel in zip(places, kept, strict=True):
            setattr(module, name, kernel)


def compiled(launch: Launch, capability: int) -> Report:
    """The compiler's report on one launch."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {name: value for name, value in launch.options.items() if name in launch.kernel.arg_names}
    options = {name: value for name, value in launch.options.items() if name not in constants}
    signature, attributes = {}, {}
    given = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False))
    declared = {param.name: param.annotation_type for param in launch.kernel.params}
    for place, name in enumerate(launch.kernel.arg_names):
        value = given.get(name)
        if isinstance(value, torch.Tensor):
            signature[name], divides = f"*{TYPES[value.dtype]}", value.data_ptr() % 16 == 0
        elif name in constants or value == 1:
            signature[name], divides = "constexpr", False
            constants.setdefault(name, value)
        else:
            wide = isinstance(value, int) and abs(value) >= 2**31
            signature[name] = declared[name] or ("fp32" if isinstance(value, float) else "i64" if wide else "i32")
            divides = isinstance(value, int) and value % 16 == 0
        if divides:
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(made.asm["cubin"])
        text = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{word}:(\d+)", text).group(1)) for word in ("REG", "STACK"))
    return Report(registers, stack, made.metadata.shared, made.asm["ptx"])


@dataclass(frozen=True)
class Case:
    """A reading to compile for."""

    dtype: torch.dtype
    features: int
    precision: str = "ieee"
    offset: str = "none"
    values: int = 4
    references: int = 1
    masked: bool = False
    restricted: bool = False
    border: str = "mask"
    shape: str = "square"
    dilation: int = 1
    top_k: int = 10

    @property
    def name(self) -> str:
        words = [TYPES[self.dtype], f"C{self.features}", f"V{self.values}", f"R{self.references}"]
        words += [self.precision] if self.dtype == torch.float32 else []
        words += [word for word, on in (
            (f"{self.offset} offset", self.offset != "none"), ("mask", self.masked),
            ("restricted", self.restricted), ("zeros", self.border == "zeros"),
            ("disk", self.shape == "disk"), (f"dilation {self.dilation}", self.dilation > 1)) if on]  # fmt: skip
        return " ".join(words)


HALF, SINGLE = torch.bfloat16, torch.float32
BURDEN = {"masked": True, "restricted": True, "border": "zeros"}  # what costs registers beside the products
MOST = {**BURDEN, "shape": "disk", "dilation": 3}
CASES = [
    Case(HALF, 64),
    Case(HALF, 64, values=64, **BURDEN),
    Case(HALF, 96, **MOST),
    Case(HALF, 256),
    Case(HALF, 256, values=64, **BURDEN),
    Case(torch.float16, 256, values=11, references=5),
    Case(HALF, 512, values=64),
    *(Case(HALF, features, offset=offset, values=values, **BURDEN)
      for features, values in ((64, 4), (256, 4), (512, 64)) for offset in ("whole", "fractional")),
    Case(SINGLE, 256, "bf16"),
    *(Case(SINGLE, 256, precision) for precision in ("tf32", "tf32x3", "ieee")),
    *(Case(SINGLE, 512, precision, values=32) for precision in ("tf32x3", "ieee")),
    *(Case(SINGLE, 64, precision, **MOST) for precision in ("tf32x3", "ieee")),
    *(Case(SINGLE, 64, precision, offset, **BURDEN)
      for precision in ("tf32", "ieee") for offset in ("whole", "fractional")),
    *(Case(SINGLE, 256, precision, offset, values=32, **BURDEN)
      for precision in ("tf32x3", "ieee") for offset in ("whole", "fractional")),
]  # fmt: skip


def launches_of(case: Case, capability: int) -> list[Launch]:
    """Every kernel that the case needs: forward, both backward ones, peaks, and the negatives' forward."""
    size = (2, 24, 48)
    query = torch.empty(*size, case.features, dtype=case.dtype)
    frames = [torch.empty(*size[:1], case.references, *size[1:], c, dtype=case.dtype).unbind(1)
              for c in (case.features, case.values)]  # fmt: skip
    offset = {"none": None, "whole": torch.ones(*size, 2), "fractional": torch.full((*size, 2), 0.5)}[case.offset]
    mask = torch.ones(size, dtype=torch.bool) if case.masked else None
    read = torch.ones(size, dtype=torch.bool) if case.restricted else None
    view = Window(12, case.dilation, case.shape, case.border, 1.0, case.precision)
    references = [Reference(key, value, offset, mask, view) for key, value in zip(*frames, strict=True)]
    with recorded(capability) as launches:
        readout, lse = window.read(query, references, read)
        window.read_backward(readout, lse, query, references, readout, lse, (True, True, True), read)
        if case.offset != "fractional":
            peaks.largest(query, references, case.top_k, read)
        if case.offset == "none":
            bank, group = torch.empty(5760, case.features, dtype=case.dtype), torch.empty(5760, dtype=torch.int64)
            for keep_mean in (True, False):
                negatives.logsumexp(bank, bank, group, group, 1.0, case.precision, keep_mean)
    return launches


def problem(launch: Launch, report: Report, capability: int) -> str:
    """What is wrong with a compiled kernel, or nothing."""
    if report.shared > 1024 * SHARED_KB[capability]:
        return f"asks for {report.shared / 1024:.0f} KB of shared memory, of {SHARED_KB[capability]}"
    if report.stack:
        return f"spills registers: {report.stack} bytes of stack"
    exact = launch.options["PRECISION"] == "ieee" and launch.arguments[0].dtype == torch.float32
    if not exact and not re.search(r"wgmma|mma\.sync|tcgen05", report.assembly):
        return "uses no tensor cores"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capability", nargs="*", type=int, default=list(SHARED_KB), help="such as 90; default: all")
    parser.add_argument("--only", default="", help="kernels whose name holds this")
    chosen = parser.parse_args()
    failures = 0
    for capability in chosen.capability:
        for case in CASES:
            for launch in launches_of(case, capability):
                name = launch.kernel.fn.__module__.split(".")[-2] + "." + launch.kernel.fn.__name__
                if chosen.only not in name:
                    continue
                report = compiled(launch, capability)
                wrong = problem(launch, report, capability)
                failures += bool(wrong)
                tile = [launch.options[n] for n in ("TH", "TW", "BM", "BN", "BC", "num_warps") if n in launch.options]
                print(f"sm_{capability} {name:30} {case.name:45} {tile!s:24} {report.registers:3} registers"
                      f" {report.shared / 1024:5.0f} KB {wrong}", flush=True)  # fmt: skip
    print(f"{failures} of the above are wrong" if failures else "all fit")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
