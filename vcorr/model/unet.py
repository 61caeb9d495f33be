"""A U-Net with the encoder of a ResNet-18: shares of classes from pictures, or from features of a frozen encoder.

| layer   | operation                                            | stride on pictures | channels |
|---------|------------------------------------------------------|--------------------|----------|
| stem    | 7x7 conv, batch norm, ReLU; then 3x3 max-pooling     | 2; 4               | 64       |
| layer1  | 2 basic blocks                                       | 4                  | 64       |
| layerN  | 2 basic blocks, the first strided, with a 1x1 skip   | 8, 16, 32          | 128 ...  |
| decodeN | enlarged twice, joined with the layer of that size;  | 16, 8, 4, 2, 1     | 256 ...  |
|         | 2 times 3x3 conv, batch norm, ReLU                   |                    |          |
| head    | 3x3 conv with bias, nothing after it                 | 1                  | outputs  |

On features the stem is a 3x3 convolution at stride 1 without pooling, and the network gives as many cells as it takes
(Ronneberger et al. 2015; He et al. 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.model import nn
from vcorr.model.layers import Building, Running
from vcorr.model.nn import Tensors


@dataclass(frozen=True)
class UNetConfig:
    """The network's shape.

    Attributes:
        outputs: classes. inputs: channels of what it sees.
        pictures: whether that is pictures; else features.
        widths: channels of the stem and layer1, and of each layer after it.
        depth: basic blocks a layer.
        decoder: channels of each stage of the decoder; one less than widths on features, one more on pictures.
    """

    outputs: int
    inputs: int = 3
    pictures: bool = True
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depth: int = 2
    decoder: tuple[int, ...] = (256, 128, 64, 32, 16)

    def __post_init__(self) -> None:
        if min(self.outputs, self.inputs, self.depth, *self.widths, *self.decoder) < 1:
            raise ValueError(f"all numbers must be from 1 on, got {self}")
        stages = len(self.widths) + (1 if self.pictures else -1)
        if len(self.decoder) != stages:
            raise ValueError(f"decoder must have {stages} stages for widths {self.widths}, got {self.decoder}")


def init(cfg: UNetConfig, rng: torch.Generator) -> tuple[Tensors, Tensors]:
    """Fresh (params, stats) on the CPU in float32."""
    new = Building(rng)
    new.conv_norm("stem.conv", cfg.inputs, cfg.widths[0], 7 if cfg.pictures else 3)
    x = cfg.widths[0]
    for name, outputs, stride in _blocks(cfg):
        new.block(name, x, outputs, stride)
        x = outputs
    for stage, (joined, outputs) in enumerate(zip(_joined(cfg), cfg.decoder, strict=True), start=1):
        new.conv_norm(f"decode{stage}.conv1", x + joined, outputs, 3)
        new.conv_norm(f"decode{stage}.conv2", outputs, outputs, 3)
        x = outputs
    new.conv("head", x, cfg.outputs, 3)
    return new.params, new.stats


def apply(cfg: UNetConfig, params: Tensors, stats: Tensors, x: Tensor, *, train: bool) -> tuple[Tensor, Tensors]:
    """Logits of classes.

    Args:
        x: pictures or features [b c h w], best in channels_last memory format.
        train: normalise with this batch's statistics and return updated ones; else use the running ones.

    Returns:
        Logits [b outputs h w], and the statistics.
    """
    run, size = Running(params, stats, train), x.shape[-2:]
    x = run.conv_norm("stem.conv", x, 2 if cfg.pictures else 1).relu_()
    skips = [x] if cfg.pictures else []
    if cfg.pictures:
        x = F.max_pool2d(x, 3, 2, 1)
    for name, _, stride in _blocks(cfg):
        if stride == 2:
            skips.append(x)
        x = run.block(name, x, stride)
    for stage in range(1, len(cfg.decoder) + 1):
        skip = skips.pop() if skips else None
        x = _twice(x, size if skip is None else skip.shape[-2:])
        x = x if skip is None else torch.cat([x, skip], 1)
        for conv in ("conv1", "conv2"):
            x = run.conv_norm(f"decode{stage}.{conv}", x).relu_()
    return nn.conv(params, "head", x), run.seen


def _blocks(cfg: UNetConfig) -> list[tuple[str, int, int]]:
    """(name, output channels, stride) of each basic block in order."""
    return [
        (f"layer{layer}.{block}", outputs, 2 if layer > 1 and block == 0 else 1)
        for layer, outputs in enumerate(cfg.widths, start=1)
        for block in range(cfg.depth)
    ]


def _joined(cfg: UNetConfig) -> list[int]:
    """Channels that each stage of the decoder is joined with."""
    skips = list(cfg.widths[-2::-1])
    return [*skips, cfg.widths[0], 0] if cfg.pictures else skips


def _twice(x: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Each cell four times, cut to a size: unlike interpolation, its gradient has the same bits in every run."""
    b, c, h, w = x.shape
    larger = x[:, :, :, None, :, None].expand(b, c, h, 2, w, 2).reshape(b, c, 2 * h, 2 * w)
    return larger[..., : size[0], : size[1]].contiguous(memory_format=torch.channels_last)
