"""How sure a frame's labels are: for each object an estimate of J, the overlap of its mask with the true one.

What was read of a frame says so itself. Where all references agree, a cell's shares are near 0 or 1; where they do not,
or where nothing matches, they lie between. ``signals`` sums that up for each object and costs next to nothing;
``confidence`` is a logistic function of the signals, fitted to J on sequences with known masks:

    python -m benchmarks.confidence DAVIS MULTI --size 240
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIGNALS = ("size", "score", "overlap")
"""Of an object in a frame, from its shares p and the cells M in which it has the largest share:

size: |M| over all cells. score: the mean of p in M. overlap: sum_M p / (|M| + sum_notM p), J of M if shares were
probabilities.
"""
BIAS, WEIGHTS = -0.676, {"score": 0.368, "overlap": 0.576}  # of the logits of the signals
LEAST = 1e-3  # signals are kept this far from 0 and 1
ACROSS = 0.3  # what is left of a confidence behind a scene cut
AT_ONCE = 16  # objects whose signals are computed at a time

Signals = NDArray[np.float32]
"""[objects SIGNALS]; [frames objects SIGNALS] of several frames."""


@torch.inference_mode()
def signals(values: Tensor) -> Signals:
    """The signals of a frame from shares of classes [1 h w v], the background first."""
    shares = values[0] / values[0].sum(-1, keepdim=True).clamp(min=1e-6)
    best = shares.argmax(-1)
    found = [
        _signals(shares[..., first : first + AT_ONCE], best, first) for first in range(1, shares.shape[-1], AT_ONCE)
    ]
    return torch.cat(found).float().cpu().numpy() if found else np.empty((0, len(SIGNALS)), np.float32)


def _signals(shares: Tensor, best: Tensor, first: int) -> Tensor:
    """Of classes ``first`` and on, [classes SIGNALS]."""
    classes = torch.arange(first, first + shares.shape[-1], device=shares.device)
    own = best[..., None] == classes
    area, mass = own.sum((0, 1)).double(), shares.sum((0, 1), dtype=torch.float64)
    inside = (shares * own).sum((0, 1), dtype=torch.float64)
    overlap = inside / (area + mass - inside).clamp(min=1e-6)
    return torch.stack([area / best.numel(), inside / area.clamp(min=1), overlap], -1)


def estimate(found: Signals) -> NDArray[np.float64]:
    """J foretold from signals [... SIGNALS]: 1 / (1 + exp(-BIAS - sum_i WEIGHTS_i logit(signal_i)))."""
    logit = np.full(found.shape[:-1], BIAS)
    for name, weight in WEIGHTS.items():
        p = np.clip(found[..., SIGNALS.index(name)].astype(np.float64), LEAST, 1 - LEAST)
        logit += weight * np.log(p / (1 - p))
    return np.asarray(1 / (1 + np.exp(-logit)))


def confidence(
    found: Signals, frames: range, given: Mapping[int, NDArray[np.bool_]], cuts: Sequence[int]
) -> NDArray[np.float64]:
    """Confidence in [0, 1] of each object in each frame [frames objects].

    It is 1 in labelled frames, and for an object that the labelled frames of a span say is not there. Behind a cut it
    falls to the share ACROSS; between two labelled frames, by the weight of the one that lies behind it.

    Args:
        found: of the frames [frames objects SIGNALS]; NaN in labelled frames.
        given: which objects are in each labelled frame [objects], by index, ascending; there is one.
        cuts: first frames of new scenes.
    """
    result = estimate(found)
    labelled = list(given)
    for row, k in zip(result, frames, strict=True):
        after = bisect.bisect_right(labelled, k)
        near, far = (labelled[after - 1] if after else None), (labelled[after] if after < len(labelled) else None)
        if near == k:
            row[:] = 1
            continue
        if near is None or far is None:
            sides = {side: 1.0 for side in (near, far) if side is not None}
        else:
            sides = {near: (far - k) / (far - near), far: (k - near) / (far - near)}
        row *= sum(weight * (ACROSS if is_cut(cuts, side, k) else 1) for side, weight in sides.items())
        row[~np.any([given[side] for side in sides], axis=0)] = 1
    return result


def is_cut(cuts: Sequence[int], one: int, other: int) -> bool:
    """Whether a scene begins between two frames."""
    return any(min(one, other) < cut <= max(one, other) for cut in cuts)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """J of two masks; 1 where both are empty."""
    union = np.count_nonzero(one | other)
    return float(np.count_nonzero(one & other) / union) if union else 1.0
