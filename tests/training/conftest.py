"""Two small videos, and runs on them."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.training.runs import TWO_STAGES, Run
from vcorr.training.loop import Stopped


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """Two videos of coloured clouds that slide."""
    root = tmp_path_factory.mktemp("films")
    for name, (dy, dx) in {"a": (2, 4), "b": (-4, 0)}.items():
        (root / name).mkdir()
        coarse = np.random.default_rng(len(name) + dx).integers(0, 256, (5, 7, 3)).astype(np.uint8)
        world = np.asarray(Image.fromarray(coarse).resize((104, 80), Image.Resampling.BICUBIC))
        for k in range(12):
            picture = np.roll(world, (dy * k, dx * k), (0, 1))[:48, :64]
            Image.fromarray(picture).save(root / name / f"{k:03d}.png")
    return root


@pytest.fixture
def two_stages(tmp_path):
    path = tmp_path / "two_stages.py"
    path.write_text(TWO_STAGES)
    return str(path)


@pytest.fixture(scope="session")
def unbroken(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    Run(films, out)()
    return out


@pytest.fixture(scope="session")
def stopped_once(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped_once") / "run"
    with pytest.raises(Stopped):
        Run(films, out)(stop_at=("pairs", 5))
    return out


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A run of 12 steps that a signal stopped after 5; its plateau ends after 8."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    """Processes of their own wait; here only a loss of power would show the difference."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
