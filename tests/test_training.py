"""The training loop: exact resume, what counts as the same run, signals, damage, divergence."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vcorr import checkpoint, recipe, training
from vcorr.errors import InputError, OutputError
from vcorr.training import Diverged, Options, Stopped, train

TOY = [
    *("net.widths=8,8,8,8", "net.features=8", "radius=2", "clips.size=24", "clips.smallest=20", "clips.read=48"),
    *("pairs.batch=2", "pairs.warmup=3", "pairs.steps=12"),
]
EVERY_STEP = Options(log_every=1, save_every=0)

TWO_STAGES = """
from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from vcorr.recipes import mast_cpu
from vcorr.recipe import Phase, Stage


@dataclass(frozen=True)
class Config(mast_cpu.Config):
    late: Stage = Stage(steps=6, batch=2, lr=1e-3)
    nan: tuple[int, ...] = ()       # steps whose loss is not finite
    steep: tuple[int, ...] = ()     # steps whose gradient is not finite, though the loss is


def build(cfg):
    base = mast_cpu.build(cfg)
    (pairs,) = base.phases

    def loss(state, batch, rng, progress):
        out = pairs.loss(state, batch, rng, progress)
        step = round(progress * cfg.pairs.steps)
        if step in cfg.nan:
            return dataclasses.replace(out, loss=out.loss * float("nan"))
        if step in cfg.steep:
            zero = state.params["head.bias"].sum() * 0
            return dataclasses.replace(out, loss=out.loss + zero.sqrt())
        return dataclasses.replace(out, metrics={"twice": 2 * float(out.loss.detach())})

    return dataclasses.replace(
        base, phases=(dataclasses.replace(pairs, loss=loss), Phase("late", cfg.late, cfg.clips, pairs.loss))
    )
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two videos of coloured clouds that slide."""
    root = tmp_path_factory.mktemp("films")
    for name, (dy, dx) in {"a": (2, 4), "b": (-4, 0)}.items():
        (root / name).mkdir()
        coarse = np.random.default_rng(len(name) + dx).integers(0, 256, (5, 7, 3)).astype(np.uint8)
        world = np.asarray(Image.fromarray(coarse).resize((104, 80), Image.Resampling.BICUBIC))
        for k in range(12):
            picture = np.roll(world, (dy * k, dx * k), (0, 1))[:48, :64]
            Image.fromarray(picture).save(root / name / f"{k:03d}.png")
    return root


@pytest.fixture
def two_stages(tmp_path):
    path = tmp_path / "two_stages.py"
    path.write_text(TWO_STAGES)
    return str(path)


class Run:
    """A run of a recipe in a folder; what it says is kept."""

    def __init__(self, data, out, *overrides, name="mast_cpu"):
        self.data, self.out, self.said = data, out, []
        self.experiment = recipe.load(name, [*TOY, *overrides])

    def __call__(self, *, stop_at=None, signals=(signal.SIGTERM,), options=EVERY_STEP):
        def report(progress):
            if stop_at is not None and (progress.phase, progress.step) == stop_at:
                for number in signals:
                    os.kill(os.getpid(), number)

        return train(self.experiment, self.data, self.out, options=options, say=self.said.append, report=report)

    def heard(self, text):
        return any(text in line for line in self.said)


def newest(out):
    return max((out / "state").glob("*.safetensors"))


def tensors(out):
    """Everything in the newest state, and the weights file's bytes."""
    found, meta = checkpoint.load(newest(out))
    return found | {
        "weights": torch.frombuffer(bytearray((out / "weights.safetensors").read_bytes()), dtype=torch.uint8)
    }, meta


def metrics(out):
    keys = ("phase", "step", "loss", "lr", "grad_norm", "skipped_steps")
    return [{k: line[k] for k in keys} for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())]


def assert_same_run(got, wanted, *, weights=True):
    (a, meta_a), (b, meta_b) = tensors(got), tensors(wanted)
    if not weights:
        del a["weights"], b["weights"]
    assert meta_a == meta_b and a.keys() == b.keys()
    assert [k for k in a if not torch.equal(a[k], b[k])] == []
    assert metrics(got) == metrics(wanted)


