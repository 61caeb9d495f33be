"""Windows at offsets partly, wholly or far outside the frame, dilated or larger than it, against the oracle."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import forked
from tests.examples import examples
from tests.kernels import oracle
from vcorr.kernels import memory_read, memory_read_lse, memory_topk, windowed_attention, windowed_attention_lse
from vcorr.kernels.arguments import MOST_CELLS
from vcorr.kernels.cpu import boxes, fractions
from vcorr.kernels.cpu import largest as memory_cpu

IMPLEMENTATIONS = ["reference", "cpu"]
FAR = [1e30, -1e30, 9.3e18, -9.3e18, 2**62, -(2**63)]


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@st.composite
def readings(draw_, whole=False):
    """Offsets of a few cells, or of some dilations, so that far windows come back into the frame; some very far."""
    batch, count = draw_(st.integers(1, 2)), draw_(st.integers(1, 2))
    radius = draw_(st.integers(1, 4) | st.sampled_from([9, 15]))
    most = (10, 12) if radius < 9 else (5, 6)  # the oracle holds every tap of every cell by every cell
    height, width = (draw_(st.integers(1, side)) for side in most)
    dilation = draw_(st.sampled_from([1, 1, 2, 3, 5, 9, 11, 60, 10**6]))
    seed = draw_(st.integers(0, 2**16))
    offset = draw_(st.sampled_from([0.0, 2.0, 20.0])) * draw(seed + 3, batch, count, height, width, 2)
    offset = offset.round() if whole or draw_(st.booleans()) else offset
    if draw_(st.booleans()):
        offset = offset + dilation * (2 * draw(seed + 4, batch, count, 1, 1, 2)).round()
    if draw_(st.booleans()):
        offset[draw(seed + 5, *offset.shape) > 1] = float(draw_(st.sampled_from(FAR)))
    mask = draw(seed + 6, batch, count, height, width) > -0.5 if draw_(st.booleans()) else None
    query, keys = draw(seed, batch, height, width, 3), draw(seed + 1, batch, count, height, width, 3)
    values = draw(seed + 2, batch, count, height, width, 2)
    border, window = draw_(st.sampled_from(["mask", "zeros"])), draw_(st.sampled_from(["square", "disk"]))
    read = draw(seed + 7, batch, height, width) > 0 if draw_(st.booleans()) else None
    options = {"radius": radius, "dilation": dilation, "border": border, "window": window, "query_mask": read}
    return [query, keys, values], {**options, "offset": offset, "key_mask": mask}


def by_oracle(query, keys, values, *, offset, key_mask, **options):
    mask = None if key_mask is None else key_mask.unbind(1)
    return oracle.read(query, keys.unbind(1), values.unbind(1), offset=offset.unbind(1), key_mask=mask, **options)


def with_gradients(read, inputs, options):
    """Readout, logsumexp, and the gradients of a linear form of both."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    readout, lse = read(*leaves, **options)
    form = (readout * draw(8, *readout.shape)).sum() + (lse.masked_fill(lse.isinf(), 0.0) * draw(9, *lse.shape)).sum()
    return [readout, lse, *torch.autograd.grad(form, leaves)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits",
    [
        {"fractions": {"LEAST": fractions.LEAST}},
        {"fractions": {"LEAST": 0}},
        {"fractions": {"LEAST": 0, "WASTE": 0.1}},
        {"fractions": {"LARGEST": 100}},
        {"boxes": {"LARGEST": 100, "SPLIT": 100}},
        {"boxes": {"LARGEST": 100, "SPLIT": -(2**40)}},
    ],
    ids=str,
)
@given(case=readings())
def test_read_equals_the_oracle(limits, case):
    """By tiles of every kind: of neighbours and of cells a dilation apart, whole and split."""
    with contextlib.ExitStack() as stack:
        for name, numbers in limits.items():
            stack.enter_context(mock.patch.multiple({"fractions": fractions, "boxes": boxes}[name], **numbers))
        got = with_gradients(memory_read_lse, *case)
    torch.testing.assert_close(got, with_gradients(by_oracle, *case), rtol=1e-7, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("impl", "held"), [("reference", 0), ("cpu", memory_cpu.HELD), ("cpu", 100)])
