"""The negatives' mass against one dense formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from vcorr.kernels import negative_logsumexp

IMPLEMENTATIONS = ["reference", "cpu"]


def draw(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def dense(query, bank, scale, query_group=None, bank_group=None):
    """log of the sum of exponentials, pair by pair, shifted by the largest logit of all."""
    logits = torch.einsum("nc,mc->nm", query, bank) * scale
    allowed = torch.ones_like(logits) if query_group is None else (query_group[:, None] != bank_group[None]).double()
    level = logits.detach().max() if logits.numel() else 0.0
    return (allowed * (logits - level).exp()).sum(1).log() + level


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@examples(50)
@given(
    rows=st.sampled_from([1, 2, 63, 130, 1025]),
    bank=st.sampled_from([0, 1, 7, 512, 1100]),
    channels=st.integers(1, 9),
    groups=st.none() | st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_values_and_gradients_equal_the_formula(impl, rows, bank, channels, groups, seed):
    query, negatives = draw(seed, rows, channels).requires_grad_(), draw(seed + 1, bank, channels)
    generator = torch.Generator().manual_seed(seed)
    given_groups = [] if groups is None else [torch.randint(groups, (n,), generator=generator) for n in (rows, bank)]
    named = dict(zip(("query_group", "negative_group"), given_groups, strict=False))
    got = negative_logsumexp(query, negatives, scale=0.8, **named, impl=impl)
    expected = dense(query, negatives, 0.8, *given_groups)
    torch.testing.assert_close(got, expected)
    some, weight = expected > -torch.inf, draw(seed + 2, rows)
    (gradient,) = torch.autograd.grad((got * weight).masked_fill(~some, 0.0).sum(), query)
    assert not gradient[~some].any()
    if some.any():
        (wanted,) = torch.autograd.grad((expected[some] * weight[some]).sum(), query)
        torch.testing.assert_close(gradient[some], wanted[some])


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_gradcheck(impl):
    query, bank = draw(0, 5, 3).requires_grad_(), draw(1, 9, 3)
    groups = {"query_group": torch.tensor([0, 1, 2, 1, 0]), "negative_group": torch.arange(9) % 3}
    assert torch.autograd.gradcheck(lambda q: negative_logsumexp(q, bank, scale=1.3, **groups, impl=impl), query)


def test_a_split_bank_is_the_whole_bank():
    query, bank = draw(0, 40, 6), draw(1, 1500, 6)
    parts = [negative_logsumexp(query, part) for part in (bank[:700], bank[700:])]
    torch.testing.assert_close(torch.logaddexp(*parts), negative_logsumexp(query, bank))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_sums_in_float32(dtype):
    query, bank = draw(0, 70, 16, dtype=dtype).requires_grad_(), draw(1, 600, 16, dtype=dtype)
    lse = negative_logsumexp(query, bank)
    truth = dense(query.double(), bank.double(), 0.25)
    assert lse.dtype == torch.float32
    torch.testing.assert_close(lse.double(), truth, rtol=1e-5, atol=1e-5)
    gradient = torch.autograd.grad(lse.sum(), query)[0]
    assert gradient.dtype == dtype
    torch.testing.assert_close(
        gradient.double(), torch.autograd.grad(truth.sum(), query)[0].double(), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize("size", [1e-3, 30.0, 1e3])
def test_features_of_any_length(size):
    query, bank = size * draw(0, 20, 8), size * draw(1, 700, 8)
    got = negative_logsumexp(query.float(), bank.float(), scale=1.0)
    expected = torch.logsumexp(query.float().double() @ bank.float().double().T, 1)
    torch.testing.assert_close(got.double(), expected, rtol=2e-6, atol=2e-6)


def test_identical_negatives_count():
    assert torch.equal(negative_logsumexp(torch.zeros(3, 4), torch.zeros(8, 4)), torch.full((3,), 8.0).log())


def test_same_bits_twice():
    query, bank = draw(0, 2000, 8, dtype=torch.float32).requires_grad_(), draw(1, 1100, 8, dtype=torch.float32)
    results = []
    for _ in range(2):
        lse = negative_logsumexp(query, bank)
        results.append((lse.detach(), torch.autograd.grad(lse.sum(), query)[0]))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_errors():
    query, bank = torch.zeros(3, 4), torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"negatives must be \[rows c\], got shape \(5, 2, 2\)"):
        negative_logsumexp(query, bank.reshape(5, 2, 2))
    with pytest.raises(ValueError, match="negatives must have the 4 channels of query, got 3"):
        negative_logsumexp(query, bank[:, :3])
    with pytest.raises(TypeError, match=r"negatives must have the type of query, torch.float32, got torch.float64"):
        negative_logsumexp(query, bank.double())
    with pytest.raises(TypeError, match=r"query must be floating point, got torch.int64"):
        negative_logsumexp(query.long(), bank.long())
    with pytest.raises(ValueError, match="negatives must not require gradients"):
        negative_logsumexp(query, bank.clone().requires_grad_())
    with pytest.raises(ValueError, match="must be given together"):
        negative_logsumexp(query, bank, query_group=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"negative_group must have shape \(5,\), got \(3,\)"):
        negative_logsumexp(query, bank, query_group=torch.zeros(3).long(), negative_group=torch.zeros(3).long())
    with pytest.raises(TypeError, match=r"query_group must be whole numbers, .*, got torch.float32"):
        negative_logsumexp(query, bank, query_group=torch.zeros(3), negative_group=torch.zeros(5))
    with pytest.raises(TypeError, match="query_group must be a tensor, got list"):
        negative_logsumexp(query, bank, query_group=[0, 0, 0], negative_group=torch.zeros(5).long())
    with pytest.raises(TypeError, match=r"query_group must be whole numbers, .*, got torch.uint16"):
        negative_logsumexp(
            query, bank, query_group=torch.zeros(3).to(torch.uint16), negative_group=torch.zeros(5).long()
        )
    with pytest.raises(ValueError, match=r"scale must be finite, .* got inf"):
        negative_logsumexp(query, bank, scale=torch.inf)
    with pytest.raises(ValueError, match=r"impl must be one of .*, got 'fast'"):
        negative_logsumexp(query, bank, impl="fast")
