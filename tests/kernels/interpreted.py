"""The Triton kernels in Triton's interpreter, on a CPU. Run by test_triton.py in a process of its own, since the
interpreter must be chosen before the kernels are decorated:

    TRITON_INTERPRET=1 python -m pytest tests/kernels/interpreted.py
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from vcorr.kernels.geometry import Reference, Window
from vcorr.kernels.negatives import cpu as negatives_cpu
from vcorr.kernels.negatives import triton as negatives_triton
from vcorr.kernels.window import cpu
from vcorr.kernels.window import triton as window_triton

pytestmark = pytest.mark.filterwarnings("ignore")  # the interpreter takes logarithms of 0 through numpy

TILES = window_triton.Tiling(rows=4, columns=4, passing=16, passing_backward=16)


@pytest.fixture(autouse=True, scope="module")
def poisoned_outputs():
    """Whatever a kernel leaves unwritten is NaN."""
    patch = pytest.MonkeyPatch()
    plain = torch.empty

    def poisoned(*size, **options):
        made = plain(*size, **options)
        return made.fill_(torch.nan) if made.dtype.is_floating_point else made

    patch.setattr(torch, "empty", poisoned)
    yield
    patch.undo()


@st.composite
def readings(draw):
    return {
        "size": (draw(st.integers(1, 2)), draw(st.integers(1, 6)), draw(st.integers(1, 9))),
        "features": draw(st.sampled_from([3, 16, 20])),
        "channels": draw(st.sampled_from([1, 3, 17])),
        "references": draw(st.integers(1, 2)),
        "radius": draw(st.sampled_from([-1, 1, 2, 12])),
        "dilation": draw(st.integers(1, 2)),
        "shape": draw(st.sampled_from(["square", "disk"])),
        "border": draw(st.sampled_from(["mask", "zeros"])),
        "masked": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float32, torch.float16])),
        "seed": draw(st.integers(0, 2**16)),
    }


def error(got, expected):
    return float((got.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-6))


@settings(max_examples=8, deadline=None, phases=[Phase.generate], derandomize=True)
@given(case=readings())
def test_windowed_reading(case):
    generator = torch.Generator().manual_seed(case["seed"])
    size, dtype = case["size"], case["dtype"]

    def draw(channels):
        return torch.randn(*size, channels, generator=generator).to(dtype)

    dilation = 1 if case["radius"] < 0 else case["dilation"]
    window = Window(case["radius"], dilation, case["shape"], case["border"], 0.5)
    query, references = draw(case["features"]), []
    for _ in range(case["references"]):
        mask = torch.rand(*size, generator=generator) > 0.3 if case["masked"] else None
        value = draw(case["channels"])
        value = value if mask is None else value.masked_fill(~mask[..., None], 0.0)
        references.append(Reference(draw(case["features"]), value, None, mask, window))
    exact = [r._replace(key=r.key.double(), value=r.value.double()) for r in references]
    tolerance = {torch.float32: 2e-6, torch.float16: 2e-3}[dtype]

    readout, lse = window_triton.read(query, references, TILES)
    expected, expected_lse = cpu.read(query.double(), exact)
    assert error(readout, expected) < tolerance
    torch.testing.assert_close(lse.double(), expected_lse, rtol=1e-4, atol=1e-4)

    grad, grad_lse = draw(case["channels"]), draw(1)[..., 0].float().masked_fill(lse == -torch.inf, 0.0)
    needs = (True, True, True)
    got = window_triton.read_backward(grad, grad_lse, query, references, readout, lse, needs, TILES)
    wanted = cpu.read_backward(grad.double(), grad_lse.double(), query.double(), exact, expected, expected_lse, needs)
    for a, b in zip(got, wanted, strict=True):
        assert error(a, b) < 4 * tolerance


@settings(max_examples=8, deadline=None, phases=[Phase.generate], derandomize=True)
@given(
    rows=st.sampled_from([1, 17, 40]),
    bank=st.sampled_from([1, 16, 70]),
    features=st.sampled_from([3, 16, 70]),
    groups=st.none() | st.integers(1, 3),
    keep_mean=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_negatives(rows, bank, features, groups, keep_mean, seed):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, features, generator=generator)
    negatives = torch.randn(bank, features, generator=generator)
    sides = (None, None)
    if groups is not None:
        sides = tuple(torch.randint(groups, (n,), generator=generator) for n in (rows, bank))
    tiles = negatives_triton.Tiling(queries=16, passing=16, warps=4)
    lse, mean = negatives_triton.logsumexp(query, negatives, *sides, 0.7, "ieee", keep_mean, tiles)
    expected, expected_mean = negatives_cpu.logsumexp(query.double(), negatives.double(), *sides, 0.7, keep_mean)
    torch.testing.assert_close(lse.double(), expected, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(mean.double(), expected_mean, rtol=2e-5, atol=2e-6)
