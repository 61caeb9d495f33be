"""Runs of a tiny network that take a fraction of a second, and what they leave."""

from __future__ import annotations

import json
import os
import signal

import torch

from vcorr.model.weights import load_tensors
from vcorr.training import recipe
from vcorr.training.loop import TrainOptions, train

TOY = [
    *(
        "net.widths=8,8,8,8",
        "net.features=8",
        "matching.radius=2",
        "clips.size=24",
        "clips.smallest=20",
        "clips.read=48",
    ),
    *("pairs.batch=2", "pairs.warmup=3", "pairs.steps=12"),
]
EVERY_STEP = TrainOptions(log_every=1, save_every=0)

TWO_STAGES = """
from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from vcorr.recipes import mast_cpu
from vcorr.training.recipe import Schedule, Stage


@dataclass(frozen=True)
class Config(mast_cpu.Config):
    late: Schedule = Schedule(steps=6, batch=2, lr=1e-3)
    nan: tuple[int, ...] = ()       # steps whose loss is not finite
    steep: tuple[int, ...] = ()     # steps whose gradient is not finite, though the loss is


def build(cfg):
    base = mast_cpu.build(cfg)
    (pairs,) = base.stages

    def loss(state, batch, rng, progress):
        out = pairs.loss(state, batch, rng, progress)
        step = round(progress * cfg.pairs.steps)
        if step in cfg.nan:
            return dataclasses.replace(out, loss=out.loss * float("nan"))
        if step in cfg.steep:
            zero = state.params["head.bias"].sum() * 0
            return dataclasses.replace(out, loss=out.loss + zero.sqrt())
        return dataclasses.replace(out, metrics={"twice": 2 * float(out.loss.detach())})

    return dataclasses.replace(
        base, stages=(dataclasses.replace(pairs, loss=loss), Stage("late", cfg.late, cfg.clips, pairs.loss))
    )
"""


class Run:
    """A run of a recipe in a folder; what it says is kept."""

    def __init__(self, data, out, *overrides, name="mast_cpu"):
        self.data, self.out, self.said = data, out, []
        self.experiment = recipe.load(name, [*TOY, *overrides])

    def __call__(self, *, stop_at=None, signals=(signal.SIGTERM,), options=EVERY_STEP, init=None):
        def report(progress):
            if stop_at is not None and (progress.stage, progress.step) == stop_at:
                for number in signals:
                    os.kill(os.getpid(), number)

        say = self.said.append
        return train(self.experiment, self.data, self.out, init=init, options=options, say=say, report=report)

    def heard(self, text):
        return any(text in line for line in self.said)


def newest(out):
    return max((out / "state").glob("*.safetensors"))


def tensors(out):
    """Everything in the newest state, and the weights file's bytes."""
    found, meta = load_tensors(newest(out))
    return found | {
        "weights": torch.frombuffer(bytearray((out / "weights.safetensors").read_bytes()), dtype=torch.uint8)
    }, meta


def metrics(out):
    keys = ("stage", "step", "loss", "lr", "grad_norm", "skipped_steps")
    return [{k: line[k] for k in keys} for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())]


def assert_same_run(got, wanted, *, weights=True):
    (a, meta_a), (b, meta_b) = tensors(got), tensors(wanted)
    if not weights:
        del a["weights"], b["weights"]
    assert meta_a == meta_b and a.keys() == b.keys()
    assert [k for k in a if not torch.equal(a[k], b[k])] == []
    assert metrics(got) == metrics(wanted)
