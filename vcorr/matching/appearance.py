"""What the objects of this video look like: a linear model of the classes, fitted in closed form to labelled cells.

The readout follows cells from frame to frame, and errors stay. The model knows no place, but what each class looked
like where it was surely known, and so takes back what has leaked onto something else. A ridge regression of the
classes' shares y on context features x of the encoder (Bhat et al. 2020 learn such a target model with labels):

    W = argmin sum_i w_i |y_i - W^T x_i - b|^2 + lambda |W|^2,    lambda = the mean variance of a feature,

where the weights w give every class the same sum: an object of few cells counts as much as the background. A class's
score is what is predicted of it above its mean share. Context features know what a thing is, but not where its edge is:
a second regression, on the features that frames are compared by and on the scores of the first, puts that right. Its
score changes the log of the readout:

    p'_c  ~  p_c exp(strength * score_c),    |score_c| <= LIMIT.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.matching.cells import downsample, upsample

RIDGE = 0.3  # lambda, in units of the features' mean variance
LIMIT = 0.6  # of a score: predictions beyond the labels' own spread say no more
FAINT = 1e-3  # share that a class has at least before the score changes it, where any object was read at all
LEAST = 2.0  # cells: a class of fewer counts by its cells


class Moments(NamedTuple):
    """Sums over cells that the model follows from.

    Attributes:
        features: sum of w [x 1] [x 1]^T [d+1 d+1]; the last is the sum of the weights.
        shares: sum of w [x 1] y^T [d+1 v].
    """

    features: Tensor
    shares: Tensor

    def scaled(self, factor: float) -> Moments:
        """With so much of the weight."""
        return Moments(factor * self.features, factor * self.shares)

    def mixed(self, other: Moments, share: float) -> Moments:
        """These, and a share of others in their place."""
        mine, yours = self.scaled(1 - share), other.scaled(share)
        return Moments(mine.features + yours.features, mine.shares + yours.shares)


class LinearModel(NamedTuple):
    """Predicts the share of each class above its mean, x W + b.

    Attributes:
        weight: W [d v]. bias: b [v].
    """

    weight: Tensor
    bias: Tensor


def moments(context: Tensor, shares: Tensor) -> Moments:
    """The moments of one frame.

    Args:
        context: features [h' w' d].
        shares: of the classes in the cells that they stand for, [h' w' v], each cell's with the sum 1.
    """
    x = F.pad(context.flatten(0, 1), (0, 1), value=1.0)
    y = shares.flatten(0, 1)
    weight = (y / y.sum(0).clamp(min=LEAST)).sum(1, keepdim=True) / y.shape[1]
    weighted = weight * x
    return Moments(x.T @ weighted, weighted.T @ y)


def fit(known: Moments) -> LinearModel:
    """The ridge regression of moments."""
    total = known.features[-1, -1]
    mean, share = known.features[:-1, -1] / total, known.shares[-1] / total
    covariance = known.features[:-1, :-1] / total - torch.outer(mean, mean)
    cross = known.shares[:-1] / total - torch.outer(mean, share)
    ridge = RIDGE * covariance.diagonal().mean().clamp(min=1e-12)
    weight = torch.linalg.solve(covariance + ridge * torch.eye(len(mean)).to(covariance), cross)
    return LinearModel(weight, -mean @ weight)


def scores(model: LinearModel, context: Tensor, size: tuple[int, int]) -> Tensor:
    """The scores of the classes.

    Args:
        context: features [h' w' d].
        size: (h, w) cells of the readout; h' = ceil(h / f) for some f.

    Returns:
        [h w v] in [-LIMIT, LIMIT].
    """
    found = (context @ model.weight + model.bias).clamp(-LIMIT, LIMIT)
    factor = _factor(size, (found.shape[0], found.shape[1]))
    return upsample(found[None], factor, size, alignment="cell")[0].permute(1, 2, 0)


def corrected(values: Tensor, scored: Tensor, strength: float) -> Tensor:
    """Readouts [h w v], the background first, with the scores' word; cells that are background alone stay."""
    found = (values.clamp(min=FAINT).log() + strength * scored).softmax(-1)
    return torch.where(values[..., 1:].sum(-1, keepdim=True) > 0, found, values)


def at_context(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Shares of classes [h w v] in the cells of context features (h', w'): [h' w' v]."""
    factor = _factor((values.shape[0], values.shape[1]), size)
    return downsample(values.permute(2, 0, 1)[None], factor, alignment="cell")[0]


def _factor(fine: tuple[int, int], coarse: tuple[int, int]) -> int:
    """How many cells of the readout lie in one of the context along each axis."""
    return max(-(-many // few) for many, few in zip(fine, coarse, strict=True))
