"""The learning rate over a stage, and numbers that make no stage."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcorr.config import from_json, override, to_json
from vcorr.training.schedule import Schedule


def test_rate_is_a_ramp_a_plateau_and_a_ramp():
    schedule = Schedule(steps=100, batch=1, lr=2.0, warmup=10, cooldown=0.3)
    assert [schedule.rate(k) for k in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert {schedule.rate(k) for k in range(9, 71)} == {2.0}
    assert [schedule.rate(k) for k in (85, 99)] == pytest.approx([1.0, 2 / 30])


@given(st.integers(1, 60), st.integers(0, 60), st.floats(0, 1), st.integers(1, 60))
def test_more_steps_change_nothing_before_the_cooldown(steps, warmup, cooldown, more):
    short = Schedule(steps=steps, batch=1, lr=1.0, warmup=warmup, cooldown=cooldown)
    longer = dataclasses.replace(short, steps=steps + more)
    for k in range(steps):
        assert 0 < short.rate(k) <= longer.rate(k) <= 1
        if k <= steps - max(1, cooldown * steps):
            assert short.rate(k) == longer.rate(k)


def test_milestones_count_steps():
    schedule = Schedule(steps=10, batch=6, lr=2.0, cooldown=0, milestones=((3, 0.5), (7, 0.1)))
    assert [schedule.rate(k) for k in range(10)] == pytest.approx([2.0] * 3 + [1.0] * 4 + [0.2] * 3)


def test_milestones_count_samples():
    """The schedule of CorrFlow's released code, batch 6: halved when 400k samples lie behind a step."""
    halves = ((400_000, 1 / 2), (600_000, 1 / 4), (800_000, 1 / 8), (1_000_000, 1 / 16))
    schedule = Schedule(steps=180_000, batch=6, lr=2e-4, cooldown=0, milestones=halves, unit="samples")
    first = -(-400_000 // 6)
    assert (schedule.rate(first - 1), schedule.rate(first)) == (2e-4, 1e-4)
    assert schedule.rate(179_999) == 2e-4 / 16


def test_a_ramp_and_a_milestone_multiply():
    schedule = Schedule(steps=100, batch=1, lr=1.0, warmup=10, cooldown=0.5, milestones=((5, 0.5),))
    assert [schedule.rate(k) for k in (4, 5, 20, 75)] == pytest.approx([0.5, 0.3, 0.5, 0.25])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"steps": -1}, "steps must be at least 0 and batch 1"),
        ({"cooldown": 1.5}, "cooldown in \\[0, 1\\]"),
        ({"lr": math.inf}, "lr and clip_norm must be positive"),
        ({"clip_norm": math.nan}, "lr and clip_norm must be positive"),
        ({"accumulate": 0}, "accumulate must divide batch, got 0 and 6"),
        ({"accumulate": 4}, "accumulate must divide batch, got 4 and 6"),
        ({"milestones": ((0, 0.5),)}, "rising positions from 1 on"),
        ({"milestones": ((5, 0.5), (5, 0.25))}, "rising positions from 1 on"),
        ({"milestones": ((5, 0.0),)}, "positive factors"),
        ({"milestones": ((5, math.nan),)}, "positive factors"),
    ],
)
def test_numbers_that_make_no_stage_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**{"steps": 10, "batch": 6, "lr": 1.0} | numbers)


def test_a_stage_survives_the_command_line_and_json():
    schedule = override(
        Schedule(steps=10, batch=6, lr=1.0), ["milestones=(4, .5), (8, .25)", "unit=samples", "clip_norm=inf"]
    )
    assert schedule.milestones == ((4, 0.5), (8, 0.25)) and schedule.clip_norm == math.inf
    assert from_json(Schedule, json.loads(json.dumps(to_json(schedule)))) == schedule
