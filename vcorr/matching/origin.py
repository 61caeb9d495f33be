"""What is said to be an object must come from that object in the labelled frame.

What an object uncovers has been seen by no reference. It takes the label of what is most like it, often the object's
edge, and later frames read it from there. But carried back to the labelled frame (``carry``) it does not lie on the
object. Around cell x, of the cells y that are said to be class c, the share

    e_c(x) = sum_y m_c(y) Y_c(P(y)) / sum_y m_c(y) p_c(y),    m_c(y) = p_c(y) trust(y)

comes from c: Y are the labels of the labelled frame at or beside P(y), the place of y there; trust(y) grows with the
similarity of y to what it finds there. What is thin has small shares p, and small labels Y. Where e_c is small, and the
places are to be trusted, c is believed less, unless all of c has lost its places (s_c is 0 then, else up to 1):

    p'_c  ~  p_c exp(-strength * s_c * mean trust * max(0, 1 - e_c / ENOUGH)).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.matching.carry import to_cells
from vcorr.matching.coarse import COARSE, coarse_values

ENOUGH = 0.3  # share that comes from a class from which on it is not doubted
AROUND = 5  # coarse cells a side of the square that e_c is a mean over
FAR, NEAR = 0.3, 0.6  # similarity of features below which a place is not trusted, and above which it is
LOST, SOUND = 0.5, 0.9  # share of a whole class that comes from it, below which nothing is doubted, above which all is
FAINT = 1e-4  # share that a class has at least before it is believed less
HELD = 1e-3  # share of objects below which a cell is background, and stays it


class Origin(NamedTuple):
    """Where the coarse cells of a frame come from.

    Attributes:
        labels: of the labelled frame at their places, or beside them where there is more of the object [h' w' v].
        trust: in these places, in [0, 1] [h' w' 1].
        place: their numbers, row by row [h' w'].
    """

    labels: Tensor
    trust: Tensor
    place: Tensor


def at_places(query: Tensor, key: Tensor, labelled: Tensor, place: Tensor) -> Origin:
    """The origin of the cells of a frame.

    Args:
        query, key: coarse features [1 h' w' c] of the frame and of the labelled one.
        labelled: coarse labels of the labelled frame [1 h' w' v].
        place: where the coarse cells of the frame lie in the labelled one, as (y, x) [h' w' 2].
    """
    height, width = place.shape[:2]
    y, x = place.round().long().unbind(-1)
    at = y.clamp(0, height - 1), x.clamp(0, width - 1)
    similarity = (query[0] * key[0][at]).sum(-1, keepdim=True)
    beside = F.max_pool2d(labelled.permute(0, 3, 1, 2), 3, 1, 1)[0].permute(1, 2, 0)
    return Origin(beside[at], ((similarity - FAR) / (NEAR - FAR)).clamp(0, 1), at[0] * width + at[1])


def believed(values: Tensor, origin: Origin, strength: float) -> Tensor:
    """Readouts [1 h w v], the background first, less of the classes that what is around a cell does not come from."""
    shares = coarse_values(values)[0]
    trusted = shares * origin.trust
    mass = _around(trusted)
    own, said = trusted * origin.labels, trusted * shares
    share = _around(own) / _around(said).clamp(min=1e-6)
    whole = own.sum((0, 1)) / said.sum((0, 1)).clamp(min=1e-6)
    sound = ((whole - LOST) / (SOUND - LOST)).clamp(0, 1)
    doubt = strength * sound * (mass / _around(shares).clamp(min=1e-3)) * (1 - share / ENOUGH).clamp(min=0)
    doubt[..., 0] = 0
    size = (values.shape[1], values.shape[2])
    found = (values[0].clamp(min=FAINT).log() - to_cells(doubt, size, COARSE)).softmax(-1)
    return torch.where(values[..., 1:].sum(-1, keepdim=True) > HELD, found, values)


def _around(x: Tensor) -> Tensor:
    """Means of x [h w v] over the square around each cell."""
    return F.avg_pool2d(x.permute(2, 0, 1)[None], AROUND, 1, AROUND // 2)[0].permute(1, 2, 0)
