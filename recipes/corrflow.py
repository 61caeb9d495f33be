"""CorrFlow (Lai & Xie 2019, eq. 1-6): colours are carried from frame to frame of a clip, and back again.

A frame's 16 classes of colour are copied from the frame before: softmax of scale * <query, key> over 13 x 13 cells,
from features that saw RGB with channels missing. Losses: -log of the probability given to each pixel's true class.

    forward   0 -> 1 -> 2, where 2 copies the truth of 1 with chance epsilon, else what 1 was rebuilt as; epsilon falls
    cycle     0 -> 1 -> 0 and 0 -> 1 -> 2 -> 1 -> 0 must come back to frame 0's own colours; weighs 0.1

    vcorr train corrflow --data VIDEOS      # paper: J&F 49.5 on DAVIS-2017 val (Kinetics)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from vcorr import rng as random
from vcorr.matching import affinity, rebuild
from vcorr.model import color, network
from vcorr.training.clips.cut import ClipConfig
from vcorr.training.losses.reconstruction import cross_entropy
from vcorr.training.recipe import Inference, Matching, Out, Recipe, References, Schedule, Stage, State


@dataclass(frozen=True)
class Config:
    seed: int = 0
    triplets: Schedule = Schedule(
        steps=137_500, batch=8, lr=2e-4, cooldown=0, unit="samples",
        milestones=((400_000, 1 / 2), (600_000, 1 / 4), (800_000, 1 / 8), (1_000_000, 1 / 16)),
    )  # fmt: skip
    clips: ClipConfig = ClipConfig(
        size=256, frames=3, gaps=(4,), sampling="intervals", crop="frame", flip=False, reverse=False
    )
    net: network.NetworkConfig = network.ResNetConfig()
    matching: Matching = Matching(radius=6, alignment="bilinear")
    space: color.Space = "rgb"
    keep: float = 0.3  # chance that no channel is dropped
    jitter: color.JitterConfig = color.JitterConfig()
    epsilon: tuple[float, float] = (0.9, 0.6)  # chance of the truth, at the start and at the end
    cycle: float = 0.1
    inference: Inference = Inference(References(long=(), short=(1,)), feedback="hard")


def build(cfg: Config) -> Recipe:
    def loss(state, batch, rng, progress):
        seen = color.drop_channels(color.jitter(batch.rgb, batch.samples, cfg.jitter, cfg.seed), rng, keep=cfg.keep)
        frames = (color.to_space(frame, cfg.space) for frame in seen.unbind(1))
        features, stats = network.apply_each(cfg.net, state.params, state.stats, frames, train=True)

        def carry(colours, *path):  # from the first frame of a path to the next, and on along it
            for a, b in pairwise(path):
                colours = rebuild.rebuild(features[b], [features[a]], [colours], cfg.matching, stride=cfg.net.stride)
            return colours

        labels = color.classes(batch.lab).unbind(1)
        truth = [color.one_hot(frame) for frame in labels]
        first, last = cfg.epsilon
        taught = random.uniform(0, 1, rng) < first + (last - first) * progress  # one coin for the whole batch
        one = carry(truth[0], 0, 1)
        two = carry(truth[1] if taught else one, 1, 2)
        forward = cross_entropy(one, labels[1]) + cross_entropy(two, labels[2])
        cycle = sum(cross_entropy(back, labels[0]) for back in (carry(one, 1, 0), carry(one, 1, 2, 1, 0)))
        metrics = {"forward": forward.detach(), "cycle": cycle.detach()}
        views = affinity.Views(features[2], [features[1]], cfg.matching, references=(1,))
        return Out(forward + cfg.cycle * cycle, stats, metrics, views=views)

    stage = Stage("triplets", cfg.triplets, cfg.clips, loss)
    how = (cfg.matching, cfg.inference, cfg.space)
    return Recipe(cfg.net, lambda rng: State(*network.init(cfg.net, rng)), (stage,), *how)
