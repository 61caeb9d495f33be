"""CorrFlow's loss against one written out by hand on a toy of three frames: every path by itself, dense matrices."""

from __future__ import annotations

import dataclasses
import shutil
from itertools import pairwise

import pytest
import torch

import vcorr
from vcorr import rng
from vcorr.model import color, network
from vcorr.model.color import CENTROIDS
from vcorr.model.weights import load_weights
from vcorr.training import recipe
from vcorr.training.loop import train
from vcorr.training.recipe import Batch, References

RADIUS, SIDE, CELLS = 1, 16, 4
TOY = [
    *("net.widths=4,4,8,8", "net.features=8", f"matching.radius={RADIUS}", f"clips.size={SIDE}", "triplets.batch=2"),
    *("jitter.share=0", "keep=1"),
]


@pytest.fixture
def batch():
    """Coarse patches of colour, so that neighbouring cells differ in class."""
    coarse = torch.rand(2 * 3, 3, 6, 6, generator=rng.generator(5, "test"))
    rgb = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="nearest").unflatten(0, (2, 3))
    return Batch(rgb, (6, 7), (0, 1))


def start(*overrides):
    built = recipe.load("corrflow", [*TOY, *overrides]).recipe
    state = built.init(rng.generator(1, "init"))
    params = {k: v.requires_grad_() for k, v in state.params.items()}
    return built, dataclasses.replace(state, params=params)


def gradients(loss, state):
    return torch.autograd.grad(loss, list(state.params.values()))


def run(overrides, batch, *, progress=0.0, draws=0):
    built, state = start(*overrides)
    out = built.stages[0].loss(state, batch, rng.generator(draws, "triplets"), progress)
    return out, gradients(out.loss, state)


# --- the oracle -----------------------------------------------------------------------------------------------------


def matrix_to_cells():
    """[cells pixels] of one axis: a cell is the mean of its two middle pixels."""
    m = torch.zeros(CELLS, SIDE)
    for i in range(CELLS):
        m[i, 4 * i + 1] = m[i, 4 * i + 2] = 0.5
    return m


def matrix_to_pixels():
    """[pixels cells] of one axis: linear between the centres of cells, constant beyond the outermost."""
    m = torch.zeros(SIDE, CELLS)
    for p in range(SIDE):
        at = min(max((p + 0.5) / 4 - 0.5, 0), CELLS - 1)
        low = min(int(at), CELLS - 2)
        m[p, low], m[p, low + 1] = low + 1 - at, at - low
    return m


def carried(query, key, colours, scale):
    """Colours on pixels [b v H W] of the key's frame, copied to the query's."""
    values = torch.einsum("iy,jx,bvyx->bvij", matrix_to_cells(), matrix_to_cells(), colours).flatten(2)
    y, x = torch.arange(CELLS**2) // CELLS, torch.arange(CELLS**2) % CELLS
    near = ((y[:, None] - y).abs() <= RADIUS) & ((x[:, None] - x).abs() <= RADIUS)
    logits = scale * query.flatten(1, 2) @ key.flatten(1, 2).mT
    weights = logits.masked_fill(~near, -torch.inf).softmax(-1)
    copied = (weights @ values.mT).mT.unflatten(2, (CELLS, CELLS))
    return torch.einsum("yi,xj,bvij->bvyx", matrix_to_pixels(), matrix_to_pixels(), copied)


