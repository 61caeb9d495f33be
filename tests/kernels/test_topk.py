"""The k largest logits and the reading from them, against the dense oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.kernels import oracle
from vcorr import rng
from vcorr.kernels import memory_best, memory_read, memory_read_lse, memory_topk

IMPLEMENTATIONS = ["reference", "cpu"]


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@st.composite
def readings(draw_):
    count = draw_(st.integers(1, 3))
    whole_frame = draw_(st.booleans())
    height, width = draw_(st.integers(1, 9)), draw_(st.integers(1, 15))
    radius = None if whole_frame else draw_(st.integers(1, 3))
    window = draw_(st.sampled_from(["square", "disk"]))
    disk = {1: 1, 2: 9, 3: 25}
    taps = height * width if radius is None else (2 * radius + 1) ** 2 if window == "square" else disk[radius]
    return {
        "size": (draw_(st.integers(1, 2)), height, width),
        "count": count,
        "radius": radius,
        "dilation": 1 if whole_frame else draw_(st.integers(1, 2)),
        "window": window,
        "border": draw_(st.sampled_from(["mask", "zeros"])),
        "top_k": draw_(st.integers(1, min(taps, 12))),
        "scale": draw_(st.none() | st.lists(st.sampled_from([None, 0.3, 2.0]), min_size=count, max_size=count)),
        "offset": not whole_frame and draw_(st.booleans()),
        "masked": draw_(st.booleans()),
        "restricted": draw_(st.booleans()),
        "seed": draw_(st.integers(0, 2**16)),
    }


def inputs_of(case):
    (batch, height, width), count, seed = case["size"], case["count"], case["seed"]
    query, keys, values = (draw(seed, batch, height, width, 4), draw(seed + 1, batch, count, height, width, 4),
                           draw(seed + 2, batch, count, height, width, 3))  # fmt: skip
    options = {name: case[name] for name in ("radius", "dilation", "window", "border", "scale")}
    options["offset"] = (2 * draw(seed + 3, batch, count, height, width, 2)).round() if case["offset"] else None
    options["key_mask"] = draw(seed + 4, batch, count, height, width) > -0.5 if case["masked"] else None
    options["query_mask"] = draw(seed + 5, batch, height, width) > 0 if case["restricted"] else None
    return query, keys, values, options


def split(options):
    return {
        n: None if v is None else list(v.unbind(1)) if n in ("offset", "key_mask") else v for n, v in options.items()
    }


def where_read(options, found, nothing):
    """What is found [b h w .], and nothing where a cell is not read."""
    read = options["query_mask"]
    return found if read is None else torch.where(read[..., None], found, nothing)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@examples(50)
@given(case=readings())
def test_joint_top_k_equals_the_oracle(impl, case):
    query, keys, values, options = inputs_of(case)
    got = memory_read_lse(query, keys, values, **options, top_k=case["top_k"], impl=impl)
    expected = oracle.read(query, keys.unbind(1), values.unbind(1), **split(options), top_k=case["top_k"])
    torch.testing.assert_close(got[1], expected[1])
    # Equal logits (taps outside under "zeros") may be chosen in any order, but they all carry the value 0.
    torch.testing.assert_close(got[0], expected[0])


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@examples(50)
@given(case=readings())
def test_peaks_equal_the_oracle(impl, case):
    query, keys, values, options = inputs_of(case)
    logits, cells, lse = memory_topk(query, keys, top_k=case["top_k"], **options, impl=impl)
    for r in range(case["count"]):
        scale = (options["scale"] and options["scale"][r]) or 0.5  # four features
        alone = {**split(options), "scale": scale}
        del alone["query_mask"]
        for name in ("offset", "key_mask"):
            alone[name] = None if alone[name] is None else alone[name][r : r + 1]
        every, _ = oracle.every_logit(query, [keys[:, r]], [values[:, r]], **alone)
        top = every.topk(case["top_k"], -1).values.unflatten(1, query.shape[1:3])
        torch.testing.assert_close(logits[..., r, :], where_read(options, top, -torch.inf))
        cell = cells[..., r, :]
        picked = keys[:, r].flatten(1, 2).gather(1, cell.clamp(min=0).flatten(1)[..., None].expand(-1, -1, 4))
        again = scale * torch.einsum("bpc,bpkc->bpk", query.flatten(1, 2), picked.unflatten(1, (-1, case["top_k"])))
        again = again.unflatten(1, query.shape[1:3])
        torch.testing.assert_close(logits[..., r, :][cell >= 0], again[cell >= 0])
        assert torch.equal(cell, where_read(options, cell, -1))
        absent = {"mask": -torch.inf, "zeros": 0.0}[case["border"]]
        assert ((logits[..., r, :] == -torch.inf) | (logits[..., r, :] == absent))[cell < 0].all()
    expected = oracle.read(query, keys.unbind(1), values.unbind(1), **split(options))[1]
    torch.testing.assert_close(lse, expected)


def test_all_taps_are_the_whole_reading():
    query, keys, values = draw(0, 1, 6, 9, 4), draw(1, 1, 2, 6, 9, 4), draw(2, 1, 2, 6, 9, 3)
    for border in ("mask", "zeros"):
        whole = memory_read(query, keys, values, radius=1, border=border)
        torch.testing.assert_close(memory_read(query, keys, values, radius=1, border=border, top_k=18), whole)


def test_values_get_gradients_through_top_k():
    query, keys = draw(0, 1, 4, 5, 4), draw(1, 1, 2, 4, 5, 4)
    values = draw(2, 1, 2, 4, 5, 3).requires_grad_()
    got = torch.autograd.grad(memory_read(query, keys, values, radius=1, top_k=3).sum(), values)[0]
    truth = oracle.read(query, keys.unbind(1), values.unbind(1), radius=1, top_k=3)[0]
    torch.testing.assert_close(got, torch.autograd.grad(truth.sum(), values)[0])


def test_errors():
    query, keys = draw(0, 1, 4, 5, 4), [draw(1, 1, 4, 5, 4)] * 2
    with pytest.raises(ValueError, match="top_k must be at most the number of taps, 9, got 10"):
        memory_topk(query, keys, top_k=10, radius=1)
    with pytest.raises(ValueError, match="top_k must be at most the number of taps, 18, got 19"):
        memory_read(query, keys, keys, top_k=19, radius=1)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        memory_read(query, keys, keys, top_k=0, radius=1)
    with pytest.raises(TypeError, match=r"top_k must be a whole number, got 2.5"):
        memory_read(query, keys, keys, top_k=2.5, radius=1)
    with pytest.raises(ValueError, match="query and keys must not require gradients"):
        memory_read(query.clone().requires_grad_(), keys, keys, top_k=3, radius=1)
    with pytest.raises(ValueError, match="offset must be whole cells with top_k, got fractions"):
        memory_read(query, keys, keys, top_k=3, radius=1, offset=torch.full((1, 2, 4, 5, 2), 0.5))


def test_compiled_code_refuses_fractions_when_it_runs():
    query, offset = draw(0, 1, 4, 5, 4), torch.full((1, 4, 5, 2), 0.5)
    compiled = torch.compile(
        lambda o: memory_read(query, [query], [query], top_k=3, radius=1, offset=[o]),
        fullgraph=True,
        backend="aot_eager",
    )
    with pytest.raises(ValueError, match="offset must be whole cells with top_k, got fractions"):
        compiled(offset)
    assert compiled(offset.round()).shape == query.shape


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_the_best_of_each_reference_is_the_first_of_its_largest(impl: str) -> None:
    generator = rng.generator(5, "test")
    query, one, other = (torch.randn(1, 7, 9, 5, generator=generator) for _ in range(3))
    mask = torch.rand(1, 7, 9, generator=generator) > 0.3
    options = dict(radius=2, scale=3.0, query_mask=mask, impl=impl)
    logits, cells = memory_best(query, [one, other], **options)
    wanted, at, _ = memory_topk(query, [one, other], top_k=1, **options)
    torch.testing.assert_close(logits, wanted[..., 0])
    assert torch.equal(cells, at[..., 0]) and bool((cells[~mask] == -1).all())
