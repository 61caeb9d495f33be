"""Labels a stream of frames one at a time. Each frame reads the labels of a few earlier frames.

Every frame is encoded once. The values of frame t at cell x are sum_r sum_y A(x, y) values_r(y), A one softmax over the
windows of all references jointly (``kernels.memory_read``); the label is what its kind makes of them. A frame that
repeats the one before has its label, and need not be read. In memory at any time: features and values of the references
(``memory``), and the last picture with its label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from vcorr.labels.label import L, Labels
from vcorr.matching import appearance
from vcorr.matching.cells import Grid
from vcorr.matching.coarse import coarse_features
from vcorr.matching.origin import Origin, at_places, believed
from vcorr.matching.pieces import in_one_piece, without_pieces
from vcorr.model import color
from vcorr.model.encoder import Model, Picture
from vcorr.propagation import focus
from vcorr.propagation.focus import Part, Parts, Sight
from vcorr.propagation.follow import Follow, followed
from vcorr.propagation.memory import Memory, MemoryFrame
from vcorr.propagation.reading import Read, reading
from vcorr.propagation.target import Look, Target
from vcorr.propagation.zoom import cell_size

VALUES, PLACES, PARTS, TARGET = (
    "values.",
    "places.",
    "parts.",
    "target.",
)  # in a state, before the position or the part's name
SIGHT = "sight"  # in a state: height and width of frames, side of a cell
WHOLE = "whole"  # in a state: which objects are in one piece


class Propagator(Generic[L]):
    """Labels of a stream of frames.

    Args:
        model: features of frames, and how labels are read with them.
        labels: the kind of label.
        read, follow: read values, and move windows (``follow.followed``), in place of what the model says.

    Raises:
        ValueError: the model asks for context features of an encoder that has none, or for parts of frames of one that
            tells places.

    Attributes:
        position: of the next frame; the last labelled one that was given is 0.
        values: values [1 h w v] that the last frame's label was made of, as they were read or given.
        memory: the frames that are read from.
        sight: how the encoder sees the frames of the span.
        last: the last frame and its label, which a frame that repeats it has as well.
    """

    def __init__(self, model: Model, labels: Labels[L], *, read: Read | None = None, follow: Follow = followed) -> None:
        self.model, self.labels = model, labels
        self.read = read or reading(model.reading, model.inference, background=labels.background)
        self.follow = follow
        if self._appearance and model.encoder.with_context is None:
            raise ValueError("appearance must be 0 where the encoder has no context features (with_context)")
        if self.model.inference.focus is not None and model.encoder.placed:
            raise ValueError("focus must be None where the encoder has a position encoding")
        self.values: Tensor | None = None
        self.last: tuple[Picture, L] | None = None
        self.sight: Sight | None = None
        self.forget()

    @torch.inference_mode()
    def step(self, picture: Picture, given: L | None = None) -> L:
        """The label of the next frame.

        Args:
            picture: [h w 3], at the size at which it is to be read.
            given: its label, where it is known: it comes back as it is, and what follows is read from it and from what
                comes after it alone.

        Raises:
            ValueError: the first frame without a label.
        """
        if given is not None:
            if self.position > 0:
                self.forget()
            self.sight = self._sight(picture, given)
            label, parts = given, self._parts()
            self.values = fed_back = self.labels.to_cells(given, self.grid(picture))
            query = None
            if self._appearance:
                query, context = self._encoded(picture, parts)
                self.memory.target = Target.of(query, context, self.values)
            if self.model.inference.pieces and self.labels.background:
                self.memory.whole = in_one_piece(self.values)
        elif not self.memory.frames:
            raise ValueError("the first frame must come with its label, got none")
        elif self.last is not None and np.array_equal(picture, self.last[0]):
            label = copy(self.last[1])
            self.memory.keep(self.position, self.memory.frames[self.position - 1])
            self.position += 1
            return label
        else:
            frames = self.memory.read(self.position)
            parts = self._parts()
            query, context = self._encoded(picture, parts)
            if self.model.inference.follow is not None:
                frames = self.follow(query, frames, self.memory, self.position, self.model, self.labels.background)
            target = self.memory.target
            look = None if target is None else target.look(query, context)
            origin = self._origin(query)
            read = self._in_pieces(self._believed(self.read(query, frames), origin), look, origin)
            self.values = read
            if target is not None and look is not None:
                found = appearance.corrected(read[0], look.scored, self.model.inference.appearance)[None]
                target.learn(look, found * focus.known(query)[..., None], self.position)
                self.values = self._in_pieces(found, look, origin)
            grid = self.grid(picture)
            label = self.labels.from_cells(self.values, grid)
            fed_back = self._feedback(label, read, grid)
        self.memory.keep(self.position, MemoryFrame(self._reference(picture, parts, query), fed_back, parts))
        self.position += 1
        self.last = picture.copy(), copy(label)  # the caller may write on either
        return label

    def grid(self, picture: Picture) -> Grid:
        """The cells of a picture."""
        height, width = picture.shape[:2]
        cell = self.model.encoder.stride if self.sight is None else self.sight.cell
        guided = self.model.inference.upsampling == "guided"
        guide = color.from_uint8(picture[None], self.model.encoder.device) if guided else None
        return Grid(cell, self.model.matching.alignment, (height, width), self.labels.size, guide)

    def forget(self) -> None:
        """Start anew: the next frame must come with its label."""
        self.position, self.memory, self.last = 0, Memory(self.model.inference.references), None
        self.sight = None

    def state(self) -> dict[str, Tensor]:
        """What ``restore`` needs to go on from here beside the pictures."""
        memory = self.memory
        tensors = {f"{VALUES}{p}": frame.values for p, frame in memory.frames.items()}
        tensors |= {f"{PARTS}{p}": torch.tensor(frame.parts) for p, frame in memory.frames.items()}
        tensors |= {f"{PLACES}{p}": places for p, places in memory.places.items()}
        if memory.target is not None:
            tensors |= {f"{TARGET}{name}": part for name, part in memory.target.state().items()}
        if self.sight is not None:
            tensors[SIGHT] = torch.tensor([*self.sight.frame, self.sight.cell])
        if memory.whole is not None:
            tensors[WHOLE] = memory.whole
        if self.values is not None:
            tensors["values"] = self.values
        return tensors

    @torch.inference_mode()
    def restore(
        self, position: int, state: Mapping[str, Tensor], picture: Callable[[int], Picture], last: L | None
    ) -> None:
        """Go on at a position as if all frames before it had been labelled.

        Args:
            state: ``state()`` of the time.
            picture: the picture at a position before.
            last: the label of the frame before.

        Raises:
            KeyError, ValueError: the state lacks something, or holds what is no part of one.
        """
        self.forget()
        known: dict[str, dict[str, Tensor]] = {VALUES: {}, PLACES: {}, PARTS: {}, TARGET: {}}
        for name, tensor in state.items():
            kind, dot, key = name.partition(".")
            if dot:
                known[kind + dot][key] = tensor
        height, width, cell = state[SIGHT].tolist()
        self.sight = Sight((height, width), cell, self.model.encoder.stride)
        for key, values in known[VALUES].items():
            shown = picture(int(key))
            parts = tuple(Part(*part) for part in known[PARTS][key].tolist())
            self.memory.frames[int(key)] = MemoryFrame(self._reference(shown, parts), values, parts)
            if int(key) == position - 1 and last is not None:
                self.last = shown.copy(), copy(last)
        self.memory.places = {int(key): places for key, places in known[PLACES].items()}
        self.memory.target = Target.restored(known[TARGET]) if known[TARGET] else None
        self.memory.whole = state.get(WHOLE)
        self.values, self.position = state.get("values"), position

    def _sight(self, picture: Picture, label: L) -> Sight:
        """How the frames of a span are seen, from its labelled frame."""
        size, stride, zoom = (picture.shape[0], picture.shape[1]), self.model.encoder.stride, self.model.inference.zoom
        if not zoom:
            return Sight(size, stride, stride)
        thickness = self.labels.thickness(label) * size[0] / self.labels.size[0]
        return Sight(size, cell_size(size, thickness, zoom, stride), stride)

    @property
    def _appearance(self) -> bool:
        """Whether a model of what the classes look like corrects what is read."""
        return bool(self.model.inference.appearance) and self.labels.background

    def _parts(self) -> Parts:
        """The parts of the next frame that are encoded."""
        assert self.sight is not None
        margin, short = self.model.inference.focus, self.model.inference.references.short
        if margin is None:
            return self.sight.whole
        if not self.memory.frames or not self.labels.background:
            return self.sight.strips
        read = self.memory.read(self.position)
        recent, lasting = (
            [frame.values for gap, frame in read.items() if (gap in short) == near] for near in (True, False)
        )
        return self.sight.parts(recent, lasting, margin)

    def _encoded(self, picture: Picture, parts: Parts) -> tuple[Tensor, Tensor]:
        """Features and context features of parts of a frame; no context where none is asked for."""
        assert self.sight is not None
        encoder = self.model.encoder
        if not self._appearance:
            return self.sight.features(encoder.query, picture, parts), torch.empty(0)
        assert encoder.with_context is not None  # as was checked
        return self.sight.with_context(encoder.with_context, picture, parts)

    def _reference(self, picture: Picture, parts: Parts, query: Tensor | None = None) -> Tensor:
        """Features of parts of a frame as a reference; ``query``: those that it has as a query, if they are known."""
        assert self.sight is not None
        encoder = self.model.encoder
        if query is not None and encoder.slow is None:
            return query
        return self.sight.features(encoder.reference, picture, parts)

    def _origin(self, query: Tensor) -> Origin | None:
        """Where the cells of a query come from in the labelled frame; None where that is not asked or not known."""
        inference, place = self.model.inference, self.memory.places.get(0)
        if place is None or not (inference.origin or inference.pieces) or not self.labels.background:
            return None
        first = self.memory.frames[0]
        return at_places(coarse_features(query), first.coarse, first.coarse_values, place)

    def _believed(self, values: Tensor, origin: Origin | None) -> Tensor:
        """Values that were read, less of what does not come from where it is said to."""
        strength = self.model.inference.origin
        return values if not strength or origin is None else believed(values, origin, strength)

    def _in_pieces(self, values: Tensor, look: Look | None, origin: Origin | None) -> Tensor:
        """Values without pieces apart from objects that the labelled frame shows in one."""
        whole, least = self.memory.whole, self.model.inference.pieces
        if whole is None:
            return values
        return without_pieces(values, whole, least, None if look is None else look.scored, origin)

    def _feedback(self, label: L, values: Tensor, grid: Grid) -> Tensor:
        """The values that later frames read of a frame whose label was read from values."""
        if self.model.inference.feedback == "hard":
            return self.labels.to_cells(label, grid)
        if not self.labels.background:
            return values
        least = self.model.inference.least
        if self.model.inference.compactness:  # readouts sum to more than 1, and would grow
            values = values / values.sum(-1, keepdim=True).clamp(min=1e-6)
        if least:
            objects = torch.where(values[..., 1:] < least, 0.0, values[..., 1:])
            values = torch.cat([1 - objects.sum(-1, keepdim=True), objects], -1)
        return values
