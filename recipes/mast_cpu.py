"""MAST's pair stage (see mast.py) sized for a laptop without a GPU.

Against mast.py: crops of 128 px, cut as random squares and mirrored; neighbouring frames, since clips are often thinned
already; no logit for cells outside the frame; a cell's value is the mean of its pixels.

    vcorr train mast_cpu --data VIDEOS
"""

from __future__ import annotations

from dataclasses import dataclass

from vcorr.recipes import mast

from vcorr.data.clips import ClipConfig
from vcorr.recipe import Reader, Stage

build = mast.build


@dataclass(frozen=True)
class Config(mast.Config):
    pairs: Stage = Stage(steps=4_400, batch=8, lr=1e-3, warmup=100, cooldown=0.55)
    clips: ClipConfig = ClipConfig(size=128, gaps=(1, 2, 3), crop="square", smallest=128)
    reader: Reader = Reader(border="mask", alignment="cell", feedback="hard")
