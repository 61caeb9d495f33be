"""The pyramid encoder, and encoders as a family."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
import torch

from vcorr import rng
from vcorr.config import from_json, override, to_json
from vcorr.errors import UsageError
from vcorr.model import layers, network, pyramid, weights
from vcorr.model.network import NetworkConfig
from vcorr.model.position import PositionConfig
from vcorr.model.pyramid import PyramidConfig
from vcorr.model.resnet import ResNetConfig
from vcorr.model.resnet18 import ResNet18Config
from vcorr.training import recipe

TINY = PyramidConfig(stem=4, widths=(6, 8, 10), depth=2, lateral=7, features=5)


def images(b, h, w, dtype=torch.float32):
    x = torch.rand(b, 3, h, w, generator=rng.generator(h, "test"), dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


def double(tensors):
    return {k: v.double() for k, v in tensors.items()}


def random_statistics(cfg):
    """A network whose statistics have seen a few batches."""
    params, stats = (double(t) for t in network.init(cfg, rng.generator(0, "init")))
    for step in range(3):
        _, stats = network.apply(cfg, params, stats, images(2, 32 + step, 40, torch.float64), train=True)
    return params, stats


@pytest.mark.slow
def test_the_size_and_the_work_that_the_module_states():
    params, stats = pyramid.init(PyramidConfig(), rng.generator(0, "init"))
    assert sum(p.numel() for p in params.values()) == 2_941_536
    x = images(1, 480, 854)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        pyramid.apply(PyramidConfig(), params, stats, x, train=False)
    assert round(counter.get_total_flops() / 2e9) == 14


@pytest.mark.parametrize(
    ("cfg", "channels"),
    [
        (TINY, 18),
        (replace(TINY, unit=True), 18),
        (replace(TINY, widths=(6,)), 6),
        (replace(TINY, widths=(4, 5, 6, 7), depth=1), 18),
        (ResNetConfig(widths=(4, 4, 6, 8), features=5), 8),
        (ResNet18Config(), 256),
        (ResNet18Config(stride=4, border="reflect"), 256),
    ],
)
@pytest.mark.parametrize(("h", "w"), [(32, 40), (33, 47), (5, 9), (1, 1)])
def test_context_has_unit_parts_and_changes_no_feature(cfg, channels, h, w):
    params, stats = network.init(cfg, rng.generator(0, "init"))
    x = images(2, h, w)
    features, context = network.apply_with_context(cfg, params, stats, x)
    torch.testing.assert_close(features, network.apply(cfg, params, stats, x, train=False)[0], rtol=0, atol=0)
    assert context.shape == (2, ceil(ceil(ceil(h / 2) / 2) / 2), ceil(ceil(ceil(w / 2) / 2) / 2), channels)
    levels = cfg.widths[1:] if cfg.kind == "pyramid" and len(cfg.widths) > 1 else (channels,)
    for part in context.split(levels, -1):
        length = part.norm(dim=-1)
        assert (((length - 1).abs() < 1e-4) | (length == 0)).all()


def test_context_of_a_level_lies_over_its_pixels():
    """A bright square in the corner is seen in the corner of the context alone."""
    params, stats = pyramid.init(TINY, rng.generator(0, "init"))
    plain, square = torch.zeros(1, 3, 320, 320), torch.zeros(1, 3, 320, 320)
    square[..., :16, :16] = 5
    _, before = pyramid.apply_with_context(TINY, params, stats, plain)
    _, after = pyramid.apply_with_context(TINY, params, stats, square)
    changed = ((after - before).abs() > 1e-6).any(-1)[0]
    assert changed[0, 0] and not changed[25:].any() and not changed[:, 25:].any()


@pytest.mark.parametrize("cfg", [TINY, replace(TINY, widths=(6,)), replace(TINY, widths=(4, 4, 4, 4), depth=1)])
@pytest.mark.parametrize(("h", "w"), [(32, 40), (33, 47), (5, 9), (1, 1)])
def test_features_lie_on_the_grid_of_stride_4_whatever_the_size(cfg, h, w):
    params, stats = pyramid.init(cfg, rng.generator(0, "init"))
    y, _ = pyramid.apply(cfg, params, stats, images(2, h, w), train=False)
    assert y.shape == (2, ceil(h / cfg.stride), ceil(w / cfg.stride), cfg.features)
    assert y.is_contiguous()


def test_the_coarse_levels_tell_far_pixels_apart_and_the_fine_one_does_not():
    params, stats = pyramid.init(TINY, rng.generator(0, "init"))
    x = images(1, 160, 160)
    far = x.clone()
    far[..., :8] = 0  # 80 pixels and more from the middle
    for widths, reaches in (((6, 8, 10, 12), True), ((6,), False)):
        cfg = replace(TINY, widths=widths)
        params, stats = pyramid.init(cfg, rng.generator(0, "init"))
        one, other = (pyramid.apply(cfg, params, stats, y, train=False)[0][0, 20, 20] for y in (x, far))
        assert bool((one != other).any()) is reaches


def test_what_is_moved_by_whole_cells_of_the_coarsest_level_has_moved_features():
    params, stats = random_statistics(TINY)
    x = torch.zeros(1, 3, 512, 512, dtype=torch.float64)
    x[..., 224:256, 224:256] = images(1, 32, 32, torch.float64)
    y, _ = pyramid.apply(TINY, params, stats, x, train=False)
    moved, _ = pyramid.apply(TINY, params, stats, x.roll((16, 32), (2, 3)), train=False)
    middle = slice(54, 66)
    torch.testing.assert_close(moved[:, 58:70, 62:74], y[:, middle, middle])


@pytest.mark.parametrize("cfg", [TINY, replace(TINY, unit=True), replace(TINY, position=PositionConfig("2dspe"))])
def test_folding_changes_nothing_but_rounding(cfg):
    params, stats = random_statistics(cfg)
    x = images(1, 33, 47, torch.float64)
    wanted, _ = network.apply(cfg, params, stats, x, train=False)
    folded, none = layers.fold(params, stats)
    assert not none and not any(".bn" in name for name in folded)
    torch.testing.assert_close(network.apply(cfg, folded, none, x, train=False)[0], wanted)


def test_every_parameter_and_statistic_takes_part():
    params, stats = pyramid.init(TINY, rng.generator(0, "init"))
    params = {k: v.requires_grad_() for k, v in params.items()}
    y, seen = pyramid.apply(TINY, params, stats, images(2, 32, 40), train=True)
    y.square().sum().backward()
    assert all(p.grad is not None for p in params.values())
    assert seen.keys() == stats.keys()
    assert all(bool((seen[k] != stats[k]).any()) for k in stats)


def test_unit_features_have_length_1():
    cfg = replace(TINY, unit=True)
    params, stats = pyramid.init(cfg, rng.generator(0, "init"))
    y, _ = pyramid.apply(cfg, params, stats, images(1, 16, 16), train=False)
    torch.testing.assert_close(y.norm(dim=-1), torch.ones(1, 4, 4))


@pytest.mark.parametrize("change", [{"widths": ()}, {"widths": (8, 0)}, {"depth": 0}, {"stem": 0}, {"features": 0}])
def test_impossible_shapes_are_refused(change):
    with pytest.raises(ValueError, match="from 1 on"):
        PyramidConfig(**change)


def test_the_kind_picks_the_encoder_on_the_command_line():
    cfg = recipe.load("mast").config
    assert isinstance(cfg.net, ResNetConfig)
    assert override(cfg, ["net=pyramid", "net.depth=1"]).net == PyramidConfig(depth=1)
    assert override(cfg, ["net=pyramid", "net=resnet"]).net == ResNetConfig()
    with pytest.raises(UsageError, match="resnet, pyramid"):
        override(cfg, ["net=transformer"])


@pytest.mark.parametrize(
    "cfg", [TINY, ResNetConfig(widths=(4, 4, 4, 4)), PyramidConfig(widths=(4, 4, 4, 4)), ResNet18Config(4)]
)
def test_the_kind_is_kept_in_files(cfg, tmp_path):
    assert from_json(NetworkConfig, to_json(cfg)) == cfg
    params, stats = network.init(cfg, rng.generator(0, "init"))
    weights.save_weights(
        tmp_path / "w.safetensors", weights.Weights(params, stats, cfg, recipe.Matching(), recipe.Inference(), {})
    )
    assert weights.load_weights(tmp_path / "w.safetensors").net == cfg


def test_files_of_before_name_no_kind_and_hold_a_resnet():
    named = to_json(ResNetConfig(widths=(4, 4, 4, 4)))
    del named["kind"]
    assert from_json(NetworkConfig, named) == ResNetConfig(widths=(4, 4, 4, 4))
