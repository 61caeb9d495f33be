"""What ``vcorr propagate`` is asked to do, and the command that asks for a correction of it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vcorr.labels.given import Kind
from vcorr.labels.mask_names import NamedBy
from vcorr.machine import pick_device
from vcorr.propagation.adapt import Adaptation
from vcorr.propagation.cycle import Check
from vcorr.propagation.methods import Method


@dataclass(frozen=True)
class Request:
    """What ``propagate`` is asked to do; see ``propagation.propagate`` for the meaning of each field.

    Attributes:
        update: the folder has results: its labels stay, those that are given now are added or take their place.
        without: frames whose labels are taken back in an update.
        adapt: fit a network to the video, whose masks are the result; None takes those that are propagated.
        soft: also write the score maps of masks.
        method, read: how labels are read (``methods.read_by``); None and nothing as the weights say.
        check: how the confidence of masks is checked: ``cycle`` labels them back (``cycle``).
        partial: the labels of an update state only what they show; the rest of the frame stays as the folder has it.
    """

    video: str
    labels: Path
    out: Path
    at: Mapping[int, Path] = field(default_factory=dict)
    weights: Path | None = None
    short_side: int = 480
    start: int = 0
    end: int | None = None
    device: str = "cpu"
    named_by: NamedBy | None = None
    kind: Kind | None = None
    update: bool = False
    without: Collection[int] = ()
    adapt: Adaptation | None = None
    soft: bool = False
    partial: bool = False
    method: Method | None = None
    read: tuple[str, ...] = ()
    check: Check | None = None


def correcting(request: Request, kind: Kind, frame: int) -> list[str]:
    """The commands that give a frame another label."""
    options: dict[str, Any] = {"--out": request.out}
    if request.short_side != Request.short_side:
        options["--size"] = request.short_side
    if request.start:
        options["--start"] = request.start
    if request.end is not None:
        options["--end"] = request.end
    if request.weights:
        options["--weights"] = request.weights
    if request.kind:
        options["--kind"] = request.kind
    if request.adapt:
        options["--adapt"] = request.adapt.form
    if request.check:
        options["--check"] = request.check
    if request.method:
        options["--method"] = request.method
    if request.named_by:
        options["--named-by"] = request.named_by
    if str(pick_device("auto")) != request.device:
        options["--device"] = request.device
    label = {"masks": f"mask{frame}.png", "keypoints": f"points{frame}.csv", "soft": f"values{frame}.npy"}[kind]
    given = [str(word) for pair in options.items() for word in pair]
    given += [word for setting in request.read for word in ("--read", setting)]
    given += ["--soft"] * request.soft
    given += ["--interleave"] * bool(request.adapt and request.adapt.interleaved)
    again = ["vcorr", "propagate", request.video, str(request.labels), *given, "--update", "--at", f"{frame}={label}"]
    return [shlex.join(["vcorr", "frame", request.video, str(frame), f"frame{frame}.png"]), shlex.join(again)]
