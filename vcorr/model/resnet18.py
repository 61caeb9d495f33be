"""torchvision's ResNet-18 (He et al. 2016) as an encoder: for weights of others, such as the contrastive random walk's.

| layer  | operation                          | stride, of the encoder at 8 | at 4 | channels |
|--------|------------------------------------|-----------------------------|------|----------|
| stem   | 7x7 conv, batch norm, ReLU         | 2                           | 2    | 64       |
| pool   | 3x3 max                            | 2                           | 2    |          |
| layer1 | 2 basic blocks                     | 1                           | 1    | 64       |
| layer2 | 2 basic blocks, the first strided  | 2                           | 1    | 128      |
| layer3 | 2 basic blocks                     | 1                           | 1    | 256      |
| layer4 | 2 basic blocks, where ``layers`` is 4 | 1                        | 1    | 512      |

The classifier was trained with strides of 2 in layer3 and layer4; those who read features of it take 1 (Jabri et al.
2020). Features are the last layer's own, without a head, of length 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.model import nn
from vcorr.model.layers import Building, Running
from vcorr.model.nn import Tensors

WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True)
class ResNet18Config:
    """The network's shape.

    Attributes:
        kind: names this family of encoders.
        stride: pixels a feature cell.
        layers: the features are those of this layer.
        border: what convolutions see beyond the picture: zeros, or the picture reflected.
        unit: scale every feature to length 1. The reading then needs a scale of its own, 1 / temperature.
    """

    kind: Literal["resnet18"] = field(default="resnet18", kw_only=True)
    stride: Literal[4, 8] = 8
    layers: Literal[3, 4] = 3
    border: nn.Border = "zeros"
    unit: bool = True

    @property
    def features(self) -> int:
        """Channels of a cell."""
        return WIDTHS[self.layers - 1]


def _blocks(cfg: ResNet18Config) -> list[tuple[str, int, int, int]]:
    """(name, input channels, output channels, stride) of each basic block in order."""
    inputs, blocks = WIDTHS[0], []
    for layer, outputs in enumerate(WIDTHS[: cfg.layers], start=1):
        for block in range(2):
            stride = 2 if (layer, block, cfg.stride) == (2, 0, 8) else 1
            blocks.append((f"layer{layer}.{block}", inputs, outputs, stride))
            inputs = outputs
    return blocks


def init(cfg: ResNet18Config, rng: torch.Generator) -> tuple[Tensors, Tensors]:
    """Fresh (params, stats) on the CPU in float32."""
    new = Building(rng)
    new.conv_norm("stem.conv", 3, WIDTHS[0], 7)
    for name, inputs, outputs, stride in _blocks(cfg):
        new.block(name, inputs, outputs, stride)
    return new.params, new.stats


def place(cfg: ResNet18Config, params: Tensors, size: tuple[int, int]) -> Tensor | None:
    """No position encoding."""
    return None


def apply(
    cfg: ResNet18Config, params: Tensors, stats: Tensors, x: Tensor, *, train: bool, position: Tensor | None = None
) -> tuple[Tensor, Tensors]:
    """Features of images.

    Args:
        x: images [b 3 h w], best in channels_last memory format; then the features are contiguous.
        train: normalise with this batch's statistics and return updated ones; else use the running ones.
        position: added to the stem's output: [c h' w'] or one for each image [b c h' w'], h' = ceil(h / 2).

    Returns:
        Features [b h' w' c] with h' = ceil(h / stride), w' likewise; and the statistics.
    """
    run = Running(params, stats, train, border=cfg.border)
    features = _last(cfg, run, x, position).permute(0, 2, 3, 1)
    return nn.unit(features) if cfg.unit else features, run.seen


def apply_with_context(
    cfg: ResNet18Config, params: Tensors, stats: Tensors, x: Tensor, *, position: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Features of images by running statistics, and of what lies around each cell.

    Args:
        x, position: as in ``apply``.

    Returns:
        Features as of ``apply``, and context features [b ceil(h / 8) ceil(w / 8) c]: the last layer, or means of it at
        stride 4, of unit length.
    """
    last = _last(cfg, Running(params, stats, train=False, border=cfg.border), x, position)
    coarse = F.avg_pool2d(last, 2, ceil_mode=True) if cfg.stride == 4 else last
    features = last.permute(0, 2, 3, 1)
    return nn.unit(features) if cfg.unit else features, nn.unit(coarse.permute(0, 2, 3, 1))


def _last(cfg: ResNet18Config, run: Running, x: Tensor, position: Tensor | None) -> Tensor:
    """The last layer's channels [b c h' w']."""
    x = run.conv_norm("stem.conv", x, 2).relu_()
    if position is not None:
        x = x + position.to(x.dtype)
    x = F.max_pool2d(x, 3, 2, 1)
    for name, _, _, stride in _blocks(cfg):
        x = run.block(name, x, stride)
    return x
