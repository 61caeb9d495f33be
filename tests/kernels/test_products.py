"""Products by either library of torch, and the readings and sums that are built on large ones."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import forked
from tests.examples import examples
from tests.kernels import oracle
from tests.kernels.test_read import draw, gradients, inputs_of, oracle_options, permuted, readings, sliced
from vcorr.kernels import memory_read_lse, memory_topk, negative_logsumexp, windowed_attention_lse
from vcorr.kernels.cpu import cover, panels, products
from vcorr.kernels.cpu.panels import Panels, PanelSlopes, PanelSums
from vcorr.kernels.cpu.strips import Strips, Sums
from vcorr.kernels.geometry import Window

HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")
LIBRARIES = [
    pytest.param(False, id="mkl"),
    pytest.param(True, id="onednn", marks=pytest.mark.skipif(not HAS_ONEDNN, reason="torch without oneDNN")),
]


@contextlib.contextmanager
def by_library(onednn):
    """Products of any size by one of the libraries, whatever the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "ONEDNN", onednn)
        patch.setattr(products, "GROUPED", onednn)
        patch.setattr(products, "LEAST", 1)
        yield


@pytest.fixture(params=LIBRARIES, scope="module")
def library(request):
    with by_library(request.param):
        yield request.param


@contextlib.contextmanager
def by_panels(strips=None):
    """Every reading, and its gradients, by panels, of so many strips where given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Panels, "pay", staticmethod(lambda *_: True))
        patch.setattr(cover, "CALLS", 2**50)  # nor by tiles where few cells are read
        if strips is not None:
            of = panels.Size.of
            patch.setattr(panels.Size, "of", lambda *image: of(*image)._replace(strips=strips))
        yield


def matrix(seed, rows, columns, layout):
    wide = draw(seed, 2 * rows + 3, 2 * columns + 5, dtype=torch.float32)
    return {
        "plain": wide[:rows, :columns].contiguous(),
        "gaps": wide[3 : 3 + rows, 5 : 5 + columns],
        "every second": wide[: 2 * rows : 2, : 2 * columns : 2],
        "turned": draw(seed, columns, rows, dtype=torch.float32).T,
        "expanded": wide[:1, :columns].expand(rows, columns),
    }[layout]


LAYOUTS = st.sampled_from(["plain", "gaps", "every second", "turned", "expanded"])
SIZES = st.integers(1, 40)


@examples(60)
@given(sizes=st.tuples(SIZES, SIZES, SIZES), layouts=st.tuples(LAYOUTS, LAYOUTS), row=st.booleans(), plus=st.booleans())
def test_products_of_any_layout(library, sizes, layouts, row, plus):
    m, k, n = sizes
    left, right = matrix(0, m, k, layouts[0]), matrix(1, k, n, layouts[1])
    added = [draw(2, n, dtype=torch.float32) if row else None, draw(3, m, n, dtype=torch.float32) if plus else None]
    wanted = left.double() @ right.double()
    for term in added:
        wanted = wanted if term is None else wanted + term
    got = products.times(left, right, *added)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


def test_products_keep_all_digits(library):
    """1 + 2**-20 is 1 in bfloat16 and in tf32."""
    left = torch.full((64, 8), 1 + 2.0**-20)
    assert (products.times(left, torch.ones(8, 64)) == 8 + 2.0**-17).all()


@pytest.fixture
def unchecked():
    """As before the first use of torch's operators."""
    products._exact.cache_clear()
    yield
    products._exact.cache_clear()


class Rounding:
    """torch's operator of linear layers, as it would be if it rounded what it multiplies."""

    def __init__(self, operator):
        self.operator, self.default, self.binary = operator, self.rounded("default"), self.rounded("binary")

    def rounded(self, name):
        return lambda x, *rest: getattr(self.operator, name)(x.bfloat16().float(), *rest)


class Missing:
    def __getattr__(self, name):
        raise AttributeError(name)


