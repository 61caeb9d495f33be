"""Monitors a training: sharpness of the softmax, validation clips, report.html. It changes no result.

A part that fails is reported once and then left out; the training goes on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from vcorr.matching import affinity
from vcorr.matching.affinity import Views
from vcorr.training.run import RunFolder
from vcorr.training.watch import pictures, report
from vcorr.training.watch.pictures import Look
from vcorr.training.watch.validation import Validation, ValidationClips

CLIPS = 2  # clips of a batch that are monitored
VIEWS = "the features that the recipe hands over (Out.views) cannot be shown"
SHARE = 0.05  # largest share of the time for the report, and for validation


class Monitor:
    """Monitors one run.

    Args:
        folder: the run folder.
        clips: validation clips, or None.
        cancelled: whether the run was asked to stop, which also ends a validation.
    """

    def __init__(self, folder: RunFolder, clips: ValidationClips | None, cancelled: Callable[[], bool]) -> None:
        self.folder, self.clips, self.cancelled = folder, clips, cancelled
        self.look: Look | None = None
        self.validation: tuple[int, Validation] | None = None
        self.failed: set[str] = set()
        self.sharp = 0
        self.report_turn, self.validation_turn = _Turn(), _Turn()

    def logged(self, stage: str, step: int, views: Views | None, rgb: Tensor) -> dict[str, float]:
        """Returns the sharpness of the softmax, for the log; warns if it has been saturated for long.

        Args:
            stage: its name.
            step: steps done in it.
            views: the features that the loss compared; None leaves them out.
            rgb: the clips of the batch [b t 3 H W].
        """
        if views is None or "views" in self.failed:
            self.look = None
            return {}
        numbers: dict[str, float] = {}
        with self._guard("views", VIEWS):
            few = views.first(CLIPS)
            self.look = Look(few, rgb[:CLIPS].clone(), self.folder.offset(stage) + step)
            numbers = affinity.saturation(few)
        largest = numbers.get("weight_max", 0.0)
        self.sharp = self.sharp + 1 if largest > report.SATURATED else 0
        if self.sharp == report.LONG:
            self.folder.say(
                f"{stage}: the softmax is saturated, its largest weight was above {report.SATURATED} in each of the "
                f"last {report.LONG} logged steps ({largest:.3f} now), so hardly any gradient reaches the encoder; "
                f"start again with a smaller scale of the logits or a lower {stage}.lr"
            )
        return numbers

    def saved(self, stage: str, step: int, *, stopped: bool) -> None:
        """Validates and writes the report, when they are due.

        The end of a run is always reported. A run that was asked to stop is not validated.

        Args:
            stage: its name.
            step: steps done in it; their weights are in the folder.
        """
        done = self.folder.offset(stage) + step
        finished = done == self.folder.steps
        if self.clips is not None and not stopped and (finished or self.validation_turn.due):
            with self.validation_turn, self._guard("validation", "the validation clips cannot be labelled"):
                self._validate(self.clips, stage, step)
        status: report.Status = "finished" if finished else "stopped" if stopped else "running"
        if status == "running" and not self.report_turn.due:
            return
        with self.report_turn:
            scene = None
            if self.look is not None:
                with self._guard("views", VIEWS):
                    scene = self.look.step, pictures.scene(self.look)
            with self._guard("report", f"{report.NAME} cannot be made"):
                report.write(self.folder, report.Now(done, status, self._data(), scene, self.validation))

    def _validate(self, clips: ValidationClips, stage: str, step: int) -> None:
        if "validation" in self.failed:
            return
        weights = self.folder.out / "weights.safetensors"
        found = clips.score(weights, self.folder.device, cancelled=self.cancelled)
        if found is None:
            return
        self.validation = self.folder.offset(stage) + step, found
        numbers = {"validation": found.j_and_f, "validation_seconds": round(found.seconds, 2)}
        self.folder.log({"stage": stage, "step": step} | numbers)
        self.folder.say(
            f"{stage} {step}: validation J&F {100 * found.j_and_f:.1f} on {len(found.clips)} clips, "
            f"{found.seconds:.0f} s"
        )

    def _data(self) -> dict[str, Any]:
        """The description of the videos in config.json."""
        found = json.loads((self.folder.out / "config.json").read_text(encoding="utf-8")).get("data")
        return found if isinstance(found, dict) else {}

    @contextmanager
    def _guard(self, part: str, what: str) -> Iterator[None]:
        """Catches any exception; reports the first one of each part."""
        try:
            yield
        except Exception as error:
            if part not in self.failed:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                self.folder.say(f"{what} ({reason}); the training goes on without")
            self.failed.add(part)


class _Turn:
    """Limits work to its share of the time: after it has run, it is not due for a while."""

    def __init__(self) -> None:
        self.due_at = self.began = -math.inf

    @property
    def due(self) -> bool:
        return time.monotonic() >= self.due_at

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *error: object) -> None:
        now = time.monotonic()
        self.due_at = now + (now - self.began) * (1 / SHARE - 1)
