"""Reconstruction losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8  # added to a probability before its logarithm


def huber(rebuilt: Tensor, truth: Tensor, *, gain: float = 20.0) -> Tensor:
    """Mean Huber loss of normalised Lab values (MAST, eq. 4): quadratic up to an error of 1 / gain, linear beyond.

    ``smooth_l1(gain * rebuilt, gain * truth)``; both have the same shape.
    """
    return F.smooth_l1_loss(gain * rebuilt, gain * truth)


def cross_entropy(rebuilt: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log(p + 1e-8), with p the probability of the true class (CorrFlow, Lai & Xie 2019, eq. 3).

    Args:
        rebuilt: probabilities [b v h w], copied from the references by their softmax; not logits.
        labels: the true classes [b h w], int64 in [0, v).
    """
    p = rebuilt.gather(1, labels.unsqueeze(1))
    return -(p + EPSILON).log().mean()
