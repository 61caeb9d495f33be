"""Correspondence from still images alone (Zhu et al. 2020, "100 images"): homographies make clips of them.

The first frame of a clip is a square Q_0 of an image; in its last frame Q_1 each corner has moved by up to 12 % of the
side, along and across. In between, frame s in [0, 1] shows the image through

    I_s(u) = I(H_s u),    H_s: the homography that takes the unit square to (1 - s) Q_0 + s Q_1,

and squares are drawn so that nothing outside the image is seen; played backwards and mirrored half of the time. Where
each pixel went is known, but nobody is told: what is learned from these clips is what mast_momentum.py learns from
video. Pairs first, MAST's loss on I_1 rebuilt from I_0 with c, the hidden channel,

    A(i, j) = softmax_j <f(I_1)_i, f(I_0)_j> / sqrt(64),    Huber(sum_j A(i, j) c_0(j), c_1(i)),

then frames rebuilt from five earlier ones of a slow encoder. The paper prints neither the ranges nor the lengths of its
clips: 12 %, and 7 to 12 positions for the memory, are ours.

    vcorr train images --data IMAGES      # paper, 100 images: J 53.7, F 56.2 after the pairs, 60.0, 63.1 in the end
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vcorr.recipes import mast_momentum

from vcorr.training.clips.cut import ClipConfig

STILLS = ClipConfig(size=384, frames=2, source="stills", warp=0.12, smallest=384, read=600, flip=True, reverse=True)

build = mast_momentum.build


@dataclass(frozen=True)
class Config(mast_momentum.Config):
    clips: ClipConfig = STILLS
    memory_clips: ClipConfig = replace(STILLS, frames=12, long=(0, 5), short=(5, 3, 1))
