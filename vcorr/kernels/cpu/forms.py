"""What every form of a reading does: the one interface of blocks, columns, fractions and tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from vcorr.kernels.geometry import Reference


class Slopes(NamedTuple):
    """What flows back into a reading: grad [b h w v], delta = g . readout - g_lse and level = -lse / ln 2, [b h w]."""

    grad: Tensor
    delta: Tensor
    level: Tensor

    def part(self, *index: slice | int) -> Slopes:
        """The same cells or images of every tensor."""
        return Slopes(self.grad[index], self.delta[index], self.level[index])


class Gradients(NamedTuple):
    """Where gradients are added: to the query [b h w c], to each reference's key and value; None where not asked."""

    query: Tensor | None
    keys: Sequence[Tensor] | None
    values: Sequence[Tensor] | None

    def part(self, *index: slice | int) -> Gradients:
        """The same cells or images of every tensor."""
        keys, values = (None if some is None else [g[index] for g in some] for some in (self.keys, self.values))
        return Gradients(None if self.query is None else self.query[index], keys, values)


class Form(Protocol):
    """A way to read references that it can read together, of a batch [b h w .], or of one image [h w .]."""

    def read(
        self, query: Tensor, references: Sequence[Reference], wanted: Tensor | None, readout: Tensor, lse: Tensor
    ) -> None:
        """Fill readout and lse where a cell is wanted; elsewhere they stay 0 and -inf."""

    def add_gradients(
        self, query: Tensor, slopes: Slopes, references: Sequence[Reference], wanted: Tensor | None, into: Gradients
    ) -> None:
        """Add what flows back from the cells that are wanted."""


class EachImage:
    """A form of one image, image after image."""

    def __init__(self, form: Form) -> None:
        self.form = form

    def read(
        self, query: Tensor, references: Sequence[Reference], wanted: Tensor | None, readout: Tensor, lse: Tensor
    ) -> None:
        for image in range(query.shape[0]):
            some = None if wanted is None else wanted[image]
            self.form.read(query[image], [r.part(image) for r in references], some, readout[image], lse[image])

    def add_gradients(
        self, query: Tensor, slopes: Slopes, references: Sequence[Reference], wanted: Tensor | None, into: Gradients
    ) -> None:
        for image in range(query.shape[0]):
            members, some = [r.part(image) for r in references], None if wanted is None else wanted[image]
            self.form.add_gradients(query[image], slopes.part(image), members, some, into.part(image))
