"""Windowed attention and memory read against the dense oracle: values, logsumexp and every gradient."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.kernels import oracle
from vcorr.kernels import memory_read_lse, windowed_attention_lse
from vcorr.kernels.cpu import cover
from vcorr.kernels.cpu.panels import Panels

IMPLEMENTATIONS = ["reference", "cpu"]
SCALE = st.sampled_from([None, 0.3, 40.0])


def draw(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@st.composite
def readings(draw_):
    """Sizes and options of a reading, small enough for the oracle."""
    count = draw_(st.integers(1, 3))
    radius = st.integers(1, 4)
    offset_kind = draw_(st.sampled_from(["none", "none", "whole", "fractional"]))
    if offset_kind == "none":
        radii = draw_(st.lists(st.none() | radius, min_size=count, max_size=count))
    else:
        radii = draw_(st.lists(st.integers(1, 2), min_size=count, max_size=count))
    dilations = [1 if r is None else draw_(st.integers(1, 3)) for r in radii]
    width = draw_(st.integers(1, 19))
    height = draw_(st.integers(1, min(11, 120 // width)))  # the oracle holds every tap of every cell by every cell
    return {
        "size": (draw_(st.integers(1, 2)), height, width),
        "features": draw_(st.integers(1, 5)),
        "channels": draw_(st.integers(1, 4)),
        "offset_kind": offset_kind,
        "masked": draw_(st.booleans()),
        "restricted": draw_(st.booleans()),
        "radius": radii,
        "dilation": dilations,
        "border": draw_(st.sampled_from(["mask", "zeros"])),
        "window": draw_(st.sampled_from(["square", "disk"])),
        "scale": draw_(SCALE | st.lists(SCALE, min_size=count, max_size=count)),
        "seed": draw_(st.integers(0, 2**16)),
    }


def inputs_of(case):
    """Query, keys, values as float64 leaves, and the options of the call."""
    size, count, seed = case["size"], len(case["radius"]), case["seed"]
    query = draw(seed, *size, case["features"])
    keys = draw(seed + 1, size[0], count, *size[1:], case["features"])
    values = draw(seed + 2, size[0], count, *size[1:], case["channels"])
    offset = None
    if case["offset_kind"] != "none":
        offset = 3 * draw(seed + 3, size[0], count, *size[1:], 2)
        offset = offset.round().long() if case["offset_kind"] == "whole" else offset
    mask = None
    if case["masked"]:
        mask = draw(seed + 4, size[0], count, *size[1:]) > -0.5
        mask[:, 0, : size[1] // 2] = False  # whole regions, so that some rows have nothing to read
    options = {name: case[name] for name in ("radius", "dilation", "border", "window", "scale")}
    return [query, keys, values], {**options, "offset": offset, "key_mask": mask, "query_mask": cells_to_read(case)}


def cells_to_read(case):
    """Some cells, in two places where there is room for them, or None."""
    if not case["restricted"]:
        return None
    batch, height, width = case["size"]
    read = draw(case["seed"] + 5, batch, height, width) > 0
    read[:, height // 4 : height // 2], read[..., width // 3 : width // 2] = False, False
    return read


def gradients(outputs, leaves, seed):
    """Gradients of a random linear form of readout and logsumexp; -inf rows of the latter take no part."""
    readout, lse = outputs
    finite = lse.masked_fill(lse.isinf(), 0.0)
    form = (readout * draw(seed, *readout.shape)).sum() + (finite * draw(seed, *lse.shape)).sum()
    return torch.autograd.grad(form, leaves)


def oracle_options(options):
    split = {n: None if options[n] is None else list(options[n].unbind(1)) for n in ("offset", "key_mask")}
    return {**options, **split}


@pytest.mark.slow
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@examples(50)
@given(case=readings())
def test_read_equals_the_oracle(impl, case):
    inputs, options = inputs_of(case)
    leaves = [x.clone().requires_grad_() for x in inputs]
    truth = [x.clone().requires_grad_() for x in inputs]
    got = memory_read_lse(*leaves, **options, impl=impl)
    query, keys, values = truth
    expected = oracle.read(query, keys.unbind(1), values.unbind(1), **oracle_options(options))
    results = [*got, *gradients(got, leaves, case["seed"])]
    wanted = [*expected, *gradients(expected, truth, case["seed"])]
    for name, a, b in zip(["readout", "logsumexp", "query", "keys", "values"], results, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("calls", [-(2**50), 2**50], ids=["tiles", "strips"])
@examples(40)
@given(case=readings())
def test_some_cells_equal_the_oracle_by_either_way(calls, case):
    case = {**case, "offset_kind": "none", "restricted": True, "size": (case["size"][0], 10, 12)}
    with mock.patch.object(cover, "CALLS", calls):
        test_read_equals_the_oracle.hypothesis.inner_test("cpu", case)


@examples(25)
@given(case=readings(), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_lower_precision_errs_no_more_than_its_inputs(case, dtype):
    inputs, options = inputs_of({**case, "scale": None})
    narrow = [x.to(dtype) for x in inputs]
    if options["offset"] is not None:
        options["offset"] = options["offset"].to(torch.float32)
    readout, lse = memory_read_lse(*narrow, **options)
    query, keys, values = (x.double() for x in narrow)
    expected, expected_lse = oracle.read(query, keys.unbind(1), values.unbind(1), **oracle_options(options))
    assert readout.dtype == dtype and lse.dtype == torch.float32
    tolerance = {torch.float32: 3e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(readout.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(lse.double(), expected_lse, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize(
    ("height", "width", "radius"),
    [
        pytest.param(1, 40, 3, id="one-row"),
        pytest.param(40, 1, 3, id="one-column"),
        pytest.param(3, 21, 9, id="radius-past-the-frame"),
        pytest.param(63, 3, 2, id="63-rows"),
        pytest.param(9, 9, 0, id="radius-0"),
    ],
)
def test_sizes_of_one_reference(height, width, radius):
    query, key, value = draw(0, 1, height, width, 3), draw(1, 1, height, width, 3), draw(2, 1, height, width, 2)
    got = windowed_attention_lse(query, key, value, radius=radius)
    expected = oracle.read(query, [key], [value], radius=radius)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 1e3])
@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_features_of_any_length(size, border):
    """Logits from near 0 to 1e6: the level that the softmax subtracts must never lose a row."""
    query, key, value = draw(0, 1, 12, 21, 4), draw(1, 1, 12, 21, 4), draw(2, 1, 12, 21, 3)
    features = [(size * x).float() for x in (query, key)]
    got = windowed_attention_lse(*features, value.float(), radius=3, border=border)
    exact = [x.double() for x in features]
    expected = oracle.read(exact[0], [exact[1]], [value], radius=3, border=border)
    slack = 2e-6 * max(1.0, size**2)  # a float32 logit of that size is known no better
    torch.testing.assert_close(got[1].double(), expected[1], rtol=3e-6, atol=slack)
    torch.testing.assert_close(got[0].double(), expected[0], rtol=0, atol=min(2.0, 1e-5 + 8 * slack))


def test_opposite_features_leave_no_row_empty():
    """All scores lie far below |q||k|, where the shortcut's bound is useless."""
    query = 30 * torch.ones(1, 9, 20, 16)
    readout, lse = windowed_attention_lse(query, -query, torch.ones(1, 9, 20, 1), radius=2, scale=1.0)
    torch.testing.assert_close(readout, torch.ones(1, 9, 20, 1))
    assert lse.max() < -14_000 + 10


