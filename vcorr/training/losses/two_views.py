"""Losses of a second view of a frame, which an affine map makes: the origin of each of its cells is known.

Two views of a frame have an exact correspondence, which video lacks. Their contrast (`contrast`) teaches an encoder to
tell places apart; other frames of the clip teach it to find them again after they moved. The view is rotated, scaled
and shifted, so the position that an encoder learns from its padding does not help (Tang et al. 2021, for cycles).

Matrices [b 2 3] map a point (x, y, 1) of the view to the frame; both span [-1, 1] from edge to edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr import rng as random

EPSILON = 1e-5  # added to the probability of a cycle before its logarithm, as it may be 0


@dataclass(frozen=True)
class ViewConfig:
    """The range of the affine maps; each number is the bound of a uniform draw in both directions.

    Attributes:
        scale: logarithm of the scale.
        aspect: logarithm of the square root of the ratio of the axes.
        turn: angle in radians.
        shear: of x along y.
        shift: as a share of half the frame.
    """

    scale: float = 0.35
    aspect: float = 0.15
    turn: float = 0.4
    shear: float = 0.15
    shift: float = 0.35

    def __post_init__(self) -> None:
        if not all(0 <= x <= 2 for x in (self.scale, self.aspect, self.turn, self.shear, self.shift)):
            raise ValueError(f"every strength must be in [0, 2], got {self}")


@dataclass(frozen=True)
class Balance:
    """The weights of the losses: reconstruction, contrast of two views, cycle through a frame."""

    reconstruct: float = 20.0
    contrast: float = 1.0
    cycle: float = 0.5


def draw(cfg: ViewConfig, samples: Sequence[int], seed: int) -> Tensor:
    """Draws the map of each sample, which does not depend on its place in a batch or on the rank.

    Returns:
        [b 2 3] float32, on the CPU.
    """
    matrices = []
    for sample in samples:
        rng = random.generator(seed, "twin", sample)  # the name is part of the seed
        most = [cfg.scale, cfg.aspect, cfg.turn, cfg.shear, cfg.shift, cfg.shift]
        drawn = 2 * torch.rand(6, generator=rng, dtype=torch.float32) - 1
        scale, aspect, turn, shear, x, y = torch.tensor(most, dtype=torch.float32) * drawn
        sin, cos = turn.sin(), turn.cos()
        axes = torch.stack([scale + aspect, scale - aspect]).exp()
        linear = torch.stack([torch.stack([cos, shear - sin]), torch.stack([sin, cos])]) * axes
        matrices.append(torch.cat([linear, torch.stack([x, y])[:, None]], 1))
    return torch.stack(matrices)


def view(images: Tensor, matrices: Tensor) -> Tensor:
    """Samples the views of frames [b v h w] bilinearly; the frame is mirrored beyond its edge."""
    with _exact(images):
        grid = F.affine_grid(matrices.to(images), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def positions(matrices: Tensor, height: int, width: int) -> Tensor:
    """The position in the frame of each cell of the view.

    Args:
        matrices: [b 2 3].
        height, width: of view and frame, in cells.

    Returns:
        [b h w 2], (x, y) in cells, cell centres at integers. Inside the frame, 0 <= x <= width - 1, and so for y.
    """
    with _exact(matrices):
        grid = F.affine_grid(matrices, [len(matrices), 1, height, width], align_corners=False)
    return ((grid + 1) * grid.new_tensor([width, height]) - 1) / 2


def contrast(view: Tensor, frame: Tensor, positions: Tensor, *, scale: float) -> Tensor:
    """Cross entropy of finding each cell of the view in the frame, over the cells whose position is in the frame.

        mean_x [ log sum_y exp(s <view(x), frame(y)>) - sum_y B(y, p(x)) s <view(x), frame(y)> ]

    with B the bilinear weights of the four cells around p(x). The logits of all pairs of cells are in memory, so
    frames must be small, as training crops are.

    Args:
        view, frame: features [b h w c] of the view and of the frame.
        positions: of ``positions``, [b h w 2].
        scale: of the logits.

    Returns:
        A scalar; 0 where no cell has its place in the frame.
    """
    logits = _logits(view, frame, scale)
    cost = logits.logsumexp(-1) - (logits * _landing(positions)).sum(-1)
    return _mean_inside(cost, positions, (frame.shape[1], frame.shape[2]))


def contrast_all(view: Tensor, frames: Tensor, positions: Tensor, *, scale: float) -> Tensor:
    """Cross entropy of finding each cell of a view among all cells of all frames of the batch, with unit features.

        mean_x [ log sum_n sum_y exp(s <view(x), frame_n(y)>) - s <view(x), sum_y B(y, p(x)) frame(y)> ]

    with B the bilinear weights of the four cells around p(x) in the view's own frame. The logits of all pairs of cells
    are in memory.

    Args:
        view: features [b h' w' c]: all cells of the views, or some of them. frames: features [b h w c].
        positions: where each of these cells lies in its frame, [b h' w' 2] as (x, y) in cells of the frame.
        scale: of the logits.

    Returns:
        A scalar; 0 where no cell has its place in its frame.
    """
    size = positions.new_tensor([frames.shape[2], frames.shape[1]])
    grid = (2 * positions + 1) / size - 1
    with _exact(frames):
        place = F.grid_sample(frames.permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=False)
        every = (scale * view.flatten(1, 2) @ frames.flatten(0, 2).T).logsumexp(-1)
    own = scale * (view * place.permute(0, 2, 3, 1)).sum(-1).flatten(1)
    return _mean_inside(every - own, positions, (frames.shape[1], frames.shape[2]))


def cycle(view: Tensor, between: Tensor, frame: Tensor, positions: Tensor, *, scale: float) -> Tensor:
    """Cross entropy of a random walk from the view through another frame of the clip to the view's own frame.

    The walk has two softmax steps, P = softmax(s view between') softmax(s between frame'). The loss is
    mean_x [ -log sum_y B(y, p(x)) P(x, y) ]: the cycle of Jabri et al. 2020, but its end is another view.

    Args:
        view, between, frame: features [b h w c].
        positions, scale: as in ``contrast``.
    """
    there, back = _logits(view, between, scale).softmax(-1), _logits(between, frame, scale).softmax(-1)
    walk = (there @ back).to(there.dtype)  # bfloat16 suffices for probabilities, and this product takes long
    arrived = (walk * _landing(positions)).sum(-1)
    return _mean_inside(-(arrived + EPSILON).log(), positions, (frame.shape[1], frame.shape[2]))


def _exact(like: Tensor) -> torch.autocast:
    """Switches autocast off: bfloat16 cannot tell position 1023 from 1024, and is too coarse for logits."""
    return torch.autocast(like.device.type, enabled=False)


def _logits(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """[b h w c] and [b h w c] to [b h*w h*w]."""
    with _exact(query):
        return scale * query.flatten(1, 2) @ key.flatten(1, 2).transpose(1, 2)


def _landing(positions: Tensor) -> Tensor:
    """Bilinear weight of each cell of the frame for each position [b h w 2]: [b h*w h*w], four in a row not 0.

    A product with the dense matrix and its gradient take one pass each; four sparse look-ups would take one pass each.
    """
    height, width = positions.shape[1:3]
    x, y = (p.flatten(1) for p in positions.unbind(-1))
    left, top = x.floor().clamp(0, max(0, width - 2)), y.floor().clamp(0, max(0, height - 2))
    right, low = (x - left).clamp(0, 1), (y - top).clamp(0, 1)
    weights = positions.new_zeros(len(positions), height * width, height * width)
    for dy, wy in ((0, 1 - low), (1, low)):
        for dx, wx in ((0, 1 - right), (1, right)):
            cell = (top + dy).clamp(max=height - 1) * width + (left + dx).clamp(max=width - 1)
            weights.scatter_add_(-1, cell.long()[..., None], (wy * wx)[..., None])
    return weights


def _mean_inside(cost: Tensor, positions: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean of cost [b n] over the cells whose position is inside a frame of size (h, w)."""
    limit = positions.new_tensor([size[1] - 1, size[0] - 1])
    inside = ((positions >= 0) & (positions <= limit)).all(-1).flatten(1).to(cost)
    return (cost * inside).sum() / inside.sum().clamp(min=1)
