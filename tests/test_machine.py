"""What the machine has."""

from __future__ import annotations

import torch

from vcorr import machine


def test_bf16_is_asked_of_the_device():
    assert isinstance(machine.native_bf16(torch.device("cpu")), bool)
    assert machine.native_bf16(torch.device("meta")) is False


def test_bf16_is_not_asked_of_instructions_that_the_environment_forbids(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    for used, expected in (("AVX512", True), ("AVX2", False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda used=used: used)
        assert machine.native_bf16(torch.device("cpu")) is expected
