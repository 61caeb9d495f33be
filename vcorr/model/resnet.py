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

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.model import nn
from vcorr.model import position as positions
from vcorr.model.nn import Tensors
from vcorr.model.position import PositionConfig

STRIDE = 4  # pixels per feature cell


@dataclass(frozen=True)
class ResNetConfig:
    """The network's shape.

    Attributes:
        widths: channels of the stem and layer1, layer2, layer3, layer4.
        features: channels that the head gives out.
        unit: scale every feature to length 1. The reading then needs a scale of its own, 1 / temperature.
        position: what is added to the stem's output, so that cells know where they lie (LIIR).
    """

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
    params: Tensors = {}
    stats: Tensors = {}

    def conv_bn(conv: str, bn: str, inputs: int, outputs: int, size: int) -> None:
        params.update(nn.conv_init(conv, inputs, outputs, size, rng))
        new_params, new_stats = nn.batch_norm_init(bn, outputs)
        params.update(new_params)
        stats.update(new_stats)

    conv_bn("stem.conv", "stem.bn", 3, cfg.widths[0], 7)
    for name, inputs, outputs, stride in _blocks(cfg):
        conv_bn(f"{name}.conv1", f"{name}.bn1", inputs, outputs, 3)
        conv_bn(f"{name}.conv2", f"{name}.bn2", outputs, outputs, 3)
        if stride != 1 or inputs != outputs:
            conv_bn(f"{name}.skip.conv", f"{name}.skip.bn", inputs, outputs, 1)
    params.update(nn.conv_init("head", cfg.widths[-1], cfg.features, 3, rng, bias=True))
    return params | positions.init(cfg.position, cfg.widths[0]), stats


def place(cfg: ResNetConfig, params: Tensors, size: tuple[int, int]) -> Tensor | None:
    """The position encoding that ``apply`` adds for images of a size (h, w): [c h' w'] of the stem, or None."""
    if cfg.position.kind == "none":
        return None
    cells = (-(-size[0] // 2), -(-size[1] // 2))
    return positions.encode(cfg.position, params, cfg.widths[0], cells, params["head.weight"].device)


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
    seen: Tensors = {}

    def conv_bn(conv: str, bn: str, x: Tensor, stride: int = 1) -> Tensor:
        y = nn.conv(params, conv, x, stride=stride)
        if f"{bn}.weight" not in params:  # folded into the convolution
            return y
        y, new = nn.batch_norm(params, stats, bn, y, train=train)
        seen.update(new)
        return y

    position = place(cfg, params, (x.shape[2], x.shape[3])) if position is None else position
    x = conv_bn("stem.conv", "stem.bn", x, 2).relu_()
    if position is not None:
        x = x + position.to(x.dtype)
    for name, _, _, stride in _blocks(cfg):
        y = conv_bn(f"{name}.conv1", f"{name}.bn1", x, stride).relu_()
        y = conv_bn(f"{name}.conv2", f"{name}.bn2", y)
        if f"{name}.skip.conv.weight" in params:
            x = conv_bn(f"{name}.skip.conv", f"{name}.skip.bn", x, stride)
        x = y.add_(x).relu_()
    features = nn.conv(params, "head", x).permute(0, 2, 3, 1)
    if cfg.unit:  # at least in float32: a length of 64 squares loses too much in bfloat16
        features = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
    return features, seen


def apply_each(
    cfg: ResNetConfig, params: Tensors, stats: Tensors, frames: Iterable[Tensor], *, train: bool
) -> tuple[list[Tensor], Tensors]:
    """Features of frames [b 3 h w], a call for each: batch statistics are those of one position in the clip.

    Returns:
        [b h' w' c] for each frame, at least in float32; and the statistics after the last.
    """
    features = []
    for frame in frames:
        feature, stats = apply(cfg, params, stats, frame, train=train)
        features.append(feature.to(torch.promote_types(feature.dtype, torch.float32)))
    return features, stats


def fold(params: Tensors, stats: Tensors) -> tuple[Tensors, Tensors]:
    """Parameters with every batch normalisation folded into the convolution before it, for ``train=False``.

    With w' = w * g / sqrt(var + eps) and b' = beta - mean * g / sqrt(var + eps), conv' equals norm(conv) in exact
    arithmetic, at one pass over the activations less for each layer.
    """
    folded = {k: v for k, v in params.items() if ".bn" not in k}
    for bn in {k.removesuffix(".mean") for k in stats if k.endswith(".mean")}:
        conv = bn.replace("bn", "conv")
        gain = params[f"{bn}.weight"] / torch.sqrt(stats[f"{bn}.var"] + nn.EPSILON)
        folded[f"{conv}.weight"] = params[f"{conv}.weight"] * gain[:, None, None, None]
        folded[f"{conv}.bias"] = params[f"{bn}.bias"] - stats[f"{bn}.mean"] * gain
    return folded, {}
