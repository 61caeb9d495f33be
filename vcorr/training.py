"""The one training loop: order of samples, backward, optimiser, checkpoints, logging, exact resume.

All randomness is a function of (seed, purpose, step), so a run that was killed and started again ends with the same
weights, bit for bit, as one that was never stopped (on the same machine with the same number of threads). What a run
leaves on disk is the matter of ``runfolder``.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from vcorr import color, rng
from vcorr.data.clips import Clips
from vcorr.data.footage import Footage, scan
from vcorr.errors import Stopped, UsageError, VcorrError
from vcorr.nn import Tensors, native_bf16
from vcorr.recipe import Batch, Experiment, Out, Phase, State
from vcorr.runfolder import GROUPS, Point, RunFolder

BAD_STEPS = 10  # steps without a finite loss and gradient, one after another, that end a run
TOLD = 5  # damaged training files that are told by name; the rest are counted


class Diverged(VcorrError):
    """Loss or gradient was not finite for many steps in a row."""


@dataclass(frozen=True)
class Progress:
    """What a person wants to see of a running training: ``step`` of ``steps`` in this phase, shares in [0, 1]."""

    phase: str
    step: int
    steps: int
    loss: float
    clips_per_second: float
    seconds_left: float
    data_share: float


@dataclass(frozen=True)
class Options:
    """What does not change the result: how often to log (steps) and to save (seconds)."""

    log_every: int = 10
    save_every: float = 300.0


def train(
    experiment: Experiment,
    data: Path,
    out: Path,
    *,
    device: torch.device | str = "cpu",
    options: Options | None = None,
    say: Callable[[str], None] = lambda line: None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Train an experiment on a folder of videos, or go on where a run in ``out`` stopped.

    SIGINT, SIGTERM and SIGUSR1 let the step finish, save and raise ``Stopped``; a second SIGINT stops at once.
    (Signals are left alone where this is not the main thread.)

    Args:
        experiment: a loaded recipe.
        data: folder of video files and frame folders.
        out: folder of the run; created, or continued if it holds the same run. More ``steps`` is the same run, and
            ends as if it had had them from the start if they came before the cooldown.
        say: takes lines worth telling; report: takes progress every ``log_every`` steps.

    Returns:
        The weights file.

    Raises:
        InputError: nothing to train on, or a training state that cannot be read.
        OutputError: the folder holds another run, another process trains in it, or it cannot be written.
        Diverged, Stopped: as they say; the last good state is saved.
    """
    footage = scan(data)
    folder = RunFolder(experiment, out, torch.device(device), say)
    with folder.held(), _signals() as stopped:
        point = folder.open(footage)
        point = dataclasses.replace(point, state=_place(point.state, folder.device))
        if point.step >= folder.steps:  # the weights file may have gone since
            folder.save_weights(point)
        for phase in experiment.recipe.phases:
            if point.step < folder.offset(phase.name) + phase.stage.steps:
                point = _Loop(folder, phase, footage, point, options or Options(), stopped, report).run()
    return out / "weights.safetensors"


