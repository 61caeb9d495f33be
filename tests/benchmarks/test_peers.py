"""What stands beside the operators does the same work."""

from __future__ import annotations

import pytest
import torch

from benchmarks import peers
from tests.bench.test_operators import CPU, SMALL, error_of
from vcorr.bench import truth
from vcorr.bench.cases import Setting


@pytest.mark.parametrize("name", SMALL)
def test_peers_are_right(name: str) -> None:
    setting = Setting(SMALL[name], CPU, torch.float32)
    ready = {k: p for k, p in peers.peers_of(setting, full=False).items() if not (p.obstacle or p.compiled)}
    assert ready
    for peer in ready.values():
        assert error_of(peer.make(setting), setting.case) < truth.tolerance(torch.float32)
