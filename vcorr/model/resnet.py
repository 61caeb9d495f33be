"""The encoder: a ResNet-18 at stride 4 with a 64-channel head (CorrFlow, Lai & Xie 2019; MAST, Lai et al. 2020).

| layer  | operation                                          | stride | channels |
|--------|----------------------------------------------------|--------|----------|
| stem   | 7x7 conv, batch norm, ReLU; no max-pooling         | 2      | 64       |
| layer1 | 2 basic blocks                                     | 1      | 64       |
| layer2 | 2 basic blocks, the first with a strided 1x1 skip  | 2      | 128      |
| layer3 | 2 basic blocks, the first with a 1x1 skip          | 1      | 256      |
| layer4 | 2 basic blocks                                     | 1      | 256      |
| head   | 3x3 conv with bias, nothing after it               | 1      | 64       |

Feature (i, j) is centred on pixel (4i, 4j). A position encoding may be added to the stem's output (``position``).
Features have any length, as the papers' do, unless ``unit`` asks for 1: then logits are cosines times the scale and
cannot run away, which is how training of this family fails (the softmax saturates and its gradient with it).
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
class ResNetConfig:
    """The network's shape.

    Attributes:
        kind: names this family of encoders.
        widths: channels of the stem and layer1, layer2, layer3, layer4.
        features: channels of the head.
        unit: scale every feature to length 1. The reading then needs a scale of its own, 1 / temperature.
        position: what is added to the stem's output, so that cells know where they lie (LIIR).
    """

    stride: ClassVar[int] = 4  # pixels a feature cell
    kind: Literal["resnet"] = field(default="resnet", kw_only=True)
    widths: tuple[int, int, int, int] = (64, 128, 256, 256)
    features: int = 64
    unit: bool = False
    position: PositionConfig = PositionConfig()  # noqa: RUF009 (frozen: its own immutable default)

    def __post_init__(self) -> None:
        if len(self.widths) != 4 or min(*self.widths, self.features) < 1:
            raise ValueError(f"widths must be four numbers from 1 on, features too, got {self.widths}, {self.features}")
        positions.check(self.position, self.widths[0])


def _blocks(cfg: ResNetConfig) -> list[tuple[str, int, int, int]]:
    """(name, input channels, output channels, stride) of each basic block in order."""
    inputs, blocks = cfg.widths[0], []
    for layer, outputs in enumerate(cfg.widths, start=1):
        for block in range(2):
            stride = 2 if (layer, block) == (2, 0) else 1
            blocks.append((f"layer{layer}.{block}", inputs, outputs, stride))
            inputs = outputs
    return blocks


def init(cfg: ResNetConfig, rng: torch.Generator) -> tuple[Tensors, Tensors]:
    """Fresh (params, stats) on the CPU in float32."""
    new = Building(rng)
    new.conv_norm("stem.conv", 3, cfg.widths[0], 7)
    for name, inputs, outputs, stride in _blocks(cfg):
        new.block(name, inputs, outputs, stride)
    new.conv("head", cfg.widths[-1], cfg.features, 3)
    return new.params | positions.init(cfg.position, cfg.widths[0]), new.stats


def place(cfg: ResNetConfig, params: Tensors, size: tuple[int, int]) -> Tensor | None:
    """The position encoding that ``apply`` adds for images of a size (h, w): [c h' w'] of the stem, or None."""
    return positions.at_half(cfg.position, params, cfg.widths[0], size)


def apply(
    cfg: ResNetConfig, params: Tensors, stats: Tensors, x: Tensor, *, train: bool, position: Tensor | None = None
) -> tuple[Tensor, Tensors]:
    """Features of images.

    Args:
        x: images [b 3 h w], best in channels_last memory format; then the features are contiguous.
        train: normalise with this batch's statistics and return updated ones; else use the running ones.
        position: added to the stem's output in place of the configuration's own encoding (``place``), such as that
            encoding shifted: [c h' w'] or one for each image [b c h' w'], h' = ceil(h / 2).

    Returns:
        Features [b h' w' c] with h' = ceil(ceil(h / 2) / 2), w' likewise; and the statistics.
    """
    run = Running(params, stats, train)
    return _features(cfg, run, _last(cfg, run, x, position)), run.seen


def apply_with_context(
    cfg: ResNetConfig, params: Tensors, stats: Tensors, x: Tensor, *, position: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Features of images by running statistics, and of what lies around each cell.

    Args:
        x, position: as in ``apply``.

    Returns:
        Features as of ``apply``, and context features [b ceil(h / 8) ceil(w / 8) d]: means of the last layer, of unit
        length.
    """
    run = Running(params, stats, train=False)
    last = _last(cfg, run, x, position)
    return _features(cfg, run, last), nn.unit(F.avg_pool2d(last, 2, ceil_mode=True).permute(0, 2, 3, 1))


def _last(cfg: ResNetConfig, run: Running, x: Tensor, position: Tensor | None) -> Tensor:
    """The last layer's channels [b c h' w']."""
    position = place(cfg, run.params, (x.shape[2], x.shape[3])) if position is None else position
    x = run.conv_norm("stem.conv", x, 2).relu_()
    if position is not None:
        x = x + position.to(x.dtype)
    for name, _, _, stride in _blocks(cfg):
        x = run.block(name, x, stride)
    return x


def _features(cfg: ResNetConfig, run: Running, last: Tensor) -> Tensor:
    """The head on the last layer: [b h' w' c]."""
    features = nn.conv(run.params, "head", last).permute(0, 2, 3, 1)
    return nn.unit(features) if cfg.unit else features
