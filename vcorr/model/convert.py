"""Weights of others' checkpoints, whose network is ours under other names: of CorrFlow, MAST and LIIR.

    feature_extraction.conv1.0, .1               stem.conv, stem.bn
    feature_extraction.layer2.0.left.0, .1       layer2.0.conv1, layer2.0.bn1      (3, 4: conv2, bn2)
    feature_extraction.layer2.0.shortcut.0, .1   layer2.0.skip.conv, layer2.0.skip.bn
    post_convolution                             head

Names as in torchvision (conv1, bn1, layer2.0.conv1, layer2.0.downsample.0) are taken too, if the network is this one:
stride 4, no pooling, a head. CorrFlow keeps its tensors under ``state_dict`` with the prefix ``module.``. LIIR has a
learned position encoding, ``pos_embed1`` [c s s] or [1 c s s], which is position.map here; its second head at half the
resolution (conv_semantic, conv_semantic_k) and its queue serve training alone, and are left out.

Checkpoints are pickles. They are opened by torch's reader of plain tensors alone, which runs no code of theirs.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors.torch
import torch
from torch import Tensor

from vcorr import rng
from vcorr.errors import InputError, UsageError
from vcorr.files import sha256
from vcorr.matching.settings import Matching
from vcorr.model import network
from vcorr.model.inference import Inference, References
from vcorr.model.nn import Tensors
from vcorr.model.position import PositionConfig
from vcorr.model.resnet import ResNetConfig
from vcorr.model.weights import Weights, check_shapes

Method = Literal["corrflow", "mast", "liir"]

_RULES = (
    (r"conv1\.0", "stem.conv"),
    (r"conv1\.1", "stem.bn"),
    (r"conv1", "stem.conv"),
    (r"bn1", "stem.bn"),
    (r"(layer[1-4]\.[01])\.(?:left\.0|conv1)", r"\1.conv1"),
    (r"(layer[1-4]\.[01])\.(?:left\.1|bn1)", r"\1.bn1"),
    (r"(layer[1-4]\.[01])\.(?:left\.3|conv2)", r"\1.conv2"),
    (r"(layer[1-4]\.[01])\.(?:left\.4|bn2)", r"\1.bn2"),
    (r"(layer[1-4]\.[01])\.(?:shortcut|downsample)\.0", r"\1.skip.conv"),
    (r"(layer[1-4]\.[01])\.(?:shortcut|downsample)\.1", r"\1.skip.bn"),
    (r"post_convolution", "head"),
)
_POSITION = "pos_embed1"
_OF_TRAINING = re.compile(r"conv_semantic(_k)?\b.*|queue.*")  # of LIIR
_STATISTICS = {"running_mean": "mean", "running_var": "var"}
_LISTED = 5  # names in a message
_READ: dict[Method, tuple[Matching, Inference, Literal["lab", "rgb"]]] = {
    "corrflow": (
        Matching(radius=6, scale=1.0, border="mask", alignment="bilinear"),
        Inference(References((), (1,)), feedback="hard"),
        "rgb",
    ),
    "mast": (
        Matching(radius=12, scale=1.0, border="zeros", alignment="sampled"),
        Inference(References((0, 5), (1, 3, 5)), feedback="hard", roi_search=15),
        "lab",
    ),
    "liir": (
        Matching(radius=14, scale=1.0, border="zeros", alignment="sampled"),
        Inference(References((0, 5), (1, 3, 5)), feedback="hard", compactness=2),
        "lab",
    ),
}


def convert(path: Path, like: Method | None = None) -> Weights:
    """Weights from a checkpoint, read as its method reads.

    Args:
        path: a checkpoint of torch, or a safetensors file with the same names.
        like: whose it is; None tells CorrFlow's by the prefix ``module.``, and LIIR's by its position encoding.

    Raises:
        InputError: it cannot be opened safely, or is of another network: what is unknown or missing is listed.
        UsageError: no such method.
    """
    if like is not None and like not in get_args(Method):
        raise UsageError(f"--like {like}", "no such method", f"give {', '.join(get_args(Method))}")
    found = _tensors(path)
    named = {_plain(name): tensor for name, tensor in found.items()}
    net = ResNetConfig()
    if _POSITION in named:
        net = ResNetConfig(position=_position(path, named[_POSITION]))
    told: Method = "corrflow" if all(name.startswith("module.") for name in found) else "mast"
    method = like or ("liir" if _POSITION in named else told)
    params, stats, unknown = _renamed(named)
    if unknown:
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        what = f"holds {len(unknown)} tensors that are not of this network: {', '.join(unknown[:_LISTED])}{more}"
        raise InputError(path, what, "give a release of CorrFlow, MAST or LIIR, or one of the same network")
    with torch.device("meta"):
        wanted_params, wanted_stats = network.init(net, rng.generator(0, "shapes"))
    if missing := sorted((wanted_params.keys() - params.keys()) | (wanted_stats.keys() - stats.keys())):
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        what = f"lacks {', '.join(missing[:_LISTED])}{more} of this network"
        raise InputError(path, what, "give a checkpoint with a head (post_convolution) and its running statistics")
    check_shapes(path, wanted_params, params)
    check_shapes(path, wanted_stats, stats)
    matching, inference, space = _READ[method]
    meta = {"converted": method, "source": path.name, "source_sha256": sha256(path)}
    return Weights(params, stats, net, matching, inference, meta, space=space)


def _tensors(path: Path) -> Tensors:
    """The tensors of a checkpoint by name."""
    if not path.is_file():
        raise InputError(path, "no such file", "check the path")
    try:
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load(path.read_bytes())
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        what, advice = "holds more than plain tensors, and is not opened", "save its state_dict alone with torch.save"
        raise InputError(path, what, advice) from None
    except Exception as error:  # on damaged bytes the readers raise errors of many kinds
        reason = " ".join(str(error).split())[:100]
        raise InputError(path, f"is no readable checkpoint ({reason})", "give an undamaged file") from None
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {k: v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise InputError(path, "holds no tensors by name", "save a state_dict with torch.save")
    return tensors


def _plain(name: str) -> str:
    return name.removeprefix("module.").removeprefix("feature_extraction.")


def _position(path: Path, tensor: Tensor) -> PositionConfig:
    """The position encoding that a learned map [c s s] or [1 c s s] asks for."""
    if tensor.ndim not in (3, 4) or tensor.shape[-1] != tensor.shape[-2] or (tensor.ndim == 4 and tensor.shape[0] != 1):
        shape = "x".join(map(str, tensor.shape))
        raise InputError(path, f"holds {_POSITION} of {shape}, not channels x side x side", "give a release of LIIR")
    return PositionConfig("1dape", size=tensor.shape[-1])


def _renamed(found: Tensors) -> tuple[Tensors, Tensors, list[str]]:
    """(params, stats, names that are not of this network)."""
    params, stats, unknown = {}, {}, []
    for full, tensor in found.items():
        name, _, kind = full.rpartition(".")
        if kind == "num_batches_tracked" or _OF_TRAINING.fullmatch(full):
            continue
        if full == _POSITION:
            params["position.map"] = tensor.float().reshape(tensor.shape[-3:])
            continue
        ours = next((re.sub(rule, new, name) for rule, new in _RULES if re.fullmatch(rule, name)), None)
        if ours is None:
            unknown.append(full)
        elif kind in _STATISTICS:
            stats[f"{ours}.{_STATISTICS[kind]}"] = tensor.float()
        else:
            params[f"{ours}.{kind}"] = tensor.float()
    return params, stats, unknown
