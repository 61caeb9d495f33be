"""The Triton kernels on a GPU, at the tile sizes that ship. ``make gpu`` runs these where only torch, triton, numpy,
pytest, hypothesis and einops are installed, the rest in a new process where one loses the GPU; without one they are
skipped.

The truth is the CPU form in float64, of the same rounded inputs; errors are relative, by Frobenius norm.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from vcorr.kernels import (
    memory_read,
    memory_read_lse,
    memory_topk,
    negative_logsumexp,
    windowed_attention,
    windowed_attention_lse,
)
from vcorr.kernels.ops import negative_logsumexp as negatives_op
from vcorr.kernels.ops import read, topk

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore"),  # of Triton's own, and of operations without a deterministic form
]
# Of a forward pass; gradients carry one rounding more.
TOLERANCE = {"ieee": 1e-5, "tf32x3": 1e-5, "tf32": 2e-3, "bf16": 1e-2, torch.bfloat16: 1e-2, torch.float16: 2e-3}
HALF, SINGLE = torch.bfloat16, torch.float32
SIZES = st.sampled_from([(1, 37, 53), (2, 24, 48), (1, 1, 70), (3, 9, 5)])


@pytest.fixture(autouse=True)
def context(request):
    """After an invalid access nothing that is asked of the GPU succeeds: what follows would not be to blame."""
    yield
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        pytest.exit(f"the GPU was lost in {request.node.nodeid}: {str(error).splitlines()[0]}")


def draw(seed, *shape, dtype=SINGLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@contextlib.contextmanager
def poisoned():
    """Memory that nothing has written is NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def error(got, expected):
    return float((got.double().cpu() - expected.double()).norm() / expected.double().norm().clamp(min=1e-6))


def gradients(outputs, leaves, seed):
    readout, lse = outputs
    finite = lse.masked_fill(lse.isinf(), 0.0)
    forms = [draw(seed, *x.shape).to(x.device, x.dtype) for x in (readout, lse)]
    return torch.autograd.grad((readout * forms[0]).sum() + (finite * forms[1]).sum(), leaves)


def compare(frames, options, tolerance, precision=None):
    """Readout, logsumexp and every gradient of query, keys and values against the CPU form in float64."""
    on_gpu = [x.cuda().requires_grad_() for x in frames]
    exact = [x.double().requires_grad_() for x in frames]
    moved = {n: x.cuda() if isinstance(x, torch.Tensor) else x for n, x in options.items()}
    with poisoned():
        got = memory_read_lse(*on_gpu, **moved, precision=precision, impl="triton")
        got_gradients = gradients(got, on_gpu, 7)
    expected = memory_read_lse(*exact, **options, impl="cpu")
    assert error(got[0], expected[0]) < tolerance
    some = expected[1].isfinite()
    assert torch.equal(got[1].isfinite().cpu(), some)
    # one row of cells at fractional heights reads nothing
    assert not some.any() or float((got[1].cpu() - expected[1])[some].abs().max()) < 10 * tolerance
    for name, a, b in zip(("query", "keys", "values"), got_gradients, gradients(expected, exact, 7), strict=True):
        assert error(a, b) < 4 * tolerance, name


