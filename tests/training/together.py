"""Several processes that train together, on the CPU."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

LIMIT = 280  # seconds


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())} | more


def torchrun(*arguments: str, processes: int = 2, restarts: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    """``torchrun ... ARGUMENTS`` in a process of its own."""
    options = ["--standalone", f"--nproc-per-node={processes}", f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment(**more))


def side_by_side(module: str, *arguments: str, processes: int = 2, **more: str) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each rank of a module, without a launcher that ends the others when one ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    with contextlib.ExitStack() as stack:
        started = []
        for rank in range(processes):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(**common, **own, **more),
            )
            started.append(stack.enter_context(process))
            stack.callback(process.kill)
        ended = [process.communicate(timeout=LIMIT) for process in started]
    return [(p.returncode, out, err) for p, (out, err) in zip(started, ended, strict=True)]
