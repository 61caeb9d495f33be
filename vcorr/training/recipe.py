"""The parts of an experiment, and how a recipe file becomes one.

A recipe file holds ``Config``, a frozen dataclass of numbers and other frozen configs, and ``build(cfg) -> Recipe``.
The command line changes only the configuration; the recipe names its functions by ordinary imports.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import dis
import functools
import hashlib
import importlib.resources
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vcorr import rng as random
from vcorr.config import flatten as flatten
from vcorr.config import from_json as from_json
from vcorr.config import override as override
from vcorr.config import to_json as to_json
from vcorr.errors import InputError, OutputError, UsageError, VcorrError
from vcorr.matching.affinity import Views
from vcorr.matching.settings import Matching as Matching
from vcorr.model import color
from vcorr.model.inference import Inference as Inference
from vcorr.model.inference import References as References
from vcorr.model.network import NetworkConfig
from vcorr.model.nn import Tensors
from vcorr.training.clips.cut import ClipConfig
from vcorr.training.schedule import Schedule as Schedule


@dataclass(frozen=True, eq=False)
class State:
    """All tensors that training changes and a checkpoint keeps, as flat dicts.

    Attributes:
        params: the parameters.
        stats: the running statistics.
        slow, slow_stats: those of a slow encoder, a running average; empty without one.
        extra: other tensors that a recipe keeps from step to step, such as a bank; of any type.
    """

    params: Tensors
    stats: Tensors
    slow: Tensors = field(default_factory=dict)
    slow_stats: Tensors = field(default_factory=dict)
    extra: Tensors = field(default_factory=dict)

    def with_slow(self) -> State:
        """The state with a slow encoder that starts as a copy of the fast one."""
        return dataclasses.replace(self, slow=self.params, slow_stats=self.stats)


@dataclass(frozen=True, eq=False)
class Batch:
    """Training clips, on the device.

    Attributes:
        rgb: [b t 3 h w] in [0, 1].
        samples: the number of each sample, for random draws that belong to it.
        videos: the index in the dataset of each clip's video.
    """

    rgb: Tensor
    samples: tuple[int, ...]
    videos: tuple[int, ...]

    @functools.cached_property
    def lab(self) -> Tensor:
        """[b t 3 h w], ``rgb`` in normalised Lab, float32."""
        with torch.autocast(self.rgb.device.type, enabled=False):
            return color.to_lab(self.rgb.flatten(0, 1)).view(self.rgb.shape)


@dataclass(frozen=True, eq=False)
class Out:
    """The result of a loss function.

    Attributes:
        loss: the scalar to minimise, a mean over the batch.
        stats: the new running statistics.
        metrics: numbers for the log, floats or scalar tensors.
        extra: the new ``State.extra``, with the same names, shapes and types; None keeps the old one.
        views: the compared features, for the report and the sharpness of the softmax; None leaves them out.
    """

    loss: Tensor
    stats: Tensors
    metrics: Mapping[str, float | Tensor] = field(default_factory=dict)
    extra: Tensors | None = None
    views: Views | None = None


Loss = Callable[[State, Batch, torch.Generator, float], Out]
"""loss(state, batch, rng, progress). It does not change its arguments.

``rng`` draws for the whole batch; ``vcorr.rng.generator(seed, purpose, sample)`` draws for one of ``batch.samples``.
``progress`` rises from 0 to 1 over the stage; a loss that reads it changes when the stage gets more steps. If several
processes train, each passes its share of the batch, inside ``vcorr.ranks.parted``."""


def _unchanged(state: State) -> State:
    return state


def _everything(name: str) -> bool:
    return True


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: its name in the configuration.
        schedule: steps, batch and learning rate.
        clips: how its clips are cut.
        loss: see ``Loss``.
        enter: changes the state when the stage begins (not when it is resumed), to start a slow encoder or a bank. A
            pure function.
        decay: name of a parameter or statistic -> d in [0, 1]. After each step, slow <- d * slow + (1 - d) * params,
            and slow_stats likewise from stats. None keeps them.
        trainable: name of a parameter -> whether it is trained.
    """

    name: str
    schedule: Schedule
    clips: ClipConfig
    loss: Loss
    enter: Callable[[State], State] = _unchanged
    decay: Callable[[str], float] | None = None
    trainable: Callable[[str], bool] = _everything

    @property
    def reads_progress(self) -> bool:
        """Whether the loss reads ``progress``, so that more steps change it; True if unknown."""
        code = getattr(inspect.unwrap(self.loss), "__code__", None)
        if code is None or len(names := list(inspect.signature(self.loss).parameters)) < 4:
            return True
        loaded = (i.argval for i in dis.get_instructions(code) if "LOAD_FAST" in i.opname)  # 3.13 loads two at once
        return names[3] in code.co_cellvars or any(names[3] in (v if isinstance(v, tuple) else (v,)) for v in loaded)


@dataclass(frozen=True)
class Recipe:
    """An experiment.

    Attributes:
        net: the configuration of the encoder.
        init: rng -> the state at the beginning.
        stages: run one after another.
        matching: how frames are compared in training.
        inference: how labels are read.
        space: the input of the network: normalised Lab, RGB, or gray.
        averaged: the weights file holds the slow encoder, an average over the last steps, instead of the trained one.
    """

    net: NetworkConfig
    init: Callable[[torch.Generator], State]
    stages: tuple[Stage, ...]
    matching: Matching
    inference: Inference
    space: color.Space = "lab"
    averaged: bool = False

    def __post_init__(self) -> None:
        self.inference.matching(self.matching)


