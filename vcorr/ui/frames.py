"""Frames of a video as pictures for the page, by index, from a cache of bounded size.

Pages step, play and jump. A decoder goes on where it stands if the next frame lies a little ahead; elsewhere it seeks.
Where the page steps backwards, what it passes on the way is kept, since the page will ask for it.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcorr.errors import InputError
from vcorr.media.video import Picture, Video

CACHE = 96 * 2**20  # bytes of encoded pictures
AHEAD = 24  # frames of a video file that are decoded on the way to another one, in place of a seek
BACK = 8  # frames before the one that is asked for, where the page steps backwards
QUALITY = 92  # of JPEG: the eye sees no loss; ten times as fast as WebP


class Frames:
    """Encoded pictures of the frames of a video.

    Args:
        video: stays open as long as this is used.
    """

    def __init__(self, video: Video) -> None:
        self.video = video
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        self._walk: Iterator[tuple[int, Picture]] = iter(())
        self._ahead = AHEAD if video.files is None else 1
        self._next = len(video)
        self._last = 0

    def picture(self, k: int) -> bytes:
        """Frame k as a JPEG. A frame that cannot be decoded shows the one before it.

        Raises:
            InputError: no frame of the video decodes.
        """
        found = self._kept.get(k)
        if found is None:
            with self._lock:
                found = self._kept.get(k) or self._decoded(k)
        return found

    def rgb(self, k: int, short_side: int) -> NDArray[np.uint8]:
        """Frame k [h w 3], shrunk to a short side.

        Raises:
            InputError: it cannot be decoded.
        """
        with self._lock:
            return self.video.frame(k, short_side=short_side)

    def is_damaged(self, k: int) -> bool:
        """Whether frame k, which was asked for, could not be decoded."""
        return k in self.video.damaged

    def _decoded(self, k: int) -> bytes:
        backwards, self._last = k == self._last - 1, k
        if not self._next <= k < self._next + self._ahead:
            self._next = max(0, k - BACK) if backwards else k
            self._walk = iter(())  # lets go of its decoder, which the next one takes
            self._walk = self.video.pictures(self._next)
        for index, picture in self._walk:
            self._next = index + 1
            if index == k or backwards:
                self._keep(index, encoded(picture()))
            if index == k:
                return self._kept[k]
        raise InputError(self.video.path, f"frame {k} cannot be decoded", "choose another frame")

    def _keep(self, k: int, data: bytes) -> None:
        self._bytes += len(data) - len(self._kept.pop(k, b""))
        self._kept[k] = data
        while self._bytes > CACHE and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped)


def encoded(rgb: NDArray[np.uint8]) -> bytes:
    """A picture [h w 3] as a JPEG with colour at full resolution."""
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "JPEG", quality=QUALITY, subsampling=0)
    return data.getvalue()
