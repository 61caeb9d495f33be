"""Runs of propagation on a few small frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vcorr.propagation.run import Request


@pytest.fixture
def request_for(frames: Path, mask: Path, weights: Path, tmp_path: Path) -> Callable[..., Request]:
    def make(out: str = "out", **changes: object) -> Request:
        given: dict[str, object] = {"video": str(frames), "labels": mask, "out": tmp_path / out, "weights": weights}
        return Request(**(given | changes))  # type: ignore[arg-type]

    return make
