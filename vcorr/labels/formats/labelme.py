"""LabelMe JSON: the shapes on one picture. Shapes of one label and group are one object."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vcorr.errors import InputError
from vcorr.labels.formats.coco_masks import corners
from vcorr.labels.formats.drawings import Drawing, Flags
from vcorr.labels.formats.polygons import fill
from vcorr.labels.formats.text import short

_ADVICE = "save it from LabelMe again"


def is_labelme(data: Mapping[str, Any]) -> bool:
    """Whether a JSON object is of this form."""
    return isinstance(data.get("shapes"), list)


def read_labelme(path: Path, data: Mapping[str, Any]) -> Drawing:
    """The shapes of a file.

    Raises:
        InputError: another form; a shape that has no area; a polygon of fewer than three points.
    """
    size = (data.get("imageHeight"), data.get("imageWidth"))
    if not all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 2**16 for side in size):
        raise InputError(path, f"has a picture of [height, width] {short(list(size))}", _ADVICE)
    height, width = int(size[0]), int(size[1])  # type: ignore[arg-type]
    picture = data.get("imagePath")
    picture = picture if isinstance(picture, str) and picture else path.name
    objects = []
    for i, shape in enumerate(data["shapes"]):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"]:
            raise InputError(path, f"shape {i} has no label", "name it in LabelMe")
        label, group = shape["label"], shape.get("group_id")
        name = label if group is None or label.isdecimal() else f"{label} {group}"
        objects.append((name, _area(path, shape, (height, width), f"shape {i} ({short(label)})")))
    if not objects:
        raise InputError(path, "has no shapes", "draw an object")
    return Drawing(path, picture.replace("\\", "/").rsplit("/", 1)[-1], (height, width), objects)


def _area(path: Path, shape: Mapping[str, Any], size: tuple[int, int], where: str) -> Flags:
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    points = points if isinstance(points, list) else []
    if kind == "polygon":
        return fill(corners(path, points, where), size)
    if kind in ("rectangle", "circle", "mask"):
        if len(points) != 2:
            raise InputError(path, f"{where} is a {kind} of {len(points)} points", f"a {kind} has two")
        first, second, _ = corners(path, [*points, [0, 0]], where)
        if kind == "mask":
            return _pasted(path, shape.get("mask"), first, size, where)
        if kind == "rectangle":
            (x0, y0), (x1, y1) = first, second
            return fill(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), size)
        angle = np.linspace(0, 2 * np.pi, 128, endpoint=False)
        radius = float(np.linalg.norm(second - first))
        return fill(first + radius * np.stack([np.cos(angle), np.sin(angle)], 1), size)
    raise InputError(
        path, f"{where} is a {short(kind)}, which has no area", "draw polygons, rectangles, circles or masks"
    )


def _pasted(path: Path, text: Any, corner: np.ndarray, size: tuple[int, int], where: str) -> Flags:
    """A mask that is a PNG of the box that begins at a corner."""
    try:
        content = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width > size[1] or image.height > size[0]:
                raise ValueError(f"a mask of {image.width}x{image.height}")
            pixels = np.asarray(image.convert("L")) > 0
    except (TypeError, ValueError, binascii.Error, OSError, SyntaxError) as error:
        raise InputError(path, f"{where} holds no readable PNG ({error})", _ADVICE) from None
    mask = np.zeros(size, bool)
    x, y = (round(float(v)) for v in corner)
    if x < 0 or y < 0 or y + pixels.shape[0] > size[0] or x + pixels.shape[1] > size[1]:
        raise InputError(path, f"{where} lies outside the picture", _ADVICE)
    mask[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return mask
