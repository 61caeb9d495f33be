"""The training loop: learning, signals, losses that are not finite."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.runs import TOY, Run, assert_same_run, metrics, newest
from vcorr.model.weights import load_tensors, load_weights
from vcorr.training import step as learner
from vcorr.training.loop import Diverged, Stopped, TrainOptions


def test_the_loss_falls(films, tmp_path):
    Run(films, tmp_path / "run", "pairs.steps=60", "pairs.batch=4", "pairs.lr=3e-3", "clips.size=32")(
        options=TrainOptions(log_every=1)
    )
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


# --- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_stops_after_the_step_and_saves(films, tmp_path, number, code):
    out = tmp_path / "run"
    handler = signal.getsignal(number)
    with pytest.raises(Stopped, match=f"stopped by {number.name}, saved; run the same command to resume") as stop:
        Run(films, out)(stop_at=("pairs", 3), signals=[number], options=TrainOptions(1, 1e9))
    assert stop.value.exit_code == code
    assert newest(out).name == "00000003.safetensors"
    assert load_weights(out / "weights.safetensors").meta["step"] == 3
    assert signal.getsignal(number) == handler
    assert pickle.loads(pickle.dumps(stop.value)).exit_code == code


def test_a_second_ctrl_c_stops_at_once(films, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Run(films, tmp_path / "run")(stop_at=("pairs", 3), signals=[signal.SIGINT] * 2, options=TrainOptions(1, 1e9))
    assert not list((tmp_path / "run" / "state").iterdir())


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


@pytest.mark.slow
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
    assert errors.splitlines()[-1] == f"vcorr: {out}: stopped by SIGTERM, saved; run the same command to resume"


# --- losses that are not finite ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nan", "steep"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(films, tmp_path, two_stages, kind):
    out = tmp_path / "run"
    Run(films, out, "pairs.steps=8", f"{kind}=3,4", name=two_stages)()
    lines = metrics(out)[:8]
    assert [line["skipped_steps"] for line in lines] == [0, 0, 0, 1, 2, 2, 2, 2]
    assert [line["grad_norm"] is None for line in lines] == [False] * 3 + [True] * 2 + [False] * 3
    assert [line["loss"] is None for line in lines] == [kind == "nan" and k in (3, 4) for k in range(8)]
    state, _ = load_tensors(newest(out))
    assert all(bool(torch.isfinite(v).all()) for v in state.values())
    assert "twice" in json.loads((out / "metrics.jsonl").read_text().splitlines()[0])


def test_a_skipped_step_changes_nothing(films, tmp_path, two_stages):
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        Run(films, out, "pairs.steps=8", "nan=3", "steep=4", name=two_stages)(stop_at=("pairs", 5))
    (before, _), (after, meta) = (load_tensors(out / "state" / f"0000000{k}.safetensors") for k in (4, 5))
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
        run(options=TrainOptions(log_every=1, save_every=1e9))
    assert end.value.exit_code == 1 and "lower pairs.lr" in str(end.value)
    assert newest(out).name == "00000004.safetensors"
    assert load_tensors(newest(out))[1]["skipped"] == 1
    assert load_weights(out / "weights.safetensors").meta["step"] == 4
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
    learner._restore_moments(optimiser, params, saved)
    state = optimiser.state[params["w"]]
    assert state["step"].device.type == "cpu" and float(state["step"]) == 7
    for kind in ("exp_avg", "exp_avg_sq"):
        assert state[kind].device.type == "meta" and state[kind].stride() == weight.stride()
        assert not state[kind].requires_grad