@examples(40)
@given(case=readings(whole=True), top_k=st.integers(1, 12))
def test_top_k_equals_the_oracle(impl, held, case, top_k):
    with mock.patch.object(memory_cpu, "HELD", held):
        check_top_k(impl, *case, top_k)


def check_top_k(impl, inputs, options, top_k):
    if impl == "reference":  # which goes tap by tap
        options["radius"] = min(options["radius"], 3)
    top_k = 1 if options["radius"] == 1 else min(top_k, 9)
    got = memory_read_lse(*inputs, **options, top_k=top_k, impl=impl)
    torch.testing.assert_close(got, by_oracle(*inputs, **options, top_k=top_k))
    logits, cells, lse = memory_topk(*inputs[:2], **options, top_k=top_k, impl=impl)
    torch.testing.assert_close(lse, by_oracle(*inputs, **options)[1])
    for r in range(logits.shape[3]):
        alone = {n: v[:, r : r + 1] if n in ("offset", "key_mask") and v is not None else v for n, v in options.items()}
        _, expected = by_oracle(inputs[0], *(x[:, r : r + 1] for x in inputs[1:]), **alone, top_k=top_k)
        torch.testing.assert_close(logits[..., r, :].logsumexp(-1), expected)
        key = (
            inputs[1][:, r]
            .flatten(1, 2)
            .gather(1, cells[..., r, :].clamp(min=0).flatten(1)[..., None].expand(-1, -1, 3))
        )
        again = (inputs[0][..., None, :] * key.unflatten(1, logits[..., r, :].shape[1:])).sum(-1) / math.sqrt(3)
        found = cells[..., r, :] >= 0
        torch.testing.assert_close(logits[..., r, :][found], again[found])


@pytest.mark.slow
@given(case=readings())
def test_the_reference_equals_the_oracle(case):
    inputs, options = case
    options["radius"] = min(options["radius"], 3)
    got = with_gradients(lambda *x, **o: memory_read_lse(*x, **o, impl="reference"), inputs, options)
    torch.testing.assert_close(got, with_gradients(by_oracle, inputs, options), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("impl", "dtype"),
    [("reference", torch.float32), ("cpu", torch.int64), ("cpu", torch.float32), ("cpu", torch.float64)],
)
@pytest.mark.parametrize("far", FAR)
def test_a_window_far_off_reads_nothing(impl, dtype, far):
    if dtype == torch.int64:
        far = max(-(2**63), min(2**63 - 1, int(far)))
    frame, offset = draw(0, 1, 4, 5, 3), torch.full((1, 4, 5, 2), far, dtype=dtype)
    for border, mass in (("mask", -math.inf), ("zeros", math.log(25))):
        options = {"radius": 2, "dilation": 3, "border": border, "impl": impl}
        leaves = [frame.clone().requires_grad_() for _ in range(3)]
        readout, lse = windowed_attention_lse(*leaves, offset=offset, **options)
        assert not readout.any()
        torch.testing.assert_close(lse, torch.full_like(lse, mass))
        assert not any(g.any() for g in torch.autograd.grad(readout.sum(), leaves))
        logits, cells, _ = memory_topk(frame, [frame], top_k=2, offset=[offset], **options)
        assert (cells == -1).all() and (logits == {"mask": -math.inf, "zeros": 0.0}[border]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_far_below_those_of_taps_outside(dtype):
    """All windows lie inside the frame, and no score is near 0, that of the taps outside which border zeros counts."""
    query = torch.full((1, 4, 4, 1), 10.0, dtype=dtype)
    key, value = -query, torch.arange(16.0, dtype=dtype).view(1, 4, 4, 1)
    own = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"), -1)[None]
    offset = own.clamp(1, 2) - own
    options = dict(radius=1, scale=40.0, border="zeros", offset=offset.to(dtype))
    found, expected = (windowed_attention_lse(query, key, value, **options, impl=impl) for impl in ("cpu", "reference"))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.float16, torch.bfloat16])
