"""MAST, pair stage (Lai, Lu, Xie 2020, eq. 1-4): a frame's hidden colour channel is rebuilt from one earlier frame.

Both frames go through one encoder without the channel; softmax of scale * <query, key> over a window of 13 x 13 cells
copies the reference's channel; the Huber loss on it is all there is. As the released code does: one of a, b is hidden
(never L), borders count as logit 0, values are sampled every fourth pixel. Not as it does: logits are scaled by
1/sqrt(64), without which training saturates.

    vcorr train mast --data VIDEOS      # paper: J&F 65.5 on DAVIS-2017 val (YouTube-VOS)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vcorr.matching.affinity import Views
from vcorr.matching.rebuild import rebuild
from vcorr.model import color, network
from vcorr.training.clips.cut import ClipConfig
from vcorr.training.losses.reconstruction import huber
from vcorr.training.recipe import Inference, Matching, Out, Recipe, Schedule, Stage, State


@dataclass(frozen=True)
class Config:
    seed: int = 0
    pairs: Schedule = Schedule(
        steps=60_000, batch=24, lr=1e-3, warmup=500, cooldown=0, unit="samples",
        milestones=((400_000, 1 / 2), (600_000, 1 / 4), (800_000, 1 / 8), (1_000_000, 1 / 16)),
    )  # fmt: skip
    clips: ClipConfig = ClipConfig(
        size=256,
        gaps=(2, 5, 8),
        weights=(0.4, 0.4, 0.2),
        sampling="intervals",
        crop="frame",
        flip=False,
        reverse=False,
    )
    net: network.NetworkConfig = network.ResNetConfig()
    matching: Matching = Matching(radius=6, border="zeros", alignment="sampled")
    hide: tuple[Literal[0, 1, 2], ...] = (color.A, color.B)
    inference: Inference = Inference(radius=12, feedback="hard")


def build(cfg: Config) -> Recipe:
    def loss(state, batch, rng, progress):
        seen, hidden = color.hide_channel(batch.lab, rng, channels=cfg.hide)
        (*keys, query), stats = network.apply_each(cfg.net, state.params, state.stats, seen.unbind(1), train=True)
        *values, truth = hidden.unbind(1)
        rebuilt = rebuild(query, keys, values, cfg.matching, stride=cfg.net.stride)
        return Out(huber(rebuilt, truth), stats, views=Views(query, keys, cfg.matching))

    stage = Stage("pairs", cfg.pairs, cfg.clips, loss)
    return Recipe(cfg.net, lambda rng: State(*network.init(cfg.net, rng)), (stage,), cfg.matching, cfg.inference)
