"""Checkpoints under others' names: the same features, how they are read, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.model.plain_resnet18 import drawn
from vcorr import rng
from vcorr.cli import app
from vcorr.errors import InputError, UsageError
from vcorr.model import network
from vcorr.model.convert import convert
from vcorr.model.position import PositionConfig
from vcorr.model.resnet import ResNetConfig
from vcorr.model.resnet18 import ResNet18Config
from vcorr.model.weights import load_weights

NET = ResNetConfig()
RELEASED = (
    (r"^stem\.conv", "feature_extraction.conv1.0"),
    (r"^stem\.bn", "feature_extraction.conv1.1"),
    (r"^(layer.\..)\.skip\.conv", r"feature_extraction.\1.shortcut.0"),
    (r"^(layer.\..)\.skip\.bn", r"feature_extraction.\1.shortcut.1"),
    (r"^(layer.\..)\.conv1", r"feature_extraction.\1.left.0"),
    (r"^(layer.\..)\.bn1", r"feature_extraction.\1.left.1"),
    (r"^(layer.\..)\.conv2", r"feature_extraction.\1.left.3"),
    (r"^(layer.\..)\.bn2", r"feature_extraction.\1.left.4"),
    (r"^head", "post_convolution"),
)
TORCHVISION = (
    (r"^stem\.conv", "conv1"),
    (r"^stem\.bn", "bn1"),
    (r"\.skip\.conv", ".downsample.0"),
    (r"\.skip\.bn", ".downsample.1"),
    (r"^head", "post_convolution"),
)


def renamed(rules) -> dict[str, torch.Tensor]:
    params, stats = network.init(NET, rng.generator(3, "init"))
    found = {}
    for name, tensor in (params | stats).items():
        for rule, new in rules:
            name = re.sub(rule, new, name)
        name = re.sub(r"\.mean$", ".running_mean", re.sub(r"\.var$", ".running_var", name))
        found[name] = tensor
        if name.endswith(".running_var"):
            found[name.replace("running_var", "num_batches_tracked")] = torch.tensor(5)
    return found


@pytest.mark.parametrize("rules", [RELEASED, TORCHVISION])
def test_features_are_the_same(tmp_path, rules) -> None:
    path = tmp_path / "release.pt"
    torch.save(renamed(rules), path)
    weights = convert(path)
    params, stats = network.init(NET, rng.generator(3, "init"))
    image = torch.rand(1, 3, 32, 40, generator=rng.generator(0, "image"))
    ours, theirs = (
        network.apply(NET, p, s, image, train=False)[0] for p, s in ((params, stats), (weights.params, weights.stats))
    )
    assert torch.equal(ours, theirs)
    assert (weights.meta["converted"], weights.space, weights.matching.border) == ("mast", "lab", "zeros")


@pytest.mark.parametrize("shape", [(64, 6, 6), (1, 64, 6, 6)])
def test_liir_is_told_by_its_position_encoding(tmp_path, shape) -> None:
    path = tmp_path / "liir.pt"
    of_training = {"conv_semantic.weight": torch.ones(1), "conv_semantic_k.bias": torch.ones(1), "queue": torch.ones(2)}
    place = torch.randn(shape, generator=rng.generator(1, "place"))
    torch.save(
        {"state_dict": {**renamed(TORCHVISION), **of_training, "pos_embed1": place, "queue_ptr": place[:1]}}, path
    )
    weights = convert(path)
    assert weights.net == ResNetConfig(position=PositionConfig("1dape", size=6))
    assert (weights.meta["converted"], weights.space) == ("liir", "lab")
    assert (weights.matching.radius, weights.inference.compactness) == (14, 2)
    params, stats = network.init(NET, rng.generator(3, "init"))
    image = torch.rand(1, 3, 12, 12, generator=rng.generator(0, "image"))  # its stem has the size of the map
    ours = network.apply(weights.net, weights.params, weights.stats, image, train=False)[0]
    map_ = place.reshape(64, 6, 6)
    assert torch.equal(ours, network.apply(NET, params, stats, image, train=False, position=map_)[0])
    torch.save({**renamed(TORCHVISION), "pos_embed1": torch.zeros(64, 6, 7)}, path)
    with pytest.raises(InputError, match="holds pos_embed1 of 64x6x7, not channels x side x side"):
        convert(path)


def test_corrflow_is_told_by_its_prefix_and_the_file_is_read_back(tmp_path) -> None:
    path, out = tmp_path / "corrflow.pt", tmp_path / "corrflow.safetensors"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in renamed(RELEASED).items()}}, path)
    told = CliRunner().invoke(app, ["weights", "convert", str(path), str(out)], catch_exceptions=False)
    assert told.stdout == f"{out}: 5291648 parameters, read as corrflow\n"
    weights = load_weights(out)
    assert (weights.space, weights.matching.radius, weights.inference.references.short) == ("rgb", 6, (1,))
    assert convert(path, "mast").space == "lab"
    assert "converted=corrflow" in CliRunner().invoke(app, ["weights", str(out)], catch_exceptions=False).stdout
    with pytest.raises(UsageError, match="--like uvc: no such method; give corrflow, mast, liir, crw, torchvision"):
        convert(path, "uvc")
    with pytest.raises(UsageError, match=r"--like crw: .*corrflow.pt holds a network with a head"):
        convert(path, "crw")
    with pytest.raises(UsageError, match=r"--stride 8: the network of .* has stride 4"):
        convert(path, stride=8)


def cosines(net, image) -> torch.Tensor:
    """The features [b h w c] of torchvision's network."""
    return torch.nn.functional.normalize(net(image).permute(0, 2, 3, 1), dim=-1)


