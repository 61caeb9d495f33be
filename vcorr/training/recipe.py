"""What an experiment is made of, and how a recipe file becomes one.

A recipe file holds ``Config``, a frozen dataclass of plain numbers and other frozen configs, and
``build(cfg) -> Recipe``. The command line reaches the configuration alone; the functions are named by ordinary imports.
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
    """Everything that training changes and a checkpoint keeps, as flat dicts of tensors.

    Attributes:
        params: what the optimiser moves. stats: the running statistics that go with them.
        slow, slow_stats: a slow encoder's, averaged over the steps; empty where there is none.
        extra: what else a recipe keeps from step to step, a bank, say; of any type.
    """

    params: Tensors
    stats: Tensors
    slow: Tensors = field(default_factory=dict)
    slow_stats: Tensors = field(default_factory=dict)
    extra: Tensors = field(default_factory=dict)

    def with_slow(self) -> State:
        """The state with a slow encoder that begins as the fast one is now."""
        return dataclasses.replace(self, slow=self.params, slow_stats=self.stats)


@dataclass(frozen=True, eq=False)
class Batch:
    """Training clips, on the device.

    Attributes:
        rgb: [b t 3 h w] in [0, 1], as filmed.
        samples: which samples these are, for draws that must follow a sample.
        videos: index of the video that each clip was cut from, in the order of the dataset.
    """

    rgb: Tensor
    samples: tuple[int, ...]
    videos: tuple[int, ...]

    @functools.cached_property
    def lab(self) -> Tensor:
        """[b t 3 h w] normalised Lab of ``rgb``, in float32."""
        with torch.autocast(self.rgb.device.type, enabled=False):
            return color.to_lab(self.rgb.flatten(0, 1)).view(self.rgb.shape)


@dataclass(frozen=True, eq=False)
class Out:
    """What a loss gives back.

    Attributes:
        loss: the scalar to descend, a mean over the batch.
        stats: the new running statistics.
        metrics: numbers worth logging, floats or scalar tensors.
        extra: the new ``State.extra``, of the same names, shapes and types; None leaves it as it was.
        views: the features that were compared, for the report and the sharpness of the softmax; None shows nothing.
    """

    loss: Tensor
    stats: Tensors
    metrics: Mapping[str, float | Tensor] = field(default_factory=dict)
    extra: Tensors | None = None
    views: Views | None = None


Loss = Callable[[State, Batch, torch.Generator, float], Out]
"""loss(state, batch, rng, progress), which leaves its arguments as they are.

``rng`` is for draws that hold for the whole batch; what is drawn for one sample comes from ``vcorr.rng.generator(seed,
purpose, sample)`` with ``batch.samples``. ``progress`` runs from 0 to 1 over the stage: a loss that reads it is another
one when the stage gets more steps. Where several processes train, each calls it with its share of the batch, inside
``vcorr.ranks.parted``."""


def _unchanged(state: State) -> State:
    return state


def _everything(name: str) -> bool:
    return True


@dataclass(frozen=True)
class Stage:
    """A stage by its name in the configuration, with the clips it trains on and the loss it descends.

    Attributes:
        enter: what the state becomes when the stage begins (not when it is resumed): starts the slow encoder or a bank.
            A function of its argument alone, whose tensors it leaves as they are.
        decay: d in [0, 1] by the name of a parameter or statistic: after each step slow <- d * slow + (1 - d) * params,
            and slow_stats likewise from stats. None leaves them as they are.
        trainable: whether the parameter of a name is trained; the optimiser never sees the others.
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
        """Whether the loss reads ``progress``, so that more steps are another loss; True where it cannot be told."""
        code = getattr(inspect.unwrap(self.loss), "__code__", None)
        if code is None or len(names := list(inspect.signature(self.loss).parameters)) < 4:
            return True
        loaded = (i.argval for i in dis.get_instructions(code) if "LOAD_FAST" in i.opname)  # from 3.13 on two at once
        return names[3] in code.co_cellvars or any(names[3] in (v if isinstance(v, tuple) else (v,)) for v in loaded)


@dataclass(frozen=True)
class Recipe:
    """An experiment: its encoder, where it starts, the stages it goes through, how its weights are read.

    Attributes:
        matching: how frames are compared in training. inference: how labels are read.
        space: what the network sees: normalised Lab, RGB, or gray.
        averaged: the weights file holds the slow encoder, the average over the last steps, in place of the trained one.
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
        """How many numbers its encoder starts with."""
        fresh = self.recipe.init(random.generator(self.config.seed, "init"))
        return sum(p.numel() for p in fresh.params.values())


# --- finding and loading -------------------------------------------------------------------------------------------


def shipped() -> dict[str, Path]:
    """Name -> file of the recipes that come with the package."""
    folder = importlib.resources.files("vcorr.recipes")
    files = (Path(str(f)) for f in folder.iterdir())
    return {f.stem: f for f in sorted(files) if f.suffix == ".py" and not f.stem.startswith("_")}


def summary(path: Path) -> str:
    """The first line of a recipe's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


def copy(name: str, folder: Path) -> Path:
    """Put a shipped recipe in a folder, to be changed there.

    Raises:
        UsageError: no such recipe.
        OutputError: there is a file of its name, or it cannot be written.
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
    """The recipe file: the name of a shipped one, or a path.

    Raises:
        UsageError: neither.
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
    """Load a recipe, by path or shipped name, with ``KEY=VALUE`` overrides of its configuration.

    Raises:
        UsageError: no such recipe or key, or a value that its annotation does not take.
        InputError: the file is no recipe, or fails; with its own line.
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
    """Run a recipe's text as a module of its own, without leaving compiled files beside it."""
    where = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
    module = types.ModuleType(f"vcorr_recipe_{path.stem}_{where[:12]}")
    module.__file__ = str(path)
    code = compile(source, str(path), "exec", dont_inherit=True)
    sys.modules[module.__name__] = module  # dataclasses look their annotations up there
    try:
        with _importing_from(path.parent):
            exec(code, module.__dict__)  # noqa: S102 (a recipe is a program of the user's)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """A recipe may import its base from the file beside it, as a script may."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


@contextlib.contextmanager
def _blamed_on(path: Path, advice: str) -> Iterator[None]:
    """Any exception inside becomes an InputError that names the recipe's own line."""
    try:
        yield
    except Exception as error:
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        reason = " ".join(f"{type(error).__name__}: {what}".split())
        raise InputError(_line(path, error), reason, advice) from error


def _blaming(path: Path, recipe: Recipe) -> Recipe:
    """The recipe, whose functions blame the file's own line for an error that comes through it while they train."""

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
    """``file:line`` of the recipe where the error came through."""
    if isinstance(error, SyntaxError) and error.lineno and error.filename == str(path):
        return f"{path}:{error.lineno}"
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"{path}:{lines[-1]}" if lines else str(path)
