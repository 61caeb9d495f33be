"""Every shipped recipe, stopped within each of its stages or killed, ends as if it had not been."""

from __future__ import annotations

import os
import signal

import pytest

from tests import forked
from tests.training.runs import EVERY_STEP, assert_same_run, newest
from tests.training.together import side_by_side
from vcorr.model.weights import load_weights
from vcorr.training import recipe
from vcorr.training.loop import Stopped, TrainOptions, train

STEPS = 3
LAST_STEP = TrainOptions(log_every=1, save_every=1e9)  # the only one that is saved
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


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_stopped_within_each_stage_it_ends_as_if_it_had_not_been(films, tmp_path, name):
    experiment = recipe.load(name, tiny(name))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(experiment, films, whole, options=EVERY_STEP)
    for stage in experiment.recipe.stages:

        def stop(progress, name=stage.name):
            if (progress.stage, progress.step) == (name, STEPS - 1):
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Stopped):
            train(experiment, films, parts, options=EVERY_STEP, report=stop)
    train(experiment, films, parts, options=EVERY_STEP)
    assert_same_run(parts, whole)


def twenty(name):
    """Overrides for twenty steps in all, six of them before the last stage; and the step of that one after ten."""
    *early, last = [stage.name for stage in recipe.load(name).recipe.stages]
    steps = {stage: 6 // len(early) for stage in early}
    before = sum(steps.values())
    steps[last] = 20 - before
    return [*tiny(name), *(f"{stage}.steps={n}" for stage, n in steps.items())], f"{last}:{11 - before}"


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_twenty_steps_are_ten_a_kill_and_ten(films, tmp_path, name):
    overrides, kill = twenty(name)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe.load(name, overrides), films, whole, options=LAST_STEP)
    killed = forked.run("-m", "tests.training.command", name, str(films), str(parts), *overrides, TEST_KILL=kill)
    assert killed.code == -signal.SIGKILL, killed
    assert newest(parts).name == "00000010.safetensors"
    train(recipe.load(name, overrides), films, parts, options=LAST_STEP)
    assert newest(parts).name == "00000020.safetensors"
    assert_same_run(parts, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("mast_momentum", marks=pytest.mark.long), "liir"])
def test_so_they_are_on_two_processes_with_two_workers_each(films, tmp_path, name):
    """With a slow encoder, and with a bank that both write: the first is killed in that stage, and both start again."""
    overrides, kill = twenty(name)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    module, common = "tests.training.command", [name, str(films)]
    ended = side_by_side(module, *common, str(whole), *overrides, TEST_OPTIONS='{"workers": 2, "save_every": 1e9}')
    assert [code for code, _, _ in ended] == [0, 0], ended
    job = [module, *common, str(parts), *overrides]
    killed, alone = side_by_side(*job, TEST_OPTIONS='{"workers": 2}', TEST_KILL=kill)
    assert killed.code == -signal.SIGKILL and alone.code > 0, (killed, alone)
    first, second = side_by_side(*job, TEST_OPTIONS='{"workers": 2}')
    assert (first.code, second.code) == (0, 0), (first, second)
    assert "going on from step 10 of 20" in first.stdout.splitlines()
    assert_same_run(parts, whole)


@pytest.mark.parametrize("name", sorted(recipe.shipped()))
def test_every_recipe_trains_a_pyramid(films, tmp_path, name):
    net = ["net=pyramid", "net.stem=4", "net.widths=4,8", "net.lateral=8", "net.features=8"]
    unit = recipe.flatten(recipe.load(name).config)["net.unit"]
    rest = [pair for pair in tiny(name) if not pair.startswith("net.")]
    experiment = recipe.load(name, [*net, f"net.unit={unit}", *rest])
    assert load_weights(train(experiment, films, tmp_path / "run")).net == experiment.recipe.net
