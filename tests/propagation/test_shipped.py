"""How well the weights that come with vcorr label: on a few small frames of the example, whose masks are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vcorr.evaluation.metrics.masks import jaccard
from vcorr.labels.label import MaskLabels
from vcorr.labels.masks import read_mask
from vcorr.media.video import open_video
from vcorr.model.encoder import Model
from vcorr.model.weights import load_weights
from vcorr.propagation.propagator import Propagator

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
FLOOR = 0.75


def test_the_shipped_weights_follow_the_goat() -> None:
    """Every third frame, a quarter as high: J of frames 6 and 12. The mask left where it was has 0.39 and 0.25."""
    given = read_mask(EXAMPLES / "goat_mask.png").ids
    labels = MaskLabels.of([given], given.shape, torch.device("cpu"))
    task = Propagator(Model.of(load_weights(), "cpu"), labels)
    scores = []
    with open_video(EXAMPLES / "goat.mp4") as video:
        for index in range(0, 13, 3):
            ids = task.step(video.frame(index, short_side=120), given if index == 0 else None)
            truth = HERE / "goat" / f"{index:05d}.png"
            if truth.exists():
                scores.append(jaccard(ids > 0, read_mask(truth).ids > 0))
    assert len(scores) == 2
    assert np.mean(scores) > FLOOR, scores
