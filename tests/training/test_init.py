"""A run that starts from weights instead of fresh ones."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

from tests.training.runs import Run, assert_same_run, newest
from vcorr.errors import InputError, OutputError
from vcorr.files import sha256
from vcorr.model.weights import load_weights, save_weights
from vcorr.training.loop import Stopped, TrainOptions


@pytest.fixture(scope="session")
def trained(unbroken, tmp_path_factory):
    return shutil.copy(unbroken / "weights.safetensors", tmp_path_factory.mktemp("trained") / "mine.safetensors")


def test_a_run_starts_from_the_parameters_and_statistics_of_the_weights(films, tmp_path, trained):
    """A step of no length leaves the parameters; running means move by a tenth a frame, here from far away."""
    start = load_weights(trained)
    far = start.stats | {"stem.bn.mean": torch.full((8,), 1000.0)}
    save_weights(tmp_path / "far.safetensors", dataclasses.replace(start, stats=far))
    out = tmp_path / "run"
    Run(films, out, "pairs.steps=1", "pairs.lr=1e-30")(init=tmp_path / "far.safetensors")
    got = load_weights(out / "weights.safetensors")
    assert all(torch.equal(v, got.params[k]) for k, v in start.params.items())
    torch.testing.assert_close(got.stats["stem.bn.mean"], torch.full((8,), 810.0), rtol=0, atol=1)
    assert got.meta["init"] == sha256(tmp_path / "far.safetensors")
    assert json.loads((out / "config.json").read_text())["init"] == got.meta["init"]


@pytest.mark.parametrize("again", [True, False])
def test_a_stopped_run_goes_on_whether_told_of_the_weights_or_not(films, tmp_path, trained, again):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Run(films, whole)(init=trained)
    with pytest.raises(Stopped):
        Run(films, parts)(stop_at=("pairs", 5), init=trained)
    Run(films, parts)(init=trained if again else None)
    assert_same_run(parts, whole)
    assert json.loads((parts / "config.json").read_text())["init"] == sha256(trained)


def test_a_run_that_began_from_other_weights_or_from_none_is_another_run(films, tmp_path, trained, stopped):
    with pytest.raises(OutputError, match=r"holds another run \(init None -> [0-9a-f]{12}\.\.\."):
        Run(films, stopped)(init=trained)
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        Run(films, out)(stop_at=("pairs", 2), init=trained)
    other = dataclasses.replace(load_weights(trained), meta={"by": "me"})
    save_weights(tmp_path / "other.safetensors", other)
    with pytest.raises(OutputError, match=r"holds another run \(init [0-9a-f]{12}\.\.\. -> [0-9a-f]{12}"):
        Run(films, out)(init=tmp_path / "other.safetensors")


def test_a_run_without_a_state_must_be_told_again(films, tmp_path, trained):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        Run(films, out)(stop_at=("pairs", 2), init=trained, options=TrainOptions(1, 1e9))
    shutil.rmtree(out / "state")
    with pytest.raises(OutputError, match=r"holds no training state yet; give those by --init again"):
        Run(films, out)()
    Run(films, out)(init=trained)


def test_weights_that_do_not_fit_are_refused(films, tmp_path, trained, weights):
    with pytest.raises(InputError, match=r"another network than the recipe's \(net\.unit True -> False\)"):
        Run(films, tmp_path / "unit", "net.unit=false")(init=trained)
    with pytest.raises(InputError, match=r"net\.widths \[8, 8, 8, 8\] -> \[8, 8, 8, 12\]"):
        Run(films, tmp_path / "wide", "net.widths=8,8,8,12")(init=trained)
    with pytest.raises(InputError, match="cannot be read"):
        Run(films, tmp_path / "none")(init=tmp_path / "nothing.safetensors")
    state = newest_state(films, tmp_path)
    with pytest.raises(InputError, match="holds vcorr-state-1, not vcorr-weights-2"):
        Run(films, tmp_path / "state")(init=state)


def newest_state(films, tmp_path):
    Run(films, tmp_path / "one", "pairs.steps=1")()
    return newest(tmp_path / "one")
