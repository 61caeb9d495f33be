"""Which earlier frames are read, and how long each must be kept.

Positions count along the walk from a labelled frame: the labelled frame is 0, its neighbour 1, whichever way the walk
goes. ``long`` positions are read for ever once they are past; ``short`` says how many positions back to read. MAST
(Lai et al. 2020, section 3.3): long (0, 5), short (1, 3, 5), so frame t reads 0, 5, t-5, t-3, t-1.
"""

from __future__ import annotations


def read_at(t: int, long: tuple[int, ...], short: tuple[int, ...]) -> tuple[int, ...]:
    """Positions that the frame at position t >= 1 reads, ascending, none twice.

    >>> [read_at(t, (0, 5), (1, 3, 5)) for t in (1, 4, 6, 10)]
    [(0,), (0, 1, 3), (0, 1, 3, 5), (0, 5, 7, 9)]
    """
    lasting = {p for p in long if p < t}
    recent = {t - back for back in short if t - back > 0}
    # Whatever the configuration, the labelled frame is all there is to read at position 1.
    return tuple(sorted(lasting | recent)) or (0,)


def kept_after(t: int, long: tuple[int, ...], short: tuple[int, ...]) -> frozenset[int]:
    """Positions up to t that some later position reads: the rest may be forgotten."""
    recent = range(max(0, t + 1 - max(short, default=0)), t + 1)
    return frozenset({p for p in long if p <= t} | set(recent) | {0})
