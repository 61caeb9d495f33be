"""MAST, pair stage (Lai, Lu, Xie 2020, eq. 1-4): a frame's hidden colour channel is rebuilt from one earlier frame.

Both frames go through one encoder without the channel; softmax of scale * <query, key> over a window of 13 x 13 cells
copies the reference's channel; the Huber loss on it is all there is. As the released code does: one of a, b is hidden
(never L), borders count as logit 0, values are sampled every fourth pixel. Not as it does: logits are scaled by
1/sqrt(64), without which training saturates.

    vcorr train mast --data VIDEOS      # paper: J&F 65.5 on DAVIS-2017 val (YouTube-VOS, 24M pairs)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vcorr import color, correspondence, losses, resnet
from vcorr.data.clips import ClipConfig
from vcorr.recipe import Out, Phase, Reader, Recipe, Stage, State
from vcorr.resnet import ResNetConfig


@dataclass(frozen=True)
class Config:
    seed: int = 0
    pairs: Stage = Stage(steps=300_000, batch=24, lr=1e-3, warmup=500)
    clips: ClipConfig = ClipConfig(
        size=256, gaps=(2, 5, 8), weights=(0.4, 0.4, 0.2), crop="frame", flip=False, reverse=False
    )
    net: ResNetConfig = ResNetConfig()
    radius: int = 6
    hide: tuple[Literal[0, 1, 2], ...] = (color.A, color.B)
    reader: Reader = Reader(border="zeros", alignment="sampled", feedback="hard")


def build(cfg: Config) -> Recipe:
    def loss(state, batch, rng, progress):
        seen, hidden = color.hide_channel(batch.lab, rng, channels=cfg.hide)
        stats, features = state.stats, []
        for frame in seen.unbind(1):  # one call a frame: batch statistics are per position in the clip
            feature, stats = resnet.apply(cfg.net, state.params, stats, frame, train=True)
            features.append(feature.float())
        *earlier, truth = hidden.unbind(1)
        rebuilt = correspondence.rebuild(
            features[-1], features[:-1], earlier,
            radius=cfg.radius, stride=resnet.STRIDE, border=cfg.reader.border, alignment=cfg.reader.alignment,
        )  # fmt: skip
        return Out(losses.huber(rebuilt, truth), stats)

    def init(rng):
        return State(*resnet.init(cfg.net, rng))

    return Recipe(cfg.net, init, (Phase("pairs", cfg.pairs, cfg.clips, loss),), cfg.reader)
