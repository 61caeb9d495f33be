"""The training loop: order of samples, optimiser steps, checkpoints, logging, exact resume.

All randomness is a function of (seed, purpose, step). So a run that was killed and resumed ends with the same weights
as an unbroken one, bit for bit, on the same machine with the same number of threads. ``run`` holds the files of a run.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from vcorr import ranks
from vcorr.errors import Stopped, VcorrError
from vcorr.files import held
from vcorr.machine import in_own_modes, pick_device
from vcorr.model import color
from vcorr.model.nn import Tensors
from vcorr.training.clips.ahead import ReadAhead, workers_for
from vcorr.training.clips.cut import Clips
from vcorr.training.clips.dataset import Dataset, scan
from vcorr.training.recipe import Batch, Experiment, Stage, State
from vcorr.training.run import GROUPS, Checkpoint, RunFolder
from vcorr.training.step import Learner, Taken
from vcorr.training.watch.monitor import Monitor
from vcorr.training.watch.report import NAME as REPORT
from vcorr.training.watch.validation import ValidationClips

BAD_STEPS = 10  # consecutive steps without a finite loss and gradient that end a run
TOLD = 5  # damaged training files that are reported by name


class Diverged(VcorrError):
    """Loss or gradient was not finite in many consecutive steps."""


@dataclass(frozen=True)
class Progress:
    """The progress of a training: ``step`` of ``steps`` in this stage; ``data_share`` of the time in [0, 1]."""

    stage: str
    step: int
    steps: int
    loss: float
    clips_per_second: float
    seconds_left: float
    data_share: float


@dataclass(frozen=True)
class TrainOptions:
    """Options that do not change the result.

    Attributes:
        log_every: steps between lines of the log.
        save_every: seconds between saved states.
        validation: folder of validation clips in DAVIS's layout.
        workers: threads of each process that prepare clips; 0 prepares them in the loop, None chooses by device.
    """

    log_every: int = 10
    save_every: float = 300.0
    validation: Path | None = None
    workers: int | None = None


@in_own_modes
def train(
    experiment: Experiment,
    data: Path,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    init: Path | None = None,
    options: TrainOptions | None = None,
    say: Callable[[str], None] = lambda line: None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Trains an experiment on a folder of videos, or resumes the run in ``out``.

    On SIGINT, SIGTERM and SIGUSR1, the step ends, the state is saved and ``Stopped`` is raised. A second SIGINT stops
    at once. Outside the main thread, signals are not handled.

    Args:
        experiment: a loaded recipe.
        data: folder of video files and frame folders.
        out: folder of the run; created, or continued if it holds the same run. A run with more ``steps`` is the same
            run. It equals an unbroken one if the steps were added before the cooldown and the loss does not use
            ``progress``; otherwise a line says that it does not.
        device: trains; "auto" is the GPU if there is one.
        init: weights file of the recipe's network to start from. Not needed to resume.
        options: see ``TrainOptions``.
        say: receives lines for the user.
        report: receives the progress every ``log_every`` steps.

    Returns:
        The weights file.

    Raises:
        InputError: there is nothing to train on, or a state or weights cannot be read or do not fit.
        OutputError: the folder holds another run, another process uses it, or it cannot be written.
        Diverged, Stopped: the last good state is saved.
    """
    options, wanted = options or TrainOptions(), pick_device(device)
    clips = None if options.validation is None else ValidationClips(options.validation)
    dataset = scan(data)
    with ranks.joined(wanted) as own_device, _signals() as stopped:
        folder = RunFolder(experiment, out, own_device, say, init)
        with held(out, say) if ranks.rank() == 0 else nullcontext():
            point = ranks.from_first(lambda: folder.open(dataset))
            point = dataclasses.replace(point, state=_place(point.state, folder.device))
            monitor = Monitor(folder, clips, lambda: bool(stopped)) if ranks.rank() == 0 else None
            if point.step >= folder.steps and monitor is not None:
                _make_good(folder, point, monitor)
            for stage in experiment.recipe.stages:
                if point.step < folder.offset(stage.name) + stage.schedule.steps:
                    point = _Loop(folder, stage, dataset, point, options, stopped, report, monitor).run()
    return out / "weights.safetensors"


