"""What an experiment is made of, and how a recipe file becomes one.

A recipe file holds ``Config``, a frozen dataclass of plain numbers and other frozen configs, and
``build(cfg) -> Recipe``. The command line reaches the configuration alone; the functions are named by ordinary imports.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib.resources
import importlib.util
import json
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from vcorr.correspondence import Alignment
from vcorr.data.clips import ClipConfig
from vcorr.errors import InputError, UsageError
from vcorr.nn import Tensors
from vcorr.resnet import ResNetConfig


@dataclass(frozen=True)
class Stage:
    """Numbers of one stage of training.

    Attributes:
        steps: optimiser steps.
        batch: clips a step.
        lr: peak learning rate of Adam.
        warmup: steps over which the rate rises linearly from 0.
        cooldown: last share of the steps, over which the rate falls linearly to 0. Until then it is constant, so
            ``steps`` can be raised while a run is in its constant part and the result is as if it always had been.
        weight_decay: decoupled weight decay (AdamW), per unit of learning rate.
        clip_norm: the gradient's norm is cut to this.
        bf16: run the encoder under bfloat16 autocast where the device computes it natively.
    """

    steps: int
    batch: int
    lr: float
    warmup: int = 0
    cooldown: float = 0.3
    weight_decay: float = 0.0
    clip_norm: float = 5.0
    bf16: bool = True

    def rate(self, step: int) -> float:
        """Learning rate of step 0 .. steps-1: a ramp, a plateau, a ramp."""
        rise = (step + 1) / self.warmup if self.warmup else 1.0
        fall = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return self.lr * min(1.0, rise, fall)


@dataclass(frozen=True)
class Reader:
    """How labels are read with the trained weights: all that propagation needs to know of an experiment.

    Attributes:
        radius: of the window, in cells.
        scale: of the logits; None is 1 / sqrt(features).
        border: whether cells outside the frame are left out (mask) or count as logit 0, value 0 (zeros).
        alignment: how cells and pixels meet, see ``correspondence``.
        long, short: references kept: these frames counted from the labelled one, and these many frames back.
        feedback: labels of earlier frames are carried as scores (soft) or as one class a pixel (hard).
    """

    radius: int = 12
    scale: float | None = None
    border: Literal["mask", "zeros"] = "mask"
    alignment: Alignment = "cell"
    long: tuple[int, ...] = (0, 5)
    short: tuple[int, ...] = (1, 3, 5)
    feedback: Literal["soft", "hard"] = "soft"


@dataclass(frozen=True)
class State:
    """Everything that training changes and a checkpoint keeps, as flat dicts of tensors."""

    params: Tensors
    stats: Tensors


@dataclass(frozen=True)
class Batch:
    """Training clips.

    Attributes:
        lab: [b t 3 h w] normalised Lab.
        samples: which samples these are, for draws that must follow a sample.
    """

    lab: Tensor
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Out:
    """What a loss gives back: the scalar to descend, the new statistics, and numbers worth logging."""

    loss: Tensor
    stats: Tensors
    metrics: Mapping[str, float] = field(default_factory=dict)


Loss = Callable[[State, Batch, torch.Generator, float], Out]
"""loss(state, batch, rng, progress): ``progress`` runs from 0 to 1 over the stage."""


@dataclass(frozen=True)
class Phase:
    """A stage by its name in the configuration, with the clips it trains on and the loss it descends."""

    name: str
    stage: Stage
    clips: ClipConfig
    loss: Loss


@dataclass(frozen=True)
class Recipe:
    """An experiment: its encoder, where it starts, the phases it goes through, how its weights are read."""

    net: ResNetConfig
    init: Callable[[torch.Generator], State]
    phases: tuple[Phase, ...]
    reader: Reader


@dataclass(frozen=True)
class Experiment:
    """A recipe file with its configuration filled in."""

    name: str
    config: Any
    recipe: Recipe
    source: str


# --- finding and loading -------------------------------------------------------------------------------------------


def shipped() -> dict[str, Path]:
    """Name -> file of the recipes that come with the package."""
    folder = importlib.resources.files("vcorr.recipes")
    files = (Path(str(f)) for f in folder.iterdir())
    return {f.stem: f for f in sorted(files) if f.suffix == ".py" and not f.stem.startswith("_")}


def summary(path: Path) -> str:
    """The first line of a recipe's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


