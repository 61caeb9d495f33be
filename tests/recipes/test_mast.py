"""MAST's loss, for pairs and for the full memory, against one written out by hand with dense matrices."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from vcorr import rng
from vcorr.model import color, network
from vcorr.training import recipe
from vcorr.training.recipe import Batch

RADIUS, SIDE, CELLS = 1, 16, 4
TOY = ["net.widths=4,4,8,8", "net.features=8", f"matching.radius={RADIUS}", f"clips.size={SIDE}", "pairs.batch=2"]
MEMORY = [f"memory_clips.size={SIDE}", "memory.batch=2"]


def clips(frames):
    rgb = torch.rand(2 * frames, 3, SIDE, SIDE, generator=rng.generator(5, "test"))
    return Batch(rgb.unflatten(0, (2, frames)), (6, 7), (0, 1))


def by_hand(net, state, batch, hidden, scale):
    """The last frame's hidden channel from all earlier ones: cells beyond the border have logit 0 and value 0."""
    seen = color.to_lab(batch.rgb.flatten(0, 1)).unflatten(0, batch.rgb.shape[:2])
    truth = seen[:, :, hidden].clone()
    seen = 1.5 * seen
    seen[:, :, hidden] = 0
    stats, features = state.stats, []
    for k in range(seen.shape[1]):
        feature, stats = network.apply(net, state.params, stats, seen[:, k], train=True)
        features.append(feature)
    y, x = torch.arange(CELLS**2) // CELLS, torch.arange(CELLS**2) % CELLS
    near = ((y[:, None] - y).abs() <= RADIUS) & ((x[:, None] - x).abs() <= RADIUS)
    outside = (2 * RADIUS + 1) ** 2 - near.sum(1)
    total, copied = torch.zeros(2, CELLS**2), torch.zeros(2, CELLS**2)
    for k in range(seen.shape[1] - 1):
        logits = scale * features[-1].flatten(1, 2) @ features[k].flatten(1, 2).mT
        mass = logits.exp() * near
        total = total + mass.sum(-1) + outside
        copied = copied + (mass @ truth[:, k, ::4, ::4].flatten(1)[..., None])[..., 0]
    cells = (copied / total).unflatten(1, (CELLS, CELLS))[:, None]
    rebuilt = torch.nn.functional.interpolate(cells, (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    error = 20 * (rebuilt - truth[:, -1]).abs()
    return torch.where(error < 1, error.square() / 2, error - 1 / 2).mean()


@pytest.mark.parametrize(("name", "frames"), [("pairs", 2), ("memory", 6)])
@pytest.mark.parametrize(("given", "scale"), [("none", 8**-0.5), ("1", 1.0)])
@pytest.mark.parametrize("hide", [color.A, color.B])
def test_loss_and_gradients_are_those_written_by_hand(name, frames, given, scale, hide):
    built = recipe.load("mast_memory", [*TOY, *MEMORY, f"matching.scale={given}", f"hide={hide}"]).recipe
    stage = next(stage for stage in built.stages if stage.name == name)
    assert stage.clips.length == frames
    state = built.init(rng.generator(1, "init"))
    params = {k: v.requires_grad_() for k, v in state.params.items()}
    state, batch = dataclasses.replace(state, params=params), clips(frames)
    out = stage.loss(state, batch, rng.generator(0, name), 0.0)
    wanted = by_hand(built.net, state, batch, hide, scale)
    torch.testing.assert_close(out.loss, wanted, rtol=1e-5, atol=1e-6)
    grads = (torch.autograd.grad(loss, list(params.values())) for loss in (out.loss, wanted))
    for got, grad in zip(*grads, strict=True):
        torch.testing.assert_close(got, grad, rtol=1e-3, atol=1e-5)
    assert len(out.views.keys) == frames - 1


def test_the_second_stage_reads_the_memory_that_propagation_keeps():
    config = recipe.load("mast_memory").config
    assert set(config.memory_clips.long) == set(config.inference.references.long) == {0, 5}
    assert set(config.memory_clips.short) == set(config.inference.references.short) == {1, 3, 5}
    assert (config.memory.lr, config.pairs.lr) == (2e-5, 1e-3)


def test_the_second_stage_differs_from_mast_by_itself_alone():
    pairs, both = recipe.load("mast").config, recipe.load("mast_memory").config
    differing = {k for k, v in recipe.flatten(both).items() if recipe.flatten(pairs).get(k, "none") != v}
    assert all(key.split(".")[0] in ("memory", "memory_clips") for key in differing)
    assert [stage.name for stage in recipe.load("mast_memory").recipe.stages] == ["pairs", "memory"]


def test_rates_are_halved_by_the_samples_seen():
    """The released code's schedule, in samples; its batch was 12."""
    schedule = recipe.load("mast").config.pairs
    at = {
        samples: schedule.rate(samples // schedule.batch) for samples in (240_000, 480_000, 720_000, 960_000, 1_200_000)
    }
    assert list(at.values()) == [1e-3 / 2**k for k in range(5)]
