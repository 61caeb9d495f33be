"""A small scene whose labels are known, and masks as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64


def scene(step: int) -> tuple[np.ndarray, np.ndarray]:
    """A red and a blue square on green ground, moving 2 pixels a frame: picture [h w 3] and ids [h w]."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[8:24, 4 + 2 * step : 20 + 2 * step] = 1
    ids[28:44, 40 - 2 * step : 56 - 2 * step] = 2
    return np.array([[30, 160, 60], [200, 30, 40], [40, 60, 210]], np.uint8)[ids], ids


def save_mask(path: Path, ids: np.ndarray) -> Path:
    image = Image.fromarray(ids, "P")
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 200])
    image.save(path)
    return path
