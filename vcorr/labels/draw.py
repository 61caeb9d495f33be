"""Colours for object ids, and masks and points drawn over the picture they belong to."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

LINE_PER_SIDE = 1 / 480  # width of a contour as a share of the short side
POINT_PER_SIDE = 1 / 120  # radius of a point, likewise
UNSURE = 0.5  # confidence below which a point is drawn as a ring


def default_palette() -> np.ndarray:
    """Colours of the ids 0 to 255, uint8 [256 3], by the rule of the PASCAL VOC and DAVIS masks.

    The bits of an id are dealt out to red, green and blue in turn, and each channel fills from its highest bit down:
    so the first ids are as far apart as they can be, and no two ids share a colour.

    >>> default_palette()[:4].tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.int64)
    for bit in range(8):
        palette[:, bit % 3] |= (ids >> bit & 1) << 7 - bit // 3
    return palette.astype(np.uint8)


def colour_index(ids: np.ndarray) -> np.ndarray:
    """Rows of a palette for the ids: above 255 the colours start again from that of id 1."""
    return np.where(ids > 255, (ids.astype(np.int64) - 1) % 255 + 1, ids)


def overlay(rgb: np.ndarray, ids: np.ndarray, palette: np.ndarray, *, opacity: float = 0.5) -> np.ndarray:
    """Tints each object in its colour and draws a line along the inside of its border.

    Args:
        rgb: uint8 [h w 3].
        ids: uint8 or uint16 [h w], 0 is background and left as it is.
        palette: uint8 [256 3].
        opacity: of the tint, from 0 (only lines) to 1 (flat colour).

    Returns:
        uint8 [h w 3], a new array.

    Raises:
        ValueError: shapes that do not fit, opacity outside 0 to 1.
    """
    if rgb.shape != (*ids.shape, 3):
        raise ValueError(f"rgb must be [h w 3] over ids [h w], got {rgb.shape} over {ids.shape}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie in 0 to 1, got {opacity}")
    drawn = rgb.copy()
    inside = ids > 0
    lines = _bright(palette)
    tints = (palette.astype(np.float32) + lines) / 2  # half way: clear on dark pictures, and dark ids stay apart
    tint = tints[colour_index(ids[inside])] * np.float32(opacity)
    drawn[inside] = (rgb[inside] * np.float32(1 - opacity) + tint + 0.5).astype(np.uint8)
    line = contour(ids, width=max(1, round(min(ids.shape) * LINE_PER_SIDE)))
    drawn[line] = lines[colour_index(ids[line])]
    return drawn


def contour(ids: np.ndarray, *, width: int) -> np.ndarray:
    """Pixels of objects at most `width` steps along a row or column from another id, bool [h w]."""
    line = np.zeros(ids.shape, bool)
    for step in range(1, width + 1):
        down, right = ids[step:] != ids[:-step], ids[:, step:] != ids[:, :-step]
        line[step:] |= down
        line[:-step] |= down
        line[:, step:] |= right
        line[:, :-step] |= right
    return line & (ids > 0)


def _bright(palette: np.ndarray) -> np.ndarray:
    """The hues of a palette at full brightness, white for black."""
    peak = palette.max(axis=1, keepdims=True).astype(np.float32)
    return np.where(peak > 0, np.rint(palette / np.maximum(peak, 1) * 255), 255).astype(np.uint8)


def draw_points(rgb: np.ndarray, xy: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Draws points as discs in the colours of the ids 1, 2, ..., rings where they are unsure.

    Args:
        rgb: uint8 [h w 3].
        xy: (x, y) of each in pixels [n 2]; NaN is not drawn.
        confidence: [n]; below `UNSURE` a ring.

    Returns:
        uint8 [h w 3], a new array.
    """
    image = Image.fromarray(rgb)
    pen = ImageDraw.Draw(image)
    radius = max(2, round(min(rgb.shape[:2]) * POINT_PER_SIDE))
    colours = point_colours(len(xy))
    for (x, y), colour, sure in zip(xy, colours.tolist(), confidence >= UNSURE, strict=True):
        if np.isfinite((x, y)).all():
            box = (x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1)
            pen.ellipse(box, outline=(0, 0, 0), width=3 if not sure else 1)
            box = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(box, fill=tuple(colour) if sure else None, outline=tuple(colour))
    return np.array(image)


def point_colours(count: int) -> np.ndarray:
    """Colours of points, in their order, uint8 [n 3]."""
    colours: np.ndarray = _bright(default_palette())[colour_index(np.arange(1, count + 1))]
    return colours
