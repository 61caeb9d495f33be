"""The compactness prior against its formulas, written out over every window."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from vcorr import rng
from vcorr.kernels import memory_read
from vcorr.matching import compactness


def features(*shape, seed=0, gain=1.0):
    return (gain * torch.randn(*shape, generator=rng.generator(seed, "test"))).double()


def affinities(query, key, *, radius, scale, border, n, y, x):
    """{cell of the frame or beyond it: weight} of one query cell, by hand."""
    _, h, w, _ = query.shape
    logits = {}
    for v in range(y - radius, y + radius + 1):
        for u in range(x - radius, x + radius + 1):
            if 0 <= v < h and 0 <= u < w:
                logits[v, u] = scale * (query[n, y, x] @ key[n, v, u])
            elif border == "zeros":
                logits[v, u] = query.new_zeros(())
    weights = torch.stack(list(logits.values())).softmax(0)
    return dict(zip(logits, weights, strict=True))


def largest(weights, peaks):
    found = sorted(weights, key=weights.__getitem__, reverse=True)[:peaks]
    return found, [weights[u] for u in found]


def mixture(weights, peaks):
    """Eq. 7 with Gaussians of a full width at half maximum of one cell."""
    means, p = largest(weights, peaks)
    shares = torch.tensor(p, dtype=torch.float64).softmax(0)
    half = 4 * math.log(2)
    return {
        u: sum(float(s) * math.exp(-half * math.dist(u, m) ** 2) for s, m in zip(shares, means, strict=True))
        for u in weights
    }


def normal_mixture(weights, peaks):
    means, p = largest(weights, peaks)
    result = dict.fromkeys(weights, 0.0)
    for mean, share in zip(means, p, strict=True):
        var = [max(0.25, sum(a * (u[i] - mean[i]) ** 2 for u, a in weights.items())) for i in (0, 1)]
        for u in weights:
            exponent = sum((u[i] - mean[i]) ** 2 / var[i] for i in (0, 1))
            result[u] += share / sum(p) * math.exp(-exponent / 2) / (2 * math.pi * math.sqrt(var[0] * var[1]))
    return result


def by_hand(query, key, *, peaks, radius, scale, border, form):
    """Eq. 8 over every tap, with the gradient through A alone."""
    b, h, w, _ = query.shape
    terms, sure = [], 0
    for n in range(b):
        for y in range(h):
            for x in range(w):
                a = affinities(query, key, radius=radius, scale=scale, border=border, n=n, y=y, x=x)
                got = torch.stack(list(a.values()))
                known = dict(zip(a, got.tolist(), strict=True))
                prior = (mixture if form == "gated" else normal_mixture)(known, peaks)
                wanted = torch.tensor(list(prior.values()), dtype=torch.float64)
                g = float(max(known.values()) > 0.5)
                sure += g
                if form == "gated":
                    terms.append(F.smooth_l1_loss(20 * got * g, 20 * wanted * g, reduction="none"))
                else:
                    terms.append((got - wanted).square())
    return torch.cat(terms).mean(), sure


@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize(("form", "peaks"), [("gated", 1), ("gated", 2), ("gated", 3), ("fitted", 2)])
def test_the_loss_is_the_formula_over_every_tap(peaks, border, form):
    """Values and gradients, with windows inside the frame, over its edge, and tiles cut short."""
    query, key = (features(2, 3, 9, 5, seed=k).abs().requires_grad_() for k in range(2))  # above the logit 0 outside
    settings = {"peaks": peaks, "radius": 2, "scale": 1.5, "border": border, "form": form}
    wanted, sure = by_hand(query, key, **settings)
    assert 8 < sure < 46  # of 54: the gate matters
    got = compactness.loss(query, key, **settings)
    torch.testing.assert_close(got, wanted)
    ours, theirs = (torch.autograd.grad(value, (query, key)) for value in (got, wanted))
    torch.testing.assert_close(ours, theirs)
    assert all(bool(g.any()) for g in ours)


@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_a_window_larger_than_the_frame(border):
    query, key = (features(1, 3, 2, 4, seed=k).abs() for k in range(2))
    settings = {"peaks": 2, "radius": 4, "scale": 3.0, "border": border, "form": "gated"}
    wanted, sure = by_hand(query, key, **settings)
    assert sure
    torch.testing.assert_close(compactness.loss(query, key, **settings), wanted)


@pytest.mark.parametrize("form", ["gated", "fitted"])
def test_gradcheck_with_the_mixture_held(form, monkeypatch):
    """The mixture is constant to the gradient: held as it is at the start, numerical and own gradients agree."""
    query, key = (features(1, 3, 4, 3, seed=k, gain=2.0).requires_grad_() for k in range(2))
    name = {"gated": "_gaussians", "fitted": "_fitted"}[form]
    plain, held = getattr(compactness, name), {}
    monkeypatch.setattr(compactness, name, lambda a, w: held.setdefault("mixture", plain(a, w)))
    assert torch.autograd.gradcheck(
        lambda q, k: 10 * compactness.loss(q, k, peaks=2, radius=1, scale=1.0, form=form), (query, key)
    )


def test_rows_taken_a_few_at_a_time_are_the_whole(monkeypatch):
    query, key = (features(2, 9, 10, 5, seed=k, gain=2.0).requires_grad_() for k in range(2))
    found = []
    for taps in (1, 5000, 1 << 30):
        monkeypatch.setattr(compactness, "TAPS", taps)
        value = compactness.loss(query, key, peaks=2, radius=2)
        found.append((value, *torch.autograd.grad(value, (query, key))))
    for parts in found[1:]:
        torch.testing.assert_close(parts, found[0])


def test_unsure_affinities_cost_nothing():
    query, key = (features(1, 5, 6, 4, seed=k, gain=0.01).requires_grad_() for k in range(2))
    value = compactness.loss(query, key, peaks=2, radius=2)
    assert float(value.detach()) == 0
    assert not any(bool(g.any()) for g in torch.autograd.grad(value, (query, key)))


@pytest.mark.slow
def test_descending_the_loss_makes_affinities_compact():
    """A few steps down and the affinity is nearer to its mixture, and as compact as it."""
    query, key = (features(1, 6, 6, 8, seed=k).float().requires_grad_() for k in range(2))
    optimiser = torch.optim.Adam([query, key], lr=0.05)
    before = None
    for _ in range(60):
        value = compactness.loss(query, key, peaks=1, radius=2, scale=1.0)
        before = before or value.item()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert value.item() < before / 2


def test_features_in_half_precision_and_without_gradient():
    query, key = (features(1, 4, 5, 8, seed=k, gain=2.0).bfloat16() for k in range(2))
    half = compactness.loss(query, key, peaks=2, radius=2)
    assert half.dtype == torch.float32 and not half.requires_grad
    torch.testing.assert_close(half, compactness.loss(query.float(), key.float(), peaks=2, radius=2))
    with torch.autocast("cpu", torch.bfloat16):
        cast = compactness.loss(query.float(), key.float(), peaks=2, radius=2)
    torch.testing.assert_close(cast, half)


def test_the_affinity_is_never_stored(monkeypatch):
    """Backward keeps two gradients of the features' size; on the way no tensor is larger than allowed at a time."""
    monkeypatch.setattr(compactness, "TAPS", 4000)
    query, key = (torch.randn(1, 16, 16, 4, requires_grad=True) for _ in range(2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        value = compactness.loss(query, key, peaks=2, radius=6)
    assert max(kept) <= 4000 < 16 * 16 * 13 * 13
    assert sum(t.numel() for t in value.grad_fn.saved_tensors) == 2 * query.numel()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peaks": 0}, "peaks within the window's taps, got 1 and 0"),
        ({"peaks": 10}, "peaks within the window's taps, got 1 and 10"),
        ({"radius": -1}, "radius must be >= 0"),
        ({"form": "round"}, "form must be gated or fitted"),
        ({"border": "wrap"}, "border mask or zeros, got 'gated' and 'wrap'"),
    ],
)
def test_settings_out_of_range(change, words):
    frame = torch.zeros(1, 3, 3, 2)
    with pytest.raises(ValueError, match=words):
        compactness.loss(frame, frame, **{"peaks": 1, "radius": 1} | change)
    with pytest.raises(ValueError, match=r"alike, got \(1, 3, 3, 2\) and \(1, 3, 2, 2\)"):
        compactness.loss(frame, frame[:, :, :2], peaks=1, radius=1)