@pytest.mark.parametrize(("other", "told"), [(Rounding, "returns other products"), (lambda _: Missing(), "fails here")])
def test_operators_of_torch_that_changed_are_not_used(unchecked, monkeypatch, caplog, other, told):
    """They are checked before their first use, told of once, and MKL multiplies in their place."""
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", other(torch.ops.mkldnn._linear_pointwise))
    left, right, plus = (draw(i, *shape, dtype=torch.float32) for i, shape in enumerate([(30, 40), (40, 20), (30, 20)]))
    with by_library(onednn=True):
        for _ in range(2):
            torch.testing.assert_close(products.times(left, right), left @ right)
            torch.testing.assert_close(products.times(left, right, None, plus), left @ right + plus)
    assert [told in record.message for record in caplog.records] == [True]


def test_groups_of_products_by_an_operator_that_changed_are_not_used(unchecked, monkeypatch):
    monkeypatch.setattr(torch, "mkldnn_convolution", lambda *given: torch.zeros(1, 1, 1, 1))
    left, right = draw(0, 9, 3, 8, dtype=torch.float32), draw(1, 3, 16, 8, dtype=torch.float32)
    with by_library(onednn=True):
        torch.testing.assert_close(products.dotted(left, right), torch.einsum("ngc,gkc->ngk", left, right))
        assert not products.grouped()


def test_double_products_are_double(library):
    left, right = draw(0, 30, 40), draw(1, 40, 20)
    torch.testing.assert_close(products.times(left, right), left @ right, rtol=1e-14, atol=1e-14)


