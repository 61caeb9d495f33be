"""A recipe for tests, with all that a state can hold: a slow encoder that rebuilds from a bank, in the second of two
stages. What befalls a run is asked for by the environment, so that it is no matter of the configuration:

TEST_SIGNALS    "ATTEMPT:RANK:STEP:SIGNAL ...": in this attempt of torchrun, this rank gets a signal in this step
                of the second stage
"""
# ruff: noqa: RUF009 (a frozen config is its own immutable default)

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from vcorr import ranks
from vcorr import rng as random
from vcorr.matching import rebuild as correspondence
from vcorr.model import color, network
from vcorr.model.nn import Tensors
from vcorr.model.resnet import ResNetConfig
from vcorr.training.clips.cut import ClipConfig
from vcorr.training.losses import reconstruction as losses
from vcorr.training.recipe import Inference, Matching, Out, Recipe, Schedule, Stage, State


@dataclass(frozen=True)
class Config:
    seed: int = 0
    pairs: Schedule = Schedule(steps=3, batch=4, lr=1e-3)
    memory: Schedule = Schedule(steps=5, batch=4, lr=1e-3)
    clips: ClipConfig = ClipConfig(size=24, gaps=(1, 2), smallest=20, read=48)
    net: ResNetConfig = ResNetConfig(widths=(8, 8, 8, 8), features=8)
    matching: Matching = Matching(radius=2)
    decay: float = 0.5
    ring: int = 6
    nan: tuple[int, ...] = ()  # samples that spoil their batch's loss
    inference: Inference = Inference()


def build(cfg: Config) -> Recipe:
    def suffer(step: int) -> None:
        attempt, rank = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), os.environ.get("RANK", "0")
        for event in os.environ.get("TEST_SIGNALS", "").split():
            if event.split(":")[:3] == [attempt, rank, str(step)]:
                os.kill(os.getpid(), int(event.split(":")[3]))

    def rebuild(query, key, hidden):
        return correspondence.rebuild(query, [key], [hidden], cfg.matching, stride=cfg.net.stride)

    def spoil(loss, batch):
        return loss * float("nan") if set(batch.samples) & set(cfg.nan) else loss

    def pairs(state, batch, rng, progress):
        seen, hidden = color.hide_channel(batch.lab, rng)
        (key, query), stats = network.apply_each(cfg.net, state.params, state.stats, seen.unbind(1), train=True)
        loss = losses.huber(rebuild(query, key, hidden[:, 0]), hidden[:, 1])
        return Out(spoil(loss, batch), stats)

    def memory(state, batch, rng, progress):
        suffer(round(progress * cfg.memory.steps))
        seen, hidden = color.hide_channel(batch.lab, rng)
        query, stats = network.apply(cfg.net, state.params, state.stats, seen[:, 1], train=True)
        with torch.no_grad():
            key, _ = network.apply(cfg.net, state.slow, state.slow_stats, seen[:, 0], train=True)
        noise = [torch.rand((), generator=random.generator(cfg.seed, "noise", s)) for s in batch.samples]
        apart = (query.mean((1, 2)) @ state.extra["features"].T).square().mean()
        loss = losses.huber(rebuild(query, key, hidden[:, 0]), hidden[:, 1]) + 0.1 * apart
        points = ranks.gather(key[:, 3, 3] + torch.stack(noise)[:, None]).flatten(0, 1)
        extra = state.extra | {
            "features": torch.cat([state.extra["features"], points])[-cfg.ring :],
            "pushed": state.extra["pushed"] + len(points),
        }
        return Out(spoil(loss, batch), stats, {"apart": apart, "one": 1.0}, extra)

    def copy(tensors: Tensors) -> Tensors:
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def enter(state: State) -> State:
        extra = {"features": torch.zeros(cfg.ring, cfg.net.features), "pushed": torch.tensor(0)}
        return State(state.params, state.stats, copy(state.params), copy(state.stats), extra)

    stages = (
        Stage("pairs", cfg.pairs, cfg.clips, pairs),
        Stage(
            "memory", cfg.memory, cfg.clips, memory, enter,
            decay=lambda name: 0.0 if name.startswith("head") else cfg.decay,
            trainable=lambda name: not name.startswith("stem"),
        ),
    )  # fmt: skip
    return Recipe(cfg.net, lambda rng: State(*network.init(cfg.net, rng)), stages, cfg.matching, cfg.inference)
