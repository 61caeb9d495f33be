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
hypothesis.settings.register_profile("few", deadline=None, max_examples=ALL // 20)
hypothesis.settings.load_profile("some")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-case", action="store_true", help="run the last case of each test that this machine runs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--one-case"):
        return
    last: dict[str, pytest.Item] = {}
    for item in items:
        name = item.nodeid.partition("[")[0]
        if name not in last or not _is_skipped(item):
            last[name] = item
    chosen = set(last.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


def _is_skipped(item: pytest.Item) -> bool:
    return item.get_closest_marker("skip") is not None or any(
        m.args[:1] == (True,) for m in item.iter_markers("skipif")
    )


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
