"""Position encodings: their formulas, other sizes, and what negatives get."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from vcorr import rng
from vcorr.config import from_json, to_json
from vcorr.model import network, position
from vcorr.model.position import PositionConfig
from vcorr.model.resnet import ResNetConfig

CPU = torch.device("cpu")


def generators(count, seed=0):
    return [rng.generator(seed, "test", k) for k in range(count)]


def learned(kind, channels=8, size=6):
    cfg = PositionConfig(kind, size)
    draw = rng.generator(1, "test")
    params = {k: torch.randn(v.shape, generator=draw) for k, v in position.init(cfg, channels).items()}
    return cfg, params


def test_sines_are_those_of_the_formula():
    place = position.encode(PositionConfig("2dspe"), {}, 64, (5, 9), CPU)
    assert place.shape == (64, 5, 9)
    for y, x, i in [(0, 0, 0), (4, 8, 15), (3, 7, 5), (1, 8, 0)]:
        rate = 10_000 ** (4 * i / 64)
        got = [float(place[c, y, x]) for c in (2 * i, 2 * i + 1, 32 + 2 * i, 33 + 2 * i)]
        wanted = [math.sin(x / rate), math.cos(x / rate), math.sin(y / rate), math.cos(y / rate)]
        assert got == pytest.approx(wanted, abs=1e-6)


def test_sines_of_a_larger_picture_begin_with_those_of_a_smaller_one():
    small, large = (position.encode(PositionConfig("2dspe"), {}, 8, size, CPU) for size in [(3, 4), (7, 9)])
    torch.testing.assert_close(large[:, :3, :4], small)


def test_a_learned_map_is_added_as_it_is_at_its_own_size():
    cfg, params = learned("1dape")
    assert position.encode(cfg, params, 8, (6, 6), CPU) is params["position.map"]


def test_two_tables_lie_side_by_side_in_the_channels():
    cfg, params = learned("2dape")
    place = position.encode(cfg, params, 8, (6, 6), CPU)
    for y, x in [(0, 0), (5, 2), (1, 5)]:
        torch.testing.assert_close(place[:, y, x], torch.cat([params["position.x"][:, x], params["position.y"][:, y]]))


@pytest.mark.parametrize("kind", ["1dape", "2dape"])
@pytest.mark.parametrize("size", [(12, 9), (4, 5), (6, 1)])
def test_at_other_sizes_the_map_spans_the_picture(kind, size):
    """Resized bicubically: a constant map stays so, and two tables are resized like the map that they make."""
    cfg, params = learned(kind)
    flat = {k: torch.full_like(v, 3.0) for k, v in params.items()}
    torch.testing.assert_close(position.encode(cfg, flat, 8, size, CPU), torch.full((8, *size), 3.0))
    whole = position.encode(cfg, params, 8, (6, 6), CPU)[None]
    wanted = F.interpolate(whole, size, mode="bicubic", align_corners=False)[0]
    torch.testing.assert_close(position.encode(cfg, params, 8, size, CPU), wanted)


def test_a_map_of_twice_the_size_keeps_its_slope():
    ramp = torch.arange(16.0).expand(4, 16, 16).contiguous()
    place = position.encode(PositionConfig("1dape", 16), {"position.map": ramp}, 4, (32, 32), CPU)
    x = torch.arange(32.0)
    torch.testing.assert_close(place[0, 8, 6:26], ((x + 0.5) / 2 - 0.5)[6:26], rtol=0, atol=0.05)  # cubic, a = -3/4


@pytest.mark.parametrize(("kind", "count"), [("none", 0), ("2dspe", 0), ("1dape", 8 * 36), ("2dape", 8 * 6)])
def test_learned_encodings_begin_at_zero(kind, count):
    params = position.init(PositionConfig(kind, 6), 8)
    assert sum(v.numel() for v in params.values()) == count
    assert not any(v.any() for v in params.values())


# --- modulation ----------------------------------------------------------------------------------------------------


def test_shifting_rolls_each_picture_by_its_own_draw():
    place = torch.randn(8, 5, 7, generator=rng.generator(0, "test"))
    moved = position.modulate(place, "shifting", generators(20))
    shifts = [
        [(dy, dx) for dy in range(5) for dx in range(7) if torch.equal(torch.roll(place, (dy, dx), (1, 2)), m)]
        for m in moved
    ]
    assert all(len(found) == 1 for found in shifts)
    assert len({found[0] for found in shifts}) > 10  # of 35


def test_shifts_are_uniform_over_the_whole_map():
    place = torch.arange(12.0).reshape(1, 3, 4)
    corners = position.modulate(place, "shifting", generators(2400))[:, 0, 0, 0]
    counts = torch.bincount(corners.long(), minlength=12)
    assert counts.min() > 140 and counts.max() < 260  # 200 each expected, standard deviation 14


def test_shuffling_permutes_positions_and_keeps_channels_together():
    place = torch.arange(2 * 5 * 7.0).reshape(2, 5, 7)
    moved = position.modulate(place, "shuffling", generators(2))
    assert torch.equal(moved[:, 1] - moved[:, 0], torch.full((2, 5, 7), 35.0))
    assert torch.equal(moved[0, 0].flatten().sort().values, torch.arange(35.0))
    assert not torch.equal(moved[0], moved[1])
    neighbours = (moved[0, 0, :, 1:] - moved[0, 0, :, :-1]) % 7
    assert not bool((neighbours == 1).all())  # no shift


def test_none_leaves_positions_as_they_are():
    place = torch.randn(4, 3, 3, generator=rng.generator(0, "test"))
    assert torch.equal(position.modulate(place, "none", generators(2)), torch.stack([place, place]))


@pytest.mark.parametrize("how", ["shifting", "shuffling", "none"])
def test_modulated_positions_carry_no_gradient(how):
    place = torch.ones(4, 3, 3, requires_grad=True)
    assert not position.modulate(place, how, generators(2)).requires_grad


def test_a_wrong_modulation_is_named():
    with pytest.raises(ValueError, match=r"modulation must be one of none, shifting, shuffling, got 'rolling'"):
        position.modulate(torch.zeros(1, 2, 2), "rolling", generators(1))


# --- in the encoder ------------------------------------------------------------------------------------------------


def net(kind, size=16):
    return ResNetConfig(widths=(8, 8, 8, 8), features=5, position=PositionConfig(kind, size))


def encoder(kind):
    cfg = net(kind)
    params, stats = network.init(cfg, rng.generator(0, "init"))
    draw = rng.generator(1, "test")
    params |= {k: torch.randn(v.shape, generator=draw) for k, v in params.items() if k.startswith("position.")}
    return cfg, params, stats


def pictures(b=2, h=32, w=32):
    return torch.rand(b, 3, h, w, generator=rng.generator(2, "test")).contiguous(memory_format=torch.channels_last)


def test_an_encoding_of_zeros_changes_nothing():
    cfg, params, stats = net("1dape"), *network.init(net("1dape"), rng.generator(0, "init"))
    plain, plain_stats = network.init(net("none"), rng.generator(0, "init"))
    assert params.keys() - plain.keys() == {"position.map"}
    y, _ = network.apply(cfg, params, stats, pictures(), train=True)
    z, _ = network.apply(net("none"), plain, plain_stats, pictures(), train=True)
    assert torch.equal(y, z)


@pytest.mark.parametrize("kind", ["2dspe", "1dape", "2dape"])
def test_constant_pictures_get_features_that_know_their_position(kind):
    cfg, params, stats = encoder(kind)
    grey = torch.full((1, 3, 96, 96), 0.3)
    y, _ = network.apply(cfg, params, stats, grey, train=False)
    plain, _ = network.apply(net("none"), params, stats, grey, train=False)
    inside = slice(9, 15)  # zero padding tells positions too, but little so far from the edge
    assert (y[0, inside, inside] - y[0, 12, 12]).abs().max() > 1e-2
    assert plain[0, inside, inside].std((0, 1)).max() < y[0, inside, inside].std((0, 1)).max() / 3


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (20, 64)])
@pytest.mark.parametrize("kind", ["2dspe", "1dape", "2dape"])
def test_the_position_is_added_to_what_the_stem_gives(kind, size, monkeypatch):
    """Whether by the configuration or as an argument; one for all pictures or one for each."""
    cfg, params, stats = encoder(kind)
    x = pictures(2, *size)
    wanted, _ = network.apply(cfg, params, stats, x, train=False)
    place = network.place(cfg, params, size)
    assert place.shape == (8, -(-size[0] // 2), -(-size[1] // 2))
    for given in (place, torch.stack([place, place])):
        got, _ = network.apply(net("none"), params, stats, x, train=False, position=given)
        torch.testing.assert_close(got, wanted)
    moved = torch.stack([place, torch.roll(place, 3, 1)])
    got, _ = network.apply(cfg, params, stats, x, train=False, position=moved)
    torch.testing.assert_close(got[0], wanted[0])
    assert (got[1] - wanted[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["1dape", "2dape"])
@pytest.mark.parametrize("size", [32, 40])
def test_learned_positions_get_a_gradient(kind, size):
    cfg, params, stats = encoder(kind)
    params = {k: v.requires_grad_() for k, v in params.items()}
    y, _ = network.apply(cfg, params, stats, pictures(2, size, size), train=True)
    own = [v for k, v in params.items() if k.startswith("position.")]
    assert all(bool((g != 0).all()) for g in torch.autograd.grad(y.square().sum(), own))


def test_features_stay_contiguous_and_folding_keeps_the_position():
    cfg, params, stats = encoder("1dape")
    x = pictures(1, 40, 48)
    wanted, _ = network.apply(cfg, params, stats, x, train=False)
    assert wanted.is_contiguous()
    folded, none = network.fold(params, stats)
    torch.testing.assert_close(network.apply(cfg, folded, none, x, train=False)[0], wanted, rtol=1e-4, atol=1e-5)


def test_the_stem_must_share_its_channels_out():
    with pytest.raises(ValueError, match="a multiple of 4 channels for position 2dspe, got 6"):
        ResNetConfig(widths=(6, 8, 8, 8), position=PositionConfig("2dspe"))
    with pytest.raises(ValueError, match="a multiple of 2 channels for position 2dape, got 5"):
        ResNetConfig(widths=(5, 8, 8, 8), position=PositionConfig("2dape"))
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        PositionConfig(size=0)
    with pytest.raises(ValueError, match="kind must be 2dspe"):
        position.encode(PositionConfig(), {}, 8, (2, 2), CPU)


def test_configurations_written_before_there_were_positions_are_read():
    assert from_json(ResNetConfig, {"widths": [8, 8, 8, 8], "features": 5}) == ResNetConfig((8, 8, 8, 8), 5)
    assert from_json(ResNetConfig, to_json(net("2dspe"))) == net("2dspe")
