"""What the machine has."""

from __future__ import annotations

import torch

from vcorr import machine


def test_bf16_is_asked_of_the_device():
    assert isinstance(machine.native_bf16(torch.device("cpu")), bool)
    assert machine.native_bf16(torch.device("meta")) is False
