"""Strided 1x1 convolutions over 1 to 16 channels against float64, in a process of its own. See test_nn.

python -m tests.model.narrow_skips THREADS ...
"""

from __future__ import annotations

import sys

import torch

from vcorr import rng
from vcorr.model import nn


def found(weight, x, slope):
    """The convolution, and the gradients of the weights and of x."""
    weight, x = weight.requires_grad_(), x.requires_grad_()
    y = nn.conv({"c.weight": weight}, "c", x, stride=2)
    return [y.detach(), *torch.autograd.grad(y, (weight, x), slope)]


def check(threads):
    torch.set_num_threads(threads)
    draws = rng.generator(0, "test")
    for channels in range(1, 17):
        for size in ((2, 24, 24), (3, 15, 17)):
            b, h, w = size
            weight = torch.randn(8, channels, 1, 1, generator=draws)
            x = torch.randn(b, channels, h, w, generator=draws)
            slope = torch.randn(b, 8, -(-h // 2), -(-w // 2), generator=draws)
            got = found(*(t.contiguous(memory_format=torch.channels_last) for t in (weight, x, slope)))
            wanted = found(weight.double(), x.double(), slope.double())
            for name, a, b in zip(("y", "weight", "x"), got, wanted, strict=True):
                error = (a - b).abs().max() / b.abs().max()
                assert error < 1e-5, (
                    f"{channels} channels of {size}, {threads} threads: {name} is off by {error:.1e} of its largest"
                )


if __name__ == "__main__":
    for number in sys.argv[1:]:
        check(int(number))
