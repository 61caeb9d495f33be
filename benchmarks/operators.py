"""The correspondence operators against their floors and their peers, interleaved in one run.

    python benchmarks/operators.py                    # all cases
    python benchmarks/operators.py read-480p-5 --rounds 9 --json

For every method: the least time of all rounds (medians are in --json), useful rate (FLOPs of the products that the
definition needs, borders excluded), time over the floor (the same FLOPs at the rate of a 1024^3 matrix product, timed
in the same rounds), time over that of vcorr, and the memory that one call takes beyond inputs and process, from a
process of its own (Linux).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.kernels import memory_read, negative_logsumexp

TILE = 8


@dataclass(frozen=True)
class Case:
    """One reading: h x w cells of c features, r references, v value channels."""

    h: int
    w: int
    c: int
    radius: int
    r: int = 1
    v: int = 4
    top_k: int | None = None
    gradient: bool = False
    bank: int = 0  # negatives; then h * w queries and no window

    @property
    def flops(self) -> float:
        if self.bank:  # logits, and the mean negative or the gradient from it
            return 4.0 * self.h * self.w * self.bank * self.c
        pairs = self.r * reach(self.h, self.radius) * reach(self.w, self.radius)
        products = 3 if self.gradient else 1  # forward, and the gradients to query and key; values are not counted
        return 2.0 * pairs * self.c * products


CASES = {
    "window-480p-1": Case(120, 216, 256, 12, v=11),
    "window-480p-5": Case(120, 216, 256, 12, r=5, v=11),
    "window-64": Case(64, 64, 256, 6),
    "window-64-training": Case(64, 64, 256, 6, gradient=True),
    "read-480p-1": Case(120, 216, 64, 12),
    "read-480p-5": Case(120, 216, 64, 12, r=5),
    "top-10": Case(60, 107, 256, 12, r=5, top_k=10),
    "negatives": Case(64, 64, 256, 0, bank=5760, gradient=True),
}


def reach(cells: int, radius: int) -> int:
    """How many (query, key) pairs a line of cells has within the radius."""
    return sum(min(cells - 1, i + radius) - max(0, i - radius) + 1 for i in range(cells))


def inputs_of(case: Case) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if case.bank:
        return draw(case.h * case.w, case.c).requires_grad_(case.gradient), [draw(case.bank, case.c)], []
    frames = [draw(1, case.h, case.w, case.c).requires_grad_(case.gradient) for _ in range(case.r + 1)]
    return frames[0], frames[1:], [torch.rand(1, case.h, case.w, case.v, generator=generator) for _ in range(case.r)]


def reading(case: Case) -> Callable[..., Tensor]:
    if case.bank:
        return lambda query, keys, values: negative_logsumexp(query, keys[0])
    return lambda query, keys, values: memory_read(query, keys, values, radius=case.radius, top_k=case.top_k)


@cache
def distance_mask(case: Case) -> Tensor:
    """Additive mask of all pairs of cells, 0 within the window: [h*w h*w]."""
    y, x = torch.arange(case.h * case.w) // case.w, torch.arange(case.h * case.w) % case.w
    near = ((y[:, None] - y).abs() <= case.radius) & ((x[:, None] - x).abs() <= case.radius)
    return torch.where(near, 0.0, -torch.inf)


def to_tiles(frame: Tensor) -> Tensor:
    """[1 h w c] to [rows columns 64 c], padded by zeros."""
    h, w = frame.shape[1:3]
    padded = F.pad(frame, (0, 0, 0, -w % TILE, 0, -h % TILE))[0]
    return padded.unflatten(1, (-1, TILE)).unflatten(0, (-1, TILE)).transpose(1, 2).flatten(2, 3)


def halos(frame: Tensor, radius: int) -> Tensor:
    """A view [rows columns c side side] of the cells that each tile's windows cover."""
    _, h, w, _ = frame.shape
    padded = F.pad(frame, (0, 0, radius, radius - w % -TILE, radius, radius - h % -TILE))[0]
    side = TILE + 2 * radius
    return padded.unfold(0, side, TILE).unfold(1, side, TILE)


@cache
def tile_mask(case: Case) -> Tensor:
    """Additive mask [rows columns 64 side*side] of tiles, built outside the timing."""
    inside = halos(torch.ones(1, case.h, case.w, 1), case.radius).flatten(2)  # [rows columns side*side]
    side = torch.arange(TILE + 2 * case.radius)
    near = (side[None] - torch.arange(TILE)[:, None] - case.radius).abs() <= case.radius
    window = (near[:, None, :, None] & near[None, :, None, :]).flatten(2).flatten(0, 1)
    return torch.where(window & (inside[:, :, None] > 0), 0.0, -torch.inf)


