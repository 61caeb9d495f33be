"""One optimiser step: against formulas, on a network of one number a sample."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from vcorr import rng
from vcorr.errors import UsageError
from vcorr.training.clips.cut import ClipConfig
from vcorr.training.recipe import Batch, Out, Schedule, Stage, State
from vcorr.training.step import Learner

SCHEDULE = Schedule(steps=10, batch=4, lr=0.1, cooldown=0.0, clip_norm=float("inf"), bf16=False)


def start():
    return State({"a": torch.tensor([1.0, -2.0]), "b": torch.tensor(0.5)}, {"n": torch.tensor(0.0)})


def loss(state, batch, rng, progress):
    """Least squares, whose gradient is a mean over samples; counts the calls, and draws for the whole batch."""
    x = batch.rgb.mean((1, 3, 4))
    drawn = torch.rand((), generator=rng)
    error = x[:, :2] @ state.params["a"] + drawn * state.params["b"] - 1
    extra = {k: v + len(x) for k, v in state.extra.items()} or None
    return Out(error.square().mean(), {"n": state.stats["n"] + 1}, {"drawn": drawn, "progress": progress}, extra)


def stage(function=loss, schedule=SCHEDULE, **more):
    return Stage("only", schedule, ClipConfig(), function, **more)


def batches(learner, step=0, spoilt=()):
    for samples in learner.samples(step):
        pictures = [torch.rand(2, 3, 4, 4, generator=rng.generator(0, "picture", s)) for s in samples]
        pictures = [p * float("nan") if s in spoilt else p for p, s in zip(pictures, samples, strict=True)]
        yield Batch(torch.stack(pictures), tuple(samples), (0,) * len(samples))


def stepped(learner, steps=1):
    taken = [learner.step(k, batches(learner, k)) for k in range(steps)]
    return taken[-1]


def test_a_step_is_that_of_adam_on_the_mean():
    learner = Learner(stage(), start(), {}, seed=3)
    params = {k: v.clone().requires_grad_() for k, v in start().params.items()}
    adam = torch.optim.AdamW(params.values(), lr=0.1, weight_decay=0.0)
    for step in range(3):
        (batch,) = batches(learner, step)
        wanted = loss(State(params, start().stats), batch, rng.generator(3, "only", step), 0.0).loss
        adam.zero_grad()
        wanted.backward()
        norm = torch.cat([p.grad.flatten() for p in params.values()]).norm()
        adam.step()
        taken = learner.step(step, [batch])
        assert taken.loss == pytest.approx(float(wanted.detach())) and taken.norm == pytest.approx(float(norm))
        assert taken.metrics["progress"] == step / 10
    assert all(torch.equal(v, params[k]) for k, v in learner.state.params.items())


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_make_the_step_of_the_whole_batch(parts):
    """Where no layer mixes samples; draws for the batch are the same in every part."""
    whole = Learner(stage(), start(), {}, seed=0)
    accumulated = Learner(stage(schedule=dataclasses.replace(SCHEDULE, accumulate=parts)), start(), {}, seed=0)
    assert accumulated.samples(2) == [range(k, k + 4 // parts) for k in range(8, 12, 4 // parts)]
    for step in range(4):
        a = whole.step(step, batches(whole, step))
        b = accumulated.step(step, batches(accumulated, step))
        assert b.loss == pytest.approx(a.loss) and b.norm == pytest.approx(a.norm)
        assert float(b.metrics["drawn"]) == pytest.approx(float(a.metrics["drawn"]))
    torch.testing.assert_close(dict(accumulated.state.params), dict(whole.state.params))
    assert float(accumulated.state.stats["n"]) == 4 * parts  # statistics move once a part


def test_the_slow_copy_follows_by_the_closed_form():
    """slow_n = d^n p_0 + (1 - d) sum_k d^(n - k) p_k, each tensor with a d of its own; statistics likewise."""
    decay = {"a": 0.9, "b": 0.0, "n": 1.0}
    state = dataclasses.replace(start(), slow=start().params, slow_stats=start().stats)
    learner = Learner(stage(decay=decay.__getitem__), state, {}, seed=0)
    fast = [{k: v.detach().double() for k, v in learner.state.params.items()}]
    for step in range(5):
        learner.step(step, batches(learner, step))
        fast.append({k: v.detach().double() for k, v in learner.state.params.items()})
    wanted = 0.9**5 * fast[0]["a"] + 0.1 * sum(0.9 ** (5 - k) * fast[k]["a"] for k in range(1, 6))
    torch.testing.assert_close(learner.state.slow["a"].double(), wanted, rtol=1e-6, atol=0)
    assert torch.equal(learner.state.slow["b"], learner.state.params["b"])
    assert float(learner.state.slow_stats["n"]) == 0 and float(learner.state.stats["n"]) == 5
    assert learner.state.slow["a"].dtype == torch.float32
    assert torch.equal(state.slow["a"], start().params["a"])  # what was given is left alone


def test_without_a_decay_the_slow_copy_stays():
    state = dataclasses.replace(start(), slow=start().params)
    learner = Learner(stage(), state, {}, seed=0)
    stepped(learner)
    assert torch.equal(learner.state.slow["a"], start().params["a"])


def test_what_is_not_trained_is_not_handed_to_the_optimiser():
    learner = Learner(stage(trainable=lambda name: name == "b"), start(), {}, seed=0)
    stepped(learner, 3)
    assert torch.equal(learner.state.params["a"], start().params["a"])
    assert not torch.equal(learner.state.params["b"], start().params["b"])
    assert {k.split("/")[1] for k in learner.moments()} == {"b"}
    assert [len(g["params"]) for g in learner.optimiser.param_groups] == [1]


@pytest.mark.parametrize(("accumulate", "spoilt"), [(1, {2}), (2, {0}), (2, {3}), (4, {1})])
def test_a_part_that_is_not_finite_leaves_everything_as_it_was(accumulate, spoilt):
    state = dataclasses.replace(start(), slow=start().params, extra={"seen": torch.tensor(7)})
    schedule = dataclasses.replace(SCHEDULE, accumulate=accumulate)
    learner = Learner(stage(schedule=schedule, decay=lambda name: 0.5), state, {}, seed=0)
    taken = learner.step(0, batches(learner, spoilt=spoilt))
    assert taken.norm is None and taken.loss != taken.loss
    for group in ("params", "stats", "slow", "extra"):
        after = getattr(learner.state, group)
        assert all(torch.equal(after[k], v) for k, v in getattr(state, group).items())
    assert learner.moments() == {}
    assert learner.step(1, batches(learner, 1)).norm is not None
    assert int(learner.state.extra["seen"]) == 11


def test_a_step_outlives_no_graph():
    learner = Learner(stage(), dataclasses.replace(start(), extra={"seen": torch.tensor(0.0)}), {}, seed=0)
    taken = stepped(learner)
    kept = [taken.out.loss, *taken.out.stats.values(), *taken.out.extra.values(), *learner.state.stats.values()]
    assert not any(t.requires_grad for t in kept)


def test_restored_moments_go_on_as_if_never_stopped():
    whole, first = (Learner(stage(), start(), {}, seed=0) for _ in range(2))
    stepped(whole, 4)
    stepped(first, 2)
    moments = dict(reversed({k: v.clone() for k, v in first.moments().items()}.items()))  # in any order
    second = Learner(stage(), first.state, moments, seed=0)
    for step in (2, 3):
        second.step(step, batches(second, step))
    assert all(torch.equal(v, whole.state.params[k]) for k, v in second.state.params.items())


def changed(form):
    def function(state, batch, rng, progress):
        return dataclasses.replace(loss(state, batch, rng, progress), extra=form)

    return function


@pytest.mark.parametrize(
    ("broken", "state", "message"),
    [
        ({"trainable": lambda name: False}, {}, "only: trains no parameter"),
        ({}, {"slow": {"c": torch.ones(1)}}, "only: has nothing that slow c could follow"),
        ({}, {"slow_stats": {"m": torch.ones(1)}}, "only: has nothing that slow m could follow"),
        ({"function": changed({"new": torch.ones(1)})}, {}, "changed the form of State.extra"),
        ({"function": changed({"old": torch.ones(2)})}, {"extra": {"old": torch.ones(1)}}, "form of State.extra"),
        ({"function": changed({"old": torch.ones(1).int()})}, {"extra": {"old": torch.ones(1)}}, "form of State.extra"),
    ],
)
def test_a_recipe_that_cannot_be_trained_so_is_blamed(broken, state, message):
    with pytest.raises(UsageError, match=message):
        stepped(Learner(stage(**broken), dataclasses.replace(start(), **state), {}, seed=0))


def test_a_batch_that_cannot_be_parted_among_processes_is_refused(monkeypatch):
    monkeypatch.setattr("vcorr.ranks.size", lambda: 3)
    with pytest.raises(
        UsageError, match=r"only\.batch=4: cannot be parted among 3 processes, 2 times; give a multiple of 6"
    ):
        Learner(stage(schedule=dataclasses.replace(SCHEDULE, accumulate=2)), start(), {}, seed=0)
