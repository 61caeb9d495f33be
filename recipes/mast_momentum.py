"""MAST with a momentum memory (Zhu et al. 2020, "Self-supervised Video Object Segmentation", eq. 5-8).

Pairs first, as MAST's (see mast.py), but of larger crops whose colours are jittered, and with a window of 25 x 25
cells. Then memory: a frame is rebuilt from five earlier ones, 0, 5, t-5, t-3, t-1, in one softmax over all their
windows. The references are encoded without gradient by a slow copy of the weights,

    slow <- m slow + (1 - m) fast,   m = 0.999, running statistics too,

so that their number costs no memory; and where labels are read, references are encoded by it as well.

    vcorr train mast_momentum --data VIDEOS      # paper: J&F 68.2 on DAVIS-2017 val (YouTube-VOS)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from vcorr.recipes import mast

from vcorr.matching import affinity, rebuild
from vcorr.model import color, network
from vcorr.training.clips.cut import ClipConfig
from vcorr.training.losses import reconstruction
from vcorr.training.recipe import Inference, Matching, Out, Recipe, Schedule, Stage, State


@dataclass(frozen=True)
class Config(mast.Config):
    pairs: Schedule = Schedule(steps=120_000, batch=48, lr=1e-3, warmup=500, cooldown=0)
    memory: Schedule = Schedule(steps=10_000, batch=12, lr=1e-4, cooldown=0)
    clips: ClipConfig = replace(mast.Config.clips, size=384, read=480, crop="square", smallest=384)
    memory_clips: ClipConfig = replace(
        clips, frames=25, long=(0, 5), short=(5, 3, 1), gaps=(1,), weights=(), sampling="starts"
    )
    matching: Matching = replace(mast.Config.matching, radius=12)
    jitter: color.JitterConfig = color.JitterConfig(share=0.3, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    decay: float = 0.999
    inference: Inference = replace(mast.Config.inference, slow=True)


def build(cfg: Config) -> Recipe:
    def bottleneck(batch, rng):
        """What the encoders see of each frame, jittered and without a channel; and that channel, as it was filmed."""
        jittered = replace(batch, rgb=color.jitter(batch.rgb, batch.samples, cfg.jitter, cfg.seed))
        seen, hidden = color.hide_channel(torch.stack([jittered.lab, batch.lab]), rng, channels=cfg.hide)
        return seen[0].unbind(1), hidden[1].unbind(1)

    def compare(query, keys, hidden, stats):
        *values, truth = hidden
        rebuilt = rebuild.rebuild(query, keys, values, cfg.matching, stride=cfg.net.stride)
        return Out(reconstruction.huber(rebuilt, truth), stats, views=affinity.Views(query, keys, cfg.matching))

    def pairs(state, batch, rng, progress):
        seen, hidden = bottleneck(batch, rng)
        (key, query), stats = network.apply_each(cfg.net, state.params, state.stats, seen, train=True)
        return compare(query, [key], hidden, stats)

    def memory(state, batch, rng, progress):
        seen, hidden = bottleneck(batch, rng)
        (query,), stats = network.apply_each(cfg.net, state.params, state.stats, seen[-1:], train=True)
        with torch.no_grad():
            keys, _ = network.apply_each(cfg.net, state.slow, state.slow_stats, seen[:-1], train=True)
        return compare(query, keys, hidden, stats)

    first = Stage("pairs", cfg.pairs, cfg.clips, pairs)
    second = Stage("memory", cfg.memory, cfg.memory_clips, memory, State.with_slow, decay=lambda name: cfg.decay)
    return Recipe(cfg.net, lambda rng: State(*network.init(cfg.net, rng)), (first, second), cfg.matching, cfg.inference)
