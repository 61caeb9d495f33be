"""Kill a training again and again while it saves every step, and compare its end with that of a run left alone.

    python benchmarks/kills.py mast_cpu VIDEOS --kills 100 pairs.steps=150 net.widths=8,8,8,8 clips.size=32

Each child is killed (SIGKILL) at a random moment after it has saved something new. Prints how many kills fell in, how
many left a file half written, and whether states, weights and log are the same, byte for byte; ends with 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from vcorr.model import color
from vcorr.training import recipe
from vcorr.training.clips.dataset import scan
from vcorr.training.loop import TrainOptions, train


def child(name: str, overrides: list[str], data: Path, out: Path) -> int:
    """Start the training in a process of its own; its id."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            train(recipe.load(name, overrides), data, out, options=TrainOptions(log_every=1, save_every=0))
            code = 0
        finally:
            os._exit(code)
    return pid


def states(out: Path) -> set[str]:
    return {file.name for file in out.glob("state/*.safetensors")}


def ended(pid: int, *, wait: bool) -> int | None:
    """The exit code of a child; None: it runs."""
    found, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def left(out: Path) -> dict[str, object]:
    """What a run leaves: its files, and its log without what hangs on the clock."""
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.safetensors")}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    clocks = {"clips_per_second", "data_share"}
    return files | {"log": [{k: v for k, v in line.items() if k not in clocks} for line in lines]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("data", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--kills", type=int, default=100)
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    scan(options.data)
    color.to_lab(torch.zeros(1, 3, 2, 2))  # what is imported before the fork is imported once
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        if ended(child(options.recipe, options.overrides, options.data, whole), wait=True):
            return 1
        landed = halves = 0
        while landed < options.kills:
            before, pid = states(killed), child(options.recipe, options.overrides, options.data, killed)
            code = None
            while code is None and states(killed) == before:
                time.sleep(0.001)
                code = ended(pid, wait=False)
            if code is None:
                time.sleep(random.uniform(0, 0.1))  # noqa: S311 (any moment will do)
                os.kill(pid, signal.SIGKILL)
                code = ended(pid, wait=True)
            if code == 0:
                break
            if code != -signal.SIGKILL:
                print(f"a resume failed after {landed} kills")
                return 1
            landed += 1
            halves += any(killed.rglob("*.part"))
        if ended(child(options.recipe, options.overrides, options.data, killed), wait=True):
            return 1
        same = left(whole) == left(killed)
    short = "" if landed == options.kills else "; the training ended before the rest: give it more steps"
    print(f"{landed} kills{short}, {halves} with a file half written; the end is {'the same' if same else 'ANOTHER'}")
    return not same


if __name__ == "__main__":
    sys.exit(main())