# --- reading -------------------------------------------------------------------------------------------------------


def read_by_hand(query, keys, values, *, peaks, radius, scale, border):
    """One softmax over all references; each one's part replaced by its mixture where it is sure enough."""
    b, h, w, _ = query.shape
    out, gates = torch.zeros_like(values[0]), []
    for n in range(b):
        for y in range(h):
            for x in range(w):
                parts = [affinities(query, k, radius=radius, scale=scale, border=border, n=n, y=y, x=x) for k in keys]
                own = [
                    torch.stack(
                        [scale * (query[n, y, x] @ k[n, v, u]) if 0 <= v < h and 0 <= u < w else query.new_zeros(())
                         for v, u in part]
                    ).logsumexp(0)
                    for k, part in zip(keys, parts, strict=True)
                ]  # fmt: skip
                joint = torch.stack(own).softmax(0)
                for share, part, value in zip(joint, parts, values, strict=True):
                    weights = {u: float(share * a) for u, a in part.items()}
                    gates.append(max(weights.values()) > 0.1)
                    if gates[-1]:
                        means, p = largest(weights, peaks)
                        kept = torch.tensor(p, dtype=torch.float64).softmax(0)
                        seen = [m for m in zip(kept, means, strict=True) if 0 <= m[1][0] < h and 0 <= m[1][1] < w]
                        weights = {
                            u: sum(float(s) * 2 ** (-4 * math.dist(u, m) ** 2) for s, m in seen) for u in weights
                        }
                    for (v, u), a in weights.items():
                        if 0 <= v < h and 0 <= u < w:
                            out[n, y, x] += a * value[n, v, u]
    return out, gates


