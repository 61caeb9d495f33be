"""COCO JSON: what pictures and annotations state, as points here and as masks in ``coco_masks``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcorr.errors import InputError
from vcorr.labels.formats.points import Place, PointTable
from vcorr.labels.formats.text import number, short

_ADVICE = "export it as COCO again"
_IDENTITIES = ("track_id", "instance_id", "object_id")


@dataclass(frozen=True)
class Annotated:
    """An annotation of a COCO file.

    Attributes:
        data: as it stands there. picture: file name of its picture. size: (height, width) of that.
        category: its name.
        individual: what sets it apart in its category throughout the file; "" where it is the only one in each
            picture.
    """

    data: Mapping[str, Any]
    picture: str
    size: tuple[int, int]
    category: str
    individual: str


def is_coco(data: Mapping[str, Any]) -> bool:
    """Whether a JSON object is of this form, for pictures."""
    return isinstance(data.get("images"), list) and isinstance(data.get("annotations"), list)


def has_keypoints(data: Mapping[str, Any]) -> bool:
    """Whether any annotation has points."""
    return any(isinstance(a, dict) and bool(a.get("keypoints")) for a in data["annotations"])


def has_masks(data: Mapping[str, Any]) -> bool:
    """Whether any annotation has a segmentation."""
    return any(isinstance(a, dict) and bool(a.get("segmentation")) for a in data["annotations"])


def annotated(path: Path, data: Mapping[str, Any], key: str) -> list[Annotated]:
    """The annotations that have ``key``, in order.

    Raises:
        InputError: ids that lead nowhere, or several of a category in a picture, and nothing says which is which in
            another picture.
    """
    images = {image["id"]: image for image in _records(path, data, "images")}
    categories = {c["id"]: c for c in _records(path, data, "categories")}
    chosen = [a for a in _records(path, data, "annotations") if a.get(key)]
    for a in chosen:
        if a.get("image_id") not in images or a.get("category_id") not in categories:
            raise InputError(path, f"annotation {short(a['id'])} is of no picture or category in it", _ADVICE)
    pairs = [(a["image_id"], a["category_id"]) for a in chosen]
    several = {category for (_, category), count in Counter(pairs).items() if count > 1}
    found, numbers = [], dict.fromkeys(several, 0)
    for a in chosen:
        image, category = images[a["image_id"]], categories[a["category_id"]]
        individual = ""
        if a["category_id"] in several:
            individual = _identity(a)
            if not individual:
                if len({i for i, c in pairs if c in several}) > 1:
                    what = f"has several of {short(_text(path, category, 'name'))} in a picture"
                    advice = "give each annotation a track_id that is the same in all pictures"
                    raise InputError(path, f"{what}: which is which in the others cannot be told", advice)
                numbers[a["category_id"]] += 1
                individual = str(numbers[a["category_id"]])
        size = (_size(path, image, "height"), _size(path, image, "width"))
        name = _text(path, image, "file_name").replace("\\", "/").rsplit("/", 1)[-1]
        found.append(Annotated(a, name, size, _text(path, category, "name"), individual))
    return found


def read_coco_points(path: Path, data: Mapping[str, Any]) -> PointTable:
    """The keypoints of a file; what has visibility 0 is missing.

    Raises:
        InputError: another form, or a value that is not a number.
    """
    parts = {}
    for category in _records(path, data, "categories"):
        names = category.get("keypoints", [])
        if (
            not isinstance(names, list)
            or not all(isinstance(n, str) and n for n in names)
            or len(set(names)) < len(names)
        ):
            raise InputError(path, f"names its keypoints {short(names)}", _ADVICE)
        parts[category["id"]] = names
    chosen = annotated(path, data, "keypoints")
    classes = {a.category for a in chosen}
    names_of_all: dict[str, None] = {}
    frames: dict[int | str, dict[str, Place]] = {}
    for a in chosen:
        names, values = parts[a.data["category_id"]], a.data["keypoints"]
        if not isinstance(values, list) or len(values) != 3 * len(names):
            what = f"annotation {short(a.data['id'])} has no x, y, v for each of {len(names)} keypoints"
            raise InputError(path, what, _ADVICE)
        owner = "/".join(filter(None, [a.category if len(classes) > 1 else "", a.individual])).replace(" ", "_")
        for i, name in enumerate(names):
            full = f"{owner}/{name}" if owner else name
            names_of_all.setdefault(full)
            x, y, v = (number(path, value, f"{full} of {a.picture}") for value in values[3 * i : 3 * i + 3])
            if x is None or y is None or not v:
                continue
            if full in frames.setdefault(a.picture, {}):
                raise InputError(path, f"places {full} of {a.picture} twice", _ADVICE)
            frames[a.picture][full] = (x, y)
    return PointTable(path, tuple(names_of_all), frames, says_frames=False)


def category_names(path: Path, data: Mapping[str, Any]) -> dict[Any, str]:
    """The names of the categories by id.

    Raises:
        InputError: a category without a name or an id.
    """
    return {category["id"]: _text(path, category, "name") for category in _records(path, data, "categories")}


def _identity(annotation: Mapping[str, Any]) -> str:
    attributes = annotation.get("attributes")
    for source in (annotation, attributes if isinstance(attributes, dict) else {}):
        for key in _IDENTITIES:
            if isinstance(source.get(key), int | str) and source[key] != "":
                return str(source[key])
    return ""


def _records(path: Path, data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Its list of records, each with an id of its own."""
    records = data.get(key)
    if not isinstance(records, list) or not all(
        isinstance(r, dict) and isinstance(r.get("id"), int | str) for r in records
    ):
        raise InputError(path, f"has no list of {key}, each with an id", _ADVICE)
    if len({r["id"] for r in records}) < len(records):
        raise InputError(path, f"has two {key} of the same id", _ADVICE)
    return records


def _text(path: Path, record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(path, f"record {short(record['id'])} has the {key} {short(value)}", _ADVICE)
    return value


def _size(path: Path, image: Mapping[str, Any], key: str) -> int:
    value = image.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(path, f"picture {short(image['id'])} has the {key} {short(value)}", _ADVICE)
    return value