@pytest.mark.parametrize("padded", [False, True], ids=["", "as a module"])
def test_crw_is_read_as_its_authors_read_it(tmp_path, padded) -> None:
    path, out, net = tmp_path / "pretrained.pth", tmp_path / "crw.safetensors", drawn(mode="reflect")
    named = {f"encoder.model.{k}": v for k, v in net.state_dict().items() if not k.startswith("fc")}
    if padded:  # a convolution after a module that pads, as in the released file
        named = {re.sub(r"(conv[12])\.weight", r"\1.1.weight", k): v for k, v in named.items()}
    named |= {"selfsim_fc.0.weight": torch.zeros(128, 512), "selfsim_fc.0.bias": torch.zeros(128)}
    torch.save({"epoch": 24, "model": named}, path)
    told = CliRunner().invoke(app, ["weights", "convert", str(path), str(out)], catch_exceptions=False)
    assert told.stdout == f"{out}: 2782784 parameters, read as crw; left out: layer4, selfsim_fc\n"
    weights = load_weights(out)
    image = torch.rand(2, 3, 41, 56, generator=rng.generator(0, "image"))
    features, _ = network.apply(weights.net, weights.params, weights.stats, image, train=False)
    assert features.shape == (2, 6, 7, 256)
    torch.testing.assert_close(features, cosines(net, image))
    assert (weights.space, weights.matching.radius, weights.matching.scale) == ("imagenet", 12, 20)
    read = weights.inference
    assert (read.shape, read.top_k, read.feedback, read.references.long) == ("disk", 10, "soft", (0,))
    assert (read.references.short[-1], read.references.whole, read.references.repeat) == (20, True, True)
    assert convert(path, "torchvision").net == ResNet18Config()


@pytest.mark.parametrize(("stride", "strides"), [(8, (1, 2, 1, 1)), (4, (1, 1, 1, 1))])
def test_resnet_18_of_torchvision_at_both_strides(tmp_path, stride, strides) -> None:
    path, net = tmp_path / "resnet18.pth", drawn(strides)
    torch.save(net.state_dict(), path)
    weights = convert(path, stride=stride)
    image = torch.rand(1, 3, 33, 40, generator=rng.generator(0, "image"))
    features, _ = network.apply(weights.net, weights.params, weights.stats, image, train=False)
    assert features.shape[1:3] == (-(-33 // stride), 40 // stride) and weights.net.stride == stride
    torch.testing.assert_close(features, cosines(net, image))
    assert (weights.meta["converted"], weights.meta["left_out"]) == ("torchvision", "fc, layer4")


def test_another_resnet_is_refused(tmp_path) -> None:
    path, named = tmp_path / "other.pth", drawn().state_dict()
    torch.save(named | {"layer1.0.conv3.weight": torch.zeros(256, 64, 1, 1)}, path)  # of ResNet-50
    with pytest.raises(InputError, match=r"1 tensors that are not of this network: layer1.0.conv3.weight"):
        convert(path)
    torch.save({k: v for k, v in named.items() if k != "layer3.1.bn2.running_var"}, path)
    with pytest.raises(InputError, match=r"lacks layer3.1.bn2.var of this network; .* with its running statistics"):
        convert(path)
    torch.save(named, path)
    with pytest.raises(UsageError, match=r"--like mast: .*other.pth holds torchvision's ResNet-18; give crw or torch"):
        convert(path, "mast")
    with pytest.raises(UsageError, match="--stride 5: no such stride; give 4 or 8"):
        convert(path, stride=5)


class Code:
    """Runs when it is unpickled by anyone less careful."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_what_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, tensors = tmp_path / "other.pt", renamed(RELEASED)
    torch.save(tensors | {"code": Code()}, path)
    with pytest.raises(InputError, match=r"other.pt: holds more than plain tensors, and is not opened"):
        convert(path)
    assert not (tmp_path / "ran").exists()
    torch.save(tensors | {"selfsim_fc.0.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}, path)
    with pytest.raises(
        InputError, match=r"holds 2 tensors that are not of this network: selfsim_fc.0.weight, fc.weight"
    ):
        convert(path)
    torch.save({k: v for k, v in tensors.items() if not k.startswith("post")}, path)
    with pytest.raises(InputError, match=r"lacks head.bias, head.weight of this network"):
        convert(path)
    torch.save(tensors | {"post_convolution.weight": torch.zeros(64, 512, 3, 3)}, path)
    with pytest.raises(InputError, match=r"head.weight has shape \[64, 512, 3, 3\], wanted \[64, 256, 3, 3\]"):
        convert(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="holds no tensors by name"):
        convert(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"other.pt"):
        convert(path)
    with pytest.raises(InputError, match="no such file"):
        convert(tmp_path / "nowhere.pt")
