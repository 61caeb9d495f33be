"""Joints as JSON: ``joint_names``, and for each frame ``xy`` and ``visible`` (0: hidden, or not annotated).

{"joint_names": ["nose", "tail"], "frames": {"00002": {"xy": [[217.9, 329.7], [0, 0]], "visible": [1, 0]}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vcorr.errors import InputError
from vcorr.labels.formats.points import Place, PointTable
from vcorr.labels.formats.text import number, short

_FORM = 'write {"joint_names": [...], "frames": {"00000": {"xy": [[x, y], ...], "visible": [1, ...]}}}'


def is_joints(data: Mapping[str, Any]) -> bool:
    """Whether a JSON object is of this form."""
    return "joint_names" in data


def read_joints(path: Path, data: Mapping[str, Any]) -> PointTable:
    """The points of a file.

    Raises:
        InputError: another form, or a value that is not a number.
    """
    names, listed = data["joint_names"], data.get("frames")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InputError(path, f"names its joints {short(names)}", _FORM)
    if len(set(names)) < len(names) or not isinstance(listed, dict):
        what = "names a joint twice" if len(set(names)) < len(names) else "has no table of frames"
        raise InputError(path, what, _FORM)
    frames: dict[int | str, dict[str, Place]] = {}
    for frame, joints in listed.items():
        xy, visible = (joints.get(key) if isinstance(joints, dict) else None for key in ("xy", "visible"))
        visible = [1] * len(names) if visible is None else visible
        if not (isinstance(xy, list) and isinstance(visible, list) and len(xy) == len(visible) == len(names)):
            raise InputError(path, f"frame {short(frame)} has no place for each of {len(names)} joints", _FORM)
        places: dict[str, Place] = {}
        for name, place, seen in zip(names, xy, visible, strict=True):
            if not isinstance(place, list) or len(place) != 2:
                raise InputError(path, f"{name} of frame {short(frame)} lies at {short(place)}", _FORM)
            x, y = (number(path, v, f"{axis} of {name}, frame {frame}") for axis, v in zip("xy", place, strict=True))
            if x is not None and y is not None and seen:
                places[name] = (x, y)
        if places:
            frames[frame] = places
    return PointTable(path, tuple(names), frames)
