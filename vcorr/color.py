"""Colour: CIE Lab in normalised units, and the information bottleneck that keeps the task from being trivial.

An encoder that saw every channel could copy colours without understanding the scene. So one channel is hidden from
it, and that channel is what it must rebuild (MAST, Lai et al. 2020, section 3.1).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcorr import rng as random

L, A, B = 0, 1, 2  # the channels of Lab


def from_uint8(rgb: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """Pictures [... h w 3] of bytes as float tensor [... 3 h w] in [0, 1], channels_last in memory."""
    x = torch.from_numpy(np.require(rgb, requirements=("C", "W"))).to(device).movedim(-1, -3)
    return x.float().div_(255)


def to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] to CIE Lab (D65), normalised: (L - 50) / 50, a / 127, b / 127.

    Args:
        rgb: [b 3 h w] float.

    Returns:
        [b 3 h w]: L in [-1, 1]; a and b within about [-0.85, 0.85] for colours that sRGB can show.
    """
    from kornia.color import rgb_to_lab  # 0.2 s to import

    lab = rgb_to_lab(rgb)
    offset = torch.tensor([50.0, 0, 0], dtype=lab.dtype, device=lab.device)
    scale = torch.tensor([50.0, 127, 127], dtype=lab.dtype, device=lab.device)
    normalised: Tensor = (lab - offset[:, None, None]) / scale[:, None, None]
    return normalised.contiguous(memory_format=torch.channels_last)


def hide_channel(lab: Tensor, rng: torch.Generator, *, channels: tuple[int, ...] = (A, B)) -> tuple[Tensor, Tensor]:
    """Hide one channel, drawn from ``channels`` once for the whole batch, all frames alike.

    Args:
        lab: [... 3 h w].
        channels: which may be hidden. MAST's released code: a or b, never L.

    Returns:
        What the encoder sees [... 3 h w], the hidden channel 0 and the others times 3/2, so that the expected
        magnitude stays; and the hidden channel [... 1 h w].

    Raises:
        ValueError: no channel, or one that Lab does not have.
    """
    if not channels or not set(channels) <= {L, A, B}:
        raise ValueError(f"channels must be some of 0 (L), 1 (a), 2 (b), got {channels}")
    hidden = channels[random.integer(0, len(channels), rng)]
    keep = torch.full((3, 1, 1), 1.5, dtype=lab.dtype, device=lab.device)
    keep[hidden] = 0
    return lab * keep, lab[..., hidden : hidden + 1, :, :]
