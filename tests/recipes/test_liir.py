"""LIIR's loss against one written out by hand, and what goes into its bank."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.recipes.dense import CELLS, RADIUS, SIDE, TAPS, copied, huber
from vcorr import rng
from vcorr.matching import compactness
from vcorr.model import color, network, position
from vcorr.training import recipe
from vcorr.training.losses import bank
from vcorr.training.recipe import Batch

TOY = [
    *("net.widths=8,4,8,8", "net.features=8", "net.position.size=8", f"matching.radius={RADIUS}", f"clips.size={SIDE}"),
    *("pairs.batch=2", "full.batch=2", "pairs.warmup=0", "bank.frames=6", "bank.points=3", "hide=1"),
]
SCALE = 8**-0.5


def clips(first=6, videos=(0, 1)):
    rgb = torch.rand(4, 3, SIDE, SIDE, generator=rng.generator(first, "test"))
    return Batch(rgb.unflatten(0, (2, 2)), (first, first + 1), videos)


def start(*overrides, filled=True):
    """The recipe and a state of its full stage: two unlike encoders, positions that are not 0, a bank of videos 0-3."""
    built = recipe.load("liir", [*TOY, *overrides]).recipe
    state = built.stages[1].enter(built.init(rng.generator(1, "init")))
    draw = rng.generator(2, "test")

    def moved(tensors):
        return {k: v + 0.05 * torch.randn(v.shape, generator=draw) for k, v in tensors.items()}

    params, slow, extra = moved(state.params), moved(state.slow), state.extra
    if filled and len(extra["bank.videos"]):
        extra = bank.push(extra, 3 * torch.randn(4, 3, 8, generator=draw), [0, 1, 2, 3], range(4))
    params = {k: v.requires_grad_() for k, v in params.items()}
    return built, dataclasses.replace(state, params=params, slow=slow, extra=extra)


def descend(built, state, batch, stage=1):
    out = built.stages[stage].loss(state, batch, rng.generator(0, "full"), 0.0)
    grads = torch.autograd.grad(out.loss, list(state.params.values()), allow_unused=True)
    return out, [g if g is not None else torch.zeros(()) for g in grads]


def by_hand(built, state, batch, *, peaks=2):
    """(rebuilt, compact): eq. 4 and 5 with a dense softmax over window and bank; eq. 8 over every tap."""
    lab = color.to_lab(batch.rgb.flatten(0, 1)).unflatten(0, (2, 2))
    truth = lab[:, :, 1].clone()
    seen = 1.5 * lab
    seen[:, :, 1] = 0
    key, query = (network.apply(built.net, state.params, state.stats, seen[:, k], train=True)[0] for k in range(2))
    points, groups = bank.read(state.extra)
    logits = SCALE * query.flatten(1, 2) @ points.T  # [b 16 m]
    others = logits.exp() * (groups != torch.tensor(batch.videos)[:, None])[:, None]
    rebuilt = huber(copied(query, [key], [truth[:, 0]], scale=SCALE, others=others.sum(-1)), truth[:, 1])
    terms = torch.zeros(())
    for b in range(2):
        for i in range(CELLS**2):
            at = [(i // CELLS + dy, i % CELLS + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            seen = query[b].flatten(0, 1)[i]
            inside = [0 <= y < CELLS and 0 <= x < CELLS for y, x in at]
            taps = [SCALE * (seen @ key[b, y, x]) if n else 0 * seen[0] for (y, x), n in zip(at, inside, strict=True)]
            weights = torch.stack(taps).softmax(0)
            best, where = weights.detach().topk(peaks)
            if best[0] > 0.5:
                means = torch.tensor(at)[where].float()
                distance = (torch.tensor(at).float() - means[:, None]).square().sum(-1)
                prior = best.softmax(0) @ 2 ** (-4 * distance)
                terms = terms + torch.nn.functional.smooth_l1_loss(20 * weights, 20 * prior, reduction="sum")
    return rebuilt, terms / (2 * CELLS**2 * TAPS)


@pytest.mark.parametrize("gain", [0.2, 1.0])
def test_loss_and_gradients_are_those_written_by_hand(gain):
    """With features so small that none is sure of itself; and with larger ones, some sure."""
    built, state = start("net.position.kind=2dape")
    params = {k: (v.detach() * (gain if k.startswith("head") else 1)).requires_grad_() for k, v in state.params.items()}
    state = dataclasses.replace(state, params=params)
    batch = clips()
    rebuilt, compact = by_hand(built, state, batch)
    assert (float(compact.detach()) > 1e-3) == (gain == 1)
    out, grads = descend(built, state, batch)
    torch.testing.assert_close(out.metrics["rebuilt"], rebuilt, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.as_tensor(out.metrics["compact"]), compact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.loss, rebuilt + compact, rtol=1e-4, atol=1e-5)
    wanted = torch.autograd.grad(rebuilt + compact, list(params.values()))
    for got, grad in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got, grad, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("overrides", [["bank.frames=0"], ["bank.frames=6"]])
def test_with_an_empty_bank_and_no_prior_the_full_stage_is_the_warm_up(overrides):
    """Eq. 4 equals eq. 1, in value and gradients."""
    built, state = start("peaks=0", *overrides, filled=False)
    full, grads = descend(built, state, clips())
    pairs, wanted = descend(built, state, clips(), stage=0)
    assert float(full.metrics["share"].detach()) == 1
    torch.testing.assert_close(full.loss, pairs.loss)
    torch.testing.assert_close(grads, wanted)


def test_negatives_shrink_the_share_of_the_window():
    built, state = start("peaks=0")
    filled, _ = descend(built, state, clips())
    assert 0 < float(filled.metrics["share"].detach()) < 0.9
    alone, _ = descend(built, dataclasses.replace(state, extra=start(filled=False)[1].extra), clips())
    assert float(alone.metrics["share"].detach()) == 1


@pytest.mark.parametrize("modulation", ["none", "shifting", "shuffling"])
def test_the_reference_goes_into_the_bank_through_the_slow_encoder(modulation):
    """Its points are cells of features that are worked out here, with the position that the sample drew."""
    built, state = start(f"bank.modulation={modulation}")
    batch = clips(videos=(7, 9))
    extra = descend(built, state, batch)[0].extra
    assert int(extra["bank.pushed"]) == 6 and extra["bank.videos"].tolist() == [0, 1, 2, 3, 7, 9]
    seen = 1.5 * color.to_lab(batch.rgb[:, 0])
    seen[:, 1] = 0
    place = state.slow["position.map"]
    draws = [rng.generator(0, "bank.position", sample) for sample in batch.samples]
    moved = position.modulate(place, modulation, draws)
    assert torch.equal(moved[0], place) == (modulation == "none")
    maps, _ = network.apply(built.net, state.slow, state.slow_stats, seen, train=True, position=moved)
    for frame, points in zip(maps.flatten(1, 2), extra["bank.features"][4:], strict=True):
        assert float(torch.cdist(points, frame).min(1).values.max()) < 1e-4
    assert not extra["bank.features"].requires_grad


def test_negatives_follow_the_sample():
    """Whoever has it in whichever batch: draws of position and points are the sample's own."""
    built, state = start()
    frames = torch.rand(2, 3, SIDE, SIDE, generator=rng.generator(3, "test"))
    cfg = recipe.load("liir", TOY).config.bank

    def points(frames, *samples):
        stats = {k: v.clone() for k, v in state.slow_stats.items()}
        return bank.encode(cfg, built.net, state.slow, stats, frames, 0, samples)

    torch.testing.assert_close(points(frames, 4, 9), points(frames.flip(0), 9, 4).flip(0))
    assert not torch.allclose(points(frames, 4, 9), points(frames, 4, 8))


