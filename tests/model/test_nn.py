"""Layers as pure functions: against their formulas, arguments unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vcorr import rng
from vcorr.model import nn

ROOT = Path(__file__).parents[2]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=rng.generator(seed, "test"), dtype=torch.float64)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("border", ["zeros", "reflect"])
def test_conv_keeps_the_ceiling_of_size_over_stride(size, stride, border):
    params = {k: v.double() for k, v in nn.conv_init("c", 2, 3, size, rng.generator(0, "init")).items()}
    for height, width in ((7, 8), (1, 5)):
        y = nn.conv(params, "c", normal(1, 2, height, width), stride=stride, border=border)
        assert y.shape == (1, 3, -(-height // stride), -(-width // stride))


def test_beyond_a_reflecting_border_is_the_picture_reflected():
    params = {"c.weight": torch.zeros(1, 1, 3, 3)}
    params["c.weight"][0, 0, 0, 0] = 1  # reads the pixel up and to the left
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert nn.conv(params, "c", x, border="reflect").tolist() == [[[[4, 3, 4], [1, 0, 1]]]]
    alone = nn.conv(params, "c", x[..., :1, :1] + 7, border="reflect")  # too small to reflect
    assert alone.tolist() == [[[[7]]]]


def test_conv_is_centred_on_the_pixels_that_it_keeps():
    params = {"c.weight": torch.zeros(1, 1, 3, 3)}
    params["c.weight"][0, 0, 1, 1] = 1
    x = torch.arange(35.0).view(1, 1, 5, 7)
    assert torch.equal(nn.conv(params, "c", x, stride=2), x[..., ::2, ::2])


@pytest.mark.slow
@pytest.mark.parametrize("capped", [False, True], ids=["all instructions", "AVX2"])
def test_conv_with_strided_1x1_kernels_over_few_channels(capped):
    """Which oneDNN gets wrong by itself: it ends the process, hangs, or returns other gradients."""
    waiting = {"OMP_WAIT_POLICY": "PASSIVE"}  # more threads than cores
    environment = os.environ | waiting | ({"ONEDNN_MAX_CPU_ISA": "AVX2"} if capped else {})
    command = [sys.executable, "-m", "tests.model.narrow_skips", "1", "2", "8"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_conv_starts_uniform_in_the_inverse_root_of_the_fan_in():
    params = nn.conv_init("c", 64, 64, 3, rng.generator(0, "init"), bias=True)
    bound = (64 * 9) ** -0.5
    for weight in params.values():
        assert weight.abs().max() <= bound
    assert params["c.weight"].std() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_batch_norm_by_its_formula_with_the_batch_and_with_the_running_statistics():
    x, gain, shift = normal(2, 3, 4, 5), normal(3, seed=1), normal(3, seed=2)
    params = {"n.weight": gain, "n.bias": shift}
    stats = {"n.mean": normal(3, seed=3), "n.var": normal(3, seed=4).square()}

    def norm(mean, var):
        wide = (1, 3, 1, 1)
        return (x - mean.view(wide)) / (var.view(wide) + 1e-5).sqrt() * gain.view(wide) + shift.view(wide)

    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    y, new = nn.batch_norm(params, stats, "n", x, train=True)
    torch.testing.assert_close(y, norm(mean, var))
    torch.testing.assert_close(new["n.mean"], 0.9 * stats["n.mean"] + 0.1 * mean)
    torch.testing.assert_close(new["n.var"], 0.9 * stats["n.var"] + 0.1 * var * 40 / 39)  # the running one is unbiased
    y, same = nn.batch_norm(params, stats, "n", x, train=False)
    torch.testing.assert_close(y, norm(stats["n.mean"], stats["n.var"]))
    assert same == stats


def test_batch_norm_leaves_its_arguments_alone():
    params, stats = nn.batch_norm_init("n", 3)
    before = {k: v.clone() for k, v in (params | stats).items()}
    nn.batch_norm(params, stats, "n", normal(2, 3, 4, 5).float(), train=True)
    assert all(torch.equal(v, before[k]) for k, v in (params | stats).items())