PROCESSORS = [
    pytest.param(True, "AVX2", "False", id="avx512-forbidden"),  # the processor may have what the environment forbids
    pytest.param(False, "AVX512", "False", id="intel"),  # where neither was measured
    pytest.param(True, "AVX512", "True", id="amd"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("amd", "used", "expected"), PROCESSORS)
def test_products_go_to_onednn_only_where_that_was_measured(amd, used, expected):
    code = (
        f"import torch; torch.cpu.get_capabilities = lambda: {{'avx512_f': True, 'sse4a': {amd}}};"
        f"torch.backends.cpu.get_cpu_capability = lambda: {used!r};"
        "import importlib; from vcorr.kernels.cpu import products; importlib.reload(products);"
        "print(products.GROUPED, products.ONEDNN)"
    )
    assert forked.run("-c", code).stdout.split() == [expected, expected]


GROUPS = st.tuples(st.integers(1, 20), st.integers(1, 5), st.integers(1, 20), st.integers(1, 20))


@examples(60)
@given(sizes=GROUPS, permuted=st.booleans(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_products_by_groups(library, sizes, permuted, dtype):
    n, g, c, k = sizes
    left, right = draw(0, n, g, c, dtype=dtype), draw(1, g, k, c, dtype=dtype)
    if permuted:
        left, right = (x.permute(2, 1, 0).contiguous().permute(2, 1, 0) for x in (left, right))
    wanted = torch.einsum("ngc,gkc->ngk", left.double(), right.double())
    slack = 1e-5 if dtype == torch.float32 else 1e-12
    for got in (products.dotted(left, right), products.mixed(left, right.transpose(1, 2))):
        torch.testing.assert_close(got.double(), wanted, rtol=slack, atol=slack)


def test_products_by_groups_keep_all_digits(library):
    left, right = torch.full((9, 3, 8), 1 + 2.0**-20), torch.ones(3, 16, 8)
    assert (products.dotted(left, right) == 8 + 2.0**-17).all()
    assert (products.mixed(left, right.transpose(1, 2)) == 8 + 2.0**-17).all()


def sharp(scale):
    """The largest scale of a reference."""
    return max(s or 1.0 for s in scale) if isinstance(scale, list) else scale or 1.0


@examples(60)
@given(case=readings(), dtype=st.sampled_from([torch.float64, torch.float32]), strips=st.sampled_from([None, 1, 2]))
def test_panels_read_what_the_oracle_reads(library, case, dtype, strips):
    case = {**case, "offset_kind": "none", "radius": [2 if r is None else r for r in case["radius"]]}
    inputs, options = inputs_of(case)
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    truth = [x.clone().requires_grad_() for x in inputs]
    with by_panels(strips):
        got = memory_read_lse(*leaves, **options, impl="cpu")
        found = [*got, *gradients(got, leaves, case["seed"])]
    query, keys, values = truth
    wanted = oracle.read(query, keys.unbind(1), values.unbind(1), **oracle_options(options))
    exact = [*wanted, *gradients(wanted, truth, case["seed"])]
    # Of the largest, which sharp logits round: those of scale 40 come up to 400.
    slack = 1e-9 if dtype == torch.float64 else 2e-5 if sharp(case["scale"]) <= 1.0 else 1e-4
    for a, b in zip(found, exact, strict=True):
        close = slack * max([1.0, *b[b.isfinite()].abs().tolist()])
        torch.testing.assert_close(a.double(), b, rtol=0.0, atol=close)


def in_a_ring(x):
    ring = torch.full((len(x), 5, *x.shape[1:]), torch.nan)
    ring[:, 3] = x
    return ring[:, 3]


def stretched(dim):
    return lambda x: x.narrow(dim, 0, 1).expand_as(x)


PLACES = {"permuted": permuted, "sliced": sliced, "ring": in_a_ring}
PLACES |= {f"one {name}": stretched(dim) for dim, name in enumerate(["image", "row", "column", "feature"])}
PLACE = st.sampled_from(list(PLACES))


@examples(15)
@given(
    places=st.tuples(*[PLACE] * 6),
    dilation=st.integers(1, 2),
    border=st.sampled_from(["mask", "zeros"]),
    masked=st.booleans(),
    strips=st.sampled_from([None, 1]),
)
def test_panels_read_tensors_where_they_lie(library, places, dilation, border, masked, strips):
    """A query, two keys, two values and the gradient of the readout, each laid out in memory in its own way."""
    frames = [draw(i, 2, 9, 6, c, dtype=torch.float32) for i, c in enumerate((24, 24, 24, 3, 3, 3))]
    *inputs, grad = (PLACES[place](x) for place, x in zip(places, frames, strict=True))
    grads = grad, draw(6, 2, 9, 6, dtype=torch.float32)
    mask = (draw(7, 2, 4, 9, 6) > -1.0)[:, 2]  # a slot of a ring, too
    options = {"radius": 2, "dilation": dilation, "border": border, "key_mask": [mask, None] if masked else None}
    with by_panels(strips), spied(sum_below=PanelSums, add=PanelSlopes) as called:
        query, *rest = leaves = [x.detach().requires_grad_() for x in inputs]
        got = memory_read_lse(query, rest[:2], rest[2:], **options, impl="cpu")
        found = [*got, *torch.autograd.grad(got, leaves, grads)]
    assert set(called) == {"sum_below", "add"}
    query, *rest = truth = [x.double().requires_grad_() for x in inputs]
    wanted = oracle.read(query, rest[:2], rest[2:], **options)
    exact = [*wanted, *torch.autograd.grad(wanted, truth, [x.double() for x in grads])]
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0.0, atol=1e-5 * max(1.0, float(b.detach().abs().max())))


@contextlib.contextmanager
def spied(**methods):
    """The names of the methods that are called, in turn, by name and class."""
    called = []
    with pytest.MonkeyPatch.context() as patch:
        for name, form in methods.items():
            plain = getattr(form, name)
            patch.setattr(form, name, lambda *args, name=name, plain=plain: (called.append(name), plain(*args))[1])
        yield called


@pytest.mark.parametrize(
    ("size", "by"), [(1e-3, ["sum_below"] * 5), (1.0, ["sum_below"] * 5), (1e3, ["sum_below"] * 3 + ["sum_online"] * 3)]
)
def test_panels_lose_no_row(size, by):
    """Where the bound of the logits is too far off, strips take over in the midst of a frame."""
    query, key, value = (draw(i, 1, 12, 40, c, dtype=torch.float32) for i, c in enumerate((4, 4, 3)))
    query[:, :, 20:] *= size
    with by_panels(strips=2), spied(sum_below=PanelSums, sum_online=Sums) as called:
        got = windowed_attention_lse(query, key, value, radius=3)
    assert called == by
    wanted = oracle.read(query.double(), [key.double()], [value.double()], radius=3)
    torch.testing.assert_close(got[1].double(), wanted[1], rtol=3e-6, atol=1e-5 * max(1.0, size))
    torch.testing.assert_close(got[0].double(), wanted[0], rtol=0, atol=1e-4 * max(1.0, size))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("common", [-250.0, 250.0])
def test_gradients_by_panels_of_extreme_logits(library, common, masked):
    """Logits all far below or above 0: what is exp2'd outside the frame and the window must not reach a gradient."""
    query, key = (draw(i, 1, 11, 13, 8, dtype=torch.float32) * 0.1 for i in range(2))
    query[..., 0], key[..., 0] = 1.0, common
    value, mask = draw(2, 1, 11, 13, 2, dtype=torch.float32), draw(3, 1, 11, 13) > -1.0
    if masked:
        key[:, 5, 5] *= -1.0
    mask[:, 4:7, 5] = False
    options = {"radius": 2, "scale": 1.0, "key_mask": mask if masked else None}
    with by_panels():
        leaves = [x.clone().requires_grad_() for x in (query, key, value)]
        got = windowed_attention_lse(*leaves, **options)
        found = [*got, *gradients(got, leaves, 0)]
    truth = [x.double().requires_grad_() for x in (query, key, value)]
    wanted = windowed_attention_lse(*truth, **options, impl="reference")
    exact = [*wanted, *gradients(wanted, truth, 0)]
    for a, b in zip(found, exact, strict=True):
        assert ((a.double() - b).norm() / b.norm()) < 1e-4


def test_gradients_by_panels_at_the_foot_of_a_frame(library):
    """Of the last call some key rows lie below the frame; those that the call before left there would score 300."""
    query, key, value = (draw(i, 1, 11, 13, c, dtype=torch.float32) * 0.1 for i, c in enumerate((8, 8, 2)))
    query[:, 9:, :, 0], query[:, :9, :, 0], key[..., 0] = 1.0, 0.0, 0.0
    key[:, 3, :, 0] = 300.0
    with by_panels():
        leaves = [x.clone().requires_grad_() for x in (query, key, value)]
        found = gradients(windowed_attention_lse(*leaves, radius=2, scale=1.0), leaves, 0)
    truth = [x.double().requires_grad_() for x in (query, key, value)]
    exact = gradients(windowed_attention_lse(*truth, radius=2, scale=1.0, impl="reference"), truth, 0)
    for a, b in zip(found, exact, strict=True):
        assert ((a.double() - b).norm() / b.norm()) < 1e-5


def test_panels_read_half_types_at_full_precision(library):
    halves = [draw(i, 1, 9, 13, c, dtype=torch.float32).to(torch.bfloat16) for i, c in enumerate((8, 8, 3))]
    with by_panels():
        got, lse = windowed_attention_lse(*halves, radius=2, impl="cpu")
        wanted = windowed_attention_lse(*(x.float() for x in halves), radius=2, impl="cpu")
    assert torch.equal(lse, wanted[1]) and torch.equal(got, wanted[0].to(got.dtype))


def test_panels_that_are_kept_are_no_others(library):
    """The buffers of the last call, of another mode or size, or of another thread at once."""

    def drawn(size):
        query, key, value = (draw(i, 1, *size, c, dtype=torch.float32) for i, c in enumerate((8, 8, 3)))
        return [query, key * 30.0, value]

    def read(size):
        leaves = [x.requires_grad_() for x in drawn(size)]
        got = windowed_attention_lse(*leaves, radius=2, impl="cpu")
        return [*got, *gradients(got, leaves, 0)]

    sizes = [(11, 13), (9, 13), (11, 13), (11, 13), (3, 2)]
    with by_panels(strips=2):
        alone = {size: read(size) for size in sizes[1:]}
        with torch.inference_mode():
            seen = [windowed_attention_lse(*drawn(size), radius=2, impl="cpu") for size in sizes]
        again = [read(size) for size in sizes]
        with ThreadPoolExecutor(4) as pool:
            at_once = list(pool.map(read, sizes * 8))
    for size, got in zip(sizes * 10, [*seen, *again, *at_once], strict=False):
        assert all(torch.equal(a, b) for a, b in zip(got, alone[size], strict=False))


@pytest.mark.parametrize("features", [panels.LONG, 256])
@pytest.mark.parametrize("radius", [1, panels.SMALL, panels.SMALL + 1, 12, 40])
def test_strips_of_panels_have_more_keys_than_queries(radius, features):
    """oneDNN shares a product among threads by strips only then."""
    window = Window(radius, dilation=1, shape="square", border="mask", scale=1.0)
    size = panels.Size.of(Strips(90, 90, window, torch.float32, torch.device("cpu")), features, 90)
    assert size.keys > size.cells


@pytest.mark.parametrize(
    ("radius", "features", "used"),
    [(12, 256, {"sum_below", "add"}), (6, 256, {"sum_below", "add"}), (12, 16, set()), (2, 32, set())],
)
def test_panels_where_they_pay(library, radius, features, used):
    query, key, value = (draw(i, 1, 37, 43, c, dtype=torch.float32) for i, c in enumerate((features, features, 3)))

    def run(dtype):
        leaves = [x.to(dtype).requires_grad_() for x in (query, key, value)]
        got = windowed_attention_lse(*leaves, radius=radius, impl="cpu")
        return [*got, *gradients(got, leaves, 0)]

    with spied(sum_below=PanelSums, add=PanelSlopes) as called:
        got = run(torch.float32)
    assert set(called) == (used if library else set())
    assert all(torch.equal(a, b) for a, b in zip(got, run(torch.float32), strict=True))
    for a, b in zip(got, run(torch.float64), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=2e-5)


def test_whole_frames_and_banks(library):
    query, key, value = (draw(i, 1, 20, 30, c, dtype=torch.float32) for i, c in enumerate((16, 16, 3)))
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    truth = [x.double().requires_grad_() for x in (query, key, value)]
    outputs = windowed_attention_lse(*leaves, radius=None)
    logits = truth[0].flatten(0, 2) @ truth[1].flatten(0, 2).T * 16**-0.5
    wanted = ((logits.softmax(1) @ truth[2].flatten(0, 2)).view(1, 20, 30, 3), logits.logsumexp(1).view(1, 20, 30))
    found = [*outputs, *torch.autograd.grad(outputs[0].sum() + outputs[1].sum(), leaves)]
    exact = [*wanted, *torch.autograd.grad(wanted[0].sum() + wanted[1].sum(), truth)]
    bank = key.reshape(-1, 16)
    rows = query.reshape(-1, 16).clone().requires_grad_()
    mass = negative_logsumexp(rows, bank)
    logits = rows.double() @ bank.double().T * 16**-0.5
    found += [mass, *torch.autograd.grad(mass.sum(), rows)]
    exact += [logits.logsumexp(1), logits.softmax(1) @ bank.double() * 16**-0.5]
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
@examples(25)
@given(case=readings())
def test_queries_may_lie_either_way(turned, case):
    """Whatever the processor: readings, gradients and the largest logits."""
    case = {**case, "offset_kind": "none", "radius": [2 if r is None else r for r in case["radius"]]}
    inputs, options = inputs_of(case)
    leaves = [x.clone().requires_grad_() for x in inputs]
    truth = [x.clone().requires_grad_() for x in inputs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "TURNED", turned)
        got = memory_read_lse(*leaves, **options, impl="cpu")
        found = [*got, *gradients(got, leaves, case["seed"])]
        found.append(memory_topk(*inputs[:2], top_k=1, **{**options, "offset": None}, impl="cpu")[0])
    query, keys, values = truth
    wanted = oracle.read(query, keys.unbind(1), values.unbind(1), **oracle_options(options))
    exact = [*wanted, *gradients(wanted, truth, case["seed"])]
    exact.append(memory_topk(*inputs[:2], top_k=1, **{**options, "offset": None}, impl="reference")[0])
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)
