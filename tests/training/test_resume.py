"""A run that was stopped or killed and goes on is the unbroken run, bit for bit."""

from __future__ import annotations

import json
import shutil

import pytest

from tests import forked
from tests.training.runs import TOY, Run, assert_same_run, metrics, tensors
from vcorr.errors import OutputError
from vcorr.model.weights import load_tensors, save_tensors
from vcorr.training.loop import Stopped, TrainOptions

# --- exact resume --------------------------------------------------------------------------------------------------

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from vcorr.training import recipe
from vcorr.training.loop import TrainOptions, train

data, out, kills, *overrides = sys.argv[1:]
chance = random.Random(os.getpid())

def start():
    child = os.fork()
    if not child:
        try:
            train(recipe.load("mast_cpu", overrides), Path(data), Path(out), options=TrainOptions(1, 0))
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return child

def states():
    return {f.name for f in Path(out, "state").glob("*")}

landed = 0
while landed < int(kills):
    before, child = states(), start()
    deadline = time.monotonic() + 60
    while states() == before and time.monotonic() < deadline:   # let it get somewhere, then strike anywhere
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.06))
    os.kill(child, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
    landed += 1
print(landed)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1]))
"""


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(films, tmp_path, unbroken):
    out = tmp_path / "run"
    done = forked.run("-c", KILLED, str(films), str(out), "3", *TOY)
    assert done.code == 0, done.stderr
    assert int(done.stdout) >= 2
    assert_same_run(out, unbroken)
    assert not list(out.rglob("*.part"))


def test_a_stopped_run_ends_as_if_it_had_not_been(films, stopped, unbroken):
    again = Run(films, stopped)
    again()
    assert again.heard("going on from step 5 of 12")
    assert_same_run(stopped, unbroken)


def test_a_run_whose_files_name_stages_phases_goes_on(films, stopped, unbroken):
    """Files of early versions."""
    for path in (stopped / "state").glob("*.safetensors"):
        values, meta = load_tensors(path)
        save_tensors(path, values, {"phase" if key == "stage" else key: value for key, value in meta.items()})
    log = stopped / "metrics.jsonl"
    log.write_text(log.read_text().replace('"stage"', '"phase"'))
    again = Run(films, stopped)
    again()
    assert again.heard("going on from step 5 of 12")
    log.write_text(log.read_text().replace('"phase"', '"stage"'))
    assert_same_run(stopped, unbroken)


def test_kills_in_between_leave_nothing_that_matters(films, stopped, unbroken):
    """A line cut short, a state half written, lines of steps that will be taken again."""
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"stage": "pairs", "step": 6, "loss": 0.0})
            + "\n"
            + '{"stage": "pai\0\udcff'.encode("utf-8", "surrogatepass").decode("latin-1")
        )
    (stopped / "state" / ".00000006.7.part.safetensors").write_bytes(b"half")
    (stopped / ".weights.7.part.safetensors").write_bytes(b"half")
    Run(films, stopped)()
    assert_same_run(stopped, unbroken)
    assert not [path for path in stopped.rglob(".*") if ".part" in path.name]


def test_a_run_killed_before_its_first_state_starts_afresh(films, tmp_path, unbroken):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        Run(films, out)(stop_at=("pairs", 2), options=TrainOptions(1, 1e9))
    shutil.rmtree(out / "state")
    Run(films, out)()
    assert_same_run(out, unbroken)


@pytest.mark.parametrize("left", ["config.json.part", "config.json"])
def test_a_run_killed_while_it_made_its_folder_starts_afresh(films, tmp_path, unbroken, left):
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(unbroken / "config.json", out / left)
    Run(films, out)()
    assert_same_run(out, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [("pairs", 4), ("pairs", 5), ("late", 1), ("late", 3)])
def test_a_run_of_two_stages_resumes_within_and_between_them(films, tmp_path, two_stages, stop_at):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Run(films, whole, "pairs.steps=5", name=two_stages)()
    with pytest.raises(Stopped):
        Run(films, parts, "pairs.steps=5", name=two_stages)(stop_at=stop_at)
        Run(films, parts, "pairs.steps=5", name=two_stages)(stop_at=("late", 1))  # the stage's last step is no stop
    Run(films, parts, "pairs.steps=5", name=two_stages)()
    assert_same_run(parts, whole)
    assert metrics(whole)[-1]["step"] == 6 and metrics(whole)[-1]["stage"] == "late"


def test_moments_of_a_stage_are_not_those_of_the_next(films, tmp_path, two_stages):
    """Killed when the first stage had just been saved: the second begins with moments of its own."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Run(films, whole, "pairs.steps=5", name=two_stages)()
    with pytest.raises(Stopped):
        Run(films, parts, "pairs.steps=5", name=two_stages)(stop_at=("late", 1))
    (parts / "state" / "00000006.safetensors").unlink()
    Run(films, parts, "pairs.steps=5", name=two_stages)()
    assert_same_run(parts, whole)
    moments = tensors(whole)[0]
    assert {float(v) for k, v in moments.items() if k.startswith("moments/step/")} == {6}


# --- more steps ----------------------------------------------------------------------------------------------------


def test_steps_raised_in_the_plateau_are_as_if_they_had_been_there(films, tmp_path, stopped):
    longer = Run(films, stopped, "pairs.steps=18")
    longer()
    Run(films, tmp_path / "whole", "pairs.steps=18")()
    assert_same_run(stopped, tmp_path / "whole")
    assert not longer.heard("from the start")


def test_steps_raised_where_the_loss_goes_by_their_share_are_said(films, tmp_path, two_stages):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        Run(films, out, name=two_stages)(stop_at=("pairs", 5))
    again = Run(films, out, "late.steps=7", name=two_stages)
    with pytest.raises(Stopped):
        again(stop_at=("pairs", 6))
    longer = Run(films, out, "late.steps=7", "pairs.steps=18", name=two_stages)
    with pytest.raises(Stopped):
        longer(stop_at=("pairs", 7))
    assert not again.heard("from the start")  # the later stage has not begun
    assert longer.heard("pairs.steps 12 -> 18: the loss goes by the share of the steps that are done, so the result")


def test_steps_raised_after_the_cooldown_began_are_allowed_and_said(films, tmp_path, unbroken):
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    longer = Run(films, out, "pairs.steps=14")
    longer()
    assert longer.heard("pairs.steps 12 -> 14: the cooldown had begun")
    assert metrics(out)[-1]["step"] == 14 and metrics(out)[:12] == metrics(unbroken)
    assert json.loads((out / "config.json").read_text())["config"]["pairs"]["steps"] == 14


def test_steps_are_not_raised_in_a_stage_that_is_over(films, tmp_path, two_stages):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        Run(films, out, "pairs.steps=5", name=two_stages)(stop_at=("late", 2))
    before = (out / "config.json").read_bytes()
    with pytest.raises(OutputError, match=r"pairs.steps 5 -> 6, but pairs is over and late has begun"):
        Run(films, out, "pairs.steps=6", name=two_stages)()
    assert (out / "config.json").read_bytes() == before
    longer = Run(films, out, "pairs.steps=5", "late.steps=8", name=two_stages)
    longer()
    assert metrics(out)[-1]["step"] == 8
