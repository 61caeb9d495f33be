"""MAST's pair stage (see mast.py) sized for a laptop without a GPU: the weights that come with vcorr are made with it.

Against mast.py: crops of 128 px, cut as random squares and mirrored; neighbouring frames, since clips are often thinned
already; no logit for cells outside the frame; a cell's value is the mean of its pixels; a window of 25 x 25 cells, as
wide as labels are read, so that there is more to tell a cell from; features of length 1, so that logits stay within the
scale: of free length they can grow until the softmax copies one cell and nothing more is learnt. Labels are read twice
as sharply as the training compares.

    vcorr train mast_cpu --data VIDEOS
"""

from __future__ import annotations

from dataclasses import dataclass

from vcorr.recipes import mast

from vcorr.model.network import NetworkConfig, ResNetConfig
from vcorr.training.clips.cut import ClipConfig
from vcorr.training.recipe import Inference, Matching, Schedule


@dataclass(frozen=True)
class Config(mast.Config):
    pairs: Schedule = Schedule(steps=3000, batch=8, lr=1e-3, warmup=50, cooldown=0.5)
    clips: ClipConfig = ClipConfig(size=128, gaps=(1, 2, 3), crop="square", smallest=128)
    matching: Matching = Matching(radius=12, scale=14.0)
    net: NetworkConfig = ResNetConfig(unit=True)
    inference: Inference = Inference(scale=28.0, feedback="hard")


build = mast.build
