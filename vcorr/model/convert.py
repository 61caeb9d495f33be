"""Weights of others' checkpoints under our names: of CorrFlow, MAST and LIIR, and of torchvision's ResNet-18.

    feature_extraction.conv1.0, .1               stem.conv, stem.bn
    feature_extraction.layer2.0.left.0, .1       layer2.0.conv1, layer2.0.bn1      (3, 4: conv2, bn2)
    feature_extraction.layer2.0.shortcut.0, .1   layer2.0.skip.conv, layer2.0.skip.bn
    post_convolution                             head

Names as in torchvision (conv1, bn1, layer2.0.conv1, layer2.0.downsample.0) are taken too, if the network is this one:
stride 4, no pooling, a head. CorrFlow keeps its tensors under ``state_dict`` with the prefix ``module.``. LIIR has a
learned position encoding, ``pos_embed1`` [c s s] or [1 c s s], which is position.map here; its second head at half the
resolution (conv_semantic, conv_semantic_k) and its queue serve training alone, and are left out.

Without a head, torchvision's names are those of its ResNet-18 (``model.resnet18``), of which layer3 is read, at stride
8 or 4, as the contrastive random walk does (CRW, Jabri et al. 2020): cosines, by a temperature of 0.05. CRW's own
checkpoint has the prefix ``encoder.model.``, may name a convolution conv1.1 for its padding, which reflects, and has a
head of training alone (selfsim_fc). What is not read is left out, and named in the file.

Checkpoints are pickles. They are opened by torch's reader of plain tensors alone, which runs no code of theirs.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import safetensors.torch
import torch
from torch import Tensor

from vcorr import rng
from vcorr.errors import InputError, UsageError
from vcorr.files import sha256
from vcorr.matching.settings import Matching
from vcorr.model import color, network
from vcorr.model.inference import Inference, References
from vcorr.model.nn import Tensors
from vcorr.model.position import PositionConfig
from vcorr.model.resnet import ResNetConfig
from vcorr.model.resnet18 import WIDTHS, ResNet18Config
from vcorr.model.weights import Weights, check_shapes

Method = Literal["corrflow", "mast", "liir", "crw", "torchvision"]
Stride = Literal[4, 8]

_PREFIXES = ("module.", "feature_extraction.", "encoder.model.", "backbone.")
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
_RESNET18_RULES = (
    (r"conv1(?:\.1)?", "stem.conv"),
    (r"bn1", "stem.bn"),
    (r"(layer[1-3]\.[01])\.(conv[12])(?:\.1)?", r"\1.\2"),
    (r"(layer[1-3]\.[01])\.(bn[12])", r"\1.\2"),
    (r"(layer[23]\.0)\.downsample\.0", r"\1.skip.conv"),
    (r"(layer[23]\.0)\.downsample\.1", r"\1.skip.bn"),
)
_POSITION = "pos_embed1"
_OF_TRAINING = re.compile(r"conv_semantic(_k)?\b.*|queue.*")  # of LIIR
_NOT_READ = re.compile(r"(layer4|fc|selfsim_fc)\..*")  # of torchvision's and CRW's
_STATISTICS = {"running_mean": "mean", "running_var": "var"}
_LISTED = 5  # names in a message
_WALK = (  # as --method walk reads
    Matching(radius=12, scale=1 / 0.05, border="mask", alignment="bilinear"),
    Inference(References((0,), tuple(range(1, 21)), whole=True, repeat=True), shape="disk", top_k=10),
)
_READ: dict[Method, tuple[Matching, Inference, color.Space]] = {
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
    "crw": (*_WALK, "imagenet"),
    "torchvision": (*_WALK, "imagenet"),
}


def convert(path: Path, like: Method | None = None, stride: Stride | None = None) -> Weights:
    """Weights from a checkpoint, read as its method reads.

    Args:
        path: a checkpoint of torch, or a safetensors file with the same names.
        like: whose it is; None tells CorrFlow's by the prefix ``module.``, LIIR's by its position encoding, CRW's by
            its prefix or head.
        stride: pixels a feature cell of torchvision's ResNet-18; None is 8.

    Raises:
        InputError: it cannot be opened safely, or is of another network: what is unknown or missing is listed.
        UsageError: no such method, or one of another network; a stride that the network does not have.
    """
    if like is not None and like not in get_args(Method):
        raise UsageError(f"--like {like}", "no such method", f"give {', '.join(get_args(Method))}")
    if stride is not None and stride not in get_args(Stride):
        raise UsageError(f"--stride {stride}", "no such stride", "give 4 or 8")
    found = _tensors(path)
    named = {_plain(name): tensor for name, tensor in found.items()}
    theirs = _is_resnet18(named)
    method = like or _told(found, named, theirs)
    if (method in ("crw", "torchvision")) != theirs:
        ours = "a network with a head" if not theirs else "torchvision's ResNet-18"
        methods = "crw or torchvision" if theirs else "corrflow, mast or liir"
        raise UsageError(f"--like {like}", f"{path} holds {ours}", f"give {methods}")
    if not theirs and stride == 8:
        raise UsageError("--stride 8", f"the network of {path} has stride 4", "leave it out")
    net: network.NetworkConfig
    if theirs:
        net = ResNet18Config(stride=stride or 8, border="reflect" if method == "crw" else "zeros")
    else:
        net = ResNetConfig(position=_position(path, named[_POSITION])) if _POSITION in named else ResNetConfig()
    left = {name: tensor for name, tensor in named.items() if not (theirs and _NOT_READ.fullmatch(name))}
    params, stats, unknown = _renamed(left, _RESNET18_RULES if theirs else _RULES)
    if unknown:
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        what = f"holds {len(unknown)} tensors that are not of this network: {', '.join(unknown[:_LISTED])}{more}"
        advice = "give a release of CorrFlow, MAST, LIIR or CRW, a ResNet-18 of torchvision, or one of the same network"
        raise InputError(path, what, advice)
    with torch.device("meta"):
        wanted_params, wanted_stats = network.init(net, rng.generator(0, "shapes"))
    if missing := sorted((wanted_params.keys() - params.keys()) | (wanted_stats.keys() - stats.keys())):
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        what = f"lacks {', '.join(missing[:_LISTED])}{more} of this network"
        head = "" if theirs else "a head (post_convolution) and "
        raise InputError(path, what, f"give a checkpoint with {head}its running statistics")
    check_shapes(path, wanted_params, params)
    check_shapes(path, wanted_stats, stats)
    matching, inference, space = _READ[method]
    meta = {"converted": method, "source": path.name, "source_sha256": sha256(path)}
    if unread := sorted({name.partition(".")[0] for name in named.keys() - left.keys()}):
        meta["left_out"] = ", ".join(unread)
    return Weights(params, stats, net, matching, inference, meta, space=space)


def _is_resnet18(named: Tensors) -> bool:
    """Whether it has torchvision's names and no head, and a layer4 of its width if it has one."""
    width = named["layer4.0.conv1.weight"].shape[:1] if "layer4.0.conv1.weight" in named else (WIDTHS[3],)
    blocks = {"layer1.0.conv1.weight", "layer1.0.conv1.1.weight"} & named.keys()
    return bool(blocks) and "post_convolution.weight" not in named and width == (WIDTHS[3],)


