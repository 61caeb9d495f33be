"""The implementations of the windowed reading agree: values, logsumexp and every gradient."""

from __future__ import annotations

import pytest
import torch

from vcorr.kernels import memory_read_lse


@pytest.mark.parametrize("window", ["square", "disk"])
@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize(
    ("h", "w", "radius", "dilation"),
    [
        pytest.param(1, 1, 2, 1, id="one-pixel"),
        pytest.param(5, 7, 2, 1, id="small"),
        pytest.param(9, 11, 1, 2, id="dilated"),
        pytest.param(3, 20, 4, 1, id="window-taller-than-frame"),
        pytest.param(17, 23, 3, (1, 2, 1), id="mixed-dilation"),
        pytest.param(6, 5, None, 1, id="unrestricted"),
        pytest.param(6, 9, (2, None, 1), 1, id="mixed-radius"),
    ],
)
def test_cpu_equals_reference(h, w, radius, dilation, border, window):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    inputs = draw(2, h, w, 5), draw(2, 3, h, w, 5), draw(2, 3, h, w, 3)
    grads = draw(2, h, w, 3), draw(2, h, w)
    results = []
    for impl in ("reference", "cpu"):
        leaves = [x.clone().requires_grad_() for x in inputs]
        options = {"radius": radius, "dilation": dilation, "border": border, "window": window, "scale": 1.3}
        outputs = memory_read_lse(*leaves, **options, impl=impl)
        results.append([*outputs, *torch.autograd.grad(outputs, leaves, grads)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
