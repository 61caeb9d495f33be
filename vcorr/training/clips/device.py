"""Keeps frames on the training device and cuts clips there, for a GPU in a machine with few cores.

Crops differ from Pillow's only by rounding, by at most one level of 255 in a few pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vcorr.errors import InputError, UsageError
from vcorr.training.clips.dataset import Frames, Source


def resample(picture: Tensor, size: int, box: tuple[float, float, float, float]) -> Tensor:
    """Resizes a box of a picture to a square, uint8 [size size 3], like Pillow's bilinear ``resize``.

    The filter is a triangle along each axis. Its half-width is the distance between pixels of the result, at least that
    of the picture. It is cut off at the edge of the picture, and its weights sum to 1.

    Args:
        picture: uint8 [h w 3].
        size: side of the square, in pixels.
        box: (left, top, right, bottom) in pixels from the outer corner of the first one.
    """
    left, top, right, bottom = box
    across = _weights(picture.shape[1], left, right, size, picture.device)
    down = _weights(picture.shape[0], top, bottom, size, picture.device)
    rows = (across @ picture.movedim(-1, 0).float().mT).round_()  # [3 size h], rounded as Pillow does between the axes
    return (down @ rows.mT).round_().clamp_(0, 255).byte().movedim(0, -1)


def _weights(pixels: int, low: float, high: float, size: int, device: torch.device) -> Tensor:
    """[size pixels], the weight of each pixel of the picture in each pixel of the result, along one axis."""
    step = (high - low) / size
    centres = low + (torch.arange(size, device=device) + 0.5) * step
    distance = torch.arange(pixels, device=device) + 0.5 - centres[:, None]
    triangle = (1 - distance.abs() / max(step, 1.0)).clamp_(min=0)
    return triangle / triangle.sum(1, keepdim=True)


class DeviceFrames:
    """`Frames` that stay on a device. A video moves there as a whole when one of its frames is first requested.

    Args:
        sources, short_side, limit: see `Frames`.
        device: holds the frames.

    Raises:
        UsageError: the frames need more than ``limit`` bytes.
    """

    fits = True

    def __init__(self, sources: Sequence[Source], short_side: int, limit: int, device: torch.device) -> None:
        self._frames = Frames(sources, short_side, limit)
        self.needed = self._frames.needed
        if not self._frames.fits:
            raise UsageError(
                "clips.keep=device",
                f"all frames take {-(-self.needed >> 20)} MiB, clips.cache is {limit >> 20}",
                "raise clips.cache to what the device has to spare, or lower clips.read, or leave frames in memory",
            )
        self._sources, self._device = sources, device
        self._kept: list[dict[int, Tensor | InputError]] = [{} for _ in sources]
        self._moving = [threading.Lock() for _ in sources]

    def get(self, source: int, indices: Sequence[int]) -> list[Tensor]:
        """Returns the frames of a clip, uint8 [h w 3] on the device, in the order of ``indices``.

        Raises:
            InputError: one of them is damaged.
        """
        with self._moving[source]:
            if not self._kept[source]:
                self._kept[source] = {k: self._move(source, k) for k in range(self._sources[source].frames)}
                self._frames.forget(source)
        pictures = []
        for k in indices:
            picture = self._kept[source][k]
            if isinstance(picture, InputError):
                raise picture
            pictures.append(picture)
        return pictures

    def _move(self, source: int, k: int) -> Tensor | InputError:
        try:
            (picture,) = self._frames.get(source, [k])
        except InputError as error:
            return error
        return torch.from_numpy(np.require(picture, requirements=("C", "W"))).to(self._device)
