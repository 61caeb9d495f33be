"""A small scene whose labels are known, colours as its features, and masks as files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vcorr.matching.cells import Alignment, downsample
from vcorr.matching.settings import Matching
from vcorr.model import color
from vcorr.model.encoder import Encoder, Model
from vcorr.model.inference import Inference, References

HEIGHT, WIDTH = 48, 64
NOT_TEXT = os.fsdecode(b"caf\xe9")  # a name from an old disk: its bytes are no UTF-8
takes_any_name = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="file names are text here")


def scene(step: int) -> tuple[np.ndarray, np.ndarray]:
    """A red and a blue square on green ground, moving 2 pixels a frame: picture [h w 3] and ids [h w]."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[8:24, 4 + 2 * step : 20 + 2 * step] = 1
    ids[28:44, 40 - 2 * step : 56 - 2 * step] = 2
    return np.array([[30, 160, 60], [200, 30, 40], [40, 60, 210]], np.uint8)[ids], ids


class Colours:
    """Colours as features, of one length so that the nearest colour has the largest logit; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, picture: np.ndarray) -> Tensor:
        self.calls += 1
        cells = downsample(color.to_lab(color.from_uint8(picture[None])), 4, alignment="cell")
        return torch.cat([cells, (4 - cells.square().sum(-1, keepdim=True)).sqrt()], -1).contiguous()


def model(
    encoder: Encoder | None = None,
    *,
    radius: int | None = 3,
    scale: float = 200.0,
    border: Literal["mask", "zeros"] = "mask",
    alignment: Alignment = "cell",
    long: tuple[int, ...] = (0, 5),
    short: tuple[int, ...] = (1, 3, 5),
    **settings: Any,
) -> Model:
    """Colours as features, unless another encoder is given, read as the settings say."""
    matching = Matching(radius, scale, border, alignment)
    return Model(encoder or Encoder(Colours(), 4), matching, Inference(References(long, short), **settings))


def save_mask(path: Path, ids: np.ndarray) -> Path:
    image = Image.fromarray(ids, "P")
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 200])
    image.save(path)
    return path
