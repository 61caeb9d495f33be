"""What each of several processes finds, printed as JSON; then all but the first end. See test_ranks."""

from __future__ import annotations

import json
import os

import torch

from tests.test_ranks import norm, toy
from vcorr import ranks
from vcorr.errors import InputError


def first_alone():
    assert ranks.rank() == 0
    return [ranks.rank(), torch.arange(3)]


def fail():
    raise InputError("here", "is nothing", "give something")


def raised(work):
    try:
        ranks.from_first(work)
    except InputError as error:
        return [str(error), error.shared]


def normed(x, params, stats, weight):
    """Of this process's share: y, statistics, gradients."""
    own = slice(2 * ranks.rank(), 2 * ranks.rank() + 2)
    y, new, gradients = norm(x[own], params, stats, weight[own])
    return [y, *new.values(), *gradients]


def findings(device):
    rank = ranks.rank()
    made, tensor = ranks.from_first(first_alone)
    with ranks.parted():
        gathered = ranks.gather(torch.tensor([rank, 10 * rank])).tolist()
        double, half = normed(*toy()), normed(*toy(torch.float32, torch.bfloat16))
    return {
        "alone": [] if rank else [t.tolist() for t in normed(*toy())],
        "who": [rank, ranks.size(), ranks.here(), str(device)],
        "share": list(ranks.share(range(10, 16))),
        "largest": ranks.largest(rank, -rank, 7),
        "mean": ranks.mean(float(rank), 3.0),
        "nan": str(*ranks.mean(float("nan") if rank else 1.0)),
        "gather": gathered,
        "mean_": ranks.mean_(torch.tensor([1.0 + rank, 4.0])).tolist(),
        "made": [made, tensor.tolist()],
        "raised": raised(fail),
        "double": [t.tolist() for t in double],
        "half": [t.tolist() for t in half],
        "types": [str(t.dtype) for t in half],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        with ranks.joined(torch.device("cpu")) as own_device:
            print(json.dumps(findings(own_device)), flush=True)
            if ranks.rank():
                os._exit(0)
            ranks.largest(1)
    except ranks.PeerLost as error:
        print(error)
