"""A run with a slow encoder and a bank, in two stages: killed and resumed, and what each stage does to them."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
import torch

from tests import forked
from tests.training import slow_and_bank
from tests.training.runs import EVERY_STEP, assert_same_run, metrics, newest
from vcorr.errors import InputError, OutputError
from vcorr.model.weights import load_tensors, save_tensors
from vcorr.training import recipe
from vcorr.training.loop import Stopped, train

RECIPE = slow_and_bank.__file__


def run(films, out, *overrides, **options):
    return train(recipe.load(RECIPE, list(overrides)), films, out, options=EVERY_STEP, **options)


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    run(films, out)
    return out


def state(out, step):
    return load_tensors(out / "state" / f"{step:08d}.safetensors")[0]


def group(tensors, name):
    return {k.removeprefix(f"{name}/"): v for k, v in tensors.items() if k.startswith(f"{name}/")}


def test_twenty_steps_are_ten_a_kill_and_ten(films, tmp_path):
    steps = ["pairs.steps=4", "memory.steps=16", "memory.cooldown=0.5"]
    run(films, tmp_path / "whole", *steps)
    parts = tmp_path / "parts"
    command = ["-m", "tests.training.command", RECIPE, str(films), str(parts), *steps]
    killed = forked.run(*command, TEST_SIGNALS=f"0:0:6:{int(signal.SIGKILL)}")
    assert killed.code == -signal.SIGKILL, killed
    assert newest(parts).name == "00000010.safetensors"
    run(films, parts, *steps)
    assert_same_run(parts, tmp_path / "whole")
    assert int(state(parts, 20)["extra/pushed"]) == 16 * 4


def test_a_state_holds_the_slow_encoder_and_the_bank_in_the_stage_that_has_them(whole, films, tmp_path):
    with pytest.raises(Stopped):
        run(films, tmp_path / "pairs", report=stopper("pairs", 2))
    early = state(tmp_path / "pairs", 2)
    assert {k.split("/")[0] for k in early} == {"params", "stats", "moments"}
    late = state(whole, 8)
    for slow, fast in (("slow", "params"), ("slow_stats", "stats")):
        assert group(late, slow).keys() == group(late, fast).keys()
    assert late["extra/features"].shape == (6, 8) and late["extra/pushed"].dtype == torch.int64


def stopper(stage, step):
    def report(progress):
        if (progress.stage, progress.step) == (stage, step):
            signal.raise_signal(signal.SIGTERM)

    return report


@pytest.mark.parametrize("stop_at", [("pairs", 3), ("memory", 1), ("memory", 4)])
def test_a_stopped_run_goes_on_within_and_between_stages(films, tmp_path, whole, stop_at):
    out = tmp_path / "run"
    if stop_at == ("pairs", 3):  # killed when a stage had just been saved
        shutil.copytree(whole, out)
        with pytest.raises(Stopped):
            run(films, tmp_path / "early", report=stopper("memory", 1))
        shutil.rmtree(out / "state")
        shutil.copytree(tmp_path / "early" / "state", out / "state")
        (out / "state" / "00000004.safetensors").unlink()
        assert newest(out).name == "00000003.safetensors"
    else:
        with pytest.raises(Stopped):
            run(films, out, report=stopper(*stop_at))
    run(films, out)
    assert_same_run(out, whole)


def test_a_stage_that_is_left_out_first_leaves_nothing_in_the_states_to_come(films, tmp_path):
    """The memory stage, which starts a bank and a slow encoder, comes before the pairs here and has no steps."""
    turned = tmp_path / "turned.py"
    turned.write_text(
        "import dataclasses\nfrom tests.training.slow_and_bank import Config, build as base\n\n"
        "def build(cfg):\n    recipe = base(cfg)\n    return dataclasses.replace(recipe, stages=recipe.stages[::-1])\n"
    )
    out, said = tmp_path / "run", []

    def go(*overrides, **options):
        train(recipe.load(str(turned), list(overrides)), films, out, options=EVERY_STEP, **options)

    with pytest.raises(Stopped):
        go("memory.steps=0", report=stopper("pairs", 2))
    with pytest.raises(OutputError, match=r"memory\.steps 0 -> 2, but memory is over and pairs has begun"):
        go("memory.steps=2")
    go("memory.steps=0", say=said.append)
    assert "going on from step 2 of 3" in said
    assert not list(out.rglob("*.damaged"))


def test_the_slow_encoder_starts_as_the_fast_one_and_follows_it(films, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        run(films, out, report=stopper("memory", 1))
    before, after = state(out, 3), state(out, 4)
    for slow, fast in (("slow", "params"), ("slow_stats", "stats")):
        start, now = group(before, fast), group(after, fast)
        for name, tensor in group(after, slow).items():
            wanted = now[name] if name.startswith("head") else (start[name] + now[name]) / 2
            torch.testing.assert_close(tensor, wanted)
    assert not torch.equal(after["params/head.weight"], before["params/head.weight"])


def test_what_is_not_trained_stays_and_has_no_moments(whole, films, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        run(films, out, report=stopper("memory", 1))
    start, end = state(out, 3), state(whole, 8)
    fixed = {k for k in end if k.startswith("params/stem")}
    assert len(fixed) == 3 and all(torch.equal(start[k], end[k]) for k in fixed)
    assert not [k for k in end if k.startswith("moments/") and "/stem" in k]
    assert [k for k in start if k.startswith("moments/") and "/stem" in k]


def test_metrics_may_be_tensors(whole):
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert all(line["one"] == 1 and line["apart"] >= 0 for line in lines if line["stage"] == "memory")
    assert len(metrics(whole)) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda t: t.pop("slow/head.bias"), "lacks 1 tensors, first head.bias", id="slow-missing"),
        pytest.param(lambda t: t.pop("extra/pushed"), "lacks 1 tensors, first pushed", id="extra-missing"),
        pytest.param(
            lambda t: t.update({"extra/pushed": torch.tensor(0.0)}), "pushed is of type torch.float32", id="extra-type"
        ),
        pytest.param(
            lambda t: t.update({"slow_stats/stem.bn.mean": torch.zeros(3)}), "stem.bn.mean has shape", id="slow-shape"
        ),
    ],
)
def test_a_damaged_state_is_set_aside(films, tmp_path, whole, change, message):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    for file in (out / "state").glob("*.safetensors"):
        tensors, meta = load_tensors(file)
        change(tensors)
        save_tensors(file, tensors, meta)
    said = []
    with pytest.raises(InputError, match="no training state in it can be read"):
        run(films, out, say=said.append)
    assert message in said[0]
