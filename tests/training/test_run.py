"""The folder of a run: what is in it, who may go on in it, and damage."""

from __future__ import annotations

import json
import math
import os
import shutil

import pytest
import torch

from tests import callers
from tests.training.runs import EVERY_STEP, TOY, Run, assert_same_run, metrics, newest, tensors
from vcorr.errors import InputError, OutputError
from vcorr.model.weights import load_tensors, load_weights, save_tensors
from vcorr.training import recipe
from vcorr.training.loop import Stopped, TrainOptions, train

# --- what a run leaves ---------------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_promises(unbroken):
    assert sorted(p.relative_to(unbroken).as_posix() for p in unbroken.rglob("*") if p.is_file()) == [
        "config.json",
        "metrics.jsonl",
        "recipe.py",
        "report.html",
        "state/00000011.safetensors",
        "state/00000012.safetensors",
        "weights.safetensors",
    ]
    lines = metrics(unbroken)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)
    assert [line["lr"] for line in lines[:4]] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3])
    assert (unbroken / "recipe.py").read_text() == recipe.shipped()["mast_cpu"].read_text()


def test_weights_say_where_they_come_from_and_are_those_of_the_state(unbroken):
    weights = load_weights(unbroken / "weights.safetensors")
    assert weights.meta["recipe"] == "mast_cpu" and weights.meta["step"] == 12
    assert weights.meta["config"]["net"]["widths"] == [8, 8, 8, 8]
    state, _ = load_tensors(newest(unbroken))
    assert all(torch.equal(v, state[f"params/{k}"]) for k, v in weights.params.items())
    assert all(torch.equal(v, state[f"stats/{k}"]) for k, v in weights.stats.items())


def test_a_state_keeps_the_form_that_older_runs_have(unbroken):
    """A change here would end every run that is under way."""
    state, meta = load_tensors(newest(unbroken))
    assert (meta["format"], meta["step"], meta["stage"], meta["threads"]) == ("vcorr-state-1", 12, "pairs", 1)
    names = {k.removeprefix("params/") for k in state if k.startswith("params/")}
    assert "layer2.0.skip.conv.weight" in names
    assert {k for k in state if k.startswith("moments/")} == {
        f"moments/{kind}/{name}" for kind in ("step", "exp_avg", "exp_avg_sq") for name in names
    }
    assert {k.removeprefix("stats/") for k in state if k.startswith("stats/")} == {
        n.replace("weight", kind) for n in names if "bn" in n and "weight" in n for kind in ("mean", "var")
    }


def test_logging_and_saving_less_often_changes_nothing(films, tmp_path, unbroken):
    Run(films, tmp_path / "run")(options=TrainOptions(log_every=5, save_every=1e9))
    got, wanted = tensors(tmp_path / "run")[0], tensors(unbroken)[0]
    assert all(torch.equal(got[k], wanted[k]) for k in wanted)
    assert metrics(tmp_path / "run") == [line for line in metrics(unbroken) if line["step"] in (5, 10, 12)]


def test_a_finished_run_is_left_as_it_is_and_its_weights_come_back(films, tmp_path, unbroken):
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    (out / "weights.safetensors").unlink()
    assert Run(films, out)() == out / "weights.safetensors"
    assert_same_run(out, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("name", callers.STATES)
def test_the_state_of_the_caller_changes_no_run(films, tmp_path, unbroken, name):
    with callers.STATES[name]():
        Run(films, tmp_path / "run")()
    assert_same_run(tmp_path / "run", unbroken)


# --- another run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("pairs.lr=2e-3", "pairs.lr 0.001 -> 0.002"),
        ("seed=1", "seed 0 -> 1"),
        ("pairs.steps=11", "pairs.steps 12 -> 11"),
        ("clips.gaps=1,2", "clips.gaps [1, 2, 3] -> [1, 2]"),
        ("matching.scale=0.5", "matching.scale 14.0 -> 0.5"),
    ],
)
def test_another_configuration_is_refused(films, stopped, override, difference):
    before = {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file()}
    with pytest.raises(OutputError) as refused:
        Run(films, stopped, override)()
    assert f"holds another run ({difference}); give the same values, or another --out" in str(refused.value)
    assert {p: p.read_bytes() for p in stopped.rglob("*") if p.is_file()} == before


def test_another_recipe_is_refused(films, stopped, two_stages):
    with pytest.raises(OutputError, match=r"holds another run \(recipe mast_cpu -> two_stages\)"):
        Run(films, stopped, name=two_stages)()


def test_every_difference_is_named(films, stopped):
    with pytest.raises(OutputError, match=r"\(seed 0 -> 1; pairs.batch 2 -> 3; clips.flip True -> False\)"):
        Run(films, stopped, "seed=1", "pairs.batch=3", "clips.flip=False")()


