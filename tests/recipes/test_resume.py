"""Recipes with a slow encoder or a bank: two steps a stage, and a run that was killed is the unbroken run."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from tests import forked
from tests.training.conftest import films  # noqa: F401 (a fixture)
from tests.training.runs import assert_same_run, newest
from vcorr.model.weights import load_tensors, load_weights
from vcorr.training import recipe
from vcorr.training.loop import TrainOptions, train

TINY = [
    *(
        "net.widths=8,8,8,8",
        "net.features=8",
        "matching.radius=2",
        "clips.size=24",
        "clips.smallest=20",
        "clips.read=48",
    ),
    *("clips.gaps=1,2,5", "pairs.batch=2", "pairs.steps=2", "pairs.warmup=0"),
]
MOMENTUM = ["memory_clips.size=24", "memory_clips.smallest=20", "memory_clips.read=48", "memory_clips.frames=9"]
RECIPES = {
    "mast_momentum": [*TINY, *MOMENTUM, "memory.batch=2", "memory.steps=4", "decay=0.5"],
    "liir": [*TINY, "net.position.size=12", "full.batch=2", "full.steps=4", "bank.frames=5", "bank.points=2"],
}
LATE = {"mast_momentum": "memory", "liir": "full"}

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from vcorr.training import recipe
from vcorr.training.loop import TrainOptions, train

name, data, out, stage, step, *overrides = sys.argv[1:]

def report(progress):
    if (progress.stage, progress.step) == (stage, int(step)):
        os.kill(os.getpid(), signal.SIGKILL)

train(recipe.load(name, overrides), Path(data), Path(out), options=TrainOptions(1, 0), report=report)
"""


def run(name, data, out):
    train(recipe.load(name, RECIPES[name]), data, out, options=TrainOptions(1, 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_killed_in_the_second_stage_it_ends_as_if_it_had_not_been(name, films, tmp_path):  # noqa: F811
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(name, films, whole)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        *(("pairs", k) for k in (1, 2)), *((LATE[name], k) for k in (1, 2, 3, 4))
    ]  # fmt: skip
    assert all(line["loss"] is not None and line["skipped_steps"] == 0 for line in lines)
    killed = forked.run("-c", KILLED, name, str(films), str(parts), LATE[name], "3", *RECIPES[name])
    assert killed.code == -signal.SIGKILL, killed
    run(name, films, parts)
    assert_same_run(parts, whole)
    state, _ = load_tensors(newest(whole))
    groups = {key.split("/")[0] for key in state}
    assert groups >= {"params", "stats", "slow", "slow_stats", "moments"} and ("extra" in groups) == (name == "liir")
    if name == "liir":
        assert int(state["extra/bank.pushed"]) == 8 and set(state["extra/bank.videos"].tolist()) <= {0, 1}
    weights = load_weights(whole / "weights.safetensors")
    assert bool(weights.slow) == (name == "mast_momentum")
    if weights.slow:
        assert all(torch.equal(weights.slow[k], state[f"slow/{k}"]) for k in weights.slow)


@pytest.mark.slow
def test_the_second_stage_may_come_later(films, tmp_path):  # noqa: F811
    """Pairs alone are a run by themselves, whose weights have no slow encoder; memory added goes on from them."""
    whole, parts, name = tmp_path / "whole", tmp_path / "parts", "mast_momentum"
    train(recipe.load(name, [*RECIPES[name], "memory.steps=0"]), films, parts, options=TrainOptions(1, 0))
    assert not load_weights(parts / "weights.safetensors").slow
    run(name, films, parts)
    run(name, films, whole)
    assert_same_run(parts, whole)
