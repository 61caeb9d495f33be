"""Layers as pure functions over flat dicts of tensors, whose names are the checkpoint's names.

``params`` holds what the optimiser moves (``"layer1.0.conv1.weight"``), ``stats`` the running statistics of batch
normalisation (``"layer1.0.bn1.mean"``). No function changes its arguments.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr import ranks

Tensors = dict[str, Tensor]
Border = Literal["zeros", "reflect"]

EPSILON = 1e-5  # added to the variance by batch normalisation
NARROW = 16  # channels, the widest block of oneDNN's 1x1 convolutions


def conv_init(name: str, inputs: int, outputs: int, size: int, rng: torch.Generator, *, bias: bool = False) -> Tensors:
    """Parameters of a ``size`` x ``size`` convolution, uniform in +-1/sqrt(fan-in) (He et al. 2015 with a = sqrt 5)."""
    bound = 1 / math.sqrt(inputs * size * size)
    shapes = {"weight": (outputs, inputs, size, size)} | ({"bias": (outputs,)} if bias else {})
    return {
        f"{name}.{k}": torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=rng)
        for k, shape in shapes.items()
    }


def conv(params: Tensors, name: str, x: Tensor, *, stride: int = 1, border: Border = "zeros") -> Tensor:
    """Convolution with padding that keeps ceil(size / stride): x [b c h w] -> [b d h' w'].

    Beyond the border are zeros, or the picture reflected; of a picture too small for that, its outermost pixels.

    On a CPU, a strided 1x1 kernel over few channels convolves every ``stride``-th pixel at stride 1, which is the same:
    oneDNN's gradient of such weights writes past its workspace where the channels fill no block
    (uxlfoundation/oneDNN#6035), so that one thread crashes, and several hang or return wrong numbers.
    """
    weight = params[f"{name}.weight"]
    if stride > 1 and weight.shape[-1] == 1 and weight.shape[1] < NARROW and x.device.type == "cpu":
        x, stride = x[..., ::stride, ::stride], 1
    padding = weight.shape[-1] // 2
    if border == "reflect" and padding:
        mode = "reflect" if min(x.shape[2:]) > padding else "replicate"
        x, padding = F.pad(x, (padding,) * 4, mode=mode), 0
    return F.conv2d(x, weight, params.get(f"{name}.bias"), stride, padding=padding)


def unit(features: Tensor) -> Tensor:
    """Features [... c] at length 1, at least in float32: a length of 64 squares loses too much in bfloat16."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def batch_norm_init(name: str, channels: int) -> tuple[Tensors, Tensors]:
    """Parameters (scale 1, shift 0) and running statistics (mean 0, variance 1)."""
    zeros, ones = (torch.full((channels,), value, dtype=torch.float32) for value in (0.0, 1.0))
    return {f"{name}.weight": ones, f"{name}.bias": zeros}, {f"{name}.mean": zeros.clone(), f"{name}.var": ones.clone()}


def batch_norm(
    params: Tensors, stats: Tensors, name: str, x: Tensor, *, train: bool, momentum: float = 0.1
) -> tuple[Tensor, Tensors]:
    """Batch normalisation (Ioffe & Szegedy 2015) over [b c h w]; over the whole batch inside ``ranks.parted``.

    Returns:
        The normalised x, and the statistics of this layer: updated by ``momentum`` of this batch when ``train``,
        else as they were.
    """
    mean, var = stats[f"{name}.mean"], stats[f"{name}.var"]
    if train and (parts := ranks.parts()) > 1:
        weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
        y, batch_mean, batch_var = _NormOverRanks.apply(x, weight, bias, parts)  # type: ignore[no-untyped-call]
        count = parts * x.numel() // x.shape[1]
        unbiased = batch_var * (count / (count - 1))
        return y, {
            f"{name}.mean": mean.lerp(batch_mean, momentum),
            f"{name}.var": var.lerp(unbiased, momentum),
        }
    if train:  # F.batch_norm writes into what it is given
        mean, var = mean.clone(), var.clone()
    y = F.batch_norm(x, mean, var, params[f"{name}.weight"], params[f"{name}.bias"], train, momentum, EPSILON)
    return y, {f"{name}.mean": mean, f"{name}.var": var}


class _NormOverRanks(torch.autograd.Function):
    """Batch normalisation with the statistics of all ranks, whose shares are of one size: y, mean, variance.

    With x^ = (x - mean) / sqrt(var + eps), g = dL/dy and means over the pixels of all ranks,
    dL/dx = (g - mean(g) - x^ mean(g x^)) * weight / sqrt(var + eps), where L is the sum of the ranks' losses.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor]:
        var, mean = torch.var_mean(_wide(x), (0, 2, 3), correction=0)
        means, variances = ranks.gather(torch.stack([mean, var]), parts).unbind(1)
        mean = means.mean(0)
        var = (variances + (means - mean).square()).mean(0)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.parts = parts
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, EPSILON), mean, var

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, var = ctx.saved_tensors
        across = (slice(None), None, None)
        rstd = torch.rsqrt(var + EPSILON)
        g, normed = _wide(gradient), (_wide(x) - mean[across]) * rstd[across]
        sums = torch.stack([g.sum((0, 2, 3)), (g * normed).sum((0, 2, 3))])
        count = ctx.parts * x.numel() // x.shape[1]
        g_mean, gx_mean = ranks.gather(sums, ctx.parts).sum(0) / count
        dx = (g - g_mean[across] - normed * gx_mean[across]) * (weight * rstd)[across]
        return dx.to(x.dtype), sums[1].to(weight.dtype), sums[0].to(weight.dtype), None


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
