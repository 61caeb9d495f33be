"""The appearance model of a span: fitted to its labelled frame, and to what was labelled since (``appearance``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from vcorr.matching import appearance
from vcorr.matching.appearance import LinearModel, Moments

EVERY = 4  # frames from one update to the next
NEW = 0.3  # weight of an update among all updates: those of long ago fade
LATER = 0.5  # weight of all updates beside the labelled frame


@dataclass
class Target:
    """What the classes of a span look like.

    Attributes:
        first: of the labelled frame. later: of what was labelled since; None before the first update.
    """

    first: Moments
    later: Moments | None = None
    model: LinearModel = field(init=False)

    def __post_init__(self) -> None:
        self.model = self._fit()

    @classmethod
    def of(cls, context: Tensor, values: Tensor) -> Target:
        """Of a labelled frame: context features [1 h' w' d] and values of cells [1 h w v]."""
        return cls(_moments(context, values))

    @classmethod
    def restored(cls, state: Mapping[str, Tensor]) -> Target:
        """From its ``state``."""
        first, later = (
            Moments(state[f"{part}.features"], state[f"{part}.shares"]) if f"{part}.features" in state else None
            for part in ("first", "later")
        )
        if first is None:
            raise KeyError("first.features")
        return cls(first, later)

    def state(self) -> dict[str, Tensor]:
        """What it follows from."""
        parts = {"first": self.first, "later": self.later}
        return {f"{name}.{k}": v for name, part in parts.items() if part for k, v in part._asdict().items()}

    def corrected(self, values: Tensor, context: Tensor, strength: float, position: int) -> Tensor:
        """Values [1 h w v] read at a position, with the model's word; every few frames the model learns from them."""
        size = (values.shape[1], values.shape[2])
        found = appearance.corrected(values[0], appearance.scores(self.model, context[0], size), strength)[None]
        if position % EVERY == 0:
            new = _moments(context, found)
            none = Moments(*(0 * part for part in new))
            self.later = (self.later or none).mixed(new, NEW)
            self.model = self._fit()
        return found

    def _fit(self) -> LinearModel:
        return appearance.fit(self.first if self.later is None else self.first.mixed(self.later, LATER))


def _moments(context: Tensor, values: Tensor) -> Moments:
    return appearance.moments(context[0], appearance.at_context(values[0], (context.shape[1], context.shape[2])))