@pytest.fixture(scope="module")
def unbroken(films, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    Run(films, out)()
    return out


@pytest.fixture
def stopped(films, tmp_path):
    """A run of 12 steps that a signal stopped after 5; its plateau ends after 8."""
    out = tmp_path / "stopped"
    with pytest.raises(Stopped):
        Run(films, out)(stop_at=("pairs", 5))
    return out


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    """Processes of their own wait; here only a loss of power would show the difference."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_a_run_leaves_what_it_promises(unbroken):
    assert sorted(p.relative_to(unbroken).as_posix() for p in unbroken.rglob("*") if p.is_file()) == [
        "config.json",
        "metrics.jsonl",
        "recipe.py",
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
    weights = checkpoint.load_weights(unbroken / "weights.safetensors")
    assert weights.meta["recipe"] == "mast_cpu" and weights.meta["step"] == 12
    assert weights.meta["config"]["net"] == {"widths": [8, 8, 8, 8], "features": 8}
    state, _ = checkpoint.load(newest(unbroken))
    assert all(torch.equal(v, state[f"params/{k}"]) for k, v in weights.params.items())
    assert all(torch.equal(v, state[f"stats/{k}"]) for k, v in weights.stats.items())


def test_a_state_keeps_the_form_that_older_runs_have(unbroken):
    """A change here would end every run that is under way."""
    state, meta = checkpoint.load(newest(unbroken))
    assert (meta["format"], meta["step"], meta["phase"], meta["threads"]) == ("vcorr-state-1", 12, "pairs", 1)
    names = {k.removeprefix("params/") for k in state if k.startswith("params/")}
    assert "layer2.0.skip.conv.weight" in names
    assert {k for k in state if k.startswith("moments/")} == {
        f"moments/{kind}/{name}" for kind in ("step", "exp_avg", "exp_avg_sq") for name in names
    }
    assert {k.removeprefix("stats/") for k in state if k.startswith("stats/")} == {
        n.replace("weight", kind) for n in names if "bn" in n and "weight" in n for kind in ("mean", "var")
    }


def test_the_loss_falls(films, tmp_path):
    Run(films, tmp_path / "run", "pairs.steps=60", "pairs.batch=4", "pairs.lr=3e-3", "clips.size=32")(
        options=Options(log_every=1)
    )
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


def test_logging_and_saving_less_often_changes_nothing(films, tmp_path, unbroken):
    Run(films, tmp_path / "run")(options=Options(log_every=5, save_every=1e9))
    got, wanted = tensors(tmp_path / "run")[0], tensors(unbroken)[0]
    assert all(torch.equal(got[k], wanted[k]) for k in wanted)
    assert metrics(tmp_path / "run") == [line for line in metrics(unbroken) if line["step"] in (5, 10, 12)]


def test_a_finished_run_is_left_as_it_is_and_its_weights_come_back(films, tmp_path, unbroken):
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    (out / "weights.safetensors").unlink()
    assert Run(films, out)() == out / "weights.safetensors"
    assert_same_run(out, unbroken)


# --- exact resume ---------------------------------------------------------------------------------------------------

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from vcorr import recipe
from vcorr.training import Options, train
import vcorr.color, kornia.color, vcorr.kernels   # before the fork: a child that has threads cannot be forked

data, out, kills, *overrides = sys.argv[1:]
chance = random.Random(os.getpid())

def start():
    child = os.fork()
    if not child:
        try:
            train(recipe.load("mast_cpu", overrides), Path(data), Path(out), options=Options(1, 0))
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


def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(films, tmp_path, unbroken):
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(films), str(out), "3", *TOY], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
    assert_same_run(out, unbroken)
    assert not list(out.rglob("*.part"))


def test_a_stopped_run_ends_as_if_it_had_not_been(films, stopped, unbroken):
    again = Run(films, stopped)
    again()
    assert again.heard("going on from step 5 of 12")
    assert_same_run(stopped, unbroken)


def test_kills_in_between_leave_nothing_that_matters(films, stopped, unbroken):
    """A line cut short, a state half written, lines of steps that will be taken again."""
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"phase": "pairs", "step": 6, "loss": 0.0})
            + "\n"
            + '{"phase": "pai\0\udcff'.encode("utf-8", "surrogatepass").decode("latin-1")
        )
    (stopped / "state" / "00000006.safetensors.part").write_bytes(b"half")
    (stopped / "weights.safetensors.part").write_bytes(b"half")
    Run(films, stopped)()
    assert_same_run(stopped, unbroken)
    assert not list(stopped.rglob("*.part"))


def test_a_run_killed_before_its_first_state_starts_afresh(films, tmp_path, unbroken):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        Run(films, out)(stop_at=("pairs", 2), options=Options(1, 1e9))
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


@pytest.mark.parametrize("stop_at", [("pairs", 4), ("pairs", 5), ("late", 1), ("late", 3)])
def test_a_run_of_two_stages_resumes_within_and_between_them(films, tmp_path, two_stages, stop_at):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Run(films, whole, "pairs.steps=5", name=two_stages)()
    with pytest.raises(Stopped):
        Run(films, parts, "pairs.steps=5", name=two_stages)(stop_at=stop_at)
        Run(films, parts, "pairs.steps=5", name=two_stages)(stop_at=("late", 1))  # the stage's last step is no stop
    Run(films, parts, "pairs.steps=5", name=two_stages)()
    assert_same_run(parts, whole)
    assert metrics(whole)[-1]["step"] == 6 and metrics(whole)[-1]["phase"] == "late"


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


# --- more steps -----------------------------------------------------------------------------------------------------


def test_steps_raised_in_the_plateau_are_as_if_they_had_been_there(films, tmp_path, stopped):
    longer = Run(films, stopped, "pairs.steps=18")
    longer()
    Run(films, tmp_path / "whole", "pairs.steps=18")()
    assert_same_run(stopped, tmp_path / "whole")
    assert not longer.heard("cooldown")


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


# --- another run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("pairs.lr=2e-3", "pairs.lr 0.001 -> 0.002"),
        ("seed=1", "seed 0 -> 1"),
        ("pairs.steps=11", "pairs.steps 12 -> 11"),
        ("clips.gaps=1,2", "clips.gaps [1, 2, 3] -> [1, 2]"),
        ("reader.scale=0.5", "reader.scale None -> 0.5"),
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
    found, meta = checkpoint.load(newest(stopped))
    checkpoint.save(newest(stopped), found, {k: meta[k] for k in ("format", "step", "phase", "threads")})
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
    with pytest.raises(InputError, match=r"config\.json: is damaged; train into another folder"):
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
    assert len(refused) == 1 and "another process trains in it" in refused[0]
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


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_stops_after_the_step_and_saves(films, tmp_path, number, code):
    out = tmp_path / "run"
    handler = signal.getsignal(number)
    with pytest.raises(Stopped, match=f"stopped by {number.name}, saved; run the same command to go on") as stop:
        Run(films, out)(stop_at=("pairs", 3), signals=[number], options=Options(1, 1e9))
    assert stop.value.exit_code == code
    assert newest(out).name == "00000003.safetensors"
    assert checkpoint.load_weights(out / "weights.safetensors").meta["step"] == 3
    assert signal.getsignal(number) == handler
    assert pickle.loads(pickle.dumps(stop.value)).exit_code == code


def test_a_second_ctrl_c_stops_at_once(films, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Run(films, tmp_path / "run")(stop_at=("pairs", 3), signals=[signal.SIGINT] * 2, options=Options(1, 1e9))
    assert not (tmp_path / "run" / "state").exists()


def test_a_signal_at_the_last_step_is_no_stop(films, tmp_path, unbroken):
    Run(films, tmp_path / "run")(stop_at=("pairs", 12))
    assert_same_run(tmp_path / "run", unbroken)


def test_training_works_outside_the_main_thread(films, tmp_path, unbroken):
    errors = []

    def work():
        try:
            Run(films, tmp_path / "run")()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
    assert_same_run(tmp_path / "run", unbroken)


def test_the_command_ends_with_the_code_of_its_signal(films, tmp_path):
    out = tmp_path / "run"
    command = ["train", "mast_cpu", *TOY, "pairs.steps=100_000", "--data", str(films), "--out", str(out)]
    command = [sys.executable, "-m", "vcorr", *command, "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                if line.startswith("pairs 10/"):
                    break
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 75, errors
    assert output == "" and "Traceback" not in errors
    assert errors.splitlines()[-1] == f"vcorr: {out}: stopped by SIGTERM, saved; run the same command to go on"


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda f: f.write_bytes(f.read_bytes()[:-100]), id="cut"),
        pytest.param(lambda f: f.write_bytes(b""), id="empty"),
        pytest.param(lambda f: f.write_bytes(os.urandom(5000)), id="noise"),
        pytest.param(lambda f: checkpoint.save(f, {"x": torch.zeros(1)}, {"format": "vcorr-state-1"}), id="foreign"),
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
        found, meta = checkpoint.load(state)
        found["params/head.bias"] = torch.zeros(9)
        checkpoint.save(state, found, meta)
    again = Run(films, stopped)
    with pytest.raises(InputError):
        again()
    assert again.heard("head.bias has shape [9], wanted [8]")


def test_foreign_files_among_the_states_are_passed_over(films, stopped, unbroken):
    (stopped / "state" / "zzz.safetensors").write_bytes(b"x")
    Run(films, stopped)()
    (stopped / "state" / "zzz.safetensors").unlink()
    assert_same_run(stopped, unbroken)


def test_another_number_of_threads_is_said(films, stopped):
    found, meta = checkpoint.load(newest(stopped))
    assert meta["threads"] == torch.get_num_threads()
    checkpoint.save(newest(stopped), found, meta | {"threads": 7, "device": "cuda"})
    again = Run(films, stopped)
    again()
    assert again.heard("threads: 7 before, 1 now; the last bits will differ")
    assert again.heard("device: cuda before, cpu now")


def test_a_full_disk_ends_the_run_and_leaves_what_was_saved(films, stopped, monkeypatch):
    def full(path, *args):
        raise OutputError(path, "cannot be written (No space left on device)", "check the free space")

    before = {p: p.read_bytes() for p in (stopped / "state").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
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


# --- losses that are not finite -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nan", "steep"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(films, tmp_path, two_stages, kind):
    out = tmp_path / "run"
    Run(films, out, "pairs.steps=8", f"{kind}=3,4", name=two_stages)()
    lines = metrics(out)[:8]
    assert [line["skipped_steps"] for line in lines] == [0, 0, 0, 1, 2, 2, 2, 2]
    assert [line["grad_norm"] is None for line in lines] == [False] * 3 + [True] * 2 + [False] * 3
    assert [line["loss"] is None for line in lines] == [kind == "nan" and k in (3, 4) for k in range(8)]
    state, _ = checkpoint.load(newest(out))
    assert all(bool(torch.isfinite(v).all()) for v in state.values())
    assert "twice" in json.loads((out / "metrics.jsonl").read_text().splitlines()[0])


def test_a_skipped_step_changes_nothing(films, tmp_path, two_stages):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        Run(films, out, "pairs.steps=8", "nan=3", "steep=4", name=two_stages)(stop_at=("pairs", 5))
    (before, _), (after, meta) = (checkpoint.load(out / "state" / f"0000000{k}.safetensors") for k in (4, 5))
    assert all(torch.equal(before[k], after[k]) for k in before) and before.keys() == after.keys()
    assert meta["skipped"] == 2
    Run(films, out, "pairs.steps=8", "nan=3", "steep=4", name=two_stages)()
    assert metrics(out)[-1]["skipped_steps"] == 2  # the count survives a stop


def test_ten_steps_in_a_row_end_the_run_with_the_last_good_state(films, tmp_path, two_stages):
    out = tmp_path / "run"
    bad = "nan=2," + ",".join(map(str, range(4, 20)))
    run = Run(films, out, "pairs.steps=20", bad, name=two_stages)
    with pytest.raises(
        Diverged, match="not finite in any of the 10 steps up to 14; the state of step 4 is kept"
    ) as end:
        run(options=Options(log_every=1, save_every=1e9))
    assert end.value.exit_code == 1 and "lower pairs.lr" in str(end.value)
    assert newest(out).name == "00000004.safetensors"
    assert checkpoint.load(newest(out))[1]["skipped"] == 1
    assert checkpoint.load_weights(out / "weights.safetensors").meta["step"] == 4
    with pytest.raises(Diverged, match="up to 14"):  # and a run that goes on ends in the same place
        Run(films, out, "pairs.steps=20", bad, name=two_stages)()


def test_nine_in_a_row_do_not_end_it(films, tmp_path, two_stages):
    bad = ",".join(map(str, [*range(0, 9), *range(10, 19)]))
    Run(films, tmp_path / "run", "pairs.steps=20", f"steep={bad}", name=two_stages)()
    assert metrics(tmp_path / "run")[19]["skipped_steps"] == 18


def test_the_module_runs_where_the_data_is_a_relative_path(films, tmp_path, monkeypatch, unbroken):
    monkeypatch.chdir(films.parent)
    Run(Path(films.name), tmp_path / "run")()
    assert_same_run(tmp_path / "run", unbroken)


def test_restored_moments_lie_where_their_parameters_do():
    """On the device and in the memory format of the parameter; Adam's count of steps stays on the CPU."""
    weight = torch.zeros(4, 3, 5, 5, device="meta").contiguous(memory_format=torch.channels_last)
    params = {"w": weight.requires_grad_()}
    optimiser = torch.optim.AdamW(params.values())
    saved = {"step/w": torch.tensor(7.0), "exp_avg/w": torch.ones(4, 3, 5, 5), "exp_avg_sq/w": torch.ones(4, 3, 5, 5)}
    training._restore_moments(optimiser, params, saved)
    state = optimiser.state[params["w"]]
    assert state["step"].device.type == "cpu" and float(state["step"]) == 7
    for kind in ("exp_avg", "exp_avg_sq"):
        assert state[kind].device.type == "meta" and state[kind].stride() == weight.stride()
        assert not state[kind].requires_grad
