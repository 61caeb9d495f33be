"""Writes report.html: a run on one self-contained page, which shows whether the training works.

The page reads the log of the run folder, so it covers all of a resumed run; its pictures show the current weights. It
needs no network and no script. It contains frames of the training videos: whoever may not have these may not have it.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

import vcorr
from vcorr.config import flatten
from vcorr.files import replacing
from vcorr.phrases import duration
from vcorr.training.run import RunFolder
from vcorr.training.watch import curves, history, page
from vcorr.training.watch.curves import Curve
from vcorr.training.watch.history import History
from vcorr.training.watch.pictures import Scene
from vcorr.training.watch.validation import Validation

Status = Literal["running", "stopped", "finished"]

NAME = "report.html"
SATURATED = 0.95  # mean largest weight above which the softmax passes on hardly any gradient
LONG = 20  # consecutive logged steps above it that cause a warning
EXTRA = 12  # charts of a recipe's own numbers

_KNOWN = {
    *("loss", "lr", "grad_norm", "clips_per_second", "data_share", "weight_max", "entropy", "skipped_steps"),
    *("validation", "validation_seconds"),
}


@dataclass(frozen=True)
class Now:
    """The present state of a run.

    Attributes:
        step: steps done in all stages.
        status: of the run.
        data: the description of the videos in config.json.
        scene: (step, pictures of what the network does).
        validation: (step, scores of the validation clips).
    """

    step: int
    status: Status
    data: Mapping[str, Any] = field(default_factory=dict)
    scene: tuple[int, Scene] | None = None
    validation: tuple[int, Validation] | None = None


def write(folder: RunFolder, now: Now) -> None:
    """Writes report.html of a run under a temporary name, and renames it.

    Raises:
        OutputError: it cannot be written.
    """
    stages = {p.name: (folder.offset(p.name), p.schedule.steps) for p in folder.recipe.stages}
    logged = history.read(folder.out / "metrics.jsonl", stages)
    name = folder.experiment.name
    parts = [
        _head(folder, now, logged),
        page.warnings(_warnings(logged)),
        page.curves(_charts(logged, now.step, stages)),
        page.pictures(now.scene),
    ]
    if now.validation is not None:
        parts.append(page.validation(*now.validation))
    parts.append(_configuration(folder.experiment.config))
    text = page.document(f"{name}: training", parts, running=now.status == "running")
    with replacing(folder.out / NAME) as file:
        file.write(text.encode("utf-8", "replace"))


def _head(folder: RunFolder, now: Now, logged: History) -> str:
    steps, name = folder.steps, folder.experiment.name
    left = _seconds_left(folder, now.step, logged)
    progress = f"{now.step:,} of {steps:,} steps"
    if now.status == "running" and left is not None:
        progress += f", about {duration(left)} left"
    if now.status == "stopped":
        progress += "; the same command goes on"
    facts = {"Recipe": name, "Folder": str(folder.out.absolute())}
    if now.data:
        held = f"{now.data.get('videos', '?')} videos, {now.data.get('frames', '?')} frames"
        facts |= {"Data": str(now.data.get("path", "?")), "Holds": held}
    if (skipped := logged.series.get("skipped_steps")) is not None:
        facts["Skipped steps"] = f"{skipped.last:.0f}"
    device = torch.cuda.get_device_name(folder.device) if folder.device.type == "cuda" else platform.machine()
    facts |= {
        "Device": f"{folder.device} ({device}), threads: {torch.get_num_threads()}, cores: {os.cpu_count()}",
        "Versions": f"vcorr {vcorr.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "State of": datetime.datetime.now().astimezone().strftime("%d %B %Y, %H:%M:%S %Z"),
    }
    return page.head(name, now.status, now.step / steps, progress, facts)


def _seconds_left(folder: RunFolder, step: int, logged: History) -> float | None:
    """Seconds left for all stages, at the last logged speed in clips."""
    speed = logged.series.get("clips_per_second")
    if speed is None or speed.last <= 0:
        return None
    clips = 0
    for stage in folder.recipe.stages:
        left = folder.offset(stage.name) + stage.schedule.steps - max(step, folder.offset(stage.name))
        clips += max(left, 0) * stage.schedule.batch
    return clips / speed.last


def _warnings(logged: History) -> list[str]:
    lines = []
    skipped = logged.series.get("skipped_steps")
    if skipped is not None and skipped.last > 0:
        lines.append(
            f"{skipped.last:.0f} steps were skipped, since loss or gradient was not finite. A few do no harm; if they "
            "become more, train with a lower learning rate."
        )
    sharp = logged.series.get("weight_max")
    if sharp is not None and sharp.values[-LONG:].min() > SATURATED:
        lines.append(
            f"The softmax is saturated: its largest weight was above {SATURATED} whenever it was last logged, "
            f"{sharp.last:.3f} now, so hardly any gradient reaches the encoder. Lower the scale of the logits or the "
            "learning rate."
        )
    if logged.damaged:
        lines.append(f"{logged.damaged} lines of metrics.jsonl cannot be used and are left out.")
    return lines


def _charts(logged: History, end: int, stages: Mapping[str, tuple[int, int]]) -> list[str]:
    series = logged.series
    marks = [(float(start), name) for name, (start, _) in stages.items() if 0 < start < end]
    charts = []

    def add(title: str, *names: tuple[str, str], smooth: bool = False, dots: bool = False, **options: Any) -> None:
        drawn = [Curve(label, series[name], smooth, dots) for name, label in names if name in series]
        if drawn:
            charts.append(curves.chart(title, drawn, end=end, marks=marks, **options))

    add("Loss", ("loss", "loss"), smooth=True, note="Faint: as logged. Strong, and the number: running mean.")
    add("Validation", ("validation", "J&F"), dots=True, span=(0.0, 1.0), note="Clips shortened and read small.")
    add(
        "Softmax",
        ("weight_max", "largest weight"),
        ("entropy", "entropy / log taps"),
        smooth=True,
        span=(0.0, 1.0),
        limit=SATURATED,
        note="Means over query cells. A largest weight near 1 is saturation; an entropy near 1 is blindness.",
    )
    add("Learning rate", ("lr", "rate"), span=(0.0, 0.0))
    add("Gradient norm", ("grad_norm", "norm before it is cut"), smooth=True)
    add("Speed", ("clips_per_second", "clips a second"), smooth=True, span=(0.0, 0.0))
    add("Waiting for data", ("data_share", "share of the time"), smooth=True, span=(0.0, 0.1))
    if "skipped_steps" in series and series["skipped_steps"].last > 0:
        add("Skipped steps", ("skipped_steps", "so far"))
    for name in [name for name in series if name not in _KNOWN][:EXTRA]:
        add(name, (name, name), smooth=True)
    return charts


def _configuration(config: Any) -> str:
    own, now = flatten(type(config)()), flatten(config)
    changed = {k: (page.number(own[k]), page.number(v)) for k, v in now.items() if own.get(k) != v and k in own}
    return page.configuration(changed, {k: page.number(v) for k, v in now.items()})
