"""What is in memory that nothing has written reaches no result: NaN there leaves every bit as it is."""

from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.kernels import test_read, test_topk
from tests.kernels.test_products import LIBRARIES, by_library, by_panels
from tests.kernels.test_read import draw, gradients
from vcorr.kernels import memory_read_lse, memory_topk, negative_logsumexp
from vcorr.kernels.cpu import panels

DTYPES = st.sampled_from([torch.float64, torch.float32, torch.bfloat16])


@contextlib.contextmanager
def poisoned():
    """Memory that nothing has written is NaN, or the largest whole number, and no buffers are kept from before."""
    before = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
        panels._KEPT.panels = None
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.empty(2).isnan().all()
            yield
        finally:
            torch.use_deterministic_algorithms(before)
    assert torch.are_deterministic_algorithms_enabled() == before


def check(compute):
    with poisoned():
        found = compute()
    for a, b in zip(found, compute(), strict=True):
        assert torch.equal(a, b)


def check_reading(case, dtype):
    inputs, options = test_read.inputs_of(case)

    def compute():
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        got = memory_read_lse(*leaves, **options, impl="cpu")
        with torch.no_grad():
            again = memory_read_lse(*leaves, **options, impl="cpu")
        return [*got, *again, *gradients(got, leaves, case["seed"])]

    check(compute)


@examples(50)
@given(case=test_read.readings(), dtype=DTYPES)
def test_readings(case, dtype):
    check_reading(case, dtype)


@pytest.mark.parametrize("onednn", LIBRARIES)
@examples(40)
@given(case=test_read.readings(), dtype=DTYPES, strips=st.sampled_from([None, 1, 2]))
def test_readings_by_panels(onednn, case, dtype, strips):
    case = {**case, "offset_kind": "none", "radius": [2 if r is None else r for r in case["radius"]], "features": 24}
    with by_library(onednn), by_panels(strips):
        check_reading(case, dtype)


@examples(40)
@given(case=test_topk.readings(), dtype=DTYPES)
def test_largest_logits(case, dtype):
    *frames, options = test_topk.inputs_of(case)
    query, keys, values = (x.to(dtype) for x in frames)
    options |= {"top_k": case["top_k"], "impl": "cpu"}

    def compute():
        leaf = values.clone().requires_grad_()
        got = memory_read_lse(query, keys, leaf, **options)
        return [*got, *torch.autograd.grad(got[0].sum(), leaf), *memory_topk(query, keys, **options)]

    check(compute)


@examples(40)
@given(
    rows=st.sampled_from([1, 2, 63, 1025]),
    bank=st.sampled_from([0, 1, 7, 513]),
    groups=st.none() | st.integers(1, 4),
    dtype=DTYPES,
)
def test_negatives(rows, bank, groups, dtype):
    query, negatives = draw(0, rows, 5).to(dtype), draw(1, bank, 5).to(dtype)
    named = {}
    if groups is not None:
        named = {"query_group": torch.arange(rows) % groups, "negative_group": torch.arange(bank) % 3}

    def compute():
        leaf = query.clone().requires_grad_()
        lse = negative_logsumexp(leaf, negatives, **named, impl="cpu")
        alone = negative_logsumexp(query, negatives, **named, impl="cpu")
        return [lse, alone, *torch.autograd.grad(lse.masked_fill(lse.isinf(), 0.0).sum(), leaf)]

    check(compute)
