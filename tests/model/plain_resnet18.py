"""ResNet-18 (He et al. 2016) as modules with torchvision's names: what checkpoints of it are compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, mode: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False, padding_mode=mode)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False, padding_mode=mode)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """Gives layer3; strides are of layer1 to layer4."""

    def __init__(self, strides: tuple[int, ...] = (1, 2, 1, 1), mode: str = "zeros") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False, padding_mode=mode)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for k, (width, stride) in enumerate(zip((64, 128, 256, 512), strides, strict=True), start=1):
            blocks = Block(inputs, width, stride, mode), Block(width, width, 1, mode)
            setattr(self, f"layer{k}", nn.Sequential(*blocks))
            inputs = width
        self.fc = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer3(self.layer2(self.layer1(x)))


def drawn(strides: tuple[int, ...] = (1, 2, 1, 1), mode: str = "zeros") -> ResNet18:
    """One with weights and statistics that are not those of a fresh one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ResNet18(strides, mode).eval()
        for name, tensor in net.state_dict().items():
            if name.endswith(("running_mean", "bn1.bias")):
                tensor.normal_(0, 0.1)
            elif name.endswith(("running_var", "bn2.weight")):
                tensor.uniform_(0.5, 2)
    return net
