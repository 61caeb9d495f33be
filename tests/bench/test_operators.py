"""The benchmark times nothing that is wrong, counts what it says it counts, and measures memory that it knows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import peers
from vcorr.bench import cases, clock, operators, tables, truth
from vcorr.bench.cases import Case, Inputs, Setting
from vcorr.errors import UsageError
from vcorr.kernels import memory_read, negative_logsumexp

CPU = torch.device("cpu")
SMALL = {
    "window": Case(11, 13, 16, 3, b=2),
    "several": Case(11, 19, 16, 2, r=3),
    "training": Case(12, 17, 16, 3, r=2, training=True),
    "border everywhere": Case(5, 4, 16, 6, training=True),
    "top-k": Case(9, 12, 16, 3, r=2, top_k=5),
    "bank": Case(10, 10, 16, 0, bank=70),
    "bank, training": Case(10, 10, 16, 0, bank=70, training=True),
}


def error_of(method, case: Case, dtype: torch.dtype = torch.float32, interior: bool = False) -> float:
    inputs = cases.draw(Setting(case, CPU, dtype))
    return truth.error(case, inputs, *truth.results(method, inputs), interior)


@given(st.integers(1, 12), st.integers(0, 15))
def test_reach_counts_pairs(cells: int, radius: int) -> None:
    assert cases.reach(cells, radius) == sum(abs(i - j) <= radius for i in range(cells) for j in range(cells))


def test_flops() -> None:
    case = Case(3, 4, 5, 9, r=2, b=3)  # every pair of cells, for a window larger than the frame
    assert case.flops == 2 * 5 * 3 * 2 * 12**2
    assert dataclasses.replace(case, training=True).flops == 3 * case.flops
    assert Case(3, 4, 5, 0, bank=7).flops == 2 * 5 * 12 * 7


def test_pick() -> None:
    assert cases.pick(["window-64", "window-64:h=9,radius=0"], cases.CASES) == {
        "window-64": cases.CASES["window-64"],
        "window-64:h=9,radius=0": dataclasses.replace(cases.CASES["window-64"], h=9, radius=0),
    }
    for text, words in [
        ("window", "is no case"),
        ("window-64:height=9", "has no number 'height'"),
        ("window-64:training=1", "has no number 'training'"),
        ("window-64:h=0", "at least 1"),
        ("window-64:h=x", "h is 'x'"),
        ("window-64:h", "h is ''"),
    ]:
        with pytest.raises(UsageError, match=words):
            cases.pick([text], cases.CASES)


def test_a_smaller_case_has_taps_enough() -> None:
    case = Case(64, 128, 16, 2, r=5, top_k=100)
    assert cases.smaller(case) == Case(32, 96, 16, 2, top_k=25)


def test_what_runs_unasked_exists() -> None:
    for device in ("cpu", "cuda:1", "mps"):
        for full in (False, True):
            assert cases.pick(cases.default(device, full), cases.CASES)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", cases.DTYPES.values(), ids=str)
def test_the_operators_are_right(name: str, dtype: torch.dtype) -> None:
    case = SMALL[name]
    assert error_of(operators.ours(case, "auto"), case, dtype) < truth.tolerance(dtype)


def spoil_window(query, keys, values):
    return memory_read(query, keys, values, radius=2)


def spoil_border(query, keys, values):
    return memory_read(query, keys, values, radius=3, border="zeros")


def spoil_scale(query, keys, values):
    return memory_read(query, keys, values, radius=3, scale=1.01 * query.shape[3] ** -0.5)


def spoil_one_cell(query, keys, values):
    return memory_read(query, keys, values, radius=3) + torch.nn.functional.pad(
        torch.ones(1, 1, 1, 4), (0, 0, 16, 0, 11, 0)
    )


def spoil_by_nan(query, keys, values):
    return memory_read(query, keys, values, radius=3) * torch.nan


def spoil_key_gradient(query, keys, values):
    return memory_read(query, [k.detach() + 1.01 * (k - k.detach()) for k in keys], values, radius=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil", [spoil_window, spoil_border, spoil_scale, spoil_one_cell, spoil_by_nan, spoil_key_gradient]
)
def test_what_is_wrong_is_found(spoil) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        if dtype == torch.bfloat16 and spoil in (spoil_scale, spoil_key_gradient):
            continue  # within its rounding
        assert not error_of(spoil, SMALL["training"], dtype) <= truth.tolerance(dtype)


def test_a_forgotten_negative_is_found() -> None:
    def forget(query, keys, values):
        return negative_logsumexp(query, keys[0][1:])

    assert error_of(forget, SMALL["bank"]) > truth.tolerance(torch.float32)


def test_the_interior_alone() -> None:
    """What shifts windows inwards at borders agrees elsewhere."""
    case = SMALL["window"]
    assert error_of(lambda q, k, v: memory_read(q, k, v, radius=3, border="zeros"), case, interior=True) < 1e-6


def test_the_truth_is_the_definition() -> None:
    case = SMALL["several"]
    inputs = cases.draw(Setting(case, CPU, torch.float32))
    exact = memory_read(
        inputs.query.double(),
        [k.double() for k in inputs.keys],
        [v.double() for v in inputs.values],
        radius=case.radius,
        impl="reference",
    )
    assert truth.error(case, inputs, exact, []) < 1e-12


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(setting):
        return spoil_window

    class OutOfResources(Exception):
        """Triton's is no RuntimeError either."""

    def broken(setting):
        raise OutOfResources("no such hardware\nand more")

    Peer = operators.Peer
    found = {"right": Peer(peers.dense_masked), "wrong": Peer(wrong), "broken": Peer(broken)}
    monkeypatch.setattr(peers, "peers_of", lambda setting, full: found | {"absent": Peer(wrong, "is absent")})
    said: list[str] = []
    rows = operators.measure(
        "x", SMALL["training"], operators.BenchOptions(rounds=2, memory=False, peers="benchmarks.peers"), said.append
    )
    by_method = {row.method: row for row in rows}
    assert [*by_method] == ["vcorr", "right", "wrong", "broken", "absent"]
    ours = by_method["vcorr"]
    assert ours.over_vcorr == 1
    assert 0 < ours.ms <= ours.median_ms
    assert ours.gflops * ours.ms == pytest.approx(SMALL["training"].flops / 1e6)
    assert ours.over_floor == pytest.approx(ours.product_gflops / ours.gflops)
    assert by_method["right"].over_vcorr == pytest.approx(by_method["right"].ms / ours.ms)
    assert not by_method["wrong"].ok
    assert "against float64, more than 0.0001" in by_method["wrong"].note
    assert by_method["broken"].note == "left out: no such hardware"
    assert by_method["absent"].note == "left out: is absent"
    assert all(by_method[m].ms is None for m in ("wrong", "broken", "absent"))
    assert any("wrong" in line for line in tables.text("x", SMALL["training"], rows))
    json.dumps(tables.document("operators", {}, {}, rows), allow_nan=False)