def test_rows_of_the_tables_are_overrides():
    """Each component by itself: the base is MAST, with none of the three."""
    base = ["net.position.kind=none", "bank.frames=0", "peaks=0", "inference.compactness=0"]
    built, state = start(*base)
    mast = recipe.load("mast", [o for o in TOY if o.split(".")[0] not in ("full", "bank")] + base[:1]).recipe
    batch = clips()
    out, _ = descend(built, state, batch)
    wanted = mast.stages[0].loss(state, batch, rng.generator(0, "full"), 0.0)
    torch.testing.assert_close(out.loss, wanted.loss)
    assert "position.map" not in state.params and built.inference.compactness == 0


def test_the_prior_is_not_worked_out_where_it_has_no_peaks(monkeypatch):
    monkeypatch.setattr(compactness, "loss", None)
    built, state = start("peaks=0")
    out, _ = descend(built, state, clips())
    assert out.metrics["compact"] == 0


def test_the_published_numbers():
    config = recipe.load("liir").config
    assert (config.bank.frames, config.bank.points, config.bank.modulation) == (1440, 4, "shifting")
    assert (config.net.position.kind, 2 * config.net.position.size) == ("1dape", config.clips.size)
    assert (config.peaks, config.inference.compactness, config.matching.radius, config.inference.radius) == (
        2,
        2,
        6,
        12,
    )
    assert [config.full.rate(samples // 12) for samples in (0, 60_000, 340_000)] == [1e-4, 0.9e-4, 1e-4 / 16]
