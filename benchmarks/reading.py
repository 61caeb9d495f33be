"""Reading five references at 480p: some cells against all, at offsets against none, the k largest against all taps.

    python benchmarks/reading.py [--radius 12] [--threads 1] [--rounds 5]

Objects are ellipses that cover a share of a frame of 120 x 214 cells, in the references where they lie and moved by a
cell or two; the cells to read are those of ``label_query_mask``. Offsets are whole and smooth within an object and
beside it, as motion is: a zoom, and a shift within the object. Every way is a call in each round; medians, and how many
times as long as the plain reading of all cells. One thread is timed by what the process computes, so that others beside
it count little; more are timed by the wall.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from vcorr.kernels import label_query_mask, memory_read

HEIGHT, WIDTH, FEATURES, REFERENCES = 120, 214, 64, 5
SCALE = 28.0


def ellipse(share: float, dy: int = 0, dx: int = 0) -> Tensor:
    """True on so large a share of the frame: [h w]."""
    y = (torch.arange(HEIGHT) - HEIGHT / 2 - dy) / HEIGHT
    x = (torch.arange(WIDTH) - WIDTH / 2 - dx) / WIDTH
    return y[:, None] ** 2 + x**2 < share / torch.pi


def motion(share: float, reference: int) -> Tensor:
    """Whole offsets [h w 2]: a zoom of some per cent, and within the object a shift of its own."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) - HEIGHT / 2, torch.arange(WIDTH) - WIDTH / 2, indexing="ij")
    zoom = 0.01 * (reference + 1) * torch.stack([y, x], -1)
    shift = torch.tensor([2.0, -3.0]) * (reference + 1)
    return torch.where(ellipse(share)[..., None], zoom + shift, zoom).round().long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--radius", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.set_grad_enabled(False)
    clock = time.process_time if chosen.threads == 1 else time.perf_counter
    generator = torch.Generator().manual_seed(0)

    def features() -> Tensor:
        drawn = torch.randn(1, HEIGHT, WIDTH, FEATURES, generator=generator)
        return torch.nn.functional.normalize(drawn, dim=-1)

    query, keys = features(), [features() for _ in range(REFERENCES)]
    plain = {"radius": chosen.radius, "scale": SCALE}
    ways: dict[str, dict[str, object]] = {"all taps": {}}
    for k in (10, 20):
        ways[f"top {k}"] = {"top_k": k}
    offset = [motion(0.1, r)[None] for r in range(REFERENCES)]
    ways["offsets"] = {"offset": offset}
    ways["offsets, top 10"] = {"offset": offset, "top_k": 10}
    ways["one reference"] = {}
    ways["one reference, offsets"] = {"offset": offset[:1]}
    labels = {}
    for share in (0.02, 0.1, 0.4):
        own = [ellipse(share, r % 3, -(r % 2)).float()[None] for r in range(REFERENCES)]
        labels[share] = [torch.stack([1 - mask, mask], -1) for mask in own]
        read = label_query_mask(labels[share], radius=chosen.radius)
        name = f"object of {share:.0%}, {read.float().mean():.0%} of cells"
        ways[name] = {"query_mask": read}
        ways[f"{name}, top 10"] = {"query_mask": read, "top_k": 10}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(chosen.rounds + 1):
        for name, options in ways.items():
            count = 1 if name.startswith("one") else REFERENCES
            start = clock()
            memory_read(query, keys[:count], labels[0.1][:count], **plain, **options)
            times[name].append(clock() - start)
    medians = {name: statistics.median(some[1:]) for name, some in times.items()}
    print(f"radius {chosen.radius}, {chosen.threads} threads, torch {torch.__version__}, "
          f"{torch.backends.cpu.get_cpu_capability()}")  # fmt: skip
    for name, taken in medians.items():
        base = "one reference" if name.startswith("one") else "all taps"
        print(f"| {name} | {1e3 * taken:.0f} ms | {taken / medians[base]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