@pytest.mark.parametrize("channels", [64, 65, 130])
def test_many_value_channels(channels):
    leaves = [draw(i, 1, 5, 9, c).requires_grad_() for i, c in enumerate((3, 3, channels))]
    got = windowed_attention_lse(*leaves, radius=1)
    expected = oracle.read(leaves[0], [leaves[1]], [leaves[2]], radius=1)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradients(got, leaves, 7), gradients(expected, leaves, 7))


def permuted(x):
    return x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)


def sliced(x):
    big = torch.full((x.shape[0], x.shape[1] + 3, 2 * x.shape[2], x.shape[3] + 1), torch.nan, dtype=x.dtype)
    view = big[:, 2:-1, ::2, 1:]
    view.copy_(x)
    return view


def expanded(x):
    return x[:, :, :1].expand_as(x)


@pytest.mark.parametrize("layout", [permuted, sliced, expanded])
@pytest.mark.parametrize("options", [{"radius": 2}, {"radius": 2, "dilation": 2}, {"radius": None}])
def test_layouts_in_memory(layout, options):
    inputs = [layout(draw(i, 2, 7, 20, c)) for i, c in enumerate((4, 4, 3))]
    plain = [x.contiguous() for x in inputs]
    leaves = [x.detach().requires_grad_() for x in inputs]
    copies = [x.detach().requires_grad_() for x in plain]
    got, expected = windowed_attention_lse(*leaves, **options), windowed_attention_lse(*copies, **options)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradients(got, leaves, 3), gradients(expected, copies, 3))