@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("peaks", [1, 2, 3])
def test_reading_is_the_formula(peaks, border):
    query, keys = features(2, 4, 5, 4), [features(2, 4, 5, 4, seed=k) for k in (1, 2, 3)]
    values = [features(2, 4, 5, 2, seed=k).abs() for k in (4, 5, 6)]
    settings = {"peaks": peaks, "radius": 2, "scale": 1.2, "border": border}
    wanted, gates = read_by_hand(query, keys, values, **settings)
    assert 0.2 < sum(gates) / len(gates) < 0.8
    torch.testing.assert_close(compactness.read(query, keys, values, **settings), wanted, rtol=1e-7, atol=1e-7)


def test_reading_from_the_whole_frame():
    query, keys = features(1, 3, 4, 4), [features(1, 3, 4, 4, seed=k) for k in (1, 2)]
    values = [features(1, 3, 4, 2, seed=k).abs() for k in (4, 5)]
    found = [compactness.read(query, keys, values, peaks=2, radius=r, scale=1.5) for r in (None, 4)]
    torch.testing.assert_close(*found)


def test_fewer_taps_than_peaks():
    query, key, value = features(1, 1, 1, 4), features(1, 1, 1, 4, seed=1), torch.ones(1, 1, 1, 2).double()
    for radius in (0, None):
        torch.testing.assert_close(compactness.read(query, [key], [value], peaks=3, radius=radius), value)
    frame, values = features(1, 1, 2, 4), features(1, 1, 2, 3, seed=2)
    assert bool(torch.isfinite(compactness.read(frame, [frame], [values], peaks=3, radius=1, scale=50.0)).all())


def test_unsure_affinities_are_read_as_they_are():
    query, keys = features(1, 5, 6, 4, gain=0.1), [features(1, 5, 6, 4, seed=k) for k in (1, 2)]
    values = [features(1, 5, 6, 3, seed=k) for k in (4, 5)]
    got = compactness.read(query, keys, values, peaks=2, radius=3, border="zeros")
    torch.testing.assert_close(got, memory_read(query, keys, values, radius=3, border="zeros"))


def test_a_sure_affinity_reads_a_blurred_peak():
    """Identical frames, huge scale, one peak: every cell reads itself and a sixteenth of each neighbour."""
    frame = torch.eye(30).reshape(1, 5, 6, 30)
    value = torch.ones(1, 5, 6, 1)
    got = compactness.read(frame, [frame], [value], peaks=1, radius=2, scale=1e3)[0, :, :, 0]
    assert float(got[2, 2]) == pytest.approx((1 + 2 / 16 + 2 / 2**16) ** 2)
    assert float(got[0, 0]) == pytest.approx((1 + 1 / 16 + 1 / 2**16) ** 2)
