"""The one training loop: order of samples, backward, optimiser, checkpoints, logging, exact resume.

A run is a folder:

    config.json  recipe.py      what was asked for, and the recipe's text
    metrics.jsonl               a line a logged step
    state/00001000.safetensors  everything needed to go on, the last two
    weights.safetensors         for ``vcorr propagate``, as of the last checkpoint

All randomness is a function of (seed, purpose, step), so a run that was killed and started again ends with the same
weights, bit for bit, as one that was never stopped (on the same machine with the same number of threads).
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import vcorr
from vcorr import checkpoint, rng
from vcorr.data.clips import Clips
from vcorr.errors import InputError, OutputError, VcorrError
from vcorr.nn import Tensors, native_bf16
from vcorr.recipe import Batch, Experiment, Phase, State, to_json

FORMAT = "vcorr-state-1"
KEEP = 2  # training states kept
BAD_LOSSES = 10  # non-finite losses in a row that end a run


class Diverged(VcorrError):
    """The loss was not finite for many steps in a row."""


class Stopped(VcorrError):
    """A signal stopped the run after it had saved; 75 asks a scheduler to start it again."""

    def __init__(self, where: Path, number: int) -> None:
        super().__init__(where, f"stopped by {signal.Signals(number).name}, saved", "run the same command to go on")
        self.exit_code = 130 if number == signal.SIGINT else 75


@dataclass(frozen=True)
class Progress:
    """What a person wants to see of a running training."""

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

    Args:
        experiment: a loaded recipe.
        data: folder of video files and frame folders.
        out: folder of the run; created, or continued if it holds the same run (more ``steps`` is the same run).
        say: takes lines worth telling; report: takes progress every ``log_every`` steps.

    Returns:
        The weights file.

    Raises:
        InputError: nothing to train on, or a training state that cannot be read.
        OutputError: the folder holds another run, or cannot be written.
        Diverged, Stopped: as they say; the last good state is kept.
    """
    options = options or Options()
    run = _Run(experiment, out, torch.device(device), say)
    run.claim(data)
    first, state, moments = run.restore()
    with _signals() as stopped:
        for phase in run.recipe.phases:
            before = run.offset(phase)
            if first >= before + phase.stage.steps:
                continue
            state = _phase(run, phase, data, state, first - before, moments, options, stopped, report)
            first, moments = before + phase.stage.steps, {}
    return out / "weights.safetensors"


def _phase(
    run: _Run,
    phase: Phase,
    data: Path,
    state: State,
    start: int,
    moments: Tensors,
    options: Options,
    stopped: list[int],
    report: Callable[[Progress], None],
) -> State:
    stage, seed = phase.stage, run.experiment.config.seed
    clips = Clips(data, phase.clips, seed)
    run.say(
        f"{phase.name}: {len(clips.sources)} videos, {len(clips)} clips an epoch, {stage.steps} steps of {stage.batch}"
        + (f", {len(clips.skipped)} videos left out" if clips.skipped else "")
    )
    params = {k: v.detach().clone().requires_grad_() for k, v in state.params.items()}
    state = dataclasses.replace(state, params=params)
    optimiser = torch.optim.AdamW(params.values(), lr=stage.lr, weight_decay=stage.weight_decay)
    _restore_moments(optimiser, params, moments)
    autocast = stage.bf16 and native_bf16(run.device)
    clock, saved, bad = _Clock(), time.monotonic(), 0
    for step in range(start, stage.steps):
        began = time.monotonic()
        lab, samples = clips.batch(step, stage.batch)
        clock.data += time.monotonic() - began
        batch = Batch(lab.to(run.device, non_blocking=True), samples)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=autocast):
            out = phase.loss(state, batch, rng.generator(seed, phase.name, step), step / stage.steps)
        loss = float(out.loss.detach())
        if math.isfinite(loss):
            norm = _descend(out.loss, optimiser, params, stage.rate(step), stage.clip_norm)
            state = dataclasses.replace(state, stats={k: v.detach() for k, v in out.stats.items()})
            bad = 0
        else:
            bad, norm = bad + 1, math.nan
            if bad == BAD_LOSSES:
                raise Diverged(
                    run.out,
                    f"the loss was not finite {bad} times in a row at step {step}",
                    "lower the learning rate; the last good state is kept",
                )
        clock.add(time.monotonic() - began, stage.batch)
        done = step + 1 == stage.steps
        if (step + 1) % options.log_every == 0 or done:
            progress = Progress(
                phase.name, step + 1, stage.steps, loss, clock.rate, (stage.steps - step - 1) * clock.step, clock.share
            )
            line = {"phase": phase.name, "step": step + 1, "loss": loss, "lr": stage.rate(step), "grad_norm": norm}
            run.log(
                line
                | dict(out.metrics)
                | {"clips_per_second": round(clock.rate, 3), "data_share": round(clock.share, 4)}
            )
            report(progress)
            clock = _Clock()
        if stopped or done or time.monotonic() - saved > options.save_every:
            run.save(phase, step + 1, state, _moments(optimiser, params))
            saved = time.monotonic()
        if stopped and not done:
            raise Stopped(run.out, stopped[0])
    return state


def _descend(
    loss: torch.Tensor, optimiser: torch.optim.Optimizer, params: Tensors, rate: float, clip_norm: float
) -> float:
    """One step down; returns the gradient's norm before it was cut."""
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(params.values(), clip_norm)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()
    return float(norm)


class _Clock:
    """Seconds spent since the last report."""

    def __init__(self) -> None:
        self.total = self.data = 0.0
        self.clips = self.steps = 0

    def add(self, seconds: float, clips: int) -> None:
        self.total += seconds
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