def _make_good(folder: RunFolder, point: Checkpoint, monitor: Monitor) -> None:
    """Restores files that are missing from a finished run."""
    if folder.states():
        folder.save_weights(point)
    if not (folder.out / REPORT).exists():
        stage = folder.recipe.stages[-1]
        monitor.saved(stage.name, stage.schedule.steps, stopped=True)


class _Loop:
    """One stage, from a checkpoint on."""

    def __init__(
        self,
        folder: RunFolder,
        stage: Stage,
        dataset: Dataset,
        point: Checkpoint,
        options: TrainOptions,
        stopped: list[int],
        report: Callable[[Progress], None],
        monitor: Monitor | None,
    ) -> None:
        self.folder, self.stage, self.options, self.stopped, self.report = folder, stage, options, stopped, report
        self.monitor = monitor
        self.clips = Clips(dataset, stage.clips, folder.experiment.config.seed, folder.device)
        self.first = point.step - folder.offset(stage.name)
        self.skipped = point.skipped
        state = point.state if self.first else _place(stage.enter(point.state), folder.device)
        moments = point.moments if self.first else {}  # each stage has an optimiser of its own
        self.learner = Learner(stage, state, moments, folder.experiment.config.seed)
        self.rgb = torch.empty(0)  # of the last clips
        self.clock = _Clock()
        self.saved = time.monotonic()
        self.told = 0

    def run(self) -> Checkpoint:
        schedule = self.stage.schedule
        self._tell_what_comes()
        workers = self.options.workers
        if workers is None:
            workers = workers_for(self.folder.device, ranks.here())
        plan = (samples for step in range(self.first, schedule.steps) for samples in self.learner.samples(step))
        with ReadAhead(self.clips, plan, workers) as ahead:
            self._go(ahead)
        return self._point(schedule.steps)

    def _go(self, ahead: ReadAhead) -> None:
        schedule, bad = self.stage.schedule, 0
        for step in range(self.first, schedule.steps):
            began = time.monotonic()
            taken = self.learner.step(step, self._parts(step, ahead))
            self._tell_unreadable()
            bad = bad + 1 if taken.norm is None else 0
            self.skipped += taken.norm is None
            if bad == BAD_STEPS:
                self._diverged(step, bad)
            self.clock.add(time.monotonic() - began, schedule.batch)
            done = step + 1 == schedule.steps
            if (step + 1) % self.options.log_every == 0 or done:
                self._log(step, taken)
                self.clock = _Clock()
            signalled, due = ranks.largest(next(iter(self.stopped), 0), self._due())
            if signalled or due or done:
                self._save(step + 1, stopped=bool(signalled))
            if signalled and not done:
                raise ranks.shared(Stopped(self.folder.out, signalled))

    def _parts(self, step: int, ahead: ReadAhead) -> Iterator[Batch]:
        for samples in self.learner.samples(step):
            began = time.monotonic()
            pictures, videos = ahead.batch(samples)
            self.clock.data += time.monotonic() - began
            self.rgb = color.from_uint8(pictures, self.folder.device)
            yield Batch(self.rgb, tuple(samples), videos)

    def _due(self) -> bool:
        """Whether a save is due; the clock of rank 0 decides."""
        return ranks.rank() == 0 and time.monotonic() - self.saved >= self.options.save_every

    def _save(self, step: int, *, stopped: bool) -> None:
        if self.monitor is not None:
            self.folder.save(self._point(step))
            self.monitor.saved(self.stage.name, step, stopped=stopped)
        self.saved = time.monotonic()

    def _point(self, step: int) -> Checkpoint:
        """The checkpoint after ``step`` steps of this stage."""
        done = self.folder.offset(self.stage.name) + step
        return Checkpoint(done, self.stage.name, self.learner.state, self.learner.moments(), self.skipped)

    def _diverged(self, step: int, bad: int) -> None:
        good = step + 1 - bad
        self.skipped -= bad
        if good > self.first:  # the bad steps changed nothing
            self._save(good, stopped=True)
        elif self.monitor is not None:
            self.monitor.saved(self.stage.name, good, stopped=True)
        raise ranks.shared(
            Diverged(
                self.folder.out,
                f"{self.stage.name}: loss or gradient was not finite in any of the {bad} steps up to {step + 1}",
                f"the state of step {good} is kept; train with a lower {self.stage.name}.lr into another --out",
            )
        )

    def _log(self, step: int, taken: Taken) -> None:
        schedule, name, clock = self.stage.schedule, self.stage.name, self.clock
        means = ranks.mean(*map(float, taken.metrics.values()))
        numbers: dict[str, float | None] = {"loss": taken.loss, "lr": schedule.rate(step), "grad_norm": taken.norm}
        numbers |= dict(zip(taken.metrics, means, strict=True))
        if self.monitor is None:
            return
        numbers |= self.monitor.logged(name, step + 1, taken.out.views, self.rgb)
        finite = {k: v if v is not None and math.isfinite(v) else None for k, v in numbers.items()}
        speed = {"clips_per_second": round(clock.rate, 3), "data_share": round(clock.share, 4)}
        self.folder.log({"stage": name, "step": step + 1} | finite | {"skipped_steps": self.skipped} | speed)
        left = (schedule.steps - step - 1) * clock.step
        self.report(Progress(name, step + 1, schedule.steps, taken.loss, clock.rate, left, clock.share))

    def _tell_what_comes(self) -> None:
        if ranks.rank():
            return
        schedule, clips = self.stage.schedule, self.clips
        left_out = f", {len(clips.skipped)} videos left out" if clips.skipped else ""
        self.folder.say(
            f"{self.stage.name}: {len(clips.sources)} videos, {len(clips)} clips an epoch, "
            f"{schedule.steps} steps of {schedule.batch}{left_out}"
        )
        for note in clips.notes:
            self.folder.say(note)

    def _tell_unreadable(self) -> None:
        unreadable = self.clips.unreadable
        if len(unreadable) == self.told:
            return
        for path, reason in list(unreadable.items())[self.told : TOLD]:
            self.folder.say(f"{path}: {reason}; other clips stand in for those that need it")
        if len(unreadable) >= TOLD > self.told:
            self.folder.say("further damaged files are not told by name")
        self.told = len(unreadable)


class _Clock:
    """Seconds spent since the last report."""

    def __init__(self) -> None:
        self.total = self.data = 0.0
        self.clips = self.steps = 0

    def add(self, seconds: float, clips: int) -> None:
        self.total += max(seconds, 1e-9)
        self.clips += clips
        self.steps += 1

    @property
    def rate(self) -> float:
        return self.clips / self.total

    @property
    def step(self) -> float:
        return self.total / self.steps

    @property
    def share(self) -> float:
        return self.data / self.total


def _place(state: State, device: torch.device) -> State:
    """Moves a state to the device; weights of convolutions become channels_last, like activations."""

    def move(group: str, tensors: Tensors) -> Tensors:
        wide = torch.channels_last if group in ("params", "slow") else torch.contiguous_format
        return {
            k: v.to(device, memory_format=wide if v.ndim == 4 else torch.contiguous_format) for k, v in tensors.items()
        }

    return State(**{group: move(group, getattr(state, group)) for group in GROUPS})


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects signals, so that the loop can end its step and save. A second Ctrl-C stops at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield received
        return
    wanted = [s for s in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, s)]
    old = {getattr(signal, s): signal.signal(getattr(signal, s), note) for s in wanted}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