def options_of(size, count, seed, *, offset=None, masked=False, restricted=False, **rest):
    options = dict(rest)
    shape = (size[0], count, *size[1:])
    if restricted:
        options["query_mask"] = draw(seed + 5, *size) > 0
        options["query_mask"][:, size[1] // 3 :, size[2] // 4 :] = False
    if offset is not None:
        options["offset"] = 3 * draw(seed + 3, *shape, 2)
        options["offset"] = options["offset"].round().long() if offset == "whole" else options["offset"]
    if masked:
        options["key_mask"] = draw(seed + 4, *shape) > -0.5
        options["key_mask"][:, :, : size[1] // 2, : size[2] // 3] = False
    return options


# What is compiled anew stands here, sizes are drawn: a kernel takes seconds to compile.
READINGS = {
    "plain": {"c": 64},
    "wide": {"c": 256, "v": 11, "radius": 12, "references": 3},
    "odd": {"c": 96, "v": 17, "window": "disk", "dilation": 3, "masked": True},
    "beyond": {"c": 300, "v": 70, "border": "zeros"},
    "half": {"c": 64, "dtype": torch.float16, "references": 2},
    "ieee": {"c": 64, "dtype": SINGLE, "precision": "ieee", "border": "zeros", "window": "disk"},
    "tf32x3": {"c": 256, "dtype": SINGLE, "precision": "tf32x3", "masked": True, "references": 2},
    "tf32": {"c": 64, "dtype": SINGLE, "precision": "tf32"},
    "rounded": {"c": 64, "dtype": SINGLE, "precision": "bf16"},
    "frame": {"c": 32, "radius": None, "masked": True},
    "restricted": {"c": 64, "restricted": True, "references": 2, "border": "zeros"},
    "restricted whole": {"c": 64, "restricted": True, "offset": "whole", "dilation": 2, "masked": True},
    "mixed": {"c": 32, "radius": [None, 3, 5], "dilation": [1, 2, 1], "references": 3, "border": "zeros"},
    "whole": {"c": 64, "offset": "whole", "border": "zeros", "references": 2, "dilation": 2},
    "fractional": {"c": 64, "offset": "fractional", "masked": True, "references": 2},
    "fractional ieee": {"c": 16, "dtype": SINGLE, "precision": "ieee", "offset": "fractional", "border": "zeros"},
}


@pytest.mark.parametrize("name", READINGS)
@settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.generate])
@given(size=SIZES, seed=st.integers(0, 2**16))
def test_readings(name, size, seed):
    reading = {"dtype": HALF, "v": 3, "references": 1, "radius": 4, "precision": None, **READINGS[name]}
    dtype, count, precision = (reading.pop(word) for word in ("dtype", "references", "precision"))
    c, v = reading.pop("c"), reading.pop("v")
    frames = [draw(seed, *size, c, dtype=dtype), *(draw(seed + i, size[0], count, *size[1:], n, dtype=dtype)
              for i, n in ((1, c), (2, v)))]  # fmt: skip
    tolerance = TOLERANCE[precision if dtype == SINGLE else dtype]
    compare(frames, options_of(size, count, seed, **reading), tolerance, precision)


@pytest.mark.parametrize(
    ("c", "count", "size"), [(256, 5, (1, 120, 216)), (64, 5, (1, 120, 216)), (64, 1, (24, 64, 64))]
)
def test_real_sizes(c, count, size):
    frames = [draw(0, *size, c, dtype=HALF), draw(1, size[0], count, *size[1:], c, dtype=HALF),
              draw(2, size[0], count, *size[1:], 11, dtype=HALF)]  # fmt: skip
    compare(frames, {"radius": 12 if count > 1 else 6}, TOLERANCE[HALF])


PEAKS = {
    "plain": {"c": 64, "top_k": 10},
    "wide": {"c": 256, "top_k": 10, "references": 3, "radius": 12},
    "zeros": {"c": 64, "top_k": 33, "border": "zeros", "masked": True, "radius": 3},
    "frame": {"c": 32, "top_k": 5, "radius": None, "dtype": SINGLE},
    "whole": {"c": 64, "top_k": 4, "offset": "whole", "window": "disk", "references": 2},
    "restricted": {"c": 64, "top_k": 10, "restricted": True, "border": "zeros"},
}


