"""The encoders as one family: the frozen configuration picks the module, so that every recipe takes any of them.

    net=pyramid                          the pyramid encoder in place of the recipe's own
    net=pyramid net.widths=48,96,192     and its numbers

A new encoder is a module with a configuration (``kind``, ``stride``, ``features``), ``init``, ``place``, ``apply``
and ``apply_with_context``, and a line in ``MODULES``.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

import torch
from torch import Tensor

from vcorr.model import pyramid, resnet, resnet18
from vcorr.model.layers import fold as fold
from vcorr.model.nn import Tensors
from vcorr.model.pyramid import PyramidConfig as PyramidConfig
from vcorr.model.resnet import ResNetConfig as ResNetConfig
from vcorr.model.resnet18 import ResNet18Config as ResNet18Config

NetworkConfig = ResNetConfig | PyramidConfig | ResNet18Config
"""A network's shape: its ``kind``, its ``stride`` in pixels a feature cell, its ``features`` (channels of a cell)."""

MODULES: dict[type, ModuleType] = {ResNetConfig: resnet, PyramidConfig: pyramid, ResNet18Config: resnet18}


def init(cfg: NetworkConfig, rng: torch.Generator) -> tuple[Tensors, Tensors]:
    """Fresh (params, stats) on the CPU in float32."""
    fresh: tuple[Tensors, Tensors] = MODULES[type(cfg)].init(cfg, rng)
    return fresh


def place(cfg: NetworkConfig, params: Tensors, size: tuple[int, int]) -> Tensor | None:
    """The position encoding that ``apply`` adds for images of a size (h, w), in the stem's shape [c h' w'], or None."""
    position: Tensor | None = MODULES[type(cfg)].place(cfg, params, size)
    return position


def apply(
    cfg: NetworkConfig, params: Tensors, stats: Tensors, x: Tensor, *, train: bool, position: Tensor | None = None
) -> tuple[Tensor, Tensors]:
    """Features of images.

    Args:
        x: images [b 3 h w], best in channels_last memory format; then the features are contiguous.
        train: normalise with this batch's statistics and return updated ones; else use the running ones.
        position: added to the stem's output in place of the configuration's own encoding (``place``), such as that
            encoding shifted: [c h' w'] or one for each image [b c h' w'].

    Returns:
        Features [b h' w' c], h' = h / stride rounded up, w' likewise; and the statistics.
    """
    result: tuple[Tensor, Tensors] = MODULES[type(cfg)].apply(cfg, params, stats, x, train=train, position=position)
    return result


def apply_with_context(
    cfg: NetworkConfig, params: Tensors, stats: Tensors, x: Tensor, *, position: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Features of images by running statistics, and features of what lies around each cell, on a coarser grid.

    Args:
        x, position: as in ``apply``.

    Returns:
        Features as of ``apply``, and context features [b ceil(h / 8) ceil(w / 8) d].
    """
    result: tuple[Tensor, Tensor] = MODULES[type(cfg)].apply_with_context(cfg, params, stats, x, position=position)
    return result


def apply_each(
    cfg: NetworkConfig, params: Tensors, stats: Tensors, frames: Iterable[Tensor], *, train: bool
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
