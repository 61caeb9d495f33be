"""LIIR (Li et al. 2022, "Locality-Aware Inter- and Intra-Video Reconstruction for Self-Supervised Correspondence").

The warm-up is MAST's pairs (see mast.py) with a *position encoding* (eq. 6), a learned map on the stem's output. The
full stage adds *inter-video reconstruction* (eq. 4, 5), a softmax over the window r and over points n of other videos,

    A(i, j) = exp(s <q_i, r_j>) / (sum_j' exp(s <q_i, r_j'>) + sum_v exp(s <q_i, n_v>)),  I(i) = sum_j A(i, j) I_r(j),

which a slow encoder gives, without gradient and with positions shifted round (section 3.2), and a bank keeps; and
*compactness* (eq. 7, 8): the window's affinity is drawn to a mixture of its two best cells, and read as one.

    vcorr train liir --data VIDEOS      # paper: J&F 72.1 on DAVIS-2017 val (YouTube-VOS)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from vcorr.recipes import mast

from vcorr.kernels import windowed_attention_lse
from vcorr.matching import cells, compactness
from vcorr.matching.affinity import Views
from vcorr.model import color, network, position
from vcorr.training.losses import bank, reconstruction
from vcorr.training.losses.bank import BankConfig
from vcorr.training.recipe import Inference, Out, Recipe, Schedule, Stage


@dataclass(frozen=True)
class Config(mast.Config):
    pairs: Schedule = replace(mast.Config.pairs, steps=174_000, batch=12)
    full: Schedule = Schedule(
        steps=29_000, batch=12, lr=1e-4, cooldown=0, unit="samples", milestones=(
            (55_000, 0.9), (85_000, 0.75), (135_000, 1 / 2), (175_000, 1 / 4), (250_000, 1 / 8), (300_000, 1 / 16),
        ),
    )  # fmt: skip
    net: network.NetworkConfig = network.ResNetConfig(position=position.PositionConfig("1dape", size=128))
    bank: BankConfig = BankConfig(frames=1_440, points=4, modulation="shifting")
    decay: float = 0.999
    peaks: Literal[0, 1, 2, 3] = 2
    mixture: compactness.Form = "gated"
    inference: Inference = replace(mast.Config.inference, compactness=2)


def build(cfg: Config) -> Recipe:
    window = cfg.matching.window
    grid = dict(stride=cfg.net.stride, alignment=cfg.matching.alignment)
    prior = dict(peaks=cfg.peaks, form=cfg.mixture)

    def loss(state, batch, rng, progress):
        seen, hidden = color.hide_channel(batch.lab, rng, channels=cfg.hide)
        (key, query), stats = network.apply_each(cfg.net, state.params, state.stats, seen.unbind(1), train=True)
        readout, intra = windowed_attention_lse(query, key, cells.downsample(hidden[:, 0], **grid), **window)
        share = bank.share(state.extra, query, batch.videos, intra, scale=cfg.matching.scale)  # eq. 4
        copied = cells.upsample(share[..., None] * readout, size=batch.rgb.shape[-2:], **grid)  # eq. 5
        rebuilt = reconstruction.huber(copied, hidden[:, 1])
        compact = compactness.loss(query, key, **prior, **window) if cfg.peaks else 0.0  # eq. 7, 8
        points = bank.encode(cfg.bank, cfg.net, state.slow, state.slow_stats, seen[:, 0], cfg.seed, batch.samples)
        extra = bank.push(state.extra, points, batch.videos, batch.samples)
        metrics = {"rebuilt": rebuilt, "compact": compact, "share": share.mean()}
        return Out(rebuilt + compact, stats, metrics, extra, Views(query, [key], cfg.matching))

    def enter(state):
        return replace(state.with_slow(), extra=bank.init(cfg.bank, cfg.net.features))

    base = mast.build(cfg)
    full = Stage("full", cfg.full, cfg.clips, loss, enter, decay=lambda name: cfg.decay)
    return replace(base, stages=(*base.stages, full))
