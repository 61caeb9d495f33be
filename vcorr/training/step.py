"""Optimiser steps: loss, gradient, AdamW, running statistics, slow encoder; in one process or several.

Each of several processes (see ``ranks``) takes its share of the batch. Gradients and losses are averaged, batch
normalisation uses the statistics of all shares, and all processes skip a step together.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vcorr import ranks, rng
from vcorr.errors import UsageError
from vcorr.machine import native_bf16
from vcorr.model.nn import Tensors
from vcorr.training.recipe import Batch, Out, Stage, State


@dataclass(frozen=True)
class Taken:
    """The result of a step.

    Attributes:
        loss: of the whole batch.
        norm: of its gradient before clipping; None if not finite, then the step changed nothing.
        metrics: of this process's share; averaged over accumulated parts.
        out: the result of the loss for the last part.
    """

    loss: float
    norm: float | None
    metrics: Mapping[str, float | Tensor]
    out: Out


class Learner:
    """The state and the optimiser of one stage.

    Args:
        stage: the stage.
        state: the state to start from, on the device.
        moments: the optimiser's state, as ``"exp_avg/NAME"``; empty at the beginning.
        seed: of the run.

    Attributes:
        state: the state after the steps so far. The next step overwrites its tensors.

    Raises:
        UsageError: the stage trains no parameter, its slow encoder has no fast one, or its batch cannot be divided.
    """

    def __init__(self, stage: Stage, state: State, moments: Tensors, seed: int) -> None:
        self.stage, self.seed = stage, seed
        params = {k: v.detach().clone().requires_grad_(stage.trainable(k)) for k, v in state.params.items()}
        slow, slow_stats = (
            {k: v.detach().clone() for k, v in group.items()} for group in (state.slow, state.slow_stats)
        )
        self.state = dataclasses.replace(state, params=params, slow=slow, slow_stats=slow_stats)
        self.trained = {k: v for k, v in params.items() if v.requires_grad}
        if not self.trained:
            raise UsageError(stage.name, "trains no parameter", "mend Stage.trainable in the recipe")
        if lost := (slow.keys() - params.keys()) | (slow_stats.keys() - state.stats.keys()):
            raise UsageError(
                stage.name, f"has nothing that slow {min(lost)} could follow", "mend Stage.enter in the recipe"
            )
        if stage.schedule.batch % (ranks.size() * stage.schedule.accumulate):
            raise UsageError(
                f"{stage.name}.batch={stage.schedule.batch}",
                f"cannot be parted among {ranks.size()} processes, {stage.schedule.accumulate} times",
                f"give a multiple of {ranks.size() * stage.schedule.accumulate}",
            )
        self.optimiser = torch.optim.AdamW(
            self.trained.values(), lr=stage.schedule.lr, weight_decay=stage.schedule.weight_decay
        )
        _restore_moments(self.optimiser, self.trained, moments)
        self.device = next(iter(params.values())).device

    def samples(self, step: int) -> list[range]:
        """The samples of a step for this process, one range for each part."""
        schedule = self.stage.schedule
        part = schedule.batch // schedule.accumulate
        first = step * schedule.batch
        return [ranks.share(range(k, k + part)) for k in range(first, first + schedule.batch, part)]

    def step(self, step: int, parts: Iterable[Batch]) -> Taken:
        """Takes a step, which changes nothing if loss or gradient is not finite.

        Args:
            step: its number in the stage, from 0.
            parts: the clips of ``samples(step)``.
        """
        schedule, state, losses = self.stage.schedule, self.state, []
        metrics: dict[str, float | Tensor] = {}
        self.optimiser.zero_grad()
        for batch in parts:
            loss, out = self._loss(step, state, batch)
            (mean,) = ranks.mean(float(out.loss))
            losses.append(mean)
            if not math.isfinite(mean):
                break
            (loss / schedule.accumulate).backward()  # type: ignore[no-untyped-call]
            state = self._next(state, out)
            for name, value in out.metrics.items():
                metrics[name] = metrics.get(name, 0.0) + value / schedule.accumulate
        norm = self._descend(schedule.rate(step)) if math.isfinite(sum(losses)) else None
        if norm is not None:
            self.state = state
            self._follow()
        return Taken(sum(losses) / len(losses), norm, metrics, out)

    def moments(self) -> Tensors:
        """The optimiser's state by parameter, in the parameter's type: torch counts steps in the default type."""
        moments = ((f"{k}/{n}", v, p) for n, p in self.trained.items() for k, v in self.optimiser.state[p].items())
        return {name: value.to(param.dtype) for name, value, param in moments}

    def _loss(self, step: int, state: State, batch: Batch) -> tuple[Tensor, Out]:
        """Returns the loss with its graph, and the whole result without."""
        schedule, name = self.stage.schedule, self.stage.name
        autocast = schedule.bf16 and native_bf16(self.device)
        with ranks.parted(), torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
            # Draws for the whole batch are the same in every part and on every rank.
            out = self.stage.loss(state, batch, rng.generator(self.seed, name, step), step / schedule.steps)
        return out.loss, _detached(out)

    def _descend(self, rate: float) -> float | None:
        """Takes the optimiser's step; returns the gradient's norm before clipping, None if it is not finite."""
        _average_gradients(self.trained.values())
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained.values(), self.stage.schedule.clip_norm))
        if not math.isfinite(norm):
            return None
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        return norm

    def _next(self, state: State, out: Out) -> State:
        """The state with the statistics and the extra tensors of a loss."""
        extra = state.extra if out.extra is None else {k: v.contiguous() for k, v in out.extra.items()}
        if (now := _form(extra)) != (was := _form(state.extra)):
            raise UsageError(
                self.stage.name, f"its loss changed the form of State.extra, {was} -> {now}", "mend the recipe"
            )
        return dataclasses.replace(state, stats=dict(out.stats), extra=extra)

    @torch.no_grad()
    def _follow(self) -> None:
        """slow <- d * slow + (1 - d) * params, and the statistics likewise."""
        decay, state = self.stage.decay, self.state
        if decay is None:
            return
        for slow, fast in ((state.slow, state.params), (state.slow_stats, state.stats)):
            for name, tensor in slow.items():
                tensor.lerp_(fast[name], 1 - decay(name))


def _average_gradients(params: Iterable[Tensor]) -> None:
    """Averages gradients over processes in one message of fixed order, so a resumed run rounds like an unbroken one.

    DistributedDataParallel rearranges its messages after the first step, and needs a gradient for every parameter. Its
    overlap with the backward pass gains little here: the encoders have 21 MB.
    """
    if ranks.size() == 1:
        return
    params = list(params)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
    given = torch.tensor([p.grad is not None for p in params], dtype=gradients[0].dtype, device=gradients[0].device)
    means = ranks.mean_(torch.cat([*(g.flatten() for g in gradients), given]))
    *pieces, given = torch.split(means, [*(g.numel() for g in gradients), len(params)])
    for param, gradient, piece, got in zip(params, gradients, pieces, given.tolist(), strict=True):
        if got:
            param.grad = gradient.copy_(piece.view(gradient.shape))


def _detached(out: Out) -> Out:
    """Detaches all tensors, so that no graph outlives its step."""

    def cut(value: Any) -> Any:
        return value.detach() if isinstance(value, Tensor) else value

    views = out.views
    if views is not None:
        views = dataclasses.replace(views, query=cut(views.query), keys=[cut(key) for key in views.keys])
    return dataclasses.replace(
        out,
        loss=cut(out.loss),
        views=views,
        stats={k: cut(v) for k, v in out.stats.items()},
        metrics={k: cut(v) for k, v in out.metrics.items()},
        extra=None if out.extra is None else {k: cut(v) for k, v in out.extra.items()},
    )


def _form(tensors: Tensors) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {k: (tuple(v.shape), v.dtype) for k, v in sorted(tensors.items())}


def _restore_moments(optimiser: torch.optim.Optimizer, params: Mapping[str, Tensor], moments: Tensors) -> None:
    """Gives each parameter its optimiser state, by name: by position, a reordered file would swap it silently.

    The step count stays on the CPU. Moments get the device and the memory format of their parameter, so that the
    arithmetic equals that of an unbroken run.
    """
    for key, value in moments.items():
        kind, name = key.split("/", 1)
        param = params[name]
        moment = torch.empty_like(param, requires_grad=False).copy_(value) if value.ndim else value.clone()
        optimiser.state[param][kind] = moment