class _Loop:
    """One phase, from a point on."""

    def __init__(
        self,
        folder: RunFolder,
        phase: Phase,
        footage: Footage,
        point: Point,
        options: Options,
        stopped: list[int],
        report: Callable[[Progress], None],
    ) -> None:
        self.folder, self.phase, self.options, self.stopped, self.report = folder, phase, options, stopped, report
        self.seed = folder.experiment.config.seed
        self.clips = Clips(footage, phase.clips, self.seed)
        self.first = point.step - folder.offset(phase.name)
        self.skipped = point.skipped
        state = point.state if self.first else _place(phase.enter(point.state), folder.device)
        params = {k: v.detach().clone().requires_grad_(phase.trainable(k)) for k, v in state.params.items()}
        slow, slow_stats = (
            {k: v.detach().clone() for k, v in group.items()} for group in (state.slow, state.slow_stats)
        )
        self.state = dataclasses.replace(state, params=params, slow=slow, slow_stats=slow_stats)
        self.trained = {k: v for k, v in params.items() if v.requires_grad}
        if not self.trained:
            raise UsageError(phase.name, "trains no parameter", "mend Phase.trainable in the recipe")
        if lost := (slow.keys() - params.keys()) | (slow_stats.keys() - state.stats.keys()):
            raise UsageError(
                phase.name, f"has nothing that slow {min(lost)} could follow", "mend Phase.enter in the recipe"
            )
        self.optimiser = torch.optim.AdamW(
            self.trained.values(), lr=phase.stage.lr, weight_decay=phase.stage.weight_decay
        )
        if self.first:  # another phase's moments are no business of this one
            _restore_moments(self.optimiser, self.trained, point.moments)
        self.told = 0

    def run(self) -> Point:
        phase, stage, clips, stopped = self.phase, self.phase.stage, self.clips, self.stopped
        left_out = f", {len(clips.skipped)} videos left out" if clips.skipped else ""
        self.folder.say(
            f"{phase.name}: {len(clips.sources)} videos, {len(clips)} clips an epoch, "
            f"{stage.steps} steps of {stage.batch}{left_out}"
        )
        for note in clips.notes:
            self.folder.say(note)
        clock, saved, bad = _Clock(), time.monotonic(), 0
        for step in range(self.first, stage.steps):
            began = time.monotonic()
            samples = tuple(range(step * stage.batch, (step + 1) * stage.batch))
            pictures, videos = clips.batch(samples)
            clock.data += time.monotonic() - began
            rgb = color.from_uint8(pictures, self.folder.device)
            loss, norm, metrics = self._step(step, Batch(rgb, samples, videos))
            self._tell_unreadable()
            bad = bad + 1 if norm is None else 0
            self.skipped += norm is None
            if bad == BAD_STEPS:
                self._diverged(step, bad)
            clock.add(time.monotonic() - began, stage.batch)
            done = step + 1 == stage.steps
            if (step + 1) % self.options.log_every == 0 or done:
                self._log(step, loss, norm, metrics, clock)
                clock = _Clock()
            if stopped or done or time.monotonic() - saved >= self.options.save_every:
                self.folder.save(self._point(step + 1))
                saved = time.monotonic()
            if stopped and not done:
                raise Stopped(self.folder.out, stopped[0])
        return self._point(stage.steps)

    def _step(self, step: int, batch: Batch) -> tuple[float, float | None, Mapping[str, float | Tensor]]:
        """(loss, gradient norm, metrics) of a step; the norm is None where the step was skipped."""
        stage, device = self.phase.stage, self.folder.device
        autocast = stage.bf16 and native_bf16(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            out = self.phase.loss(
                self.state, batch, rng.generator(self.seed, self.phase.name, step), step / stage.steps
            )
        loss = float(out.loss.detach())
        norm = None
        if math.isfinite(loss):
            norm = _descend(out.loss, self.optimiser, self.trained, stage.rate(step), stage.clip_norm)
        if norm is not None:
            self._keep(out)
        return loss, norm, out.metrics

    def _keep(self, out: Out) -> None:
        """Take over what a step brought besides parameters, and let the slow encoder follow."""
        state, decay = self.state, self.phase.decay
        stats = {k: v.detach() for k, v in out.stats.items()}
        extra = state.extra if out.extra is None else {k: v.detach().contiguous() for k, v in out.extra.items()}
        if _form(extra) != _form(state.extra):
            was, now = _form(state.extra), _form(extra)
            raise UsageError(
                self.phase.name, f"its loss changed the form of State.extra, {was} -> {now}", "mend the recipe"
            )
        self.state = dataclasses.replace(state, stats=stats, extra=extra)
        if decay is not None:
            _follow_(state.slow, state.params, decay)
            _follow_(state.slow_stats, stats, decay)

    def _point(self, step: int) -> Point:
        """Where the run stands after ``step`` steps of this phase."""
        moments = {f"{k}/{n}": v for n, p in self.trained.items() for k, v in self.optimiser.state[p].items()}
        done = self.folder.offset(self.phase.name) + step
        return Point(done, self.phase.name, self.state, moments, self.skipped)

    def _diverged(self, step: int, bad: int) -> None:
        good = step + 1 - bad
        self.skipped -= bad
        if good > self.first:  # nothing has changed since
            self.folder.save(self._point(good))
        raise Diverged(
            self.folder.out,
            f"{self.phase.name}: loss or gradient was not finite in any of the {bad} steps up to {step + 1}",
            f"the state of step {good} is kept; train with a lower {self.phase.name}.lr into another --out",
        )

    def _log(
        self, step: int, loss: float, norm: float | None, metrics: Mapping[str, float | Tensor], clock: _Clock
    ) -> None:
        stage, name = self.phase.stage, self.phase.name
        numbers = {"loss": loss, "lr": stage.rate(step), "grad_norm": norm}
        numbers |= {k: float(v) for k, v in metrics.items()}
        finite = {k: v if v is not None and math.isfinite(v) else None for k, v in numbers.items()}
        speed = {"clips_per_second": round(clock.rate, 3), "data_share": round(clock.share, 4)}
        self.folder.log({"phase": name, "step": step + 1} | finite | {"skipped_steps": self.skipped} | speed)
        left = (stage.steps - step - 1) * clock.step
        self.report(Progress(name, step + 1, stage.steps, loss, clock.rate, left, clock.share))

    def _tell_unreadable(self) -> None:
        unreadable = self.clips.unreadable
        if len(unreadable) == self.told:
            return
        for path, reason in list(unreadable.items())[self.told : TOLD]:
            self.folder.say(f"{path}: {reason}; other clips stand in for those that need it")
        if len(unreadable) >= TOLD > self.told:
            self.folder.say("further damaged files are not told by name")
        self.told = len(unreadable)


def _descend(
    loss: torch.Tensor, optimiser: torch.optim.Optimizer, params: Tensors, rate: float, clip_norm: float
) -> float | None:
    """One step down; returns the gradient's norm before it was cut, or None if it is not finite: then nothing moves."""
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(params.values(), clip_norm))
    if not math.isfinite(norm):
        return None
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    return norm


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
    """On the device; weights of convolutions in channels_last, as activations are."""

    def move(group: str, tensors: Tensors) -> Tensors:
        wide = torch.channels_last if group in ("params", "slow") else torch.contiguous_format
        return {
            k: v.to(device, memory_format=wide if v.ndim == 4 else torch.contiguous_format) for k, v in tensors.items()
        }

    return State(**{group: move(group, getattr(state, group)) for group in GROUPS})


def _form(tensors: Tensors) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {k: (tuple(v.shape), v.dtype) for k, v in sorted(tensors.items())}


@torch.no_grad()
def _follow_(slow: Tensors, fast: Tensors, decay: Callable[[str], float]) -> None:
    """slow <- d * slow + (1 - d) * fast, with d = decay(name); writes into ``slow``."""
    for name, tensor in slow.items():
        tensor.lerp_(fast[name], 1 - decay(name))


def _restore_moments(optimiser: torch.optim.Optimizer, params: Tensors, moments: Tensors) -> None:
    """Give each parameter its moments, by name: by position, a reordered file would swap them silently.

    Adam counts its steps on the CPU; moments live where the parameter does, in its memory format, so that the
    arithmetic is that of a run that was not stopped.
    """
    for key, value in moments.items():
        kind, name = key.split("/", 1)
        param = params[name]
        moment = torch.empty_like(param, requires_grad=False).copy_(value) if value.ndim else value.clone()
        optimiser.state[param][kind] = moment


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Signals received while inside: the loop finishes its step, saves and stops. A second Ctrl-C stops at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield received
        return
    wanted = [s for s in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, s)]
    old = {getattr(signal, s): signal.signal(getattr(signal, s), note) for s in wanted}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
