"""Several processes as one: what they agree on, and batch normalisation over all of them against one process."""

from __future__ import annotations

import json

import pytest
import torch

from tests.training.together import side_by_side
from vcorr import ranks, rng
from vcorr.errors import UsageError
from vcorr.model import nn


def toy(wide=torch.float64, narrow=torch.float64):
    """A batch of 4, parameters, statistics, and a weight for each output so that gradients tell apart."""

    def normal(*shape, seed):
        return torch.randn(*shape, generator=rng.generator(seed, "test"), dtype=torch.float64).to(wide)

    params = {"n.weight": normal(3, seed=1), "n.bias": normal(3, seed=2)}
    stats = {"n.mean": normal(3, seed=3), "n.var": normal(3, seed=4).square()}
    return (5 + 2 * normal(4, 3, 4, 5, seed=0)).to(narrow), params, stats, normal(4, 3, 4, 5, seed=5)


def norm(x, params, stats, weight):
    """y, new statistics, and the gradients of sum(weight * y^2) / 2 for x and the parameters."""
    leaves = [t.clone().requires_grad_() for t in (x, *params.values())]
    y, new = nn.batch_norm(dict(zip(params, leaves[1:], strict=True)), stats, "n", leaves[0], train=True)
    return y.detach(), new, torch.autograd.grad((weight * y.square()).sum() / 2, leaves)


@pytest.fixture(scope="module")
def two():
    """What two processes found, and what they said after the second one ended."""
    ended = side_by_side("tests.ranks_command")
    assert [code for code, _, _ in ended] == [0, 0], ended
    lines = [out.splitlines() for _, out, _ in ended]
    return [json.loads(own[0]) for own in lines], [own[1:] for own in lines]


@pytest.mark.slow
def test_each_knows_which_it_is_and_takes_its_share(two):
    found, _ = two
    assert [f["who"] for f in found] == [[0, 2, 2, "cpu"], [1, 2, 2, "cpu"]]
    assert [f["share"] for f in found] == [[10, 11, 12], [13, 14, 15]]


def test_all_get_the_same(two):
    wanted = {
        "largest": [1, 0, 7],
        "mean": [0.5, 3.0],
        "nan": "nan",
        "gather": [[0, 0], [1, 10]],
        "mean_": [1.5, 4.0],
        "made": [0, [0, 1, 2]],
        "raised": ["here: is nothing; give something", True],
    }
    for found in two[0]:
        assert {k: found[k] for k in wanted} == wanted


def test_one_that_loses_the_others_says_so(two):
    assert two[1] == [["rank 0: lost contact with the others; see the error of the first to end"], []]


@pytest.mark.parametrize(
    ("kind", "batch", "tolerance"),
    [("double", toy(), 1e-12), ("half", toy(torch.float32, torch.bfloat16), 2e-2)],
    ids=["double", "half"],
)
def test_batch_norm_over_all_is_that_of_one_process_with_the_whole_batch(two, kind, batch, tolerance):
    """Results and gradients; those of the parameters are the shares' own, whose sum is that of the whole."""
    y, new, (x, gain, shift) = norm(*batch)
    first, second = ([torch.tensor(v, dtype=torch.float64) for v in found[kind]] for found in two[0])

    def close(got, wanted):
        torch.testing.assert_close(got, wanted.double(), rtol=tolerance, atol=tolerance)

    close(torch.cat([first[0], second[0]]), y)
    for a, b, wanted in zip(first[1:3], second[1:3], new.values(), strict=True):
        assert torch.equal(a, b)
        close(a, wanted)
    close(torch.cat([first[3], second[3]]), x)
    close(first[4] + second[4], gain)
    close(first[5] + second[5], shift)


def test_batch_norm_of_one_process_alone_waits_for_no_other(two):
    x, params, stats, weight = toy()
    y, new, gradients = norm(x[:2], params, stats, weight[:2])
    alone, none = (found["alone"] for found in two[0])
    assert alone == [t.tolist() for t in (y, *new.values(), *gradients)] and none == []


def test_batch_norm_over_all_keeps_types(two):
    """Activations in bfloat16; statistics and gradients of parameters in float32."""
    wide, narrow = "torch.float32", "torch.bfloat16"
    assert [f["types"] for f in two[0]] == [[narrow, wide, wide, narrow, wide, wide]] * 2


def test_alone_everything_is_given_back():
    assert (ranks.rank(), ranks.size(), ranks.here()) == (0, 1, 1)
    assert ranks.share(range(3, 9)) == range(3, 9)
    assert ranks.largest(3, 1) == (3, 1) and ranks.mean(2.5) == (2.5,)
    x = torch.arange(3.0)
    with ranks.parted():
        assert torch.equal(ranks.gather(x), x[None]) and ranks.mean_(x) is x and ranks.parts() == 1
    assert ranks.from_first(lambda: 5) == 5
    with ranks.joined(torch.device("cpu")) as device:
        assert device == torch.device("cpu") and ranks.size() == 1


def test_a_batch_that_cannot_be_parted_is_refused(monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: 4)
    with pytest.raises(ValueError, match="a batch of 6 cannot be parted among 4 processes"):
        ranks.share(range(6))


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="process 1 of this machine has no GPU, there are 1; start fewer"):
        ranks.joined(torch.device("cuda")).__enter__()
