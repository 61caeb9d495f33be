"""The references of a query, and how long the memory keeps each frame.

Positions count along a span from its labelled frame: that is 0, its neighbour 1, whichever way the span goes. The
``long`` ones of ``References`` are read for ever once they are past; ``short`` says how many positions back to read.
MAST (Lai et al. 2020, section 3.3): long (0, 5), short (1, 3, 5), so frame t reads 0, 5, t-5, t-3, t-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from vcorr.matching.coarse import coarse_features, coarse_values
from vcorr.model.inference import References
from vcorr.propagation.focus import Parts
from vcorr.propagation.target import Target


def read_at(t: int, references: References) -> tuple[int, ...]:
    """Positions that the frame at position t >= 1 reads, ascending, none twice.

    >>> [read_at(t, References((0, 5), (1, 3, 5))) for t in (1, 4, 6, 10)]
    [(0,), (0, 1, 3), (0, 1, 3, 5), (0, 5, 7, 9)]
    """
    lasting = {p for p in references.long if p < t}
    recent = {t - back for back in references.short if t - back > 0}
    # Whatever the configuration, the labelled frame is all there is to read at position 1.
    return tuple(sorted(lasting | recent)) or (0,)


def kept_after(t: int, references: References) -> frozenset[int]:
    """Positions up to t that some later position reads: the rest may be forgotten."""
    recent = range(max(0, t + 1 - max(references.short, default=0)), t + 1)
    return frozenset({p for p in references.long if p <= t} | set(recent) | {0})


@dataclass(frozen=True)
class MemoryFrame:
    """A frame that is read from.

    Attributes:
        feature, values: [1 h w c] and [1 h w v].
        parts: that were encoded.
        window: where the windows of the frame that reads are centred, as (dy, dx) in whole cells [1 h w 2]; None is
            each cell's own place.
        whole: all of it is read, not through a window.
        once: its coarse features, once they were asked for.
    """

    feature: Tensor
    values: Tensor
    parts: Parts = ()
    window: Tensor | None = None
    whole: bool = False
    once: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def coarse(self) -> Tensor:
        """Coarse features [1 h' w' c]; computed once, also for copies with other windows."""
        if not self.once:
            self.once.append(coarse_features(self.feature))
        return self.once[0]

    @cached_property
    def coarse_values(self) -> Tensor:
        """Values of coarse cells [1 h' w' v]."""
        return coarse_values(self.values)


@dataclass
class Memory:
    """The frames of a span that are read from.

    Attributes:
        references: which frames are read.
        frames: by position.
        places: where the cells of the latest frame lie in long references, by position (``follow``).
        target: what the classes look like, where that is modelled (``appearance``).
        whole: which objects the labelled frame shows in one piece [v-1], where that counts (``pieces``).
    """

    references: References
    frames: dict[int, MemoryFrame] = field(default_factory=dict)
    places: dict[int, Tensor] = field(default_factory=dict)
    target: Target | None = None
    whole: Tensor | None = None

    def read(self, t: int) -> Mapping[int, MemoryFrame]:
        """The frames that position t reads, by how many positions they lie back: nearest last.

        Copies of the labelled frame (``References.repeat``) lie further back than itself.
        """
        references = self.references
        frames = {t - p: self.frames[p] for p in read_at(t, references)}
        if references.whole:
            frames |= {t - p: replace(self.frames[p], whole=True) for p in references.long if t - p in frames}
        again = sum(back >= t for back in references.short) if references.repeat else 0
        if again and 0 not in references.long:
            frames.pop(t, None)  # which was read for lack of others
        return {t + k: self.frames[0] for k in range(again, 0, -1)} | frames

    def keep(self, t: int, frame: MemoryFrame) -> None:
        """Keep the frame at position t, the latest, and forget what no later position reads."""
        self.frames[t] = frame
        for p in self.frames.keys() - kept_after(t, self.references):
            del self.frames[p]