# --- the optimiser's moments, by parameter name: by position, a reordered file would swap them silently --------------


def _moments(optimiser: torch.optim.Optimizer, params: Tensors) -> Tensors:
    return {f"{key}/{name}": value for name, p in params.items() for key, value in optimiser.state[p].items()}


def _restore_moments(optimiser: torch.optim.Optimizer, params: Tensors, moments: Tensors) -> None:
    for key, value in moments.items():
        kind, name = key.split("/", 1)
        optimiser.state[params[name]][kind] = value


# --- the run's folder ------------------------------------------------------------------------------------------------


class _Run:
    """The folder of a run: what may continue in it, and every file in it."""

    def __init__(self, experiment: Experiment, out: Path, device: torch.device, say: Callable[[str], None]) -> None:
        self.experiment, self.recipe, self.out, self.device, self.say = experiment, experiment.recipe, out, device, say

    def offset(self, phase: Phase) -> int:
        """Steps of the phases before."""
        steps = 0
        for other in self.recipe.phases:
            if other.name == phase.name:
                break
            steps += other.stage.steps
        return steps

    def claim(self, data: Path) -> None:
        """Make the folder this run's, or check that it is already."""
        config = self.out / "config.json"
        wanted = {"recipe": self.experiment.name, "data": str(data), "config": to_json(self.experiment.config)}
        if config.exists():
            try:
                found = json.loads(config.read_text())
                changes = list(checkpoint.differences(found["config"], wanted["config"]))
            except (ValueError, KeyError, TypeError):
                raise InputError(config, "is damaged", "train into another folder") from None
            if found.get("recipe") != wanted["recipe"]:
                changes.insert(0, f"recipe {found.get('recipe')} -> {wanted['recipe']}")
            if refused := [c for c in changes if not _is_extension(c)]:
                raise OutputError(
                    self.out, f"holds another run ({'; '.join(refused)})", "give the same values, or another --out"
                )
        elif self.out.exists() and any(self.out.iterdir()):
            raise OutputError(self.out, "is not empty and holds no run", "give another --out")
        with checkpoint.replacing(self.out / "recipe.py") as file:
            file.write(self.experiment.source.encode())
        with checkpoint.replacing(config) as file:
            file.write((json.dumps(wanted, indent=2) + "\n").encode())

    def states(self) -> list[Path]:
        return sorted((self.out / "state").glob("*.safetensors"))

    def restore(self) -> tuple[int, State, Tensors]:
        """(steps done, state, the optimiser's moments): of the newest training state, or fresh."""
        files = self.states()
        if not files:
            fresh = self.recipe.init(rng.generator(self.experiment.config.seed, "init"))
            return 0, self._place(fresh), {}
        tensors, meta = checkpoint.load(files[-1])
        if meta.get("format") != FORMAT:
            raise InputError(files[-1], f"holds {meta.get('format')}, not {FORMAT}", "train into another folder")
        if meta["threads"] != torch.get_num_threads():
            self.say(f"{meta['threads']} threads before, {torch.get_num_threads()} now: the last bits will differ")
        groups: dict[str, Tensors] = {"params": {}, "stats": {}, "moments": {}}
        for key, value in tensors.items():
            group, name = key.split("/", 1)
            groups[group][name] = value
        self._trim_log(meta["step"])
        self.say(f"going on from step {meta['step']}")
        return meta["step"], self._place(State(groups["params"], groups["stats"])), groups["moments"]

    def _place(self, state: State) -> State:
        def move(tensors: Tensors) -> Tensors:
            return {
                k: v.to(self.device, memory_format=torch.channels_last if v.ndim == 4 else torch.preserve_format)
                for k, v in tensors.items()
            }

        return State(move(state.params), move(state.stats))

    def save(self, phase: Phase, step: int, state: State, moments: Tensors) -> None:
        done = self.offset(phase) + step
        groups = {"params": state.params, "stats": state.stats, "moments": moments}
        tensors = {f"{group}/{name}": value for group, named in groups.items() for name, value in named.items()}
        meta = {"format": FORMAT, "step": done, "phase": phase.name, "threads": torch.get_num_threads()}
        checkpoint.save(self.out / "state" / f"{done:08d}.safetensors", tensors, meta)
        for old in self.states()[:-KEEP]:
            old.unlink()
        about = {
            "recipe": self.experiment.name,
            "config": to_json(self.experiment.config),
            "step": done,
            "vcorr": vcorr.__version__,
            "torch": torch.__version__,
        }
        weights = checkpoint.Weights(state.params, state.stats, self.recipe.net, self.recipe.reader, about)
        checkpoint.save_weights(self.out / "weights.safetensors", weights)

    def log(self, line: dict[str, Any]) -> None:
        with (self.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _trim_log(self, steps: int) -> None:
        """Drop the lines of steps that will be taken again, and a last line cut short."""
        path = self.out / "metrics.jsonl"
        if not path.exists():
            return
        offsets = {p.name: self.offset(p) for p in self.recipe.phases}
        kept = []
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
                if offsets[line["phase"]] + line["step"] <= steps:
                    kept.append(text + "\n")
            except (ValueError, KeyError):
                continue
        with checkpoint.replacing(path) as file:
            file.write("".join(kept).encode())


def _is_extension(change: str) -> bool:
    """More steps in a stage make the same run, longer."""
    key, old, _, new = change.split(" ", 3) if change.count(" ") == 3 else ("", "", "", "")
    return key.endswith(".steps") and old.isdigit() and new.isdigit() and int(new) > int(old)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Signals received while inside: the loop finishes its step, saves and stops. A second Ctrl-C stops at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    wanted = [s for s in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, s)]
    old = {getattr(signal, s): signal.signal(getattr(signal, s), note) for s in wanted}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