def sdpa_tiles(case: Case) -> Callable[..., Tensor]:
    """torch's attention on 8 x 8 tiles and their halos, one row of tiles at a time."""
    mask = tile_mask(case)

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        queries = to_tiles(query)
        key_halos, value_halos = [halos(k, case.radius) for k in keys], [halos(v, case.radius) for v in values]
        rows = []
        for row in range(queries.shape[0]):
            key = torch.cat([k[row].flatten(2).transpose(1, 2) for k in key_halos], 1)
            value = torch.cat([v[row].flatten(2).transpose(1, 2) for v in value_halos], 1)
            bias = mask[row].repeat(1, 1, len(keys))
            rows.append(F.scaled_dot_product_attention(queries[row], key, value, attn_mask=bias))
        tiles = torch.stack(rows).unflatten(2, (TILE, TILE)).transpose(1, 2)
        return tiles.flatten(2, 3).flatten(0, 1)[None, : case.h, : case.w]

    return run


def offset_loop(case: Case) -> Callable[..., Tensor]:
    """The affinity volume, one tap after another, as the published code has it."""
    radius = case.radius

    def shifted(frame: Tensor, y: int, x: int) -> Tensor:
        return frame[:, y : y + case.h, x : x + case.w]

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        taps = [(y, x) for y in range(2 * radius + 1) for x in range(2 * radius + 1)]
        pad = (0, 0, radius, radius, radius, radius)
        valid = F.pad(torch.ones(1, case.h, case.w, 1), pad)
        logits = []
        for key in keys:
            padded = F.pad(key, pad)
            for y, x in taps:
                logit = (query * shifted(padded, y, x)).sum(-1) * case.c**-0.5
                logits.append(logit.masked_fill(shifted(valid, y, x)[..., 0] == 0, -torch.inf))
        weights = torch.stack(logits, -1).softmax(-1)
        padded_values = [F.pad(value, pad) for value in values]
        readout = torch.zeros_like(values[0])
        for i, (r, (y, x)) in enumerate((r, tap) for r in range(len(keys)) for tap in taps):
            readout = readout + weights[..., i, None] * shifted(padded_values[r], y, x)
        return readout

    return run


def dense_masked(case: Case) -> Callable[..., Tensor]:
    """torch's attention over all pairs of cells, with a mask."""
    mask = distance_mask(case).repeat(1, case.r)

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        key, value = (torch.cat([f.flatten(1, 2) for f in frames], 1) for frames in (keys, values))
        return F.scaled_dot_product_attention(query.flatten(1, 2), key, value, attn_mask=mask)

    return run


