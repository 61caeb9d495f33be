"""The schedule of one stage of training: steps, batch size, learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """The schedule of one stage of training.

    Attributes:
        steps: optimiser steps; 0 skips the stage.
        batch: clips in a step, over all ranks.
        lr: peak learning rate of AdamW.
        warmup: steps over which the rate rises linearly from 0.
        cooldown: last share of the steps, over which the rate falls linearly to 0. Before it the rate is constant, so
            ``steps`` can be raised during a run without changing the result.
        weight_decay: decoupled weight decay, per unit of learning rate.
        clip_norm: largest norm of the gradient; inf does not clip.
        bf16: run the encoder under bfloat16 autocast if the device supports it natively.
        accumulate: the number of parts of a batch that pass the network one after another; their gradients are
            averaged. Memory is that of ``batch / accumulate`` clips. Batch normalisation normalises each part by
            itself, and updates its running statistics once for each.
        milestones: (position, factor): from the position on, the rate is ``lr`` times the factor, until the next one.
            ``((400_000, 0.5), (600_000, 0.25))`` halves the rate twice.
        unit: the unit of the positions: optimiser steps, or samples (steps times ``batch``).
    """

    steps: int
    batch: int
    lr: float
    warmup: int = 0
    cooldown: float = 0.3
    weight_decay: float = 0.0
    clip_norm: float = 5.0
    bf16: bool = True
    accumulate: int = 1
    milestones: tuple[tuple[int, float], ...] = ()
    unit: Literal["steps", "samples"] = "steps"

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1:
            raise ValueError(f"steps must be at least 0 and batch 1, got {self.steps} and {self.batch}")
        if self.warmup < 0 or not 0 <= self.cooldown <= 1:
            raise ValueError(f"warmup must be >= 0 and cooldown in [0, 1], got {self.warmup} and {self.cooldown}")
        if not (0 < self.lr < math.inf and self.clip_norm > 0 and 0 <= self.weight_decay < math.inf):
            got = f"{self.lr}, {self.clip_norm}, {self.weight_decay}"
            raise ValueError(f"lr and clip_norm must be positive, weight_decay >= 0, got {got}")
        if self.accumulate < 1 or self.batch % self.accumulate:
            raise ValueError(f"accumulate must divide batch, got {self.accumulate} and {self.batch}")
        if any(b[0] <= a[0] for a, b in pairwise(((0, 1.0), *self.milestones))) or not all(
            0 < factor < math.inf for _, factor in self.milestones
        ):
            raise ValueError(
                f"milestones must be rising positions from 1 on with positive factors, got {self.milestones}"
            )

    def rate(self, step: int) -> float:
        """Learning rate of step 0 .. steps-1: a ramp, a plateau, a ramp, times the factor of the last milestone."""
        rise = (step + 1) / self.warmup if self.warmup else 1.0
        fall = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        position = step * (self.batch if self.unit == "samples" else 1)
        factor = next((f for at, f in reversed(self.milestones) if position >= at), 1.0)
        return self.lr * min(1.0, rise, fall) * factor
