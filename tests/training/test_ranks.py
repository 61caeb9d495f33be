"""Training on two processes: the same as on one, agreed in all that is decided, exact when it goes on."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from tests.training import slow_and_bank
from tests.training.runs import EVERY_STEP, assert_same_run, metrics, newest
from tests.training.together import side_by_side, torchrun
from vcorr import cli, ranks
from vcorr.errors import InputError
from vcorr.model.weights import load_tensors
from vcorr.training import recipe
from vcorr.training.loop import train

RECIPE = slow_and_bank.__file__
# A sample of the second process, in the third step of both stages, spoils that step for both. In float32, so that what
# differs from one process is rounding in the last bits.
CONFIG = ["nan=11,", "pairs.bf16=false", "memory.bf16=false"]


@pytest.fixture(scope="module")
def together(films, tmp_path_factory):
    """(folder of a run on two processes, what each printed)"""
    out = tmp_path_factory.mktemp("together") / "run"
    ended = side_by_side("tests.training.command", RECIPE, str(films), str(out), *CONFIG)
    assert [code for code, _, _ in ended] == [0, 0], ended
    return out, [printed for _, printed, _ in ended]


@pytest.fixture(scope="module")
def alone(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    train(recipe.load(RECIPE, CONFIG), films, out, options=EVERY_STEP)
    return out


def test_the_first_step_of_each_stage_is_that_of_one_process_with_the_whole_batch(together, alone):
    two, one = metrics(together[0]), metrics(alone)
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-6)
    assert two[0]["grad_norm"] == pytest.approx(one[0]["grad_norm"], rel=1e-5)
    assert two[3]["loss"] == pytest.approx(one[3]["loss"], rel=1e-3)


def test_the_end_is_that_of_one_process_but_for_rounding(together, alone):
    two, one = (load_tensors(newest(out))[0] for out in (together[0], alone))
    assert two.keys() == one.keys() and {k.split("/")[0] for k in two} >= {"slow", "slow_stats", "extra"}
    for name in two:
        if not name.startswith("moments/"):
            torch.testing.assert_close(two[name], one[name], rtol=0.02, atol=0.02)
    assert int(two["extra/pushed"]) == int(one["extra/pushed"]) == 16  # of 5 steps one was skipped


def test_a_loss_that_is_not_finite_on_one_process_is_skipped_by_both(together, alone):
    assert [line["skipped_steps"] for line in metrics(together[0])] == [0, 0, 1, 1, 1, 2, 2, 2]
    assert [line["loss"] is None for line in metrics(alone)] == [line["loss"] is None for line in metrics(together[0])]


def test_the_first_process_alone_writes_and_speaks(together, alone):
    out, (first, second) = together
    assert [line["step"] for line in metrics(out)] == [1, 2, 3, 1, 2, 3, 4, 5]
    assert "pairs: 2 videos" in first and second == ""
    names = [sorted(p.name for p in folder.rglob("*")) for folder in (out, alone)]
    assert names[0] == names[1]


def test_metrics_are_means_over_the_processes(together, alone):
    two, one = (
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()] for out in (together[0], alone)
    )
    assert two[4]["apart"] == pytest.approx(one[4]["apart"], rel=0.02) and two[4]["apart"] > 0


@pytest.mark.slow
def test_a_signal_to_one_and_the_death_of_one_change_nothing_under_restarts(films, tmp_path, together):
    """The first attempt stops by agreement after the second step of the second stage, the next loses a process."""
    out = tmp_path / "run"
    events = f"0:1:1:{int(signal.SIGTERM)} 1:1:3:{int(signal.SIGKILL)}"
    arguments = ["-m", "tests.training.command", RECIPE, str(films), str(out), *CONFIG]
    ended = torchrun(*arguments, restarts=2, TEST_SIGNALS=events)
    assert ended.returncode == 0, ended.stderr
    assert [line for line in ended.stdout.splitlines() if line.startswith("going on")] == [
        "going on from step 5 of 8",
        "going on from step 6 of 8",
    ]
    assert ended.stderr.count("stopped by SIGTERM, saved") >= 2  # both stopped, though one was asked to
    assert_same_run(out, together[0])


@pytest.mark.parametrize(("rank", "told"), [("0", "vcorr: here: is nothing; give something\n"), ("1", "")])
def test_an_error_of_all_is_told_by_the_first(monkeypatch, capsys, rank, told):
    monkeypatch.setenv("RANK", rank)

    def fail(args):
        raise ranks.shared(InputError("here", "is nothing", "give something"))

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 3 and capsys.readouterr().err == told