def compiled_flex(case: Case) -> Callable[..., Tensor]:
    """Compiled flex_attention over tokens in the order of tiles, with the exact mask as a block mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    order = to_tiles(torch.arange(case.h * case.w, dtype=torch.float64).reshape(1, case.h, case.w, 1)).long().flatten()
    y, x = order // case.w, order % case.w
    count = len(order)

    def near(b: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        cell = k % count
        return ((y[q] - y[cell]).abs() <= case.radius) & ((x[q] - x[cell]).abs() <= case.radius)

    blocks = create_block_mask(near, None, None, count, case.r * count, device="cpu")
    flex = torch.compile(flex_attention, dynamic=False)

    def tokens(frame: Tensor) -> Tensor:
        return frame.flatten(1, 2)[:, order]

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        key, value = (torch.cat([tokens(f) for f in frames], 1)[:, None] for frames in (keys, values))
        padded = F.pad(value, (0, case.c - case.v))  # flex on a CPU wants as many value as key channels
        return flex(tokens(query)[:, None], key, padded, block_mask=blocks)[..., : case.v]

    return run


def chunked_dense_top_k(case: Case) -> Callable[..., Tensor]:
    """All pairs of cells in chunks of 100 queries, an additive mask, then top-k, as the published code has it."""
    mask = distance_mask(case).repeat(1, case.r)

    def run(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        key, value = (torch.cat([f[0].flatten(0, 1) for f in frames]) for frames in (keys, values))
        parts = []
        for rows in torch.arange(case.h * case.w).split(100):
            logits = query[0].flatten(0, 1)[rows] @ key.T * case.c**-0.5 + mask[rows]
            top, cells = logits.topk(case.top_k or 10, -1)
            parts.append((top.softmax(-1)[..., None] * value[cells]).sum(1))
        return torch.cat(parts)

    return run


def full_logsumexp(case: Case) -> Callable[..., Tensor]:
    return lambda query, keys, values: (query @ keys[0].T * case.c**-0.5).logsumexp(1)


def peers_of(case: Case, flex: bool) -> dict[str, Callable[[Case], Callable[..., Tensor]]]:
    if case.bank:
        return {"full matrix": full_logsumexp}
    if case.top_k:
        return {"chunked dense + top-k": chunked_dense_top_k}
    small = case.h * case.w <= 64 * 64
    peers: dict[str, Callable[[Case], Callable[..., Tensor]]] = {"SDPA on tiles": sdpa_tiles}
    if small or case.r == 1:
        peers["offset loop"] = offset_loop
    if small:
        peers["dense + mask"] = dense_masked
    if not case.gradient and case.r == 1 and (small or flex):
        peers["compiled flex"] = compiled_flex
    return peers


def call(case: Case, method: Callable[..., Tensor]) -> Callable[[], object]:
    """One timed call: forward, with backward where the case has gradients."""
    query, keys, values = inputs_of(case)
    leaves = [t for t in (query, *keys) if t.requires_grad]
    if not case.gradient:
        return lambda: method(query, keys, values)

    def step() -> object:
        return torch.autograd.grad(method(query, keys, values).sum(), leaves)

    return step


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def extra_bytes(name: str, method: str) -> int:
    """What one call adds to the peak of a fresh process."""
    command = [sys.executable, __file__, name, "--memory-of", method]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak_bytes() -> int:
    """The most memory this process has held; a process inherits getrusage's figure, but not this one."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def print_memory(case: Case, method: Callable[..., Tensor]) -> None:
    work = call(case, method)
    warm = Case(16, 16, 8, 2, top_k=case.top_k, gradient=case.gradient, bank=min(case.bank, 8))
    call(warm, reading(warm))()  # libraries' own buffers
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making masks
    before = peak_bytes()
    work()
    print(peak_bytes() - before)


def measure(name: str, rounds: int, flex: bool) -> list[dict[str, float | str]]:
    case = CASES[name]
    methods = {"vcorr": reading(case), **{peer: make(case) for peer, make in peers_of(case, flex).items()}}
    work = {method: call(case, run) for method, run in methods.items()}
    square = torch.randn(1024, 1024)
    for step in work.values():
        step()
    times: dict[str, list[float]] = {method: [] for method in (*work, "product")}
    for _ in range(rounds):
        for method, step in work.items():
            times["product"].append(seconds(lambda: square @ square))
            times[method].append(seconds(step))
    rate = 2 * 1024**3 / min(times["product"])
    floor, ours = case.flops / rate, min(times["vcorr"])
    rows: list[dict[str, float | str]] = []
    for method in work:
        taken = min(times[method])
        rows.append(
            {
                "case": name,
                "method": method,
                "ms": 1e3 * taken,
                "median_ms": 1e3 * statistics.median(times[method]),
                "gflops": case.flops / taken / 1e9,
                "over_floor": taken / floor,
                "over_vcorr": taken / ours,
                "extra_mb": extra_bytes(name, method) / 1e6,
                "product_gflops": rate / 1e9,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flex", action="store_true", help="compiled flex_attention at 480p too: minutes, gigabytes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory-of", metavar="METHOD", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    torch.set_num_threads(options.threads)
    if options.memory_of:
        case = CASES[options.cases[0]]
        methods = {"vcorr": reading, **peers_of(case, flex=True)}
        print_memory(case, methods[options.memory_of](case))
        return
    for name in options.cases or CASES:
        rows = measure(name, options.rounds, options.flex)
        if options.json:
            print("\n".join(json.dumps(row) for row in rows), flush=True)
            continue
        print(f"{name}: {CASES[name]}, product {rows[0]['product_gflops']:.0f} GFLOP/s")
        for row in rows:
            print(
                f"  {row['method']:22} {row['ms']:9.1f} ms {row['gflops']:7.1f} GFLOP/s"
                f" {row['over_floor']:7.2f} x floor {row['over_vcorr']:7.2f} x vcorr {row['extra_mb']:8.1f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
