"""Corrections of a folder that has results: the labels that it has then, and the frames that are labelled anew."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from vcorr.errors import UsageError
from vcorr.labels.earlier import Earlier
from vcorr.phrases import frame_list

Source = tuple[tuple[int, str] | None, ...]


def earlier_labels(
    out: Path, found: Mapping[str, Any] | None, frames: range, at: Collection[int], without: Collection[int]
) -> Earlier:
    """The labels of a folder.

    Args:
        found: its manifest, if there is one. frames: those that are to be labelled.
        at: frames that are given labels by name. without: frames whose labels are taken back.

    Raises:
        UsageError: there are no results; a frame is given and taken back at once, or has no label to take back.
    """
    if found is None:
        raise UsageError("--update", f"{out} holds no results yet", "check --out, or leave out --update")
    digests, gone = labels_of(found), set(found.get("taken_back", []))
    for k in without:
        if k in at:
            raise UsageError(f"--without {k}", f"--at {k} gives that frame a label", "say one of the two")
        if k not in digests.keys() | gone:
            what = f"frame {k} was given no label; these were: {', '.join(map(str, sorted(digests)))}"
            raise UsageError(f"--without {k}", what, "give one of these")
    stay = {k: digest for k, digest in digests.items() if k in frames and k not in without}
    names = {int(k): str(name) for k, name in found.get("names", {}).items()}
    return Earlier(out, stay, gone | set(without), found["objects"], names)


def labels_of(manifest: Mapping[str, Any]) -> dict[int, str]:
    """SHA-256 of the labels of a manifest by frame index."""
    return {int(k): digest for k, digest in manifest["inputs"]["labels"].items()}


def stale_frames(found: Mapping[str, Any], manifest: Mapping[str, Any], frames: range) -> set[int]:
    """Frames whose results are not those of the labels that there are now, or were being replaced when a run ended."""
    marked = found["stale"]["frames"] if "stale" in found else []
    stale = {k for first, last in marked for k in range(first, last + 1)}
    before, now = (_sources(labels_of(m), frames) for m in (found, manifest))
    return stale | {k for k, was, will_be in zip(frames, before, now, strict=True) if was != will_be}


def _sources(labels: Mapping[int, str], frames: range) -> Iterator[Source]:
    """What the label of each frame hangs on: (index, SHA-256) of the labelled frames on either side, or of its own."""
    inside = [k for k in sorted(labels) if k in frames]
    ends = [None, *((k, labels[k]) for k in inside), None]
    for k in frames:
        after = bisect.bisect_right(inside, k)
        yield (ends[after],) if k in labels else (ends[after], ends[after + 1])


def told_update(found: Mapping[str, Any], manifest: Mapping[str, Any], stale: set[int], frames: range) -> str:
    """The line that says what is corrected, and what is labelled anew for it."""
    before, now = labels_of(found), labels_of(manifest)
    changes = {
        "labelled now": now.keys() - before.keys(),
        "labelled otherwise": {k for k in now.keys() & before.keys() if now[k] != before[k]},
        "taken back": before.keys() - now.keys(),
    }
    said = [f"{what}: {frame_list(which)}" for what, which in changes.items() if which] or ["an update goes on"]
    anew = stale - now.keys()
    return (
        f"{'; '.join(said)}. Labelled anew: {frame_list(anew) if anew else 'nothing else'} "
        f"({len(anew)} of {len(frames)} frames); the others stay as they are"
    )
