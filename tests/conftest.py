"""What many tests need: a small video, its first mask, an encoder."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
import torch
from PIL import Image

from tests.examples import ALL
from tests.toys import save_mask, scene
from vcorr import rng
from vcorr.matching.settings import Matching
from vcorr.model import network
from vcorr.model.inference import Inference
from vcorr.model.resnet import ResNetConfig
from vcorr.model.weights import Weights, save_weights

torch.set_num_threads(1)

# A busy machine is no failure. CI takes every example (--hypothesis-profile all), a share of them does elsewhere.
hypothesis.settings.register_profile("all", deadline=None, max_examples=ALL)
hypothesis.settings.register_profile("some", deadline=None, max_examples=ALL // 10)
hypothesis.settings.load_profile("some")


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A folder of eight frames of the scene."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for step in range(8):
        Image.fromarray(scene(step)[0]).save(folder / f"{step:05d}.png")
    return folder


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """The mask of its first frame."""
    return save_mask(tmp_path / "mask.png", scene(0)[1])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A tiny encoder, untrained."""
    net = ResNetConfig(widths=(8, 8, 8, 8), features=8)
    params, stats = network.init(net, rng.generator(0, "init"))
    path = tmp_path / "tiny.safetensors"
    save_weights(path, Weights(params, stats, net, Matching(radius=4), Inference(), {}))
    return path