def by_hand(batch, *, taught, cycle=0.1, scale=8**-0.5):
    """(loss, gradients): sum over frames 1, 2 of the forward loss, plus cycle times both returns to frame 0."""
    built, state = start()
    stats, f = state.stats, []
    for k in range(3):
        feature, stats = network.apply(built.net, state.params, stats, batch.rgb[:, k], train=True)
        f.append(feature)
    ab = color.to_lab(batch.rgb.flatten(0, 1))[:, 1:] * 127
    distance = (ab.movedim(1, -1)[..., None, :] - torch.tensor(CENTROIDS)).square().sum(-1)
    label = distance.argmin(-1).unflatten(0, (2, 3))
    c = torch.nn.functional.one_hot(label, 16).float().permute(1, 0, 4, 2, 3)  # [t b 16 H W]

    def entropy(p, k):
        return -((p * c[k]).sum(1) + 1e-8).log().mean()

    def go(colours, *path):
        for a, b in pairwise(path):
            colours = carried(f[b], f[a], colours, scale)
        return colours

    forward = entropy(go(c[0], 0, 1), 1) + entropy(go(c[1], 1, 2) if taught else go(c[0], 0, 1, 2), 2)
    back = entropy(go(c[0], 0, 1, 0), 0) + entropy(go(c[0], 0, 1, 2, 1, 0), 0)
    return forward, back, gradients(forward + cycle * back, state)


# --- loss -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("taught", [True, False])
@pytest.mark.parametrize("cycle", [0.1, 0.0, 2.0])
def test_losses_and_gradients_are_those_written_by_hand(batch, taught, cycle):
    epsilon = "1,1" if taught else "0,0"
    out, grads = run([f"epsilon={epsilon}", f"cycle={cycle}"], batch)
    forward, back, wanted = by_hand(batch, taught=taught, cycle=cycle)
    torch.testing.assert_close(out.metrics["forward"], forward.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.metrics["cycle"], back.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out.loss.detach(), (forward + cycle * back).detach(), rtol=1e-5, atol=1e-6)
    for got, grad in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got, grad, rtol=1e-3, atol=1e-5)


def test_scale_one_is_an_override(batch):
    out, _ = run(["epsilon=1,1", "matching.scale=1"], batch)
    forward, back, _ = by_hand(batch, taught=True, scale=1.0)
    torch.testing.assert_close(out.loss.detach(), (forward + 0.1 * back).detach(), rtol=1e-5, atol=1e-6)


def test_what_was_rebuilt_is_read_on_with_its_gradient(batch):
    """Teaching changes loss and gradients: the second frame then hangs on the first reconstruction."""
    (taught, a), (own, b) = (run([f"epsilon={e}", "cycle=0"], batch) for e in ("1,1", "0,0"))
    assert float(taught.loss.detach()) != pytest.approx(float(own.loss.detach()), rel=1e-4)
    assert any(float((x - y).abs().max()) > 1e-4 for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("low", "high", "taught"), [(0, 0.6, "yyy"), (0.6, 0.75, "yyn"), (0.75, 0.9, "ynn"), (0.9, 1, "nnn")]
)
def test_the_chance_of_the_truth_falls_over_the_training(batch, low, high, taught):
    """Epsilon is 0.9 at the start, 0.75 half way, 0.6 at the end; one coin holds for the whole batch."""

    def coin(k):
        draws = rng.generator(k, "triplets")
        rng.uniform(0, 1, draws)  # whether channels are dropped
        return rng.uniform(0, 1, draws)

    def loss(progress, draws, *overrides):
        built, state = start(*overrides)
        with torch.no_grad():
            return float(built.stages[0].loss(state, batch, rng.generator(draws, "triplets"), progress).loss)

    k = next(k for k in range(100) if low < coin(k) < high)
    wanted = {"y": loss(0.0, k, "epsilon=1,1"), "n": loss(0.0, k, "epsilon=0,0")}
    assert wanted["y"] != pytest.approx(wanted["n"], rel=1e-4)
    assert [loss(p, k) for p in (0.0, 0.5, 1.0)] == pytest.approx([wanted[t] for t in taught], rel=1e-6)


