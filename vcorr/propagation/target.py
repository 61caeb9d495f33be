"""The appearance model of a span: fitted to its labelled frame, and to what was labelled since (``appearance``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vcorr.matching import appearance
from vcorr.matching.appearance import Moments

EVERY = 4  # frames from one update to the next
NEW = 0.3  # weight of an update among all updates: those of long ago fade
LATER = 0.5  # weight of all updates beside the labelled frame


@dataclass(frozen=True)
class Known:
    """The moments of labelled frames.

    Attributes:
        context: of context features. fine: of features and the scores of the context.
    """

    context: Moments
    fine: Moments

    def scaled(self, factor: float) -> Known:
        """With so much of the weight."""
        return Known(self.context.scaled(factor), self.fine.scaled(factor))

    def mixed(self, other: Known, share: float) -> Known:
        """These, and a share of others in their place."""
        return Known(self.context.mixed(other.context, share), self.fine.mixed(other.fine, share))


@dataclass(frozen=True)
class Look:
    """A frame as a target model sees it.

    Attributes:
        context: context features [1 h' w' d]. fine: features beside the scores of the context [h w c+v].
        scored: scores of the classes [h w v].
    """

    context: Tensor
    fine: Tensor
    scored: Tensor


@dataclass
class Target:
    """What the classes of a span look like.

    Attributes:
        first: of the labelled frame. later: of what was labelled since; None before the first update.
    """

    first: Known
    later: Known | None = None

    def __post_init__(self) -> None:
        self._fit()

    @classmethod
    def of(cls, feature: Tensor, context: Tensor, values: Tensor) -> Target:
        """Of a labelled frame: features [1 h w c], context features [1 h' w' d] and values of cells [1 h w v]."""
        coarse = _context_moments(context, values)
        scored = appearance.scores(appearance.fit(coarse), context[0], _size(values))
        return cls(Known(coarse, appearance.moments(_fine(feature, scored), values[0])))

    @classmethod
    def restored(cls, state: Mapping[str, Tensor]) -> Target:
        """From its ``state``."""

        def known(name: str) -> Known:
            parts = [Moments(state[f"{name}.{p}.features"], state[f"{name}.{p}.shares"]) for p in ("context", "fine")]
            return Known(*parts)

        return cls(known("first"), known("later") if any(name.startswith("later") for name in state) else None)

    def state(self) -> dict[str, Tensor]:
        """What it follows from."""
        tensors = {}
        for name, known in (("first", self.first), ("later", self.later)):
            for part in ("context", "fine") if known else ():
                for key, value in getattr(known, part)._asdict().items():
                    tensors[f"{name}.{part}.{key}"] = value
        return tensors

    def look(self, feature: Tensor, context: Tensor) -> Look:
        """What the classes' looks say of the cells of a frame: features [1 h w c], context features [1 h' w' d]."""
        size = _size(feature)
        fine = _fine(feature, appearance.scores(self.context, context[0], size))
        return Look(context, fine, appearance.scores(self.fine, fine, size))

    def learn(self, look: Look, values: Tensor, position: int) -> None:
        """Learn, every few frames, from the values [1 h w v] of the frame at a position."""
        if position % EVERY == 0:
            new = Known(_context_moments(look.context, values), appearance.moments(look.fine, values[0]))
            self.later = (self.later or new.scaled(0)).mixed(new, NEW)  # the first one has little weight
            self._fit()

    def _fit(self) -> None:
        known = self.first if self.later is None else self.first.mixed(self.later, LATER)
        self.context, self.fine = (appearance.fit(part) for part in (known.context, known.fine))


def _context_moments(context: Tensor, values: Tensor) -> Moments:
    return appearance.moments(context[0], appearance.at_context(values[0], (context.shape[1], context.shape[2])))


def _fine(feature: Tensor, scored: Tensor) -> Tensor:
    """Features [1 h w c], of unit length, beside the scores of the context [h w v]."""
    return torch.cat([F.normalize(feature[0], dim=-1), scored], -1)


def _size(values: Tensor) -> tuple[int, int]:
    return values.shape[1], values.shape[2]
