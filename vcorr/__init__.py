"""vcorr: self-supervised video correspondence. Label one frame of a video, get all labelled; train on raw video.

    for frame in vcorr.propagate("video.mp4", "mask.png"):
        frame.index, frame.mask

Names load when they are first used: importing vcorr costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcorr.propagation.video import Frame, propagate

__version__ = "0.1.0"
__all__ = ["Frame", "propagate"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'vcorr' has no attribute {name!r}")
    return getattr(importlib.import_module("vcorr.propagation.video"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
