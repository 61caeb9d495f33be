"""Features of other videos, kept while training as negatives: a ring of frames with a few points each (LIIR, eq. 4, 5).

    A(i, j) = exp(s <q_i, r_j>) / (sum_j' exp(s <q_i, r_j'>) + sum_v exp(s <q_i, n_v>)),   n_v: points of other videos

so that the readout of the reference's window shrinks by ``sigmoid(lse_intra - lse_inter)``, and a query that looks like
another video's pixels must tell itself from them to copy its colour at all.

The ring is a flat dict of tensors that lives in ``State.extra`` among whatever else a recipe keeps there:
``bank.features`` [frames points c], ``bank.videos`` [frames], ``bank.pushed`` (frames ever written: the next one goes
to slot ``pushed % frames``). A new frame takes the place of the oldest. No function changes its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vcorr import ranks
from vcorr import rng as random
from vcorr.kernels import negative_logsumexp
from vcorr.model import network, position
from vcorr.model.network import NetworkConfig
from vcorr.model.nn import Tensors
from vcorr.model.position import Modulation


@dataclass(frozen=True)
class BankConfig:
    """How many negatives are kept.

    Attributes:
        frames: in the ring; 0 is a bank that stays empty.
        points: of each frame, drawn when it is pushed.
        modulation: of the position encoding that the frame is encoded with, so that no query can tell a negative by
            where it lies (``position.modulate``).
    """

    frames: int = 1_440
    points: int = 4
    modulation: Modulation = "shifting"

    def __post_init__(self) -> None:
        if self.frames < 0 or self.points < 1:
            raise ValueError(f"frames must be at least 0 and points 1, got {self.frames} and {self.points}")


def init(cfg: BankConfig, channels: int, device: torch.device | str = "cpu") -> Tensors:
    """An empty bank for features of so many channels."""
    return {
        "bank.features": torch.zeros(cfg.frames, cfg.points, channels, dtype=torch.float32, device=device),
        "bank.videos": torch.full((cfg.frames,), -1, dtype=torch.int64, device=device),
        "bank.pushed": torch.zeros((), dtype=torch.int64, device=device),
    }


@torch.no_grad()
def encode(
    cfg: BankConfig,
    net: NetworkConfig,
    slow: Tensors,
    slow_stats: Tensors,
    frames: Tensor,
    seed: int,
    samples: Sequence[int],
) -> Tensor:
    """Points of new frames, as negatives: encoded by the slow encoder with position encodings moved.

    Args:
        slow, slow_stats: of the slow encoder, which normalises with this batch's statistics, as in training.
        frames: [b 3 h w], what the encoder sees of them. samples: which sample each is, for draws of its own.

    Returns:
        [b points c], without gradient.
    """
    moves, points = ([random.generator(seed, use, s) for s in samples] for use in ("bank.position", "bank.points"))
    place = network.place(net, slow, (frames.shape[2], frames.shape[3]))
    moved = None if place is None else position.modulate(place, cfg.modulation, moves)
    features, _ = network.apply(net, slow, slow_stats, frames, train=True, position=moved)
    return draw(features.float(), cfg.points, points)


def draw(features: Tensor, points: int, rngs: Sequence[torch.Generator]) -> Tensor:
    """So many cells of each frame, drawn without replacement: [b h w c] -> [b points c], without gradient.

    Args:
        rngs: a generator for each frame.

    Raises:
        ValueError: a frame has fewer cells.
    """
    cells = features.detach().flatten(1, 2)
    if points > cells.shape[1]:
        raise ValueError(f"points must be at most the {cells.shape[1]} cells of a frame, got {points}")
    chosen = [torch.randperm(cells.shape[1], generator=rng)[:points] for rng in rngs]
    return torch.stack([frame[which.to(frame.device)] for frame, which in zip(cells, chosen, strict=True)])


def push(extra: Tensors, features: Tensor, videos: Sequence[int], samples: Sequence[int]) -> Tensors:
    """``extra`` with frames of a batch written to the bank, ordered by sample.

    Where a batch is parted among processes (``ranks.parted``), all write the whole of it: their banks stay equal, and
    equal to the bank of one process with the same batch.

    Args:
        features: [b points c]. videos, samples: which each of the b frames was cut from, and which sample it is.
    """
    ring = len(extra["bank.videos"])
    if not ring:
        return extra
    device = features.device
    order = ranks.gather(torch.tensor(samples, device=device)).flatten().argsort()
    everything = ranks.gather(features.float()).flatten(0, 1)[order]
    kept = everything[-ring:]
    pushed = extra["bank.pushed"] + len(everything)
    slots = (pushed - len(kept) + torch.arange(len(kept), device=device)) % ring
    origin = ranks.gather(torch.tensor(videos, device=device)).flatten()[order][-ring:]
    return extra | {
        "bank.features": extra["bank.features"].index_copy(0, slots, kept),
        "bank.videos": extra["bank.videos"].index_copy(0, slots, origin),
        "bank.pushed": pushed,
    }


def share_of_batch(
    query: Tensor,
    key: Tensor,
    intra: Tensor,
    points: int,
    seed: int,
    samples: Sequence[int],
    videos: Sequence[int],
    *,
    scale: float | None = None,
) -> Tensor:
    """As ``share``, with points of the batch's own frames for a bank: nothing is kept from step to step.

    Args:
        query: features [b h w c]. key: features [n h w c] that points are drawn from, without gradient; the first b are
            those of the query's samples. intra: the logsumexp of the query's windows [b h w].
        points: of each frame. seed: of the run, which they are drawn with.
        samples, videos: which each of the n frames is and was cut from; points of a query's own video are left out.

    Returns:
        [b h w] in [0, 1].
    """
    groups = torch.tensor(videos, device=query.device)
    own = groups[: len(query)].repeat_interleave(query.shape[1] * query.shape[2])
    rngs = [random.generator(seed, "points", sample) for sample in samples]
    negatives = draw(key, points, rngs).flatten(0, 1)
    rows, others = query.flatten(0, 2), groups.repeat_interleave(points)
    mass = negative_logsumexp(rows, negatives, scale=scale, query_group=own, negative_group=others)
    return torch.sigmoid(intra - mass.view(query.shape[:3]))


def read(extra: Tensors) -> tuple[Tensor, Tensor]:
    """What has been written so far: features [m c] and the video of each [m]."""
    features, videos = extra["bank.features"], extra["bank.videos"]
    filled = min(int(extra["bank.pushed"]), len(videos))
    return features[:filled].flatten(0, 1), videos[:filled].repeat_interleave(features.shape[1])


def logsumexp(extra: Tensors, query: Tensor, videos: Sequence[int], *, scale: float | None = None) -> Tensor:
    """Log of the mass of other videos' points for each cell: log sum_v exp(scale * <q_i, n_v>) (LIIR, eq. 4).

    Args:
        query: features [b h w c]. videos: which video each of the b frames was cut from; its own points are left out.
        scale: of the logits; None is 1 / sqrt(c).

    Returns:
        [b h w], differentiable in query; -inf where no point is left.
    """
    negatives, groups = read(extra)
    cells = query.shape[1] * query.shape[2]
    own = torch.tensor(videos, device=query.device).repeat_interleave(cells)
    rows = query.flatten(0, 2)
    mass = negative_logsumexp(rows, negatives, scale=scale, query_group=own, negative_group=groups)
    return mass.view(query.shape[:3])


def share(extra: Tensors, query: Tensor, videos: Sequence[int], intra: Tensor, *, scale: float | None = None) -> Tensor:
    """The part of the affinity's mass that the reference's window has: ``sigmoid(intra - logsumexp)`` (LIIR, eq. 4).

    Args:
        query, videos, scale: as for ``logsumexp``. intra: the window's own logsumexp [b h w], of the same scale.

    Returns:
        [b h w] in [0, 1], 1 where the bank has nothing of another video. The window's readout times it is eq. 5's.
    """
    return torch.sigmoid(intra - logsumexp(extra, query, videos, scale=scale))
