"""A bank of features of other videos as negatives: a ring of frames with a few points each (LIIR, eq. 4, 5).

    A(i, j) = exp(s <q_i, r_j>) / (sum_j' exp(s <q_i, r_j'>) + sum_v exp(s <q_i, n_v>)),   n_v: points of other videos

The readout of the reference's window is thus multiplied by ``sigmoid(lse_intra - lse_inter)``: a query that resembles
points of other videos copies less of its colour.

The ring is a flat dict of tensors in ``State.extra``: ``bank.features`` [frames points c], ``bank.videos`` [frames],
``bank.pushed`` (frames written so far; the next one goes to slot ``pushed % frames``). A new frame replaces the oldest.
No function changes its arguments.
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
    """The size of a bank.

    Attributes:
        frames: frames of the ring; 0 keeps the bank empty.
        points: points of each frame, drawn when it is pushed.
        modulation: changes the position encoding of the frame, so that position does not reveal a negative
            (``position.modulate``).
    """

    frames: int = 1_440
    points: int = 4
    modulation: Modulation = "shifting"

    def __post_init__(self) -> None:
        if self.frames < 0 or self.points < 1:
            raise ValueError(f"frames must be at least 0 and points 1, got {self.frames} and {self.points}")


def init(cfg: BankConfig, channels: int, device: torch.device | str = "cpu") -> Tensors:
    """An empty bank for features of ``channels`` channels."""
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
    """Encodes new frames with the slow encoder and modulated positions, and draws their points.

    Args:
        slow, slow_stats: the slow encoder; it normalises with the statistics of this batch, as in training.
        frames: [b 3 h w], the input of the encoder.
        samples: the sample number of each frame, for its draws.

    Returns:
        [b points c], without gradient.
    """
    moves, points = ([random.generator(seed, use, s) for s in samples] for use in ("bank.position", "bank.points"))
    place = network.place(net, slow, (frames.shape[2], frames.shape[3]))
    moved = None if place is None else position.modulate(place, cfg.modulation, moves)
    features, _ = network.apply(net, slow, slow_stats, frames, train=True, position=moved)
    return draw(features.float(), cfg.points, points)


def draw(features: Tensor, points: int, rngs: Sequence[torch.Generator]) -> Tensor:
    """Draws cells of each frame without replacement: [b h w c] -> [b points c], without gradient.

    Args:
        rngs: one generator for each frame.

    Raises:
        ValueError: a frame has fewer cells.
    """
    cells = features.detach().flatten(1, 2)
    if points > cells.shape[1]:
        raise ValueError(f"points must be at most the {cells.shape[1]} cells of a frame, got {points}")
    chosen = [torch.randperm(cells.shape[1], generator=rng)[:points] for rng in rngs]
    return torch.stack([frame[which.to(frame.device)] for frame, which in zip(cells, chosen, strict=True)])


def push(extra: Tensors, features: Tensor, videos: Sequence[int], samples: Sequence[int]) -> Tensors:
    """Returns ``extra`` with the frames of a batch written to the bank, in order of samples.

    If several processes share a batch (``ranks.parted``), each writes all of it. Their banks stay equal, and equal to
    that of a single process.

    Args:
        features: [b points c].
        videos, samples: the video and the sample number of each of the b frames.
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
    """``share`` with points of the batch's own frames as the bank; keeps nothing from step to step.

    Args:
        query: features [b h w c].
        key: features [n h w c] of which points are drawn, without gradient; the first b belong to the query's samples.
        intra: the logsumexp of the query's windows [b h w].
        points: points of each frame.
        seed: of the run, for the draws.
        samples, videos: the sample number and the video of each of the n frames; a query's own video is left out.

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
    """The content of the bank: features [m c], and the video of each [m]."""
    features, videos = extra["bank.features"], extra["bank.videos"]
    filled = min(int(extra["bank.pushed"]), len(videos))
    return features[:filled].flatten(0, 1), videos[:filled].repeat_interleave(features.shape[1])


def logsumexp(extra: Tensors, query: Tensor, videos: Sequence[int], *, scale: float | None = None) -> Tensor:
    """The logsumexp of the logits of other videos' points: log sum_v exp(scale * <q_i, n_v>) (LIIR, eq. 4).

    Args:
        query: features [b h w c].
        videos: the video of each of the b frames; its own points are left out.
        scale: of the logits; None for 1 / sqrt(c).

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
    """The share of the affinity that the reference's window has: ``sigmoid(intra - logsumexp)`` (LIIR, eq. 4).

    Args:
        query, videos, scale: see ``logsumexp``.
        intra: the logsumexp of the window [b h w], with the same scale.

    Returns:
        [b h w] in [0, 1]; 1 if the bank has no other video. The readout of eq. 5 is the window's readout times it.
    """
    return torch.sigmoid(intra - logsumexp(extra, query, videos, scale=scale))
