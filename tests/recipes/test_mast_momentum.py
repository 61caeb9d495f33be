"""The momentum memory: its loss against one written out by hand, its slow encoder, and what it reads with."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.recipes.dense import RADIUS, SIDE, copied, huber
from vcorr import rng
from vcorr.model import color, network
from vcorr.training import recipe
from vcorr.training import step as learner
from vcorr.training.recipe import Batch

TOY = [
    *(
        "net.widths=4,4,8,8",
        "net.features=8",
        f"matching.radius={RADIUS}",
        "pairs.batch=2",
        "memory.batch=2",
        "pairs.warmup=0",
    ),
    *(f"clips.size={SIDE}", f"memory_clips.size={SIDE}"),
]


def clips(frames, first=6):
    rgb = torch.rand(2 * frames, 3, SIDE, SIDE, generator=rng.generator(first, "test"))
    return Batch(rgb.unflatten(0, (2, frames)), (first, first + 1), (0, 1))


def start(name, *overrides):
    """A recipe's stage, and a state in it whose slow encoder is another than the fast."""
    built = recipe.load("mast_momentum", [*TOY, *overrides]).recipe
    stage = next(stage for stage in built.stages if stage.name == name)
    state = stage.enter(built.init(rng.generator(1, "init")))
    draw = rng.generator(2, "test")
    slow = {k: v + 0.05 * torch.randn(v.shape, generator=draw) for k, v in state.slow.items()}
    params = {k: v.requires_grad_() for k, v in state.params.items()}
    return built, stage, dataclasses.replace(state, params=params, slow=slow)


def by_hand(net, state, batch, hidden, jitter, scale):
    """The last frame's clean channel from all earlier ones' clean channels; features of jittered, blinded frames."""
    frames = batch.rgb.shape[1]
    seen = 1.5 * color.to_lab(color.jitter(batch.rgb, batch.samples, jitter, 0).flatten(0, 1)).unflatten(0, (2, frames))
    seen[:, :, hidden] = 0
    encoders = [(state.slow or state.params, state.slow_stats or state.stats)] * (frames - 1)
    encoders.append((state.params, state.stats))
    *keys, query = (network.apply(net, *encoder, seen[:, k], train=True)[0] for k, encoder in enumerate(encoders))
    *values, truth = color.to_lab(batch.rgb.flatten(0, 1)).unflatten(0, (2, frames))[:, :, hidden].unbind(1)
    keys = [key.detach() if state.slow else key for key in keys]
    return huber(copied(query, keys, values, scale=scale), truth)


@pytest.mark.parametrize("hide", [color.A, color.B])
@pytest.mark.parametrize(("name", "frames"), [("pairs", 2), ("memory", 6)])
def test_loss_and_gradients_are_those_written_by_hand(name, frames, hide):
    built, stage, state = start(name, f"hide={hide}", "jitter.share=1")
    assert stage.clips.length == frames
    batch = clips(frames)
    out = stage.loss(state, batch, rng.generator(0, name), 0.0)
    jitter = color.JitterConfig(share=1.0, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    wanted = by_hand(built.net, state, batch, hide, jitter, 8**-0.5)
    torch.testing.assert_close(out.loss, wanted, rtol=1e-5, atol=1e-6)
    grads = (torch.autograd.grad(loss, list(state.params.values())) for loss in (out.loss, wanted))
    for got, grad in zip(*grads, strict=True):
        torch.testing.assert_close(got, grad, rtol=1e-3, atol=1e-5)


def test_references_carry_no_gradient_and_leave_the_statistics_alone():
    built, stage, state = start("memory")
    batch = clips(6)
    out = stage.loss(state, batch, rng.generator(0, "memory"), 0.0)
    assert out.views.query.requires_grad and not any(key.requires_grad for key in out.views.keys)
    jittered = color.jitter(batch.rgb, batch.samples, recipe.load("mast_momentum").config.jitter, 0)
    lab = color.to_lab(jittered.flatten(0, 1)).unflatten(0, (2, 6))
    seen, _ = color.hide_channel(lab, rng.generator(0, "memory"))
    _, stats = network.apply(built.net, state.params, state.stats, seen[:, -1], train=True)
    assert all(torch.allclose(out.stats[k], stats[k]) for k in stats)


def test_the_slow_encoder_is_the_sum_of_all_before_it():
    """slow_n = m^n theta_0 + (1 - m) sum_k m^(n-k) theta_k, parameters and statistics."""
    built = recipe.load("mast_momentum", [*TOY, "decay=0.9"]).recipe
    stage = built.stages[1]
    started = stage.enter(built.init(rng.generator(1, "init")))
    assert all(torch.equal(started.slow[k], v) for k, v in started.params.items())
    assert all(torch.equal(started.slow_stats[k], v) for k, v in started.stats.items())
    learn = learner.Learner(stage, started, {}, seed=0)
    passed = [{k: v.detach().clone() for k, v in (started.params | started.stats).items()}]
    for step in range(5):
        learn.step(step, [clips(6, first=10 * step)])
        passed.append({k: v.detach().clone() for k, v in (learn.state.params | learn.state.stats).items()})
    slow = learn.state.slow | learn.state.slow_stats
    assert slow.keys() == passed[0].keys()
    for name, got in slow.items():
        wanted = 0.9**5 * passed[0][name]
        for k in range(1, 6):
            wanted = wanted + 0.1 * 0.9 ** (5 - k) * passed[k][name]
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
        assert not torch.equal(got, passed[-1][name])


def test_the_memory_is_the_one_that_labels_are_read_from():
    config = recipe.load("mast_momentum").config
    assert set(config.memory_clips.long) == set(config.inference.references.long) == {0, 5}
    assert set(config.memory_clips.short) == set(config.inference.references.short) == {1, 3, 5}
    assert config.matching.radius == config.inference.radius == 12 and config.inference.slow
    assert (config.clips.size, config.memory_clips.size, config.decay) == (384, 384, 0.999)
