"""MAST's reconstruction (see mast.py), joined by a second view of each frame that has to be found again in it.

Three pictures of a clip, each with its own change of colours and without one of a, b: frames A and B, and A', an affine
view of A. Unit features f, logits <f, f'> / 0.07.

    reconstruct   B's hidden channel is copied from A over a window of 13 x 13 cells; Huber loss (MAST, eq. 1-4)
    contrast      every cell of A' finds its place among all cells of A; cross entropy
    cycle         it also finds it when it walks through B; cross entropy (Jabri et al. 2020)

The first learns what moves together, the second what is unlike, the third to know it again after it moved. Labels are
read twice as sharply as the training compares, and carried as scores.

    vcorr train two_views --data VIDEOS
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from vcorr.matching import affinity, rebuild
from vcorr.model import color, network
from vcorr.training.clips.cut import ClipConfig
from vcorr.training.losses import reconstruction, two_views
from vcorr.training.recipe import Inference, Matching, Out, Recipe, Schedule, Stage, State


@dataclass(frozen=True)
class Config:
    seed: int = 0
    pairs: Schedule = Schedule(steps=2_500, batch=6, lr=1e-3, warmup=50, cooldown=0.42)
    clips: ClipConfig = ClipConfig(size=128, gaps=(1, 2, 3), crop="square", smallest=128)
    net: network.NetworkConfig = network.ResNetConfig(unit=True)
    matching: Matching = Matching(radius=6, scale=1 / 0.07)
    balance: two_views.Balance = two_views.Balance()
    view: two_views.ViewConfig = two_views.ViewConfig()
    jitter: color.JitterConfig = color.JitterConfig(share=1, brightness=0.2, contrast=0.3, saturation=0.3, hue=0.03)
    hide: tuple[Literal[0, 1, 2], ...] = (color.A, color.B)
    inference: Inference = Inference(radius=12, scale=28.0)


def build(cfg: Config) -> Recipe:
    def loss(state, batch, rng, progress):
        matrices = two_views.draw(cfg.view, batch.samples, cfg.seed).to(batch.rgb)
        view = two_views.view(batch.rgb[:, 0], matrices)
        recoloured = color.jitter(torch.cat([batch.rgb, view[:, None]], 1), batch.samples, cfg.jitter, cfg.seed)
        lab = color.to_lab(recoloured.flatten(0, 1)).view(recoloured.shape)
        seen, hidden = color.hide_channel(torch.cat([lab, batch.lab], 1), rng, channels=cfg.hide)
        (first, second, other), stats = network.apply_each(
            cfg.net, state.params, state.stats, seen[:, :3].unbind(1), train=True
        )
        at = two_views.positions(matrices, *other.shape[1:3])
        rebuilt = rebuild.rebuild(second, [first], [hidden[:, 3]], cfg.matching, stride=cfg.net.stride)
        parts = {
            "reconstruct": reconstruction.huber(rebuilt, hidden[:, 4]),
            "contrast": two_views.contrast(other, first, at, scale=cfg.matching.scale),
            "cycle": two_views.cycle(other, second, first, at, scale=cfg.matching.scale),
        }
        total = sum(getattr(cfg.balance, name) * part for name, part in parts.items())
        views = affinity.Views(second, [first], cfg.matching)
        return Out(total, stats, {name: part.detach() for name, part in parts.items()}, views=views)

    stage = Stage("pairs", cfg.pairs, cfg.clips, loss)
    return Recipe(cfg.net, lambda rng: State(*network.init(cfg.net, rng)), (stage,), cfg.matching, cfg.inference)