def _told(found: Tensors, named: Tensors, resnet18: bool) -> Method:
    """Whose a checkpoint is, by its names."""
    if resnet18:
        walk = any(name.removeprefix("module.").startswith(("encoder.model.", "selfsim_fc.")) for name in found)
        return "crw" if walk else "torchvision"
    if _POSITION in named:
        return "liir"
    return "corrflow" if all(name.startswith("module.") for name in found) else "mast"


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
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _position(path: Path, tensor: Tensor) -> PositionConfig:
    """The position encoding that a learned map [c s s] or [1 c s s] asks for."""
    if tensor.ndim not in (3, 4) or tensor.shape[-1] != tensor.shape[-2] or (tensor.ndim == 4 and tensor.shape[0] != 1):
        shape = "x".join(map(str, tensor.shape))
        raise InputError(path, f"holds {_POSITION} of {shape}, not channels x side x side", "give a release of LIIR")
    return PositionConfig("1dape", size=tensor.shape[-1])


def _renamed(found: Tensors, rules: Sequence[tuple[str, str]]) -> tuple[Tensors, Tensors, list[str]]:
    """(params, stats, names that are not of this network)."""
    params, stats, unknown = {}, {}, []
    for full, tensor in found.items():
        name, _, kind = full.rpartition(".")
        if kind == "num_batches_tracked" or _OF_TRAINING.fullmatch(full):
            continue
        if full == _POSITION:
            params["position.map"] = tensor.float().reshape(tensor.shape[-3:])
            continue
        ours = next((re.sub(rule, new, name) for rule, new in rules if re.fullmatch(rule, name)), None)
        if ours is None:
            unknown.append(full)
        elif kind in _STATISTICS:
            stats[f"{ours}.{_STATISTICS[kind]}"] = tensor.float()
        else:
            params[f"{ours}.{kind}"] = tensor.float()
    return params, stats, unknown