@pytest.mark.parametrize("name", PEAKS)
@settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.generate])
@given(size=st.sampled_from([(1, 37, 53), (2, 24, 48), (1, 7, 70)]), seed=st.integers(0, 2**16))
def test_peaks(name, size, seed):
    reading = {"dtype": HALF, "references": 1, "radius": 4, **PEAKS[name]}
    dtype, count, c, k = (reading.pop(word) for word in ("dtype", "references", "c", "top_k"))
    query, keys = draw(seed, *size, c, dtype=dtype), draw(seed + 1, size[0], count, *size[1:], c, dtype=dtype)
    values, options = draw(seed + 2, size[0], count, *size[1:], 3), options_of(size, count, seed, **reading)
    moved = {n: x.cuda() if isinstance(x, torch.Tensor) else x for n, x in options.items()}
    with poisoned():
        logits, cells, lse = memory_topk(query.cuda(), keys.cuda(), top_k=k, **moved, precision="ieee", impl="triton")
        joint = memory_read(query.cuda(), keys.cuda(), values.cuda(), top_k=k, **moved, precision="ieee", impl="triton")
    expected = memory_topk(query.double(), keys.double(), top_k=k, **options, impl="cpu")
    torch.testing.assert_close(logits.cpu().double(), expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lse.cpu().double(), expected[2], rtol=1e-3, atol=1e-3)
    picked = torch.gather(keys.double().flatten(2, 3).flatten(0, 1), 1,
                          cells.cpu().clamp(min=0).permute(0, 3, 1, 2, 4).flatten(2).flatten(0, 1)[..., None]
                          .expand(-1, -1, c)).reshape(size[0], count, *size[1:], k, c)  # fmt: skip
    again = c**-0.5 * torch.einsum("bhwc,brhwkc->bhwrk", query.double(), picked)
    held = cells.cpu() >= 0
    torch.testing.assert_close(logits.cpu().double()[held], again[held], rtol=1e-4, atol=1e-4)
    wanted = memory_read(query.double(), keys.double(), values.double(), top_k=k, **options, impl="cpu")
    assert error(joint, wanted) < 1e-3


@pytest.mark.parametrize(("c", "dtype", "precision"), [
    (64, HALF, None), (256, HALF, None), (300, torch.float16, None),
    (64, SINGLE, "ieee"), (256, SINGLE, "tf32x3"), (64, SINGLE, "tf32"), (64, SINGLE, "bf16"),
])  # fmt: skip
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("rows", "bank"), [(1, 1), (17, 0), (130, 777), (4096, 5760)])
def test_negatives(c, dtype, precision, grouped, rows, bank):
    query, negatives = draw(0, rows, c, dtype=dtype), draw(1, bank, c, dtype=dtype)
    groups = {}
    if grouped:
        groups = {"query_group": torch.arange(rows) % 3, "negative_group": torch.arange(bank) % 4}
    leaf, exact = query.cuda().requires_grad_(), query.double().requires_grad_()
    with poisoned():
        got = negative_logsumexp(leaf, negatives.cuda(), **{n: g.cuda() for n, g in groups.items()},
                                 precision=precision, impl="triton")  # fmt: skip
        (gradient,) = torch.autograd.grad(got.masked_fill(got.isinf(), 0.0).sum(), leaf)
    expected = negative_logsumexp(exact, negatives.double(), **groups, impl="cpu")
    (wanted,) = torch.autograd.grad(expected.masked_fill(expected.isinf(), 0.0).sum(), exact)
    tolerance, some = TOLERANCE[precision if dtype == SINGLE else dtype], expected.isfinite()
    assert torch.equal(got.isfinite().cpu(), some)
    assert not some.any() or float((got.cpu() - expected)[some].abs().max()) < 10 * tolerance
    assert error(gradient, wanted) < 4 * tolerance
    with torch.no_grad():
        alone = negative_logsumexp(leaf, negatives.cuda(), **{n: g.cuda() for n, g in groups.items()},
                                   precision=precision, impl="triton")  # fmt: skip
    torch.testing.assert_close(alone, got, rtol=1e-5, atol=10 * tolerance)


