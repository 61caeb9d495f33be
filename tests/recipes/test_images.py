"""The recipe for still images: both stages on clips that homographies make, each image once an epoch."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from vcorr.training import recipe
from vcorr.training.loop import TrainOptions, train

TINY = [
    *("net.widths=8,8,8,8", "net.features=8", "matching.radius=2", "pairs.batch=4", "pairs.warmup=0", "memory.batch=2"),
    *(f"{clips}.{key}" for clips in ("clips", "memory_clips") for key in ("size=24", "smallest=24", "read=48")),
]


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Clouds of colour, of several sizes."""
    root = tmp_path_factory.mktemp("album")
    noise = np.random.default_rng(0)
    for k in range(9):
        coarse = Image.fromarray(noise.integers(0, 256, (6, 8, 3)).astype(np.uint8))
        coarse.resize((60 + 7 * k, 70), Image.Resampling.BICUBIC).save(root / f"{k}.png")
    return root


def test_both_stages_learn_from_stills(album, tmp_path):
    experiment = recipe.load("images", [*TINY, "pairs.steps=3", "memory.steps=2"])
    train(experiment, album, tmp_path / "run", options=TrainOptions(log_every=1))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        *(("pairs", k) for k in (1, 2, 3)), *(("memory", k) for k in (1, 2))
    ]  # fmt: skip
    assert all(line["loss"] is not None and line["skipped_steps"] == 0 for line in lines)


def test_it_is_the_momentum_memory_on_other_clips():
    images, video = (recipe.flatten(recipe.load(name).config) for name in ("images", "mast_momentum"))
    assert images.keys() == video.keys()
    assert {key.split(".")[0] for key in images if images[key] != video[key]} == {"clips", "memory_clips"}
    assert images["clips.source"] == images["memory_clips.source"] == "stills"
