"""Every shipped recipe, stopped within each of its stages, ends as if it had not been."""

from __future__ import annotations

import os
import signal

import pytest

from tests.training.runs import EVERY_STEP, assert_same_run
from vcorr import recipe
from vcorr.training import Stopped, train

STEPS = 3
TINY = {
    **{"net.widths": "8,8,8,8", "net.features": "8", "radius": "2", "jitter.share": "0.5"},
    **{"batch": "2", "steps": str(STEPS), "warmup": "0", "size": "24", "smallest": "20", "read": "48"},
}


def tiny(name):
    """Overrides of each key that the recipe has, by its whole name or its last part; a memory clip fits the videos."""
    keys = recipe.flatten(recipe.load(name).config)
    pairs = {key: TINY.get(key) or TINY.get(key.rpartition(".")[2]) for key in keys}
    pairs |= {key: "8" for key, value in keys.items() if key.endswith(".frames") and value > 8}
    return [f"{key}={value}" for key, value in pairs.items() if value]


@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_stopped_within_each_stage_it_ends_as_if_it_had_not_been(films, tmp_path, name):
    experiment = recipe.load(name, tiny(name))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(experiment, films, whole, options=EVERY_STEP)
    for phase in experiment.recipe.phases:

        def stop(progress, name=phase.name):
            if (progress.phase, progress.step) == (name, STEPS - 1):
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Stopped):
            train(experiment, films, parts, options=EVERY_STEP, report=stop)
    train(experiment, films, parts, options=EVERY_STEP)
    assert_same_run(parts, whole)
