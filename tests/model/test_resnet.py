"""The encoder: its size, the shape and memory layout of its features, purity, folding."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
import torch

from vcorr import rng
from vcorr.model import layers, network, nn, resnet
from vcorr.model.resnet import ResNetConfig

TINY = ResNetConfig(widths=(4, 6, 8, 8), features=5)


def images(b, h, w, dtype=torch.float32):
    x = torch.rand(b, 3, h, w, generator=rng.generator(h, "test"), dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


def double(tensors):
    return {k: v.double() for k, v in tensors.items()}


def count(tensors):
    return sum(t.numel() for t in tensors.values())


def test_the_published_number_of_parameters():
    params, stats = resnet.init(ResNetConfig(), rng.generator(0, "init"))
    head = {k: v for k, v in params.items() if k.startswith("head.")}
    assert count(head) == 64 * 256 * 9 + 64 == 147_520
    assert count(params) - count(head) == 5_144_128
    assert count(params) == 5_291_648
    assert {k.rpartition(".")[0] for k in stats} == {k.rpartition(".")[0] for k in params if "bn" in k}


def test_init_draws_from_its_generator_alone():
    one, other = (resnet.init(TINY, rng.generator(0, "init"))[0] for _ in range(2))
    assert all(torch.equal(one[k], other[k]) for k in one)
    third = resnet.init(TINY, rng.generator(1, "init"))[0]
    assert not torch.equal(one["stem.conv.weight"], third["stem.conv.weight"])


@pytest.mark.parametrize(("h", "w"), [(32, 48), (33, 47), (1, 1), (5, 6), (61, 34)])
def test_features_are_a_quarter_of_the_picture_rounded_up_twice(h, w):
    params, stats = resnet.init(TINY, rng.generator(0, "init"))
    y, _ = resnet.apply(TINY, params, stats, images(2, h, w), train=False)
    assert y.shape == (2, ceil(ceil(h / 2) / 2), ceil(ceil(w / 2) / 2), 5)


@pytest.mark.parametrize("train", [True, False])
def test_features_of_channels_last_images_are_contiguous(train):
    params, stats = resnet.init(TINY, rng.generator(0, "init"))
    params = {k: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in params.items()}
    y, _ = resnet.apply(TINY, params, stats, images(2, 32, 40), train=train)
    assert y.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_unit_features_have_length_one_and_the_same_direction(dtype):
    params, stats = ({k: v.to(dtype) for k, v in d.items()} for d in resnet.init(TINY, rng.generator(0, "init")))
    x = images(1, 20, 24, dtype)
    free, _ = resnet.apply(TINY, params, stats, x, train=False)
    unit, _ = resnet.apply(replace(TINY, unit=True), params, stats, x, train=False)
    assert unit.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones_like(unit[..., 0]))
    torch.testing.assert_close(unit * free.to(unit.dtype).norm(dim=-1, keepdim=True), free.to(unit.dtype))


def test_every_layer_has_its_stride_and_channels(monkeypatch):
    """The table that the module opens with."""
    sizes: dict[str, tuple[int, ...]] = {}
    first: dict[str, int] = {}
    conv = nn.conv

    def watched(params, name, x, **options):
        y = conv(params, name, x, **options)
        sizes[name.split(".")[0]] = tuple(y.shape[1:])
        if "0.conv1" in name:
            first[name.split(".")[0]] = x.shape[-1] // y.shape[-1]
        return y

    monkeypatch.setattr(nn, "conv", watched)
    params, stats = resnet.init(ResNetConfig(), rng.generator(0, "init"))
    resnet.apply(ResNetConfig(), params, stats, images(1, 32, 32), train=False)
    assert first == {"layer1": 1, "layer2": 2, "layer3": 1, "layer4": 1}
    assert sizes == {
        "stem": (64, 16, 16),
        "layer1": (64, 16, 16),
        "layer2": (128, 8, 8),
        "layer3": (256, 8, 8),
        "layer4": (256, 8, 8),
        "head": (64, 8, 8),
    }


def test_a_cell_is_centred_on_its_pixel():
    """Mirrored weights see a mirrored picture alike: of 4n+1 pixels, cells j and n-j look at pixels 4j and 4(n-j)."""
    params, stats = (double(t) for t in resnet.init(TINY, rng.generator(0, "init")))
    mirrored = {k: v.flip(-1) if v.ndim == 4 else v for k, v in params.items()}
    x = images(1, 37, 41, torch.float64)
    y, _ = resnet.apply(TINY, params, stats, x, train=False)
    z, _ = resnet.apply(TINY, mirrored, stats, x.flip(-1), train=False)
    torch.testing.assert_close(z, y.flip(2))


def test_apply_leaves_its_arguments_alone():
    params, stats = resnet.init(TINY, rng.generator(0, "init"))
    before = {k: v.clone() for k, v in (params | stats).items()}
    _, new = resnet.apply(TINY, params, stats, images(2, 32, 40), train=True)
    assert all(torch.equal(v, before[k]) for k, v in (params | stats).items())
    assert new.keys() == stats.keys()
    assert not any(torch.equal(new[k], stats[k]) for k in stats)


def test_every_call_normalises_with_its_own_batch():
    """Frame after frame is not the clip at once; with running statistics it is."""
    params, stats = (double(t) for t in resnet.init(TINY, rng.generator(0, "init")))
    a, b = images(1, 32, 40, torch.float64), 0.2 * images(1, 32, 40, torch.float64).flip(2)
    together, seen = resnet.apply(TINY, params, stats, torch.cat([a, b]), train=True)
    alone, first = resnet.apply(TINY, params, stats, a, train=True)
    assert (together[:1] - alone).abs().max() > 1e-3
    _, second = resnet.apply(TINY, params, first, b, train=True)
    assert not torch.allclose(second["stem.bn.mean"], seen["stem.bn.mean"])
    together, _ = resnet.apply(TINY, params, stats, torch.cat([a, b]), train=False)
    alone, same = resnet.apply(TINY, params, stats, a, train=False)
    torch.testing.assert_close(together[:1], alone)
    assert all(torch.equal(same[k], stats[k]) for k in stats)


def test_every_parameter_gets_a_gradient():
    params, stats = resnet.init(TINY, rng.generator(0, "init"))
    params = {k: v.requires_grad_() for k, v in params.items()}
    y, _ = resnet.apply(TINY, params, stats, images(2, 32, 40), train=True)
    grads = torch.autograd.grad((y * images(2, 8, 10).sum() * y).sum(), list(params.values()))
    assert [k for k, g in zip(params, grads, strict=True) if not bool((g != 0).any())] == []


def test_folded_parameters_give_the_same_features():
    params, stats = (double(t) for t in resnet.init(TINY, rng.generator(0, "init")))
    for step in range(3):  # statistics, gains and shifts of a network that has learnt something
        _, stats = resnet.apply(TINY, params, stats, images(2, 32 + step, 40, torch.float64), train=True)
    generator = rng.generator(1, "test")
    params |= {k: v + 0.5 * torch.randn(v.shape, generator=generator) for k, v in params.items() if ".bn" in k}
    folded, none = layers.fold(params, stats)
    assert none == {}
    assert not any(".bn" in k or "bn." in k for k in folded)
    x = images(2, 45, 38, torch.float64)
    wanted, _ = resnet.apply(TINY, params, stats, x, train=False)
    got, seen = resnet.apply(TINY, folded, {}, x, train=False)
    assert seen == {}
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("change", [{"widths": (8, 8, 8)}, {"widths": (8, 0, 8, 8)}, {"features": 0}])
def test_an_impossible_network_is_refused(change):
    with pytest.raises(ValueError, match="four numbers from 1 on"):
        ResNetConfig(**change)


def test_each_frame_has_statistics_of_its_own():
    """A call a frame: no frame of the clip changes another's features, and the averages take them in turn."""
    params, stats = resnet.init(TINY, rng.generator(0, "init"))
    frames = [images(2, 16, 16), 3 * images(2, 17, 16)[..., :16, :]]
    features, after = network.apply_each(TINY, params, stats, frames, train=True)
    first, between = resnet.apply(TINY, params, stats, frames[0], train=True)
    second, wanted = resnet.apply(TINY, params, between, frames[1], train=True)
    assert torch.equal(features[0], first) and torch.equal(features[1], second)
    assert after.keys() == wanted.keys() and all(torch.equal(after[k], wanted[k]) for k in wanted)


def test_each_frame_comes_back_in_float32_from_autocast():
    params, stats = resnet.init(TINY, rng.generator(0, "init"))
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = network.apply_each(TINY, params, stats, [images(1, 8, 8)], train=False)
    assert features[0].dtype == torch.float32