@pytest.mark.parametrize("options", [{}, {"dilation": 2, "border": "zeros"}, {"window": "disk"}, {"radius": None}])
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_gradcheck(impl, options):
    leaves = [draw(i, 1, 3, 4, c).requires_grad_() for i, c in enumerate((2, 2, 1))]
    settings_ = {"radius": 1, "scale": 0.7, **options}
    # torch's own gradients in random directions, without those of one output alone; the others element by element
    own = {"fast_mode": True, "check_undefined_grad": False} if impl == "reference" else {}
    assert torch.autograd.gradcheck(lambda *x: windowed_attention_lse(*x, **settings_, impl=impl), leaves, **own)


FRACTIONS = draw(3, 1, 3, 4, 2)
SOME = torch.tensor([[[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1]]], dtype=torch.bool)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"offset": FRACTIONS}, id="fractions"),
        pytest.param({"key_mask": SOME}, id="mask"),
        pytest.param({"offset": FRACTIONS, "key_mask": SOME}, id="both"),
    ],
)
@pytest.mark.parametrize("options", [{"dilation": 2, "border": "zeros"}, {"window": "disk", "radius": 2}])
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_gradcheck_of_fractions_and_masks(impl, options, given):
    """Two references in one softmax, of which one is as given."""
    query, *frames = (draw(i, 1, 3, 4, c).requires_grad_() for i, c in enumerate((2, 2, 2, 1, 1)))
    each = {name: [frame, None] for name, frame in given.items()}

    def read(query, *frames):
        settings_ = {"radius": 1, "scale": 0.7, **options, **each}
        return memory_read_lse(query, frames[:2], frames[2:], **settings_, impl=impl)

    assert torch.autograd.gradcheck(read, (query, *frames), fast_mode=True)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
@pytest.mark.parametrize("options", [{"radius": 2}, {"radius": None}, {"radius": 1, "offset": torch.ones(1, 5, 9, 2)}])
def test_each_gradient_alone(wanted, options):
    inputs = [draw(i, 1, 5, 9, c) for i, c in enumerate((3, 3, 2))]
    together = [x.clone().requires_grad_() for x in inputs]
    alone = [x.clone().requires_grad_(i in wanted) for i, x in enumerate(inputs)]
    every = gradients(windowed_attention_lse(*together, **options), together, 5)
    some = gradients(windowed_attention_lse(*alone, **options), [alone[i] for i in wanted], 5)
    torch.testing.assert_close(list(some), [every[i] for i in wanted])


