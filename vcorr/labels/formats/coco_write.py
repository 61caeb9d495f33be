"""COCO JSON as we write it: of a video (YouTube-VIS, run lengths), and of keypoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vcorr.labels.formats import rle
from vcorr.labels.formats.objects import Named, box, picture_name
from vcorr.labels.keypoints import Points


def video(frames: Iterable[Named], indices: range, objects: Mapping[int, str], size: tuple[int, int]) -> dict[str, Any]:
    """Masks of a video: an annotation an object, its id that of the object, with null where it is not there."""
    height, width = size
    names = {"file_names": [picture_name(k) for k in indices]}
    found: dict[int, dict[str, Any]] = {
        i: {"id": i, "video_id": 1, "category_id": i, "iscrowd": 0, "segmentations": [], "bboxes": [], "areas": []}
        for i in objects
    }
    for frame in frames:
        masks = {i: mask for i, _, mask in frame.objects}
        for i, annotation in found.items():
            mask = masks.get(i)
            counts = None if mask is None else {"size": [height, width], "counts": rle.to_text(rle.encode(mask))}
            annotation["segmentations"].append(counts)
            annotation["bboxes"].append(None if mask is None else list(box(mask)))
            annotation["areas"].append(None if mask is None else int(mask.sum()))
    return {
        "info": {"description": "vcorr"},
        "videos": [{"id": 1, "height": height, "width": width, "length": len(indices), **names}],
        "categories": [{"id": i, "name": name} for i, name in objects.items()],
        "annotations": list(found.values()),
    }


def keypoints(
    points: Mapping[int, Points], indices: range, names: Sequence[str], size: tuple[int, int]
) -> dict[str, Any]:
    """Keypoints: a category an individual, an annotation a frame; v is 2 where a point has a place, else 0."""
    owners: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        owners.setdefault(name.rpartition("/")[0], []).append(i)
    annotations: list[dict[str, Any]] = []
    for number, k in enumerate(indices):
        for category, chosen in enumerate(owners.values(), start=1):
            xy, confidence = points[k].xy[chosen], points[k].confidence[chosen]
            there = np.array(np.isfinite(xy).all(1))
            if not there.any():
                continue
            flat = [
                v
                for (x, y), t in zip(xy.tolist(), there.tolist(), strict=True)
                for v in ((x, y, 2) if t else (0, 0, 0))
            ]
            low, high = np.nanmin(xy, 0), np.nanmax(xy, 0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": category,
                    "iscrowd": 0,
                    "keypoints": flat,
                    "num_keypoints": int(there.sum()),
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "area": float(np.prod(high - low)),
                    "score": float(confidence[there].mean()),
                }
            )
    return {
        "images": [
            {"id": n + 1, "file_name": picture_name(k), "height": size[0], "width": size[1]}
            for n, k in enumerate(indices)
        ],
        "categories": [
            {"id": n, "name": owner or "object", "keypoints": [names[i].rpartition("/")[2] for i in chosen]}
            for n, (owner, chosen) in enumerate(owners.items(), start=1)
        ],
        "annotations": annotations,
    }