def find(name: str) -> Path:
    """The recipe file: a path, or the name of a shipped one."""
    path = Path(name)
    if path.is_file():
        return path
    known = shipped()
    if name in known:
        return known[name]
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
    module = _execute(path)
    for needed in ("Config", "build"):
        if not hasattr(module, needed):
            raise InputError(path, f"defines no {needed}", "a recipe holds a Config dataclass and build(cfg) -> Recipe")
    config = override(module.Config(), overrides or [])
    try:
        recipe = module.build(config)
    except Exception as error:
        raise InputError(
            _line(path, error), f"{type(error).__name__}: {error}", "mend build(cfg) in the recipe"
        ) from error
    return Experiment(path.stem, config, recipe, path.read_text())


def _execute(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"vcorr_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(path, "is not a Python file", "a recipe is a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their annotations up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(_line(path, error), f"{type(error).__name__}: {error}", "mend the recipe") from error
    return module


def _line(path: Path, error: BaseException) -> str:
    """``file:line`` of the recipe where the error came through."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}"
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f"{path}:{lines[-1]}" if lines else str(path)


# --- configuration -------------------------------------------------------------------------------------------------


def override(config: Any, pairs: list[str]) -> Any:
    """A copy of a frozen config with ``a.b=value`` pairs applied; the field's annotation parses the value.

    >>> override(Reader(), ["radius=8", "short=1,2"]).short
    (1, 2)
    """
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(pair, "is not KEY=VALUE", "write it as pairs.steps=500")
        config = _replace(config, key, key.split("."), text)
    return config


def _replace(config: Any, key: str, path: list[str], text: str) -> Any:
    name, rest = path[0], path[1:]
    hints = typing.get_type_hints(type(config))
    if name not in hints:
        raise UsageError(key, "no such key", _near(name, hints, config))
    value = getattr(config, name)
    if rest:
        if not dataclasses.is_dataclass(value):
            raise UsageError(key, f"{name} has no fields of its own", f"write {name}=VALUE")
        return dataclasses.replace(config, **{name: _replace(value, key, rest, text)})
    if dataclasses.is_dataclass(value):
        fields = ", ".join(f"{name}.{f.name}" for f in dataclasses.fields(value))
        raise UsageError(key, "is a group of keys", f"set one of them: {fields}")
    return dataclasses.replace(config, **{name: _parse(hints[name], text, key)})


def _near(name: str, hints: Mapping[str, Any], config: Any) -> str:
    keys = flatten(config)
    near = difflib.get_close_matches(name, [*hints, *keys], n=3, cutoff=0.5)
    deeper = [k for k in keys if k.split(".")[-1] == name]
    return (
        f"did you mean {' or '.join(dict.fromkeys(deeper + near))}?" if deeper or near else f"keys: {', '.join(keys)}"
    )


def _parse(annotation: Any, text: str, key: str) -> Any:
    many = typing.get_origin(annotation) is tuple
    plain = text.strip("()[] ").rstrip(",")
    try:
        value: Any = json.loads(f"[{plain}]" if many else text)
    except json.JSONDecodeError:
        value = {"None": None, "True": True, "False": False}.get(text, text)
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        wanted = str(annotation) if typing.get_args(annotation) else annotation.__name__
        reason = error.errors()[0]["msg"]
        raise UsageError(
            f"{key}={text}", f"does not fit {wanted.replace('typing.', '')} ({reason})", "give another value"
        ) from None


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Config as ``{"pairs.steps": 500, ...}``."""
    flat: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{f.name}.")
        else:
            flat[f"{prefix}{f.name}"] = value
    return flat


def to_json(config: Any) -> dict[str, Any]:
    """Config as plain JSON values; ``from_json`` reads it back."""
    return typing.cast("dict[str, Any]", TypeAdapter(type(config)).dump_python(config, mode="json"))


def from_json(kind: type[Any], data: Any) -> Any:
    """Config of a kind from JSON values, strictly: an unknown or missing-without-default field is a ``ValueError``."""
    known = TypeAdapter(kind).validate_python(data)
    if extra := set(_paths(data)) - set(_paths(to_json(known))):
        raise ValueError(f"unknown fields {', '.join(sorted(extra))} of {kind.__name__}")
    return known


def _paths(data: Any, prefix: str = "") -> list[str]:
    if not isinstance(data, dict):
        return [prefix]
    return [p for k, v in data.items() for p in _paths(v, f"{prefix}.{k}" if prefix else str(k))]
