"""What the encoders share: convolution with batch normalisation, the basic block, and folding one into the other.

Names are the checkpoint's: ``conv`` "layer1.0.conv1" has the norm "layer1.0.bn1", "stem.conv" has "stem.bn".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vcorr.model import nn
from vcorr.model.nn import Tensors


@dataclass
class Building:
    """Fresh parameters and running statistics, collected layer by layer; ``rng`` draws the weights in that order."""

    rng: torch.Generator
    params: Tensors = field(default_factory=dict)
    stats: Tensors = field(default_factory=dict)

    def conv(self, name: str, inputs: int, outputs: int, size: int) -> None:
        """A convolution with bias and no norm."""
        self.params.update(nn.conv_init(name, inputs, outputs, size, self.rng, bias=True))

    def conv_norm(self, conv: str, inputs: int, outputs: int, size: int) -> None:
        """A convolution without bias, and its batch norm."""
        self.params.update(nn.conv_init(conv, inputs, outputs, size, self.rng))
        params, stats = nn.batch_norm_init(norm_of(conv), outputs)
        self.params.update(params)
        self.stats.update(stats)

    def block(self, name: str, inputs: int, outputs: int, stride: int) -> None:
        """A basic block; a 1x1 skip where its input differs from its output in size or channels."""
        self.conv_norm(f"{name}.conv1", inputs, outputs, 3)
        self.conv_norm(f"{name}.conv2", outputs, outputs, 3)
        if stride != 1 or inputs != outputs:
            self.conv_norm(f"{name}.skip.conv", inputs, outputs, 1)


@dataclass
class Running:
    """Layers applied to pictures, by their names.

    Attributes:
        params, stats: of the network; folded ones have no norms, which are then left out.
        train: normalise with this batch's statistics, else with the running ones.
        border: what convolutions see beyond the picture (``nn.conv``).
        seen: statistics after this batch, collected layer by layer.
    """

    params: Tensors
    stats: Tensors
    train: bool
    seen: Tensors = field(default_factory=dict)
    border: nn.Border = "zeros"

    def conv_norm(self, conv: str, x: Tensor, stride: int = 1) -> Tensor:
        y = nn.conv(self.params, conv, x, stride=stride, border=self.border)
        norm = norm_of(conv)
        if f"{norm}.weight" not in self.params:
            return y
        y, new = nn.batch_norm(self.params, self.stats, norm, y, train=self.train)
        self.seen.update(new)
        return y

    def block(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        """relu(norm(conv(relu(norm(conv(x))))) + x), the x at its end through the skip where there is one."""
        y = self.conv_norm(f"{name}.conv1", x, stride).relu_()
        y = self.conv_norm(f"{name}.conv2", y)
        if f"{name}.skip.conv.weight" in self.params:
            x = self.conv_norm(f"{name}.skip.conv", x, stride)
        return y.add_(x).relu_()


def norm_of(conv: str) -> str:
    """The name of a convolution's norm: conv -> bn, conv1 -> bn1 in the last part."""
    head, _, last = conv.rpartition(".")
    return f"{head}.{last.replace('conv', 'bn')}"


def fold(params: Tensors, stats: Tensors) -> tuple[Tensors, Tensors]:
    """Parameters with every batch normalisation folded into the convolution before it, for ``train=False``.

    With w' = w * g / sqrt(var + eps) and b' = beta - mean * g / sqrt(var + eps), conv' equals norm(conv) in exact
    arithmetic, at one pass over the activations less for each layer.
    """
    folded = {k: v for k, v in params.items() if ".bn" not in k}
    for bn in {k.removesuffix(".mean") for k in stats if k.endswith(".mean")}:
        conv = bn.replace("bn", "conv")
        gain = params[f"{bn}.weight"] / torch.sqrt(stats[f"{bn}.var"] + nn.EPSILON)
        folded[f"{conv}.weight"] = params[f"{conv}.weight"] * gain[:, None, None, None]
        folded[f"{conv}.bias"] = params[f"{bn}.bias"] - stats[f"{bn}.mean"] * gain
    return folded, {}
