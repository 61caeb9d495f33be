"""A training in a process of its own: python -m tests.training.command RECIPE DATA OUT [KEY=VALUE ...]

It logs and saves every step, and prints what it says.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch

from vcorr import recipe
from vcorr.training import Options, train

if __name__ == "__main__":
    torch.set_num_threads(1)
    name, data, out, *overrides = sys.argv[1:]
    options = Options(log_every=1, save_every=0)
    train(recipe.load(name, overrides), Path(data), Path(out), options=options, say=partial(print, flush=True))
