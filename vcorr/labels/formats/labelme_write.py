"""LabelMe JSON as we write it: a mask an object, its label the name, its group the id."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from vcorr.labels.formats.objects import Named, box


def shapes(frame: Named) -> dict[str, Any]:
    """The file of a frame; a frame without any object has no shapes."""
    found = []
    for i, name, mask in frame.objects:
        x, y, width, height = box(mask)
        content = io.BytesIO()
        Image.fromarray(mask[y : y + height, x : x + width]).save(content, "PNG")
        found.append(
            {
                "label": name,
                "points": [[float(x), float(y)], [float(x + width - 1), float(y + height - 1)]],
                "group_id": i,
                "description": "",
                "shape_type": "mask",
                "flags": {},
                "mask": base64.b64encode(content.getvalue()).decode(),
            }
        )
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": found,
        "imagePath": frame.picture,
        "imageData": None,
        "imageHeight": frame.size[0],
        "imageWidth": frame.size[1],
    }
