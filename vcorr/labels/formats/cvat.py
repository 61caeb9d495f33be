"""CVAT for video 1.1: a track an object, a mask a frame, each a key frame, since masks are not interpolated.

Run lengths are of the pixels of the box, row by row, the first of the background. A track says ``outside`` where its
object goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from xml.sax.saxutils import quoteattr

from vcorr.labels.formats import rle
from vcorr.labels.formats.objects import Flags, Named, box


def tracks(frames: Iterable[Named], indices: range, objects: Mapping[int, str], size: tuple[int, int]) -> str:
    """The XML of a video."""
    found: dict[int, list[str]] = {i: [] for i in objects}
    last: dict[int, tuple[int, Flags]] = {}
    for frame in frames:
        masks = {i: mask for i, _, mask in frame.objects}
        for i in objects:
            if i in masks:
                found[i].append(_mask(frame.frame, masks[i], outside=False))
                last[i] = frame.frame, masks[i]
            elif i in last and last[i][0] == frame.frame - 1:
                found[i].append(_mask(frame.frame, last[i][1], outside=True))
    names = dict.fromkeys(objects.values())
    labels = "".join(f"<label><name>{_escaped(name)}</name><type>mask</type></label>" for name in names)
    size_text = f"<original_size><width>{size[1]}</width><height>{size[0]}</height></original_size>"
    task = f"<task><size>{len(indices)}</size><mode>interpolation</mode><start_frame>{indices.start}</start_frame>"
    task += f"<stop_frame>{indices.stop - 1}</stop_frame><labels>{labels}</labels>{size_text}</task>"
    body = "".join(
        f'<track id={quoteattr(str(n))} label={quoteattr(name)} source="auto">\n{"".join(found[i])}</track>\n'
        for n, (i, name) in enumerate(objects.items())
    )
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
    return f"{head}<meta>{task}</meta>\n{body}</annotations>\n"


def _mask(frame: int, mask: Flags, *, outside: bool) -> str:
    x, y, width, height = box(mask)
    counts = ", ".join(map(str, rle.runs(mask[y : y + height, x : x + width].ravel())))
    where = f'left="{x}" top="{y}" width="{width}" height="{height}" z_order="0"'
    state = f'frame="{frame}" keyframe="1" outside="{int(outside)}" occluded="0"'
    return f'<mask {state} rle="{counts}" {where}/>\n'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
