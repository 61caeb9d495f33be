"""MAST with its second stage (Lai, Lu, Xie 2020, section 3.3): after the pairs, frames are rebuilt from full memory.

The memory is frames 0 and 5 of a piece of video and the query's neighbours t-5, t-3, t-1, read in one softmax over the
windows of all five, as when labels are carried. Loss and encoder are those of mast.py; the learning rate is low. The
released code has no such stage; the length of a piece is ours.

    vcorr train mast_memory --data VIDEOS      # paper: J&F 65.5 on DAVIS-2017 val (YouTube-VOS)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vcorr.recipes import mast

from vcorr.training.clips.cut import ClipConfig
from vcorr.training.recipe import Recipe, Schedule


@dataclass(frozen=True)
class Config(mast.Config):
    memory: Schedule = Schedule(steps=60_000, batch=24, lr=2e-5, cooldown=0)
    memory_clips: ClipConfig = ClipConfig(
        size=256, frames=25, long=(0, 5), short=(5, 3, 1), gaps=(1,), crop="frame", flip=False, reverse=False
    )


def build(cfg: Config) -> Recipe:
    base = mast.build(cfg)
    (pairs,) = base.stages
    memory = replace(pairs, name="memory", schedule=cfg.memory, clips=cfg.memory_clips)
    return replace(base, stages=(pairs, memory))