def test_other_videos_are_refused(films, tmp_path, stopped):
    data = tmp_path / "more"
    shutil.copytree(films, data)
    shutil.copy(data / "a" / "000.png", data / "a" / "100.png")
    with pytest.raises(OutputError, match=r"data.frames 24 -> 25; data.sha256 \w{12}\.\.\. -> \w{12}\.\.\."):
        Run(data, stopped)()


def test_the_same_videos_in_another_place_are_the_same(films, tmp_path, stopped, unbroken):
    shutil.copytree(films, tmp_path / "moved")
    Run(tmp_path / "moved", stopped)()
    assert_same_run(stopped, unbroken)
    assert json.loads((stopped / "config.json").read_text())["data"]["path"] == str(tmp_path / "moved")


def test_a_run_of_an_early_version_goes_on(films, stopped, unbroken):
    """It wrote the path alone for its data, and knew fewer fields and conditions."""
    path = stopped / "config.json"
    config = json.loads(path.read_text())
    del config["config"]["clips"]["cache"]
    path.write_text(json.dumps(config | {"data": "somewhere"}))
    found, meta = load_tensors(newest(stopped))
    save_tensors(newest(stopped), found, {k: meta[k] for k in ("format", "step", "stage", "threads")})
    Run(films, stopped)()
    assert_same_run(stopped, unbroken)


def test_memory_for_frames_is_no_part_of_a_run(films, stopped, unbroken):
    Run(films, stopped, "clips.cache=0")()
    assert_same_run(stopped, unbroken, weights=False)  # whose header has the configuration


def test_a_recipe_whose_code_changed_is_said(films, stopped, unbroken):
    copy = stopped / "recipe.py"
    copy.write_text('"""Another docstring."""\n# and a comment\n' + copy.read_text().split('"""', 2)[2])
    quiet = Run(films, stopped)
    with pytest.raises(Stopped):
        quiet(stop_at=("pairs", 6))
    assert not quiet.heard("the recipe's code")
    copy.write_text(copy.read_text() + "\nx = 1\n")
    told = Run(films, stopped)
    told()
    assert told.heard("the recipe's code is not what this run began with")
    assert_same_run(stopped, unbroken)


@pytest.mark.parametrize("config", ["", "{", "[]", "{}", '{"recipe": 1, "data": 2, "config": 3}', "[" * 9999])
def test_a_damaged_configuration_is_refused(films, stopped, config):
    (stopped / "config.json").write_text(config)
    with pytest.raises(OutputError, match=r"config\.json: is damaged.*; train into another folder"):
        Run(films, stopped)()


def test_a_folder_of_something_else_is_left_alone(films, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    (tmp_path / "movie.mp4.part").write_text("y")
    with pytest.raises(OutputError, match="is not empty and holds no run"):
        Run(films, tmp_path)()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["movie.mp4.part", "thesis.tex"]


def test_two_processes_do_not_train_in_one_folder(films, tmp_path, unbroken):
    out = tmp_path / "run"
    refused = []

    def report(progress):
        if progress.step == 3:
            try:
                train(recipe.load("mast_cpu", TOY), films, out)
            except OutputError as error:
                refused.append(str(error))

    train(recipe.load("mast_cpu", TOY), films, out, options=EVERY_STEP, report=report)
    assert len(refused) == 1 and "another process works in it" in refused[0]
    assert_same_run(out, unbroken)


def test_missing_data_leaves_no_folder(films, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Run(films / "none", tmp_path / "run")()
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_refused(films, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="cannot be made"):
            Run(films, out)()


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda f: f.write_bytes(f.read_bytes()[:-100]), id="cut"),
        pytest.param(lambda f: f.write_bytes(b""), id="empty"),
        pytest.param(lambda f: f.write_bytes(os.urandom(5000)), id="noise"),
        pytest.param(lambda f: save_tensors(f, {"x": torch.zeros(1)}, {"format": "vcorr-state-1"}), id="foreign"),
        pytest.param(lambda f: (f.unlink(), f.mkdir()), id="folder"),
    ],
)
def test_a_damaged_newest_state_gives_way_to_the_one_before(films, stopped, unbroken, damage):
    damage(stopped / "state" / "00000005.safetensors")
    again = Run(films, stopped)
    again()
    assert again.heard("00000005.safetensors: ") and again.heard("trying the state before it")
    assert again.heard("going on from step 4 of 12")
    assert (stopped / "state" / "00000005.safetensors.damaged").exists()
    assert_same_run(stopped, unbroken)


def test_a_run_without_a_good_state_does_not_start_over_by_itself(films, stopped):
    for state in (stopped / "state").iterdir():
        state.write_bytes(b"x")
    log = (stopped / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="no training state in it can be read"):
        Run(films, stopped)()
    assert (stopped / "metrics.jsonl").read_bytes() == log
    assert len(list((stopped / "state").glob("*.safetensors"))) == 2