@pytest.mark.parametrize("options", [{}, {"offset": "fractional"}, {"top_k": 5}])
def test_same_bits_twice(options):
    size = (2, 37, 53)
    frames = [draw(0, *size, 64, dtype=HALF).cuda(), draw(1, 2, 3, 37, 53, 64, dtype=HALF).cuda(),
              draw(2, 2, 3, 37, 53, 4, dtype=HALF).cuda()]  # fmt: skip
    if "offset" in options:
        options = {"offset": draw(3, 2, 3, 37, 53, 2).cuda()}
    if "top_k" not in options:
        frames = [x.requires_grad_() for x in frames]
    first, second = (memory_read_lse(*frames, radius=5, **options, impl="triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    if frames[0].requires_grad:
        one, two = (gradients(out, frames, 0) for out in (first, second))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    automatic = memory_read_lse(*frames, radius=5, **options)
    assert all(torch.equal(a, b) for a, b in zip(first, automatic, strict=True))


def test_layouts_in_memory():
    size = (2, 24, 48)
    query, key, value = (draw(i, *size, c, dtype=HALF).cuda() for i, c in enumerate((64, 64, 3)))
    expected = windowed_attention(query, key, value, radius=3, impl="triton")
    channels_first = [x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for x in (query, key, value)]
    torch.testing.assert_close(windowed_attention(*channels_first, radius=3, impl="triton"), expected)
    wide = [torch.cat([x, x], 3)[..., 5 : 5 + x.shape[3]] for x in (query, key, value)]  # not aligned, gaps
    misaligned = windowed_attention(*wide, radius=3, impl="triton")
    moved = [torch.cat([x, x], 3)[..., 5 : 5 + x.shape[3]].contiguous() for x in (query, key, value)]
    torch.testing.assert_close(misaligned, windowed_attention(*moved, radius=3, impl="triton"))
    spread = query[:1].expand(2, -1, -1, -1)
    torch.testing.assert_close(windowed_attention(spread, key, value, radius=3, impl="triton")[1:],
                               windowed_attention(query[:1], key[1:], value[1:], radius=3, impl="triton"))  # fmt: skip


def test_a_memory_of_more_than_two_billion_numbers():
    if torch.cuda.mem_get_info()[0] < 2**34:
        pytest.skip("needs 16 GB of free GPU memory")
    ring = torch.zeros(70, 1, 240, 512, 256, dtype=HALF, device="cuda")
    query, frame = (draw(i, 1, 240, 512, 256, dtype=HALF).cuda() for i in (0, 1))
    ring[69], value = frame, draw(2, 1, 240, 512, 2, dtype=HALF).cuda()
    far = memory_read_lse(query, [ring[0], ring[69]], [value, value], radius=1, impl="triton")
    near = memory_read_lse(query, [torch.zeros_like(frame), frame], [value, value], radius=1, impl="triton")
    assert all(torch.equal(a, b) for a, b in zip(far, near, strict=True))


@pytest.mark.parametrize("dtype", [HALF, SINGLE])
def test_hard_features(dtype):
    """Logits of ten thousand, equal keys, a single large key, and labels that stay a distribution."""
    frame = torch.nn.functional.normalize(draw(0, 1, 24, 48, 64), dim=-1).to(dtype).cuda()
    value = draw(1, 1, 24, 48, 3, dtype=dtype).cuda()
    torch.testing.assert_close(windowed_attention(frame, frame, value, radius=3, scale=1e4, impl="triton"), value)
    ones = torch.ones_like(frame)
    even = windowed_attention(ones, ones, torch.ones_like(value), radius=3, scale=100.0, impl="triton")
    torch.testing.assert_close(even, torch.ones_like(even))
    spike = frame.clone()
    spike[0, 5, 5] *= 3e4
    readout, lse = windowed_attention_lse(frame, spike, value, radius=3, scale=1.0, impl="triton")
    assert readout.isfinite().all() and lse.isfinite().all()
    labels = torch.nn.functional.one_hot(torch.randint(4, (1, 24, 48)), 4).cuda()
    shares = windowed_attention(frame, frame, labels, radius=6, scale=20.0, impl="triton")
    torch.testing.assert_close(shares.sum(-1), torch.ones_like(shares[..., 0]), rtol=0, atol=1e-5)


def test_nan_and_rows_with_nothing_to_read():
    query, key, value = (draw(i, 1, 24, 48, c).cuda().requires_grad_() for i, c in enumerate((64, 64, 3)))
    mask = torch.zeros(1, 24, 48, dtype=torch.bool, device="cuda")
    mask[:, :, 24:] = True
    readout, lse = windowed_attention_lse(query, key, value, radius=2, key_mask=mask, impl="triton")
    empty = lse == -torch.inf
    assert empty[:, :, :22].all() and not empty[:, :, 22:].any() and not readout[empty].any()
    for gradient in torch.autograd.grad(readout.sum() + lse[~empty].sum(), (query, key, value)):
        assert gradient.isfinite().all()
    with torch.no_grad():
        key[0, 4, 4] = torch.nan
        lse = windowed_attention_lse(query, key, value, radius=2, impl="triton")[1]
        seen = torch.zeros_like(mask)
        seen[:, 2:7, 2:7] = True
        assert torch.equal(lse.isnan(), seen)
        logits, cells, _ = memory_topk(query, [key], top_k=3, radius=2, impl="triton")
        assert torch.equal(logits.isnan().any(-1)[..., 0], seen) and (cells[logits.isnan()] == 4 * 48 + 4).all()


def test_as_torch_operators():
    def arguments(offset=None, read_=None, gradient=True):
        tensors = [draw(i, 1, 9, 20, c).cuda().requires_grad_(gradient) for i, c in enumerate((16, 16, 3))]
        query, key, value = tensors
        return query, read_, [key], [value], [offset], [None], [2], [1], [0.5], "square", "mask", "ieee", "triton"

    torch.library.opcheck(read, arguments())
    torch.library.opcheck(read, arguments(offset=torch.full((1, 9, 20, 2), 0.5, device="cuda")))
    torch.library.opcheck(read, arguments(read_=torch.arange(180, device="cuda").view(1, 9, 20) > 50))
    query, read_, keys, _, *rest = arguments(gradient=False)
    torch.library.opcheck(topk, (3, False, query, read_, keys, [], *rest))
    rows = draw(0, 40, 16).cuda()
    for keep in (True, False):
        given_rows = rows.clone().requires_grad_(keep)
        torch.library.opcheck(negatives_op, (given_rows, rows, None, None, 1.0, "ieee", keep, "triton"))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_without_a_break(backend):
    def loss(query, key, value):
        readout, lse = windowed_attention_lse(query, key, value, radius=2)
        inter = negative_logsumexp(query.reshape(-1, 16), key.detach().reshape(-1, 16)).reshape(lse.shape)
        return (readout * (lse - inter).sigmoid()[..., None]).square().sum()

    leaves = [draw(i, 1, 9, 20, c).cuda().requires_grad_() for i, c in enumerate((16, 16, 3))]
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    torch.testing.assert_close(
        torch.autograd.grad(compiled(*leaves), leaves), torch.autograd.grad(loss(*leaves), leaves)
    )


def test_in_a_graph_and_under_autocast():
    query, key, value = (draw(i, 1, 24, 48, c, dtype=HALF).cuda() for i, c in enumerate((64, 64, 3)))
    expected = windowed_attention(query, key, value, radius=3, impl="triton")
    with torch.autocast("cuda", dtype=torch.float16):
        assert torch.equal(windowed_attention(query, key, value, radius=3, impl="triton"), expected)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = windowed_attention(query, key, value, radius=3, impl="triton")
    captured.zero_()
    graph.replay()
    assert torch.equal(captured, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_on_a_device_that_is_not_the_current_one():
    query, key, value = (draw(i, 1, 24, 48, c, dtype=HALF) for i, c in enumerate((64, 64, 3)))
    first, second = ([x.to(place) for x in (query, key, value)] for place in ("cuda:0", "cuda:1"))
    with torch.cuda.device(0):
        got = windowed_attention(*second, radius=3, impl="triton")
    assert torch.equal(got.cpu(), windowed_attention(*first, radius=3, impl="triton").cpu())


def test_what_triton_does_not_take():
    frame = torch.zeros(1, 4, 6, 8, dtype=torch.float64, device="cuda")
    with pytest.raises(ValueError, match=r"impl 'triton' takes no float64, got torch\.float64; 'cpu' takes it"):
        windowed_attention(frame, frame, frame, radius=1, impl="triton")
    assert torch.equal(windowed_attention(frame, frame, frame, radius=1), frame)
