"""The forward pass of windowed reading: the level of the softmax, and who sums under it.

The softmax needs a level to subtract, near the largest score. |q| max|k| bounds the scores, and float32 has exponents
to spare: where the bound is below HEADROOM, sums without any level have the same digits, and else a level HEADROOM
below the bound does. It is known beforehand and common to all references, which saves passes over the scores. Where a
row's mass then shows that the bound was too far off, its columns are read again by strips with true maxima, one
reference after another (online softmax).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from vcorr.kernels.cpu.panels import Panels, PanelSums
from vcorr.kernels.cpu.strips import LN_2, LOG2_E, Strips, Sums
from vcorr.kernels.geometry import Reference

HEADROOM = 64.0  # log2: scores exceed the level by at most this much; sums and values of 2**50 still fit
FAINTEST = 2.0**-30  # least mass of a row that is exact under a level: terms 2**-96 of it are still counted


class Reader:
    """The forward pass over images of one size, of which columns in a span are read."""

    def __init__(self, strips: Strips, features: int, channels: int, span: tuple[int, int]) -> None:
        self.strips, self.features, self.channels = strips, features, channels
        pay = Panels.pay(strips, features, span)
        panels = Panels.over(strips, features, channels, span, keep=False) if pay else None
        self.fast: PanelSums | Sums = self.by_strips if panels is None else PanelSums(panels)

    @cached_property
    def by_strips(self) -> Sums:
        return Sums(self.strips, self.features, self.channels)

    def read(
        self, query: Tensor, references: Sequence[Reference], wanted: Tensor | None, readout: Tensor, lse: Tensor
    ) -> None:
        """Read one image [h w c] into readout [h w v] and lse [h w]; of cells that are not wanted [h w] both hold
        anything.
        """
        mass, levels = torch.ones_like(lse), lse
        bounded, lifted = self.fill(levels, query, references)
        for x, count in self.fast.starts():
            here = slice(x, x + count)
            if wanted is not None and not bool(wanted[:, here].any()):
                continue
            if bounded:
                sums = self.fast.sum_below(query, levels if lifted else None, references, wanted, x, count)
                if self.strips.zeros:
                    outside = len(references) * self.strips.outside[:, here]
                    sums[-1].add_(outside * (-levels[:, here]).exp2_())
                least = sums[-1] if wanted is None else sums[-1][wanted[:, here]]
                bounded = not lifted or float(least.amin()) >= FAINTEST
            if not bounded:
                sums = self.by_strips.sum_online(query, levels, references, wanted, x, count)
            mass[:, here] = sums[-1]
            readout[:, here] = sums[:-1].permute(1, 2, 0)
        readout.div_(mass.masked_fill(mass == 0, 1.0)[..., None])  # a row with nothing valid reads 0
        lse.add_(mass.log2_()).mul_(LN_2)

    def fill(self, levels: Tensor, query: Tensor, references: Sequence[Reference]) -> tuple[bool, bool]:
        """Fill the levels [h w]; whether there is a bound, and whether any level is not 0."""
        work = self.strips.work
        longest = max(float(torch.linalg.vector_norm(r.key, dim=-1, dtype=work).amax()) for r in references)
        if not math.isfinite(longest):
            return False, True
        torch.linalg.vector_norm(query, dim=-1, dtype=work, out=levels)
        levels.mul_(longest * abs(self.strips.window.scale) * LOG2_E).sub_(HEADROOM).clamp_(min=0.0)
        return True, float(levels.amax()) != 0.0
