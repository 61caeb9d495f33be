"""Watches a training from the side: sharpness of the softmax, labelled clips, report.html. It changes no result.

Whatever goes wrong here is told once and left out from then on; the training goes on.
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
from vcorr.training.watch.validation import Probe, Probed

CLIPS = 2  # of a batch that are looked at
VIEWS = "the features that the recipe hands over (Out.views) cannot be shown"
SHARE = 0.05  # of the time, at most, that the report and the probe each take


class Monitor:
    """What is known of a run besides its numbers.

    Args:
        folder: of the run.
        probe: labelled clips to try the weights on.
        cancelled: whether the run was asked to stop; then a probe is given up.
    """

    def __init__(self, folder: RunFolder, probe: Probe | None, cancelled: Callable[[], bool]) -> None:
        self.folder, self.probe, self.cancelled = folder, probe, cancelled
        self.look: Look | None = None
        self.probed: tuple[int, Probed] | None = None
        self.failed: set[str] = set()
        self.sharp = 0
        self.report_turn, self.probe_turn = _Turn(), _Turn()

    def logged(self, stage: str, step: int, views: Views | None, rgb: Tensor) -> dict[str, float]:
        """Numbers to log on what a loss compared, and a warning if the softmax has been saturated for long.

        Args:
            stage: its name; step: steps done in it.
            views: of the batch whose clips are rgb [b t 3 H W].
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
        """Probe and write the report, where it is their turn.

        A run that ends is always reported; one that was asked to stop is not held up by a probe.

        Args:
            stage: its name; step: steps done in it, whose weights lie in the folder.
        """
        done = self.folder.offset(stage) + step
        finished = done == self.folder.steps
        if self.probe is not None and not stopped and (finished or self.probe_turn.due):
            with self.probe_turn, self._guard("probe", "the labelled clips cannot be propagated"):
                self._run_probe(self.probe, stage, step)
        status: report.Status = "finished" if finished else "stopped" if stopped else "running"
        if status == "running" and not self.report_turn.due:
            return
        with self.report_turn:
            scene = None
            if self.look is not None:
                with self._guard("views", VIEWS):
                    scene = self.look.step, pictures.scene(self.look)
            with self._guard("report", f"{report.NAME} cannot be made"):
                report.write(self.folder, report.Now(done, status, self._data(), scene, self.probed))

    def _run_probe(self, probe: Probe, stage: str, step: int) -> None:
        if "probe" in self.failed:
            return
        weights = self.folder.out / "weights.safetensors"
        found = probe.run(weights, self.folder.device, cancelled=self.cancelled)
        if found is None:
            return
        self.probed = self.folder.offset(stage) + step, found
        numbers = {"probe": found.j_and_f, "probe_seconds": round(found.seconds, 2)}
        self.folder.log({"stage": stage, "step": step} | numbers)
        self.folder.say(
            f"{stage} {step}: probe J&F {100 * found.j_and_f:.1f} on {len(found.clips)} clips, {found.seconds:.0f} s"
        )

    def _data(self) -> dict[str, Any]:
        """What config.json says of the videos."""
        found = json.loads((self.folder.out / "config.json").read_text(encoding="utf-8")).get("data")
        return found if isinstance(found, dict) else {}

    @contextmanager
    def _guard(self, part: str, what: str) -> Iterator[None]:
        """Any exception inside is told, the first time, and goes no further."""
        try:
            yield
        except Exception as error:
            if part not in self.failed:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                self.folder.say(f"{what} ({reason}); the training goes on without")
            self.failed.add(part)


class _Turn:
    """Work that takes no more than its share of the time: after it a while passes before it is due again."""

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
