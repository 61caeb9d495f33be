"""Masks in COCO JSON, of pictures and of videos (YouTube-VIS): polygons and run lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vcorr.errors import InputError
from vcorr.labels.formats import rle
from vcorr.labels.formats.coco import annotated, category_names, is_coco
from vcorr.labels.formats.drawings import Drawing, Flags
from vcorr.labels.formats.polygons import fill
from vcorr.labels.formats.text import number, short

_ADVICE = "export it as COCO again"


def is_coco_video(data: Mapping[str, Any]) -> bool:
    """Whether a JSON object is of this form, for videos."""
    return isinstance(data.get("videos"), list) and isinstance(data.get("annotations"), list)


def read_coco_masks(path: Path, data: Mapping[str, Any]) -> list[Drawing]:
    """The masks of a file, a drawing a picture, in order.

    Raises:
        InputError: another form; a polygon of fewer than three points; run lengths of another size.
    """
    if is_coco_video(data):
        return _of_video(path, data)
    assert is_coco(data)
    drawn: dict[str, tuple[tuple[int, int], list[tuple[str, Flags]]]] = {}
    for a in annotated(path, data, "segmentation"):
        name = f"{a.category} {a.individual}" if a.individual else a.category
        size, objects = drawn.setdefault(a.picture, (a.size, []))
        if size != a.size:
            raise InputError(path, f"has two pictures {a.picture} of different sizes", _ADVICE)
        where = f"annotation {short(a.data['id'])} of {a.picture}"
        objects.append((name, _mask(path, a.data["segmentation"], size, where)))
    return [Drawing(path, picture, size, objects) for picture, (size, objects) in drawn.items()]


def _of_video(path: Path, data: Mapping[str, Any]) -> list[Drawing]:
    if len(data["videos"]) != 1 or not isinstance(data["videos"][0], dict):
        raise InputError(path, f"is of {len(data['videos'])} videos", "give the annotations of one")
    video = data["videos"][0]
    names, sides = video.get("file_names"), [video.get("height"), video.get("width")]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InputError(path, "does not name the frames of its video", _ADVICE)
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(path, f"has a video of [height, width] {short(sides)}", _ADVICE)
    size = (int(sides[0]), int(sides[1]))  # type: ignore[arg-type]
    categories = category_names(path, data)
    records = [a for a in data["annotations"] if isinstance(a, dict)]
    kinds = [a.get("category_id") for a in records]
    objects: list[list[tuple[str, Flags]]] = [[] for _ in names]
    for a, kind in zip(records, kinds, strict=True):
        masks = a.get("segmentations")
        if kind not in categories or not isinstance(masks, list) or len(masks) != len(names):
            what = f"annotation {short(a.get('id'))} has no category, or no entry for each of {len(names)} frames"
            raise InputError(path, what, _ADVICE)
        name = categories[kind] if kinds.count(kind) == 1 else f"{categories[kind]} {a.get('id')}"
        for k, mask in enumerate(masks):
            if mask is not None:
                where = f"annotation {short(a.get('id'))} of frame {k}"
                objects[k].append((name, _mask(path, mask, size, where)))
    pictures = [name.replace("\\", "/").rsplit("/", 1)[-1] for name in names]
    listed = zip(pictures, objects, strict=True)
    return [Drawing(path, picture, size, found) for picture, found in listed if found]


def _mask(path: Path, segmentation: Any, size: tuple[int, int], where: str) -> Flags:
    if isinstance(segmentation, list):
        if not segmentation or not all(isinstance(polygon, list) for polygon in segmentation):
            raise InputError(path, f"{where} is {short(segmentation)}, no list of polygons", _ADVICE)
        mask = np.zeros(size, bool)
        for polygon in segmentation:
            mask |= fill(corners(path, [polygon[i : i + 2] for i in range(0, len(polygon), 2)], where), size)
        return mask
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), list | str):
        raise InputError(path, f"{where} is {short(segmentation)}, no polygons and no run lengths", _ADVICE)
    if segmentation.get("size") != list(size):
        what = f"{where} has run lengths of [height, width] {short(segmentation.get('size'))}, not {list(size)}"
        raise InputError(path, what, _ADVICE)
    counts = segmentation["counts"]
    try:
        return rle.decode(rle.from_text(counts) if isinstance(counts, str) else counts, size)
    except ValueError as error:
        raise InputError(path, f"{where}: {error}", _ADVICE) from None


def corners(path: Path, points: Sequence[Any], where: str) -> np.ndarray:
    """The corners of a polygon [n 2].

    Raises:
        InputError: fewer than three, or a value that is not a number.
    """
    if len(points) < 3:
        what = f"{where} has a polygon of {len(points)} point{'s' * (len(points) != 1)}"
        raise InputError(path, what, "a polygon needs three; draw it anew, or remove it")
    found = np.zeros((len(points), 2))
    for i, point in enumerate(points):
        values = [number(path, v, f"a corner of {where}") for v in point] if isinstance(point, list) else []
        if len(values) != 2 or values[0] is None or values[1] is None or max(map(abs, values)) > 1e7:  # type: ignore[arg-type]
            raise InputError(path, f"{where} has the corner {short(point)}", "a corner is x, y in pixels")
        found[i] = values
    return found
