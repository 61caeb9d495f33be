"""Weights and training states on disk: safetensors with a JSON header, never pickle, never half a file."""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from vcorr import rng
from vcorr.config import from_json, to_json
from vcorr.errors import InputError
from vcorr.files import replacing
from vcorr.matching.settings import Matching
from vcorr.model import color, network
from vcorr.model.inference import Inference, Settings, from_reader
from vcorr.model.network import NetworkConfig
from vcorr.model.nn import Tensors

WEIGHTS = "vcorr-weights-2"
FIRST = "vcorr-weights-1"  # whose header holds all of how labels are read in one, as reader
GROUPS = ("params", "stats", "slow", "slow_stats")


def save_tensors(path: Path, tensors: Tensors, meta: dict[str, Any]) -> None:
    """Write tensors and JSON-able ``meta`` as one safetensors file."""
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with replacing(path, parents=True) as file:
        file.write(safetensors.torch.save(plain, {"vcorr": json.dumps(meta)}))


def load_tensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Read what ``save_tensors`` wrote.

    Raises:
        InputError: missing, damaged, or not one of ours.
    """
    try:
        tensors, about = _open(path) if _is_text(path) else _parse(path.read_bytes())
        meta = json.loads(about["vcorr"])
    except FileNotFoundError:
        raise InputError(path, "no such file", "check the path") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(path, f"is not a readable safetensors file ({error})", "give an undamaged file") from None
    except (KeyError, ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise InputError(path, "is a safetensors file, but not one that vcorr wrote", "give weights from vcorr train")
    return tensors, meta


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _open(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a file; the library takes paths that are text alone."""
    with safetensors.safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a dict)


def _parse(content: bytes) -> tuple[Tensors, dict[str, str]]:
    tensors = safetensors.torch.load(content)  # which checks the header, whose length stands first
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return tensors, header.get("__metadata__", {})


@dataclass(frozen=True, eq=False)
class Weights:
    """A trained encoder and how to read labels with it.

    Attributes:
        params, stats, net: the encoder.
        matching: how frames were compared in training. inference: how labels are read.
        meta: where it came from.
        slow, slow_stats: the encoder of references (``Inference.slow``); empty where there is none.
        space: what the network sees: normalised Lab, RGB, or gray.

    Raises:
        ValueError: matching and inference do not go together.
    """

    params: Tensors
    stats: Tensors
    net: NetworkConfig
    matching: Matching
    inference: Inference
    meta: dict[str, Any]
    slow: Tensors = field(default_factory=dict)
    slow_stats: Tensors = field(default_factory=dict)
    space: color.Space = "lab"

    def __post_init__(self) -> None:
        self.inference.matching(self.matching)


def save_weights(path: Path, weights: Weights, *, half: bool = False) -> None:
    """Write weights for ``propagate``; ``half`` stores the parameters in float16, at half the size."""
    tensors: Tensors = {}
    for group in GROUPS:
        halved = half and not group.endswith("stats")
        tensors |= {f"{group}/{k}": v.half() if halved else v for k, v in getattr(weights, group).items()}
    how = {key: to_json(getattr(weights, key)) for key in ("net", "matching", "inference")}
    about = {key: value for key, value in weights.meta.items() if key != "reader"}
    save_tensors(path, tensors, about | {"format": WEIGHTS, "space": weights.space} | how)


def load_weights(path: Path | None = None) -> Weights:
    """Weights from a file, or the ones that come with the package.

    Raises:
        InputError: not a weights file, or one whose tensors do not fit the network that it names.
    """
    path = default_weights() if path is None else path
    tensors, meta = load_tensors(path)
    if meta.get("format") not in (WEIGHTS, FIRST):
        raise InputError(
            path, f"holds {meta.get('format', 'something')}, not {WEIGHTS}", "give the weights.safetensors of a run"
        )
    try:
        net = from_json(NetworkConfig, meta["net"])
        how = _settings(meta)
    except (KeyError, ValueError) as error:
        raise InputError(
            path, f"its header does not say how to read it ({error})", "use the vcorr that wrote it"
        ) from None
    groups: dict[str, Tensors] = {group: {} for group in GROUPS}
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        if group in groups:
            groups[group][name] = value.float()
    weights = Weights(net=net, matching=how.matching, inference=how.inference, space=how.space, meta=meta, **groups)
    _check(path, net, weights.params, weights.stats)
    if weights.slow or weights.slow_stats:
        _check(path, net, weights.slow, weights.slow_stats)
    return weights


def _settings(meta: dict[str, Any]) -> Settings:
    """How labels are read, by a header."""
    if meta["format"] == FIRST:
        return from_reader(meta["reader"])
    how: Settings = from_json(Settings, {key: meta[key] for key in ("matching", "inference", "space")})
    return how


def default_weights() -> Path:
    """The weights file that comes with the package."""
    return Path(str(importlib.resources.files("vcorr.weights") / "default.safetensors"))


def _check(path: Path, net: NetworkConfig, params: Tensors, stats: Tensors) -> None:
    """Tensors that fit the network and that it can compute with."""
    advice = "give an undamaged weights file"
    try:
        with torch.device("meta"):  # shapes alone: a header may ask for any size
            wanted_params, wanted_stats = network.init(net, rng.generator(0, "shapes"))
    except (RuntimeError, TypeError):
        raise InputError(path, f"its header names an impossible network, {net}", advice) from None
    check_shapes(path, wanted_params, params)
    check_shapes(path, wanted_stats, stats)
    for name, tensor in (params | stats).items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(
                path, f"{name} holds values that are not finite", "give weights of a run that did not diverge"
            )
        if name.endswith(".var") and bool((tensor < 0).any()):
            raise InputError(path, f"{name} holds negative variances", advice)


def check_shapes(path: Path, wanted: Tensors, got: Tensors) -> None:
    """Raise ``InputError`` unless ``got`` has the names, shapes and types of ``wanted``."""
    if missing := wanted.keys() - got.keys():
        raise InputError(path, f"lacks {len(missing)} tensors, first {min(missing)}", "give an undamaged file")
    if extra := got.keys() - wanted.keys():
        raise InputError(path, f"has unknown tensors, first {min(extra)}", "use the vcorr that wrote it")
    for name, tensor in wanted.items():
        if tensor.shape != got[name].shape:
            found, expected = list(got[name].shape), list(tensor.shape)
            raise InputError(path, f"{name} has shape {found}, wanted {expected}", "use the vcorr that wrote it")
        if tensor.dtype != got[name].dtype:
            kinds = f"{got[name].dtype}, wanted {tensor.dtype}"
            raise InputError(path, f"{name} is of type {kinds}", "use the vcorr that wrote it")
