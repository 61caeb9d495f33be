"""Losses of the reconstruction."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def huber(rebuilt: Tensor, truth: Tensor, *, gain: float = 20.0) -> Tensor:
    """Mean Huber loss of normalised Lab values (MAST, eq. 4): quadratic up to an error of 1 / gain, linear beyond.

    ``smooth_l1(gain * rebuilt, gain * truth)``; both of any one shape.
    """
    return F.smooth_l1_loss(gain * rebuilt, gain * truth)
