"""A training in a process of its own: python -m tests.training.command RECIPE DATA OUT [KEY=VALUE ...]

It logs and saves every step, and prints what it says. It fails if threads that talked to other processes outlive the
training. The environment may ask for more:

TEST_OPTIONS    other options, as JSON
TEST_KILL       "STAGE:STEP": the first process is killed when it has taken this step, before it saves it
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch

from vcorr.training import recipe
from vcorr.training.loop import Progress, TrainOptions, train


def report(progress: Progress) -> None:
    if os.environ.get("TEST_KILL") == f"{progress.stage}:{progress.step}":
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, data, out, *overrides = sys.argv[1:]
    options = TrainOptions(**{"log_every": 1, "save_every": 0} | json.loads(os.environ.get("TEST_OPTIONS", "{}")))
    say = partial(print, flush=True)
    train(recipe.load(name, overrides), Path(data), Path(out), options=options, say=say, report=report)
    left = {task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")}
    if any("gloo" in name or "store" in name for name in left):
        sys.exit(f"threads are left: {sorted(left)}")