@dataclass(frozen=True)
class Experiment:
    """A recipe file with its configuration filled in."""

    name: str
    config: Any
    recipe: Recipe
    source: str

    @property
    def parameters(self) -> int:
        """The number of parameters of its encoder."""
        fresh = self.recipe.init(random.generator(self.config.seed, "init"))
        return sum(p.numel() for p in fresh.params.values())


# --- finding and loading -------------------------------------------------------------------------------------------


def shipped() -> dict[str, Path]:
    """Name -> file of the recipes in the package."""
    folder = importlib.resources.files("vcorr.recipes")
    files = (Path(str(f)) for f in folder.iterdir())
    return {f.stem: f for f in sorted(files) if f.suffix == ".py" and not f.stem.startswith("_")}


def summary(path: Path) -> str:
    """The first line of a recipe's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


def copy(name: str, folder: Path) -> Path:
    """Copies a shipped recipe into a folder.

    Raises:
        UsageError: there is no such recipe.
        OutputError: the file exists, or cannot be written.
    """
    source = find(name)
    path = folder / f"{source.stem}.py"
    try:
        with path.open("xb") as file:
            file.write(source.read_bytes())
    except FileExistsError:
        raise OutputError(path, "exists already", "remove it, or stand in another folder") from None
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror})", "stand in another folder") from error
    return path


def find(name: str) -> Path:
    """Finds a recipe file by the name of a shipped one, or by path.

    Raises:
        UsageError: there is no such recipe.
    """
    known = shipped()
    if name in known:
        return known[name]
    path = Path(name)
    if path.is_file():
        return path
    near = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(name, "no such recipe", f"{hint}give a recipe file or one of: {', '.join(known)}")


def load(name: str, overrides: list[str] | None = None) -> Experiment:
    """Loads a recipe by path or shipped name, with ``KEY=VALUE`` overrides of its configuration.

    Raises:
        UsageError: there is no such recipe or key, or a value does not fit its annotation.
        InputError: the file is not a recipe, or fails; names its line.
    """
    path = find(name)
    with _blamed_on(path, "mend the recipe"):
        source = path.read_text(encoding="utf-8")
        module = _execute(path, source)
    for needed in ("Config", "build"):
        if not hasattr(module, needed):
            raise InputError(path, f"defines no {needed}", "a recipe holds a Config dataclass and build(cfg) -> Recipe")
    with _blamed_on(path, "give every field of Config a default"):
        config = module.Config()
    if not dataclasses.is_dataclass(config) or not isinstance(getattr(config, "seed", None), int):
        raise InputError(path, "Config is no dataclass with a seed", "write a frozen dataclass with seed: int = 0")
    config = override(config, overrides or [])
    with _blamed_on(path, "mend build(cfg) in the recipe"), _importing_from(path.parent):
        recipe = module.build(config)
    if not isinstance(recipe, Recipe):
        raise InputError(path, f"build(cfg) returned {type(recipe).__name__}", "return a vcorr.training.recipe.Recipe")
    names = [stage.name for stage in recipe.stages]
    if not names or len(set(names)) < len(names):
        raise InputError(path, f"has stages {names}", "give at least one stage, each a name of its own")
    if not any(stage.schedule.steps for stage in recipe.stages):
        raise UsageError(f"{names[0]}.steps", "no stage has any steps", "give one of them more than 0")
    return Experiment(path.stem, config, recipe if name in shipped() else _blaming(path, recipe), source)


def _execute(path: Path, source: str) -> types.ModuleType:
    """Runs a recipe's text as a module, without writing compiled files beside it."""
    where = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    module = types.ModuleType(f"vcorr_recipe_{path.stem}_{where[:12]}")
    module.__file__ = str(path)
    code = compile(source, str(path), "exec", dont_inherit=True)
    sys.modules[module.__name__] = module  # dataclasses look up annotations there
    try:
        with _importing_from(path.parent):
            exec(code, module.__dict__)  # noqa: S102 (a recipe is a program of the user's)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Lets a recipe import a file beside it, as a script can."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


@contextlib.contextmanager
def _blamed_on(path: Path, advice: str) -> Iterator[None]:
    """Turns any exception into an InputError that names the recipe's line."""
    try:
        yield
    except Exception as error:
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        reason = " ".join(f"{type(error).__name__}: {what}".split())
        raise InputError(_line(path, error), reason, advice) from error


def _blaming(path: Path, recipe: Recipe) -> Recipe:
    """The recipe with functions that turn their exceptions into InputErrors with the recipe's line."""

    def blaming(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            try:
                return function(*args, **options)
            except VcorrError:
                raise
            except Exception as error:
                if _line(path, error) == str(path):
                    raise
                with _blamed_on(path, "mend the recipe"):
                    raise

        return call

    stages = (dataclasses.replace(p, loss=blaming(p.loss), enter=blaming(p.enter)) for p in recipe.stages)
    return dataclasses.replace(recipe, init=blaming(recipe.init), stages=tuple(stages))


def _line(path: Path, error: BaseException) -> str:
    """``file:line`` of the recipe that the exception passed."""
    if isinstance(error, SyntaxError) and error.lineno and error.filename == str(path):
        return f"{path}:{error.lineno}"
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"{path}:{lines[-1]}" if lines else str(path)