def test_a_state_of_another_network_is_refused(films, stopped):
    for state in (stopped / "state").iterdir():
        found, meta = load_tensors(state)
        found["params/head.bias"] = torch.zeros(9)
        save_tensors(state, found, meta)
    again = Run(films, stopped)
    with pytest.raises(InputError):
        again()
    assert again.heard("head.bias has shape [9], wanted [8]")


def test_what_a_finished_run_lost_is_made_again(films, tmp_path, unbroken):
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    (out / "weights.safetensors").unlink()
    (out / "report.html").unlink()
    Run(films, out)()
    assert_same_run(out, unbroken)
    assert "12 of 12 steps" in (out / "report.html").read_text()


def test_weights_of_the_last_step_are_not_trained_again(films, tmp_path, unbroken):
    """Whoever needs the space takes the training states away, which are larger."""
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    shutil.rmtree(out / "state")
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".json", ".jsonl", ".safetensors")}
    again = Run(films, out)
    again()
    assert again.heard("the training states are gone, the weights of the last step are there")
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".json", ".jsonl", ".safetensors")} == before
    more = Run(films, out, "pairs.steps=14")
    more()
    assert more.heard("no training state is left beside the weights of step 12: starting anew")
    assert [line["step"] for line in metrics(out)] == list(range(1, 15))


@pytest.mark.parametrize("left", [["config.json.part"], ["state"], [".DS_Store", "Thumbs.db", "._weights.safetensors"]])
def test_a_folder_that_nobody_works_in_is_taken(films, tmp_path, unbroken, left):
    out = tmp_path / "run"
    out.mkdir()
    for name in left:
        (out / name).mkdir() if name == "state" else (out / name).write_bytes(b"{")
    Run(films, out)()
    assert_same_run(out, unbroken)


def test_foreign_files_among_the_states_are_passed_over(films, stopped, unbroken):
    (stopped / "state" / "zzz.safetensors").write_bytes(b"x")
    Run(films, stopped)()
    (stopped / "state" / "zzz.safetensors").unlink()
    assert_same_run(stopped, unbroken)


def test_other_conditions_are_said_and_noted_with_the_state_and_the_weights(films, stopped):
    found, meta = load_tensors(newest(stopped))
    assert meta["threads"] == torch.get_num_threads() and meta["torch"] == torch.__version__
    here = meta["processor"]
    assert torch.backends.cpu.get_cpu_capability() in here
    there = {"threads": 7, "device": "cuda", "processor": "an old CPU, SSE", "torch": "1.0"}
    save_tensors(newest(stopped), found, meta | there)
    again = Run(films, stopped)
    with pytest.raises(Stopped):
        again(stop_at=("pairs", 7))
    assert again.heard("threads: 7 before, 1 now; the last bits will differ")
    assert again.heard("device: cuda before, cpu now")
    assert again.heard(f"processor: an old CPU, SSE before, {here} now") and again.heard("torch: 1.0 before, ")
    quiet = Run(films, stopped)
    quiet()
    assert not quiet.heard("before, ")
    for meta in (load_tensors(newest(stopped))[1], load_weights(stopped / "weights.safetensors").meta):
        assert meta["processor"] == here and meta["earlier"] == [there | {"bf16": meta["bf16"]}]


def test_a_finished_run_keeps_the_conditions_under_which_it_was_made(films, tmp_path, unbroken):
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    found, meta = load_tensors(newest(out))
    save_tensors(newest(out), found, meta | {"processor": "an old CPU, SSE"})
    again = Run(films, out)
    again()
    assert not again.heard("before, ")
    assert load_weights(out / "weights.safetensors").meta["processor"] == "an old CPU, SSE"


def test_a_full_disk_ends_the_run_and_leaves_what_was_saved(films, stopped, monkeypatch):
    def full(path, *args):
        raise OutputError(path, "cannot be written (No space left on device)", "check the free space")

    before = {p: p.read_bytes() for p in (stopped / "state").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("vcorr.training.run.save_tensors", full)
        with pytest.raises(OutputError, match="No space left"):
            Run(films, stopped)()
    assert {p: p.read_bytes() for p in (stopped / "state").iterdir()} == before
    Run(films, stopped)()


def test_damaged_frames_are_said_once_each(films, tmp_path):
    data = tmp_path / "films"
    shutil.copytree(films, data)
    for k in range(8):
        (data / "b" / f"{k:03d}.png").write_bytes(b"x")
    run = Run(data, tmp_path / "run", "pairs.steps=12")
    run()
    lines = [line for line in run.said if "other clips stand in" in line]
    assert len(lines) == len(set(lines)) == 5
    assert run.heard("further damaged files are not told by name")
