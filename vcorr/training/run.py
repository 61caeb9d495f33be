"""The folder of a training run: its files, and which run may continue in it.

config.json  recipe.py      the configuration, and the recipe's text
metrics.jsonl               the log, one line for each logged step
state/00001000.safetensors  the last two training states
weights.safetensors         the weights of the last state, for ``vcorr propagate``
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import vcorr
from vcorr import machine, rng
from vcorr.errors import InputError, OutputError
from vcorr.files import changes, differences, make_folder, recorded, replacing, sha256, sweep
from vcorr.model.nn import Tensors
from vcorr.model.weights import Weights, check_shapes, load_tensors, load_weights, save_tensors, save_weights
from vcorr.training.clips.dataset import Dataset
from vcorr.training.recipe import Experiment, State, from_json, to_json

FORMAT = "vcorr-state-1"
KEEP = 2  # training states kept
GROUPS = tuple(f.name for f in dataclasses.fields(State))  # the groups of tensors in a state file, besides "moments"
FREE = "cache"  # the last part of keys that do not change the result


@dataclass(frozen=True)
class Checkpoint:
    """A point of a run from which it can go on.

    Attributes:
        step: steps done in all stages.
        stage: name of the stage of the last step; None before the first.
        state: the tensors of the recipe.
        moments: the optimiser's state, as ``"exp_avg/NAME"``.
        skipped: skipped steps so far, whose loss or gradient was not finite.
    """

    step: int
    stage: str | None
    state: State
    moments: Tensors
    skipped: int = 0


class RunFolder:
    """The folder of one run."""

    def __init__(
        self,
        experiment: Experiment,
        out: Path,
        device: torch.device,
        say: Callable[[str], None],
        init: Path | None = None,
    ) -> None:
        self.experiment, self.recipe, self.out, self.device, self.say = experiment, experiment.recipe, out, device, say
        self.init = init
        self.began: str | None = None  # SHA-256 of the weights that the run began from
        self.conditions = machine.conditions(device)  # "earlier": other conditions of earlier steps

    def offset(self, name: str) -> int:
        """Steps of all stages before a stage."""
        steps = 0
        for stage in self.recipe.stages:
            if stage.name == name:
                return steps
            steps += stage.schedule.steps
        raise KeyError(name)

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.schedule.steps for stage in self.recipe.stages)

    # --- which run may continue ------------------------------------------------------------------------------------

    def open(self, dataset: Dataset) -> Checkpoint:
        """Claims the folder for this run, or checks that it holds it; returns the checkpoint to start from.

        The same run has the same recipe, configuration, videos and initial weights. The folder of the videos may have
        moved, and an unfinished stage may have more steps; a line says if that changes the result.

        Raises:
            OutputError: the folder holds another run, or cannot be written.
            InputError: its files are damaged.
        """
        config = to_json(self.experiment.config)
        videos = {"videos": len(dataset.sources), "frames": dataset.frames, "sha256": dataset.fingerprint()}
        self.began = None if self.init is None else sha256(self.init)
        wanted = {
            "recipe": self.experiment.name,
            "data": {"path": str(dataset.root)} | videos,
            "init": self.began,
            "config": config,
        }
        raised: dict[str, int] = {}
        found = recorded(self.out, "config.json", holds="run", advice="train into another folder")
        if found is not None:
            raised = self._same_run(found, wanted)
        point = self._restore(raised)
        for name, content in (
            ("config.json", json.dumps(wanted, indent=2) + "\n"),
            ("recipe.py", self.experiment.source),
        ):
            with replacing(self.out / name) as file:
                file.write(content.encode("utf-8", "surrogateescape"))
        make_folder(self.out / "state")
        sweep(self.out)
        sweep(self.out / "state")
        return point

    def _same_run(self, found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, int]:
        """Returns the stages with more steps, with their old ones; raises an error that lists all other differences."""
        try:
            old = {key: found[key] for key in ("recipe", "data", "config")} | {"init": found.get("init")}
            if not isinstance(old["config"], dict):
                raise ValueError("config is no object")
        except (ValueError, KeyError):
            raise OutputError(self.out / "config.json", "is damaged", "train into another folder") from None
        with contextlib.suppress(ValueError):  # newer fields get their defaults
            old["config"] = to_json(from_json(type(self.experiment.config), old["config"]))
        # The path may change; early runs state nothing else about their data.
        path_only = not isinstance(old["data"], dict)
        old["data"] = wanted["data"] if path_only else old["data"] | {"path": wanted["data"]["path"]}
        if self.init is None:  # not needed to resume
            self.began = wanted["init"] = old["init"]
        stages = {f"config.{stage.name}.steps": stage.name for stage in self.recipe.stages}
        raised: dict[str, int] = {}
        refused = []
        for key, before, after in changes(old, wanted):
            if key in stages and isinstance(before, int) and after > before:
                raised[stages[key]] = before
            elif key.rpartition(".")[2] != FREE:
                refused.append(f"{key.removeprefix('config.')} {_short(before)} -> {_short(after)}")
        if refused:
            raise OutputError(
                self.out, f"holds another run ({'; '.join(refused)})", "give the same values, or another --out"
            )
        copy = self.out / "recipe.py"
        if copy.exists() and _code(copy.read_bytes()) != _code(self.experiment.source.encode()):
            self.say(
                f"{self.experiment.name}: the recipe's code is not what this run began with; going on with the new"
            )
        return raised

    # --- states -----------------------------------------------------------------------------------------------------

    def states(self) -> list[Path]:
        """Training states, oldest first."""
        return sorted(
            (p for p in self.out.glob("state/*.safetensors") if p.stem.isdecimal()), key=lambda p: int(p.stem)
        )

    def _restore(self, raised: dict[str, int]) -> Checkpoint:
        """Reads the newest readable training state, or starts afresh."""
        files = self.states()
        if not files and (found := self._weights_step()) == self.steps:
            self.say("the training states are gone, the weights of the last step are there: nothing is left to do")
            return Checkpoint(self.steps, self.recipe.stages[-1].name, self._fresh(), {})
        if not files:
            if found is not None:
                self.say(f"no training state is left beside the weights of step {found}: starting anew")
            self._trim_log(0)
            return Checkpoint(0, None, self._beginning(), {})
        for file in reversed(files):
            try:
                point, meta = self._read(file, raised)
            except InputError as error:
                self.say(f"{error.where}: {error.what}; set aside as {file.name}.damaged, trying the state before it")
                damaged = file
                continue
            break
        else:
            raise InputError(damaged.parent, "no training state in it can be read", "train into another folder")
        self._check_raised(raised, point)
        for unread in files[files.index(file) + 1 :]:
            with contextlib.suppress(OSError):
                unread.rename(unread.with_name(unread.name + ".damaged"))
        if point.step < self.steps:
            self.conditions = machine.goes_on(self.conditions, meta, self.say)
        else:  # a finished run keeps its conditions
            self.conditions |= {key: meta[key] for key in (*self.conditions, "earlier") if key in meta}
        self._trim_log(point.step)
        self.say(f"going on from step {point.step} of {self.steps}")
        return point

    def _weights_step(self) -> int | None:
        """The step of the weights in the folder; None if they cannot be read."""
        try:
            return int(load_weights(self.out / "weights.safetensors").meta["step"])
        except (InputError, KeyError, TypeError, ValueError):
            return None

    def _fresh(self) -> State:
        return self.recipe.init(rng.generator(self.experiment.config.seed, "init"))

    def _beginning(self) -> State:
        """The state at the beginning: drawn by the recipe, or from a weights file."""
        state = self._fresh()
        if self.init is None:
            if self.began is not None:
                what = f"began from weights of SHA-256 {self.began[:12]}... and holds no training state yet"
                raise OutputError(self.out, what, "give those by --init again")
            return state
        weights = load_weights(self.init)
        differing = differences(to_json(weights.net), to_json(self.recipe.net))
        if said := "; ".join(f"net.{difference}" for difference in differing):
            what = f"is of another network than the recipe's ({said})"
            raise InputError(self.init, what, "give the recipe the values of the weights, or other weights")
        check_shapes(self.init, state.params, weights.params)
        check_shapes(self.init, state.stats, weights.stats)
        self.say(f"starting from {self.init}")
        params = {name: weights.params[name] for name in state.params}
        stats = {name: weights.stats[name] for name in state.stats}
        return dataclasses.replace(state, params=params, stats=stats)

    def _like(self, name: str, raised: dict[str, int]) -> State:
        """A state with the names and shapes of one in a stage. Stages without steps are skipped."""
        state = self._fresh()
        for stage in self.recipe.stages:
            if raised.get(stage.name, stage.schedule.steps):
                state = stage.enter(state)
            if stage.name == name:
                return state
        raise KeyError(name)

    def _read(self, file: Path, raised: dict[str, int]) -> tuple[Checkpoint, dict[str, Any]]:
        tensors, meta = load_tensors(file)
        groups: dict[str, Tensors] = {group: {} for group in (*GROUPS, "moments")}
        try:
            for key, value in tensors.items():
                group, name = key.split("/", 1)
                groups[group][name] = value
            step, skipped = int(meta["step"]), int(meta.get("skipped", 0))
            stage = str(meta.get("stage", meta.get("phase")))  # phase: its name in early runs
            if meta["format"] != FORMAT:
                raise ValueError(f"format {meta['format']}")
            like = self._like(stage, raised)
            odd = [k for k in groups["moments"] if k.split("/", 1)[1] not in like.params]
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise InputError(file, f"is no training state of this run ({error})", "train into another folder") from None
        if odd:
            raise InputError(file, f"has moments of unknown parameters, first {odd[0]}", "train into another folder")
        ordered = {}
        for group in GROUPS:
            wanted = getattr(like, group)
            check_shapes(file, wanted, groups[group])
            # Files are sorted by name, but the gradient's norm is a sum in the order of the parameters.
            ordered[group] = {name: groups[group][name] for name in wanted}
        return Checkpoint(step, stage, State(**ordered), groups["moments"], skipped), meta

    def _check_raised(self, raised: dict[str, int], point: Checkpoint) -> None:
        """Allows more steps for the running stage and later ones; says if they change the result."""
        assert point.stage is not None
        names = [stage.name for stage in self.recipe.stages]
        for name, before in raised.items():
            stage = self.recipe.stages[names.index(name)]
            schedule = stage.schedule
            if names.index(name) < names.index(point.stage):
                raise OutputError(
                    self.out,
                    f"{name}.steps {before} -> {schedule.steps}, but {name} is over and {point.stage} has begun",
                    "give the same value, or another --out",
                )
            if name != point.stage:
                continue
            last = point.step - self.offset(name) - 1
            cooled = dataclasses.replace(schedule, steps=before).rate(last) != schedule.rate(last)
            reasons = ["the cooldown had begun"] * cooled
            reasons += ["the loss goes by the share of the steps that are done"] * stage.reads_progress
            if reasons:
                self.say(
                    f"{name}.steps {before} -> {schedule.steps}: {', and '.join(reasons)}, so the result is not "
                    f"quite that of {schedule.steps} steps from the start"
                )

    def save(self, point: Checkpoint) -> None:
        """Writes the weights and the training state, and deletes all but the last two states.

        Weights are written first, so they are never older than the state.
        """
        self.save_weights(point)
        groups = {group: getattr(point.state, group) for group in GROUPS} | {"moments": point.moments}
        tensors = {f"{group}/{name}": value for group, named in groups.items() for name, value in named.items()}
        meta = {
            "format": FORMAT,
            "step": point.step,
            "stage": point.stage,
            "skipped": point.skipped,
        } | self.conditions
        save_tensors(self.out / "state" / f"{point.step:08d}.safetensors", tensors, meta)
        for old in self.states()[:-KEEP]:
            with contextlib.suppress(OSError):  # an extra state does no harm
                old.unlink()

    def save_weights(self, point: Checkpoint) -> None:
        """Writes the weights file for ``propagate``."""
        about = (
            {
                "recipe": self.experiment.name,
                "config": to_json(self.experiment.config),
                "step": point.step,
                "vcorr": vcorr.__version__,
            }
            | self.conditions
            | ({} if self.began is None else {"init": self.began})
        )
        state, made = point.state, self.recipe
        slow = (state.slow, state.slow_stats) if made.inference.slow else ({}, {})
        averaged = made.averaged and state.slow
        trained = (state.slow, state.slow_stats) if averaged else (state.params, state.stats)
        weights = Weights(*trained, made.net, made.matching, made.inference, about, *slow, made.space)
        save_weights(self.out / "weights.safetensors", weights)

    # --- metrics ----------------------------------------------------------------------------------------------------

    def log(self, line: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl."""
        path = self.out / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            raise OutputError(path, f"cannot be written ({error.strerror})", "check the free space") from error

    def _trim_log(self, steps: int) -> None:
        """Deletes the lines of steps that will be repeated, and truncated lines."""
        path = self.out / "metrics.jsonl"
        if not path.exists():
            return
        kept = []
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
                if self.offset(line.get("stage", line.get("phase"))) + line["step"] <= steps:
                    kept.append(text + "\n")
            except (ValueError, KeyError, TypeError):
                continue
        with replacing(path) as file:
            file.write("".join(kept).encode())


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def _code(source: bytes) -> str:
    """A recipe's code without comments, docstrings and layout."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source.decode("utf-8", "replace")
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