def test_each_frame_is_encoded_once_and_six_readings_serve_all_paths(batch, monkeypatch):
    from vcorr.matching import rebuild as correspondence

    calls = {"encoder": 0, "reading": 0}

    def counted(name, function):
        def call(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(network, "apply", counted("encoder", network.apply))
    monkeypatch.setattr(correspondence, "rebuild", counted("reading", correspondence.rebuild))
    run([], batch)
    assert calls == {"encoder": 3, "reading": 6}


# --- what the network sees ------------------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch):
    """The frames that the encoder was given."""
    frames = []

    def watched(cfg, params, stats, x, *, train):
        frames.append(x.detach())
        return apply(cfg, params, stats, x, train=train)

    apply = network.apply
    monkeypatch.setattr(network, "apply", watched)
    return frames


def test_the_network_sees_rgb_as_filmed_unless_something_is_dropped(batch, seen):
    run([], batch)
    assert all(torch.equal(frame, batch.rgb[:, k]) for k, frame in enumerate(seen))


def test_dropped_channels_are_missing_from_every_frame_and_not_from_the_labels(batch, seen):
    whole, _ = run(["epsilon=1,1"], batch)
    del seen[:]
    out, _ = run(["epsilon=1,1", "keep=0"], batch)
    gone = [[c for c in range(3) if not bool(frame[:, c].any())] for frame in seen]
    assert gone[0] and gone == gone[:1] * 3
    kept = next(c for c in range(3) if c not in gone[0])
    torch.testing.assert_close(seen[1][:, kept], batch.rgb[:, 1, kept] * 3 / (3 - len(gone[0])))
    assert float(out.loss.detach()) != float(whole.loss.detach())


def test_jitter_changes_what_is_seen_and_not_what_is_rebuilt(batch, seen):
    built, state = start("jitter.share=1", "epsilon=1,1")
    jittered = color.jitter(batch.rgb, batch.samples, color.JitterConfig(share=1.0), seed=0)
    out = built.stages[0].loss(state, batch, rng.generator(0, "triplets"), 0.0)
    assert all(torch.equal(frame, jittered[:, k]) for k, frame in enumerate(seen))
    plain = Batch(jittered, batch.samples, batch.videos)
    plain.__dict__["lab"] = batch.lab  # the labels stay those of the clean frames
    wanted = start("epsilon=1,1")[0].stages[0].loss(state, plain, rng.generator(0, "triplets"), 0.0)
    assert torch.equal(out.loss, wanted.loss)


def test_gray_instead_of_dropout(batch, seen):
    run(["space=gray"], batch)
    for k, frame in enumerate(seen):
        assert torch.equal(frame, color.to_space(batch.rgb[:, k], "gray"))


def test_full_attention_reads_cells_that_the_window_leaves_out(batch):
    window, whole = run(["epsilon=1,1"], batch)[0], run(["epsilon=1,1", "matching.radius=none"], batch)[0]
    as_wide = run(["epsilon=1,1", f"matching.radius={CELLS}"], batch)[0]
    torch.testing.assert_close(whole.loss, as_wide.loss)
    assert float(whole.loss.detach()) != pytest.approx(float(window.loss.detach()), rel=1e-4)
    assert whole.views.matching.radius is None and whole.views.frames == (1,)


# --- reading with it ------------------------------------------------------------------------------------------------


def test_weights_of_a_run_label_a_video_as_corrflow_does(frames, mask, tmp_path, monkeypatch):
    """They say that they see RGB, and that one frame back is read through 13 x 13 cells."""
    film = tmp_path / "films" / "scene"
    film.parent.mkdir()
    shutil.copytree(frames, film)
    own = [pair for pair in TOY if not pair.startswith("matching.radius")]
    small = [*own, "clips.gaps=2", "triplets.steps=1", "jitter.share=1", "clips.read=48"]
    weights = train(recipe.load("corrflow", small), film.parent, tmp_path / "run")
    made = load_weights(weights)
    assert made.space == "rgb" and made.inference.references == References(long=(), short=(1,))
    read = made.inference.matching(made.matching)
    assert (read.radius, read.border, read.alignment, made.inference.feedback) == (6, "mask", "bilinear", "hard")
    seen = []
    monkeypatch.setattr(color, "to_lab", lambda rgb: seen.append(rgb))
    result = list(vcorr.propagate(frames, mask, weights=weights))
    assert [frame.index for frame in result] == list(range(8)) and not seen
