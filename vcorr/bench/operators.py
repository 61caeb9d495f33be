"""The operators against their floors, and peers where asked, in interleaved rounds; what is timed was checked before.

For every method: the least time of all rounds, the useful rate (FLOPs of the products that the definition needs), time
over the floor (the same FLOPs at the rate of a large matrix product of the same type, timed in the same rounds), time
over that of vcorr, and the memory that one call adds beyond inputs and process.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vcorr.bench import cases, clock, truth
from vcorr.bench.cases import Case, Inputs, Setting
from vcorr.kernels import memory_read, negative_logsumexp
from vcorr.kernels.cpu import products
from vcorr.kernels.options import Implementation

Method = Callable[[Tensor, list[Tensor], list[Tensor]], Tensor]
"""(query, keys, values) -> readout, or of a bank (query, [bank], []) -> logsumexp."""

OURS = "vcorr"
PRODUCT = {"cpu": 1024, "cuda": 8192}  # rows of the square matrices that calibrate
MOST_COPIES = 64  # of the inputs, which on a GPU take turns so that none is found in its cache


@dataclass(frozen=True)
class Peer:
    """A method and what stands in its way.

    Attributes:
        make: builds the method; masks are made here, outside the timing.
        obstacle: why it is left out here, or None.
        interior: it treats borders otherwise, so that only the interior can be compared.
        coarse: it rounds logits and sums to the type of the inputs, so that less is asked of half precision.
        compiled: its first call at a size is a compilation.
    """

    make: Callable[[Setting], Method]
    obstacle: str | None = None
    interior: bool = False
    coarse: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class BenchOptions:
    """How to measure.

    Attributes:
        rounds: timings of each method; budget: seconds of timing after which a slow one is left out of further rounds.
        full: peers that take long as well.
        impl: of ``vcorr.kernels``.
        memory: measure memory too.
        peers: the module whose ``peers_of(setting, full) -> {name: Peer}`` does the same work; "" is none.
    """

    device: str = "cpu"
    dtype: str = "fp32"
    rounds: int = 5
    budget: float = 3.0
    full: bool = False
    impl: Implementation = "auto"
    memory: bool = True
    peers: str = ""


@dataclass(frozen=True)
class OperatorRow:
    """One method on one case; of a method that was left out, or is wrong (not ``ok``), ``note`` says why.

    Attributes:
        ms, median_ms: of one call; host_ms: of a GPU, what the host needs to launch it; first_s: the first call.
        gflops: useful rate; over_floor, over_vcorr: ratios of times; extra_mb: memory beyond the inputs, None where
            it cannot be measured.
        error: relative error against float64, of output and gradients.
        product_gflops: rate of the large matrix product in the same rounds; onednn_gflops: of the same product by
            oneDNN, after them, where vcorr multiplies large matrices by it.
    """

    case: str
    method: str
    ok: bool = True
    note: str = ""
    ms: float | None = None
    median_ms: float | None = None
    host_ms: float | None = None
    first_s: float | None = None
    gflops: float | None = None
    over_floor: float | None = None
    over_vcorr: float | None = None
    extra_mb: float | None = None
    error: float | None = None
    product_gflops: float | None = None
    onednn_gflops: float | None = None


def measure(name: str, case: Case, options: BenchOptions, say: Callable[[str], None]) -> list[OperatorRow]:
    """The rows of a case, that of vcorr first; if that is wrong, there is nothing to compare and it stands alone."""
    setting = Setting(case, torch.device(options.device), cases.DTYPES[options.dtype])
    inputs = cases.draw(setting)
    work: dict[str, Callable[[], object]] = {}
    rows: dict[str, OperatorRow] = {}
    for method, peer in methods(setting, options, options.full).items():
        say(f"{name}: {method}")
        row = OperatorRow(name, method)
        if peer.obstacle is None:
            run, row = _checked(row, setting, inputs, peer)
            if run is not None:
                work[method] = run
        else:
            row = dataclasses.replace(row, note=f"left out: {peer.obstacle}")
        rows[method] = row
        if method == OURS and not row.ok:
            return [row]
    say(f"{name}: timing")
    square = torch.randn(*(2 * [PRODUCT[setting.device.type]])).to(setting.device, setting.dtype)
    timer = clock.Clock(setting.device)
    times, product = clock.interleave(work, lambda: square @ square, timer, options.rounds, options.budget)
    flops = 2.0 * square.shape[0] ** 3
    rate, quick = flops / product.least, None
    if products.ONEDNN and setting.device.type == "cpu" and setting.dtype == torch.float32:
        again = clock.Times()
        for _ in range(options.rounds):
            timer.add("", lambda: products.times(square, square), again)
        quick = flops / again.least / 1e9
    extra = _extra_bytes(setting, options, work, say, name) if options.memory else {}
    for method, taken in times.items():
        rows[method] = dataclasses.replace(
            rows[method],
            ms=1e3 * taken.least,
            median_ms=1e3 * taken.median,
            host_ms=1e3 * min(taken.host) if taken.host else None,
            gflops=case.flops / taken.least / 1e9,
            over_floor=taken.least / (case.flops / rate),
            over_vcorr=taken.least / times[OURS].least,
            extra_mb=extra[method] / 1e6 if method in extra else None,
            product_gflops=rate / 1e9,
            onednn_gflops=quick,
        )
    return list(rows.values())


def methods(setting: Setting, options: BenchOptions, full: bool) -> dict[str, Peer]:
    """vcorr and its peers by name; on a GPU plain torch counts among them."""
    found = {OURS: Peer(lambda s: ours(s.case, options.impl))}
    if setting.device.type == "cuda" and options.impl != "cpu":
        found["vcorr, plain torch"] = Peer(lambda s: ours(s.case, "cpu"))
    if options.peers:
        found |= importlib.import_module(options.peers).peers_of(setting, full)
    return found


def ours(case: Case, impl: Implementation) -> Method:
    """The operator that a case is about."""
    if case.bank:
        return lambda query, keys, values: negative_logsumexp(query, keys[0], impl=impl)
    return lambda query, keys, values: memory_read(
        query, keys, values, radius=case.radius, top_k=case.top_k or None, impl=impl
    )


def call(method: Method, setting: Setting, inputs: Inputs) -> Callable[[], object]:
    """One timed call: forward, with backward where the case is training."""
    copies = [inputs]
    if setting.device.type == "cuda":
        cached = 2 * torch.cuda.get_device_properties(setting.device).L2_cache_size
        count = min(MOST_COPIES, -(-cached // inputs.bytes))
        copies += [cases.draw(setting, seed) for seed in range(1, count)]
    turns = itertools.cycle(copies)
    return lambda: truth.results(method, next(turns))


def _checked(
    row: OperatorRow, setting: Setting, inputs: Inputs, peer: Peer
) -> tuple[Callable[[], object] | None, OperatorRow]:
    """The call of a method whose result is right, and its row so far."""
    began = time.perf_counter()
    try:
        method = peer.make(setting)
        output, grads = truth.results(method, inputs)
        clock.wait(setting.device)
    except Exception as error:  # not all that Triton raises is a RuntimeError
        # What others cannot do here is theirs to say; of vcorr it is a failure. Neither ends the run.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        ours = row.method == OURS
        return None, dataclasses.replace(row, ok=not ours, note=f"{'failed' if ours else 'left out'}: {reason}")
    first = time.perf_counter() - began
    found = truth.error(setting.case, inputs, output, grads, peer.interior)
    row = dataclasses.replace(row, error=found, first_s=first)
    tolerance = truth.tolerance(setting.dtype, peer.coarse)
    if not found <= tolerance:  # NaN too
        return None, dataclasses.replace(
            row, ok=False, note=f"wrong: relative error {found:.2g} against float64, more than {tolerance:g}"
        )
    return call(method, setting, inputs), row


def _extra_bytes(
    setting: Setting,
    options: BenchOptions,
    work: dict[str, Callable[[], object]],
    say: Callable[[str], None],
    name: str,
) -> dict[str, int]:
    """Bytes that one call of each method adds: of a GPU's allocator, or of a process of its own (Linux)."""
    say(f"{name}: memory")
    if setting.device.type == "cuda":
        return {method: clock.extra_bytes_on_gpu(step, setting.device) for method, step in work.items()}
    if not Path("/proc/self/clear_refs").exists():
        return {}
    request = {
        "case": dataclasses.asdict(setting.case),
        "options": dataclasses.asdict(options),
        "threads": torch.get_num_threads(),
        "methods": list(work),
    }
    # Every block goes back to the system when it is freed, so that each call shows its own peak.
    given_back = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "vcorr.bench.operators", json.dumps(request)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | given_back)  # noqa: S603
    if result.returncode:
        say(f"{name}: memory could not be measured: {(result.stderr.strip() or 'killed').splitlines()[-1]}")
        return {}
    found: dict[str, int] = json.loads(result.stdout.splitlines()[-1])
    return found


def answer(request: str) -> dict[str, int]:
    """What each method's call adds to the peak of this process."""
    asked = json.loads(request)
    torch.set_num_threads(asked["threads"])
    options = BenchOptions(**asked["options"])
    setting = Setting(Case(**asked["case"]), torch.device(options.device), cases.DTYPES[options.dtype])
    inputs, small = cases.draw(setting), dataclasses.replace(setting, case=cases.smaller(setting.case))
    found = {}
    for method, peer in methods(setting, options, full=True).items():
        if method not in asked["methods"]:
            continue
        step = call(peer.make(setting), setting, inputs)
        if peer.compiled:
            step()
        else:  # libraries' own buffers; what a thread keeps of a call goes with it
            first = threading.Thread(target=call(peer.make(small), small, cases.draw(small)))
            first.start()
            first.join()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = _peak_bytes()
        step()
        found[method] = _peak_bytes() - before
    return found


def _peak_bytes() -> int:
    """The most memory this process has held."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


if __name__ == "__main__":
    print(json.dumps(answer(sys.argv[1])))