@pytest.mark.parametrize(
    "wrong", [spoil_window, lambda query, keys, values: memory_read(query, keys, values, radius=-1)]
)
def test_a_wrong_operator_is_no_number(monkeypatch: pytest.MonkeyPatch, wrong) -> None:
    monkeypatch.setattr(operators, "ours", lambda case, impl: wrong)
    case = SMALL["training"]
    rows = operators.measure("x", case, operators.BenchOptions(memory=False), lambda line: None)
    assert [(row.method, row.ok, row.ms) for row in rows] == [("vcorr", False, None)]
    assert rows[0].note.startswith(("wrong: relative error", "failed: radius must be at least 0"))
    assert rows[0].note in "".join(tables.text("x", case, rows))
    assert rows[0].note in "".join(tables.markdown("command", clock.machine_facts("cpu"), {"x": (case, rows)}))


def test_slow_methods_are_timed_less() -> None:
    class Scripted(clock.Clock):
        def add(self, name: str, work: clock.Work, times: clock.Times) -> None:
            times.device.append({"slow": 3.0, "fast": 0.5, "": 0.1}[name])

    work = {"slow": lambda: None, "fast": lambda: None}
    for budget, rounds in ((1.0, [1, 3]), (4.0, [2, 6]), (100.0, [6, 6])):
        times, product = clock.interleave(work, lambda: None, Scripted(CPU), 6, budget)
        assert [len(times[name].device) for name in work] == rounds
        assert len(product.device) == sum(rounds)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from Linux's /proc")
def test_memory_of_a_call() -> None:
    case = Case(40, 50, 16, 0, bank=4000)  # the full matrix holds 32 MB, once scaled and once not
    rows = operators.measure("x", case, operators.BenchOptions(rounds=1, peers="benchmarks.peers"), lambda line: None)
    extra = {row.method: row.extra_mb for row in rows}
    assert 32 <= extra["full matrix"] <= 80
    assert extra["vcorr"] < 16  # some blocks of it, and what oneDNN sets up, 13 in all by torch 2.11


def test_inputs_are_drawn_again_alike() -> None:
    setting = Setting(SMALL["training"], CPU, torch.bfloat16)
    first, again, other = cases.draw(setting), cases.draw(setting), cases.draw(setting, seed=1)
    assert isinstance(first, Inputs)
    assert torch.equal(first.keys[1], again.keys[1])
    assert not torch.equal(first.query, other.query)