def test_offsets_of_few_bits(dtype):
    frame, offset = draw(0, 1, 4, 5, 3), torch.full((1, 4, 5, 2), 100, dtype=dtype)
    got = windowed_attention_lse(frame, frame, frame, radius=1, dilation=100, offset=offset)
    torch.testing.assert_close(got, windowed_attention_lse(frame, frame, frame, radius=0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "gradient"), [({}, False), ({"top_k": 3}, True), ({"border": "zeros"}, True)], ids=str
)
def test_compiled_code_refuses_what_is_not_finite_when_it_runs(options, gradient):
    frame, offset = draw(0, 1, 4, 5, 3), torch.zeros(1, 4, 5, 2)
    values = frame.clone().requires_grad_(gradient)
    compiled = torch.compile(
        lambda o: memory_read(frame, [frame], [values], radius=1, offset=[o], **options),
        fullgraph=True,
        backend="aot_eager",
    )
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="offset must be finite, got infinite or undefined values"):
            compiled(torch.full_like(offset, bad))
    torch.testing.assert_close(compiled(offset), memory_read(frame, [frame], [values], radius=1, **options))


@pytest.mark.parametrize("impl", ["auto", *IMPLEMENTATIONS])
@pytest.mark.parametrize("top_k", [None, 2])
def test_what_is_not_finite_is_refused(impl, top_k):
    frame, offset = draw(0, 1, 4, 5, 3), torch.full((1, 4, 5, 2), -torch.inf)
    with pytest.raises(ValueError, match="offset must be finite, got infinite or undefined values"):
        memory_read(frame, [frame], [frame], radius=1, offset=[offset], top_k=top_k, impl=impl)


@pytest.mark.parametrize("dilation", [13, 60, 10**6, MOST_CELLS])
def test_a_dilation_past_the_frame_leaves_the_centre(dilation):
    frame, value = draw(0, 1, 12, 12, 4), draw(1, 1, 12, 12, 2)
    got = windowed_attention(frame, frame, value, radius=4, dilation=dilation, offset=torch.zeros(1, 12, 12, 2))
    torch.testing.assert_close(got, value)


@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("window", ["square", "disk"])
@pytest.mark.parametrize(("radius", "dilation"), [(200, 1), (10**7, 1), (12, 5), (10**7, 5)])
def test_zero_offsets_are_none(border, window, radius, dilation):
    inputs = [draw(i, 1, 13, 17, c) for i, c in enumerate((4, 4, 2))]
    options = {"radius": radius, "dilation": dilation, "border": border, "window": window}
    read = windowed_attention_lse
    got = with_gradients(read, inputs, {**options, "offset": torch.zeros(1, 13, 17, 2)})
    torch.testing.assert_close(got, with_gradients(read, inputs, options))


PEAK = """
import pathlib, sys, torch
from vcorr.kernels import windowed_attention
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])
torch.set_num_threads(1)
height, width, radius, dilation = map(int, sys.argv[1:])
leaves = [torch.randn(1, height, width, c).requires_grad_() for c in (64, 64, 4)]
def step(radius, dilation):
    offset = torch.zeros(1, height, width, 2)
    windowed_attention(*leaves, radius=radius, dilation=dilation, offset=offset).sum().backward()
step(1, 1)
before = peak()
step(radius, dilation)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a Linux process's peak memory")
@pytest.mark.parametrize(
    ("height", "width", "radius", "dilation"), [(40, 71, 12, 15), (20, 20, 4, 60), (20, 20, 200, 1)]
)
def test_memory_is_that_of_the_frame(height, width, radius, dilation):
    """Whatever lies beyond it is never held."""
    sizes = map(str, (height, width, radius, dilation))
    done = forked.run("-c", PEAK, *sizes)
    assert done.code == 0, done.stderr
    assert int(done.stdout) < 12_000  # kilobytes