@pytest.mark.parametrize("options", [{"radius": 2}, {"radius": 2, "dilation": 2}, {"radius": None}])
def test_same_bits_twice(options):
    leaves = [draw(i, 2, 17, 23, c, dtype=torch.float32).requires_grad_() for i, c in enumerate((8, 8, 3))]
    first, second = (windowed_attention_lse(*leaves, **options) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    one, two = (torch.autograd.grad(out[0].sum() + out[1].sum(), leaves) for out in (first, second))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("options", [{"radius": 1}, {"radius": None}, {"radius": 1, "offset": torch.zeros(1, 4, 6, 2)}])
def test_rows_with_nothing_to_read(impl, options):
    mask = torch.ones(1, 4, 6, dtype=torch.bool)
    mask[:, :, :3] = False
    if options["radius"] is None:
        mask[:] = False
    leaves = [draw(i, 1, 4, 6, c).requires_grad_() for i, c in enumerate((3, 3, 2))]
    readout, lse = windowed_attention_lse(*leaves, key_mask=mask, impl=impl, **options)
    empty = lse == -torch.inf
    assert empty[0, :, :2].all() and not readout[empty].any()
    for gradient in torch.autograd.grad(readout.sum() + lse[~empty].sum(), leaves):
        assert gradient.isfinite().all()
    assert not torch.autograd.grad(windowed_attention_lse(
        *leaves, key_mask=mask, impl=impl, **options)[0].sum(), leaves[0])[0][empty].any()  # fmt: skip


ODD_CELLS = {
    "window": {"radius": 1},
    "dilation": {"radius": 1, "dilation": 2},
    "zeros": {"radius": 2, "border": "zeros"},
    "frame": {"radius": None},
    "whole offset": {"radius": 1, "offset": torch.ones(1, 7, 9, 2)},
    "fractional offset": {"radius": 1, "offset": torch.full((1, 7, 9, 2), 0.25)},
}


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("features", [3, 32])  # float32 with 24 or more may go by panels
@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ODD_CELLS)
def test_masked_cells_may_hold_anything(monkeypatch, impl, features, odd, name):
    monkeypatch.setattr(Panels, "pay", staticmethod(lambda *_: features >= 24))
    options, mask = ODD_CELLS[name], torch.ones(1, 7, 9, dtype=torch.bool)
    mask[:, 1:6, 4] = False
    clean = [draw(i, 1, 7, 9, c, dtype=torch.float32) for i, c in enumerate((features, features, 2))]
    poisoned = [clean[0], *(x.masked_fill(~mask[..., None], odd) for x in clean[1:])]

    def read(inputs):
        leaves = [x.clone().requires_grad_() for x in inputs]
        got = windowed_attention_lse(*leaves, key_mask=mask, impl=impl, **options)
        return [*got, *gradients(got, leaves, 0)]

    for a, b in zip(read(poisoned), read(clean), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("features", [3, 32])
@pytest.mark.parametrize("calls", [0, 2**50])  # by tiles, or by strips or panels
@pytest.mark.parametrize("name", ODD_CELLS)
def test_cells_that_are_not_read_may_hold_anything(monkeypatch, impl, features, calls, name):
    monkeypatch.setattr(Panels, "pay", staticmethod(lambda *_: features >= 24))
    monkeypatch.setattr(cover, "CALLS", calls)
    read_, frames = torch.zeros(1, 7, 9, dtype=torch.bool), [
        draw(i, 1, 7, 9, c, dtype=torch.float32) for i, c in enumerate((features, features, 2))]  # fmt: skip
    read_[:, 1:4, 2:4] = True
    odd = frames[0].masked_fill(~read_[..., None], torch.nan)
    full, full_lse = windowed_attention_lse(*frames, impl=impl, **ODD_CELLS[name])
    leaves = [x.requires_grad_() for x in (odd, *frames[1:])]
    readout, lse = windowed_attention_lse(*leaves, query_mask=read_, impl=impl, **ODD_CELLS[name])
    torch.testing.assert_close((readout[read_], lse[read_]), (full[read_], full_lse[read_]))
    assert not readout[~read_].any() and (lse[~read_] == -torch.inf).all()
    of_query, *others = torch.autograd.grad((readout, lse), leaves, (torch.full_like(readout, 3), torch.ones_like(lse)))
    assert not of_query[~read_].any() and of_query[read_].any()
    assert all(grad.isfinite().all() for grad in others)


@pytest.mark.parametrize("where", ["key", "value"])
@pytest.mark.parametrize("way", ["reference", "strips", "panels"])
@pytest.mark.parametrize("options", [{}, {"border": "zeros"}, {"offset": torch.full((1, 40, 44, 2), 0.5)}])
def test_what_is_no_number_spreads_no_farther_than_near_by(monkeypatch, where, way, options):
    """Every readout that sees it is none; on a CPU others near by may be none either."""
    monkeypatch.setattr(Panels, "pay", staticmethod(lambda *_: way == "panels"))
    query, key, value = (draw(i, 1, 40, 44, c, dtype=torch.float32) for i, c in enumerate((8, 8, 2)))
    options = {"radius": 2, "impl": "reference" if way == "reference" else "cpu", **options}
    clean, clean_lse = windowed_attention_lse(query, key, value, **options)
    {"key": key, "value": value}[where][0, 20, 22] = torch.nan
    readout, lse = windowed_attention_lse(query, key, value, **options)
    y, x = torch.arange(40)[:, None] - 20, torch.arange(44) - 22
    far = torch.maximum(y.abs(), x.abs())
    seen = far <= 2 if "offset" not in options else (y >= -3) & (y <= 2) & (x >= -3) & (x <= 2)
    assert readout[0, seen].isnan().all() and (where == "value" or lse[0, seen].isnan().all())
    near = 2 * 2 + 8 + ("offset" in options)  # a fraction of a cell more
    beyond = ~seen if way == "reference" else far > near
    torch.testing.assert_close(readout[0, beyond], clean[0, beyond])
    torch.testing.assert_close(lse[0, beyond], clean_lse[0, beyond])
