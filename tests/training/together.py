"""Several processes that train together, on the CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.forked import LIMIT, Ended, Forked


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())} | more


def torchrun(*arguments: str, processes: int = 2, restarts: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    """``torchrun ... ARGUMENTS`` in a process of its own."""
    options = ["--standalone", f"--nproc-per-node={processes}", f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment(**more))


def side_by_side(module: str, *arguments: str, processes: int = 2, **more: str) -> list[Ended]:
    """Each rank of a module, without a launcher that ends the others when one ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    started = []
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
        started.append(Forked("-m", module, *arguments, **common, **own, **more))
    return [process.wait() for process in started]
