"""A pyramid encoder: features at stride 4 that know what lies around them, at a tenth of the work of ``resnet``.

| layer    | operation                                              | stride   | channels |
|----------|--------------------------------------------------------|----------|----------|
| stem     | 5x5 conv, batch norm, ReLU                             | 2        | 32       |
| level1   | 2 basic blocks, the first strided, with a 1x1 skip     | 4        | 64       |
| level2   | 2 basic blocks, as above                               | 8        | 128      |
| level3   | 2 basic blocks, as above                               | 16       | 256      |
| lateralN | 1x1 conv, batch norm, of level N; added from the top   | 16, 8, 4 | 96       |
|          | down, what comes from above enlarged bilinearly        |          |          |
| merge    | ReLU, 3x3 conv, batch norm, ReLU                       | 4        | 96       |
| head     | 3x3 conv with bias, nothing after it                   | 4        | 64       |

A frame of 480x854 takes 14 GMAC. It is a feature pyramid (Lin et al. 2017) whose finest level alone is given out: where
things lie comes from the fine levels, what they are from the coarse ones. Feature (i, j) is centred on pixel (4i, 4j).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.model import nn
from vcorr.model import position as positions
from vcorr.model.layers import Building, Running
from vcorr.model.nn import Tensors
from vcorr.model.position import PositionConfig


@dataclass(frozen=True)
class PyramidConfig:
    """The network's shape.

    Attributes:
        kind: names this family of encoders.
        stem: channels of the stem. widths: of level 1, 2, ..., each at half the resolution of the one before.
        depth: basic blocks a level.
        lateral: channels that the levels are joined in.
        features: channels of the head.
        unit: scale every feature to length 1. The reading then needs a scale of its own, 1 / temperature.
        position: what is added to the stem's output, so that cells know where they lie (LIIR).
    """

    stride: ClassVar[int] = 4  # pixels a feature cell
    kind: Literal["pyramid"] = field(default="pyramid", kw_only=True)
    stem: int = 32
    widths: tuple[int, ...] = (64, 128, 256)
    depth: int = 2
    lateral: int = 96
    features: int = 64
    unit: bool = False
    position: PositionConfig = PositionConfig()  # noqa: RUF009 (frozen: its own immutable default)

    def __post_init__(self) -> None:
        if not self.widths or min(self.stem, *self.widths, self.depth, self.lateral, self.features) < 1:
            got = f"{self.stem}, {self.widths}, {self.depth}, {self.lateral}, {self.features}"
            raise ValueError(f"stem, widths (one at least), depth, lateral and features must be from 1 on, got {got}")
        positions.check(self.position, self.stem)


def init(cfg: PyramidConfig, rng: torch.Generator) -> tuple[Tensors, Tensors]:
    """Fresh (params, stats) on the CPU in float32."""
    new = Building(rng)
    new.conv_norm("stem.conv", 3, cfg.stem, 5)
    inputs = cfg.stem
    for level, outputs in enumerate(cfg.widths, start=1):
        for block in range(cfg.depth):
            new.block(f"level{level}.{block}", inputs, outputs, stride=1 if block else 2)
            inputs = outputs
    for level, outputs in enumerate(cfg.widths, start=1):
        new.conv_norm(f"lateral{level}.conv", outputs, cfg.lateral, 1)
    new.conv_norm("merge.conv", cfg.lateral, cfg.lateral, 3)
    new.conv("head", cfg.lateral, cfg.features, 3)
    return new.params | positions.init(cfg.position, cfg.stem), new.stats


def place(cfg: PyramidConfig, params: Tensors, size: tuple[int, int]) -> Tensor | None:
    """The position encoding that ``apply`` adds for images of a size (h, w): [c h' w'] of the stem, or None."""
    return positions.at_half(cfg.position, params, cfg.stem, size)


def apply(
    cfg: PyramidConfig, params: Tensors, stats: Tensors, x: Tensor, *, train: bool, position: Tensor | None = None
) -> tuple[Tensor, Tensors]:
    """Features of images.

    Args:
        x: images [b 3 h w], best in channels_last memory format; then the features are contiguous.
        train: normalise with this batch's statistics and return updated ones; else use the running ones.
        position: added to the stem's output in place of the configuration's own encoding (``place``): [c h' w'] or one
            for each image [b c h' w'], h' = ceil(h / 2).

    Returns:
        Features [b h' w' c] with h' = ceil(ceil(h / 2) / 2), w' likewise; and the statistics.
    """
    run = Running(params, stats, train)
    return _features(cfg, run, _levels(cfg, run, x, position)), run.seen


def apply_with_context(
    cfg: PyramidConfig, params: Tensors, stats: Tensors, x: Tensor, *, position: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Features of images by running statistics, and of what lies around each cell.

    Args:
        x, position: as in ``apply``.

    Returns:
        Features as of ``apply``, and context features [b ceil(h / 8) ceil(w / 8) d]: those of all levels above the
        first (or means of the first, where it is alone), each of unit length.
    """
    run = Running(params, stats, train=False)
    levels = _levels(cfg, run, x, position)
    features = _features(cfg, run, levels)  # first: this is where most memory is needed
    above = levels[1:] or [F.avg_pool2d(levels[0], 2, ceil_mode=True)]
    parts = []
    for i, level in enumerate(above):
        for finer in reversed(above[:i]):
            level = _enlarged(level, finer)
        parts.append(nn.unit(level.permute(0, 2, 3, 1)))
    return features, torch.cat(parts, -1)


def _levels(cfg: PyramidConfig, run: Running, x: Tensor, position: Tensor | None) -> list[Tensor]:
    """The levels of images [b c h' w'], the finest first."""
    position = place(cfg, run.params, (x.shape[2], x.shape[3])) if position is None else position
    x = run.conv_norm("stem.conv", x, 2).relu_()
    if position is not None:
        x = x + position.to(x.dtype)
    levels = []
    for level in range(1, len(cfg.widths) + 1):
        for block in range(cfg.depth):
            x = run.block(f"level{level}.{block}", x, 1 if block else 2)
        levels.append(x)
    return levels


def _features(cfg: PyramidConfig, run: Running, levels: list[Tensor]) -> Tensor:
    """Levels joined from the top down, and the head: [b h' w' c]."""
    joined = run.conv_norm(f"lateral{len(levels)}.conv", levels[-1])
    for level in range(len(levels) - 1, 0, -1):
        lateral = run.conv_norm(f"lateral{level}.conv", levels[level - 1])
        joined = lateral + _enlarged(joined, lateral)
    y = run.conv_norm("merge.conv", joined.relu()).relu_()
    features = nn.conv(run.params, "head", y).permute(0, 2, 3, 1)
    return nn.unit(features) if cfg.unit else features


def _enlarged(coarse: Tensor, like: Tensor) -> Tensor:
    """A level at twice its resolution, cut to the size of the level below, which had ceil(size / 2) cells here."""
    height, width = like.shape[2:]
    size = (2 * coarse.shape[2], 2 * coarse.shape[3])
    return F.interpolate(coarse, size, mode="bilinear", align_corners=False)[:, :, :height, :width]
