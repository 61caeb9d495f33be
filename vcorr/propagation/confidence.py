"""How sure a frame's labels are: for each object an estimate of J, the overlap of its mask with the true one.

What was read of a frame says so itself. Where all references agree, a cell's shares are near 0 or 1; where they do not,
or where nothing matches, they lie between. ``signals`` sums that up for each object and costs next to nothing;
``confidence`` turns the signals of a span's frames into a number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIGNALS = ("size", "overlap", "certainty", "band")
"""Of an object in a frame, from its shares p and the cells M in which it has the largest share:

size: |M| over all cells. overlap: sum_M p / (|M| + sum_notM p), J of M were the shares probabilities. certainty:
sum p^2 / sum p. band: cells with a share within UNDECIDED, over the length of the border of M in cells.
"""
UNDECIDED = (0.02, 0.98)
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
    border = (own[1:] != own[:-1]).sum((0, 1)) + (own[:, 1:] != own[:, :-1]).sum((0, 1))
    undecided = ((shares > UNDECIDED[0]) & (shares < UNDECIDED[1])).sum((0, 1))
    overlap = inside / (area + mass - inside).clamp(min=1e-6)
    certainty = shares.square().sum((0, 1), dtype=torch.float64) / mass.clamp(min=1e-6)
    return torch.stack([area / best.numel(), overlap, certainty, undecided / border.clamp(min=1)], -1)


def confidence(found: Signals, frames: range, labelled: Sequence[int], cuts: Sequence[int]) -> NDArray[np.float32]:
    """Confidence in [0, 1] of each object in each frame [frames objects]; 1 in labelled frames.

    Args:
        found: of the frames [frames objects SIGNALS]; NaN in labelled frames.
        labelled: frames with labels that were given, ascending. cuts: first frames of new scenes.
    """
    result = found[..., SIGNALS.index("overlap")].copy()
    result[[k - frames.start for k in labelled if k in frames]] = 1
    return result
