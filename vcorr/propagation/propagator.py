"""Labels a stream of frames one at a time. Each frame reads the labels of a few earlier frames.

Every frame is encoded once. The values of frame t at cell x are sum_r sum_y A(x, y) values_r(y), A one softmax over the
windows of all references jointly (``kernels.memory_read``); the label is what its kind makes of them. A frame that
repeats the one before has its label, and need not be read. In memory at any time: features and values of the references
(``memory``), and the last picture with its label.
"""

from __future__ import annotations

from copy import copy
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from vcorr.labels.label import L, Labels
from vcorr.matching.cells import Grid
from vcorr.model import color
from vcorr.model.encoder import Model, Picture
from vcorr.propagation.follow import Follow, followed
from vcorr.propagation.memory import Memory, MemoryFrame
from vcorr.propagation.reading import Read, reading


class Propagator(Generic[L]):
    """Labels of a stream of frames.

    Args:
        model: features of frames, and how labels are read with them.
        labels: the kind of label.
        read, follow: read values, and move windows (``follow.followed``), in place of what the model says.

    Attributes:
        position: of the next frame; the last labelled one that was given is 0.
        values: values [1 h w v] that the last frame's label was made of, as they were read or given.
        memory: the frames that are read from.
        last: the last frame and its label, which a frame that repeats it has as well.
    """

    def __init__(self, model: Model, labels: Labels[L], *, read: Read | None = None, follow: Follow = followed) -> None:
        self.model, self.labels = model, labels
        self.read = read or reading(model.reading, model.inference, background=labels.background)
        self.follow = follow
        self.values: Tensor | None = None
        self.last: tuple[Picture, L] | None = None
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
            label, query = given, None
            self.values = fed_back = self.labels.to_cells(given, self.grid(picture))
        elif not self.memory.frames:
            raise ValueError("the first frame must come with its label, got none")
        elif self.last is not None and np.array_equal(picture, self.last[0]):
            label = copy(self.last[1])
            self.memory.keep(self.position, self.memory.frames[self.position - 1])
            self.position += 1
            return label
        else:
            query = self.model.encoder.query(picture)
            frames = self.memory.read(self.position)
            if self.model.inference.follow is not None:
                frames = self.follow(query, frames, self.memory, self.position, self.model, self.labels.background)
            self.values, grid = self.read(query, frames), self.grid(picture)
            label = self.labels.from_cells(self.values, grid)
            fed_back = self._feedback(label, grid)
        self.memory.keep(self.position, MemoryFrame(self.model.encoder.reference(picture, query), fed_back))
        self.position += 1
        self.last = picture.copy(), copy(label)  # the caller may write on either
        return label

    def grid(self, picture: Picture) -> Grid:
        """The cells of a picture."""
        height, width = picture.shape[:2]
        stride, alignment = self.model.encoder.stride, self.model.matching.alignment
        guided = self.model.inference.upsampling == "guided"
        guide = color.from_uint8(picture[None], self.model.encoder.device) if guided else None
        return Grid(stride, alignment, (height, width), self.labels.size, guide)

    def forget(self) -> None:
        """Start anew: the next frame must come with its label."""
        self.position, self.memory, self.last = 0, Memory(self.model.inference.references), None

    def kept(self) -> dict[int, Tensor]:
        """What ``resume`` needs to go on from here beside the pictures: values by position."""
        return {p: frame.values for p, frame in self.memory.frames.items()}

    @torch.inference_mode()
    def recall(self, position: int, picture: Picture, values: Tensor, label: L | None = None) -> None:
        """Put a frame back in memory that was there before, the last with its label, and go on after it."""
        self.memory.frames[position] = MemoryFrame(self.model.encoder.reference(picture), values)
        self.position = max(self.position, position + 1)
        if label is not None:
            self.last = picture.copy(), copy(label)

    def _feedback(self, label: L, grid: Grid) -> Tensor:
        """The values that later frames read of a frame whose label was read."""
        assert self.values is not None
        if self.model.inference.feedback == "hard":
            return self.labels.to_cells(label, grid)
        if not self.labels.background:
            return self.values
        values, least = self.values, self.model.inference.least
        if self.model.inference.compactness:  # readouts sum to more than 1, and would grow
            values = values / values.sum(-1, keepdim=True).clamp(min=1e-6)
        if least:
            objects = torch.where(values[..., 1:] < least, 0.0, values[..., 1:])
            values = torch.cat([1 - objects.sum(-1, keepdim=True), objects], -1)
        return values
