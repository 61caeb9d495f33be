"""The weights that come with vcorr: a pyramid encoder that learns from video and from photographs, on one CPU core.

    reconstruct   a frame's hidden channel is copied from its neighbour over a window of 25 x 25 cells (MAST, eq. 1-4);
                  points of the batch's other videos take their share of the affinity (LIIR, eq. 4, 5); Huber loss
    contrast      cells of a view of a frame, in other colours, find their place among all cells of all such frames

Part of a batch gives pairs of frames, the rest (``views``) a frame and a view of it. The weights are an average.
DATA is a folder of videos; pictures in folders called stills are photographs.

    vcorr train default --data DATA
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vcorr.kernels import memory_read_lse
from vcorr.matching.affinity import Views
from vcorr.matching.cells import downsample, upsample
from vcorr.model import color, network
from vcorr.training.clips.cut import ClipConfig
from vcorr.training.losses import bank, reconstruction, two_views
from vcorr.training.recipe import Inference, Matching, Out, Recipe, Schedule, Stage, State


@dataclass(frozen=True)
class Config:
    seed: int = 0
    pairs: Schedule = Schedule(20_000, 16, lr=1e-3, warmup=100, cooldown=0.2, weight_decay=0.1, clip_norm=100.0)
    clips: ClipConfig = ClipConfig(size=128, gaps=(1, 2, 3), smallest=96, stills=("stills",), cache=4096)
    net: network.NetworkConfig = network.PyramidConfig(unit=True)
    views: float = 0.375  # share of the batch that gives a view
    view: two_views.ViewConfig = two_views.ViewConfig()
    jitter: color.JitterConfig = color.JitterConfig(1, 0.3, 0.3, 0.3, 0.02)
    points: int = 32  # of each frame, negatives to the other videos of the batch
    balance: two_views.Balance = two_views.Balance(contrast=0.5, cycle=0.0)
    decay: float = 0.998
    matching: Matching = Matching(scale=14.0)
    inference: Inference = Inference(scale=28.0, least=1 / 256, screen=0.01, follow=0.05, origin=2, pieces=0.5,
                                     focus=16, zoom=2, appearance=2, upsampling="guided")  # fmt: skip


def build(cfg: Config) -> Recipe:
    how, grid = cfg.matching, dict(stride=cfg.net.stride, alignment=cfg.matching.alignment)

    def loss(state, batch, rng, progress):
        n = min(max(1, round(cfg.views * len(batch.rgb))), len(batch.rgb) - 1)
        matrices = two_views.draw(cfg.view, batch.samples[-n:], cfg.seed).to(batch.rgb)
        views = torch.stack([batch.rgb[-n:, 0], two_views.view(batch.rgb[-n:, 0], matrices)], 1)
        rgb = torch.cat([batch.rgb[:-n, :2], color.jitter(views, batch.samples[-n:], cfg.jitter, cfg.seed)])
        seen, hidden = color.hide_channel(color.to_lab(rgb.flatten(0, 1)).view(rgb.shape), rng)
        (key, query), stats = network.apply_each(cfg.net, state.params, state.stats, seen.unbind(1), train=True)
        copied, intra = memory_read_lse(query[:-n], [key[:-n]], [downsample(hidden[:-n, 0], **grid)], **how.window)
        drawn = (cfg.points, cfg.seed, batch.samples, batch.videos)
        share = bank.share_of_batch(query[:-n], key, intra, *drawn, scale=how.scale)
        rebuilt = upsample(copied * share[..., None], size=hidden.shape[-2:], **grid)
        place = two_views.positions(matrices, *query.shape[1:3])[:, ::2, ::2]
        parts = {
            "reconstruct": reconstruction.huber(rebuilt, hidden[:-n, 1]),
            "contrast": two_views.contrast_all(query[-n:, ::2, ::2], key[-n:], place, scale=how.scale),
        }
        total = cfg.balance.reconstruct * parts["reconstruct"] + cfg.balance.contrast * parts["contrast"]
        shown = Views(query[:-n], [key[:-n]], how)
        return Out(total, stats, {name: part.detach() for name, part in parts.items()}, views=shown)

    stage = Stage("pairs", cfg.pairs, cfg.clips, loss, State.with_slow, lambda name: cfg.decay)
    return Recipe(cfg.net, lambda rng: State(*network.init(cfg.net, rng)), (stage,), how, cfg.inference, averaged=True)
