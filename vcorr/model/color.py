"""Colour: what a network sees, what it must rebuild, and the information bottleneck between the two.

An encoder that saw every channel could copy colours without understanding the scene. So channels are hidden from it.
MAST (Lai et al. 2020, section 3.1) hides one channel of Lab and has that one rebuilt; CorrFlow (Lai & Xie 2019,
section 3.2) hides channels of RGB, jitters the rest, and has 16 classes of colour rebuilt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcorr import rng as random

L, A, B = 0, 1, 2  # the channels of Lab

Space = Literal["lab", "rgb", "gray", "imagenet"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of RGB over ImageNet, as networks that were trained on it are fed."""

CENTROIDS = (
    *((10.2, -25.5), (9.2, -5.5), (38.1, -55.2), (13.8, 29.9), (-22.9, 4.3), (0.4, -7.3), (-5.4, -13.5), (-9.1, 43.4)),
    *((2.9, -18.0), (-1.2, 21.7), (-8.0, -0.3), (34.0, 15.1), (22.4, -38.8), (5.7, 8.6), (54.3, -73.9), (0.2, 0.0)),
)
"""CorrFlow's classes of colour as (a, b): 16 centres of k-means over pixels of Kinetics, as published, one decimal."""


def from_uint8(rgb: NDArray[np.uint8] | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Pictures [... h w 3] of bytes as float tensor [... 3 h w] in [0, 1], channels_last in memory."""
    x = rgb if isinstance(rgb, Tensor) else torch.from_numpy(np.require(rgb, requirements=("C", "W")))
    return x.to(device).movedim(-1, -3).float().div_(255)


def to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] to CIE Lab (D65), normalised: (L - 50) / 50, a / 127, b / 127.

    Args:
        rgb: [b 3 h w] float.

    Returns:
        [b 3 h w]: L in [-1, 1]; a and b within about [-0.85, 0.85] for colours that sRGB can show.
    """
    from kornia.color import rgb_to_lab  # 0.2 s to import

    with torch.autocast(rgb.device.type, enabled=False):  # it multiplies by a matrix: in bfloat16, 1 unit of L off
        lab = rgb_to_lab(rgb)
    offset = torch.tensor([50.0, 0, 0], dtype=lab.dtype, device=lab.device)
    scale = torch.tensor([50.0, 127, 127], dtype=lab.dtype, device=lab.device)
    normalised: Tensor = (lab - offset[:, None, None]) / scale[:, None, None]
    return normalised.contiguous(memory_format=torch.channels_last)


def to_space(rgb: Tensor, space: Space) -> Tensor:
    """sRGB in [0, 1] as a network of that space sees it, [b 3 h w] to [b 3 h w].

    ``"lab"``: normalised Lab (MAST and after). ``"rgb"``: as it is (CorrFlow). ``"gray"``: luma, three times.
    ``"imagenet"``: RGB less its mean over ImageNet, by its standard deviation (torchvision; Jabri et al. 2020).

    Raises:
        ValueError: another space.
    """
    if space == "lab":
        return to_lab(rgb)
    if space == "rgb":
        return rgb
    if space == "imagenet":
        mean, deviation = (rgb.new_tensor(values)[:, None, None] for values in IMAGENET)
        return (rgb - mean) / deviation
    if space == "gray":
        from kornia.color import rgb_to_grayscale

        gray: Tensor = rgb_to_grayscale(rgb)
        return gray.repeat(1, 3, 1, 1).contiguous(memory_format=torch.channels_last)
    raise ValueError(f"space must be one of {', '.join(get_args(Space))}, got {space!r}")


# --- MAST -----------------------------------------------------------------------------------------------------------


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


# --- CorrFlow -------------------------------------------------------------------------------------------------------


def classes(lab: Tensor) -> Tensor:
    """The class of each pixel: the nearest of ``CENTROIDS`` in the (a, b) plane, whatever its lightness.

    Args:
        lab: normalised, [... 3 h w].

    Returns:
        [... h w] int64 in [0, 16).
    """
    centres = torch.tensor(CENTROIDS, dtype=lab.dtype, device=lab.device).div_(127)[..., None, None]
    a, b = (lab[..., channel : channel + 1, :, :] for channel in (A, B))
    return ((a - centres[:, 0]).square_() + (b - centres[:, 1]).square_()).argmin(-3)


def one_hot(labels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Classes [... h w] as probabilities [... 16 h w]: what is resized, since classes themselves have no mean."""
    numbers = torch.arange(len(CENTROIDS), device=labels.device)[:, None, None]
    return (labels.unsqueeze(-3) == numbers).to(dtype)


def drop_channels(images: Tensor, rng: torch.Generator, *, keep: float = 0.3) -> Tensor:
    """With probability ``keep`` as they are; else 1 or 2 channels set to 0, one draw for the whole batch.

    Args:
        images: [... 3 h w].

    Returns:
        [... 3 h w]; where n channels are dropped the others are multiplied by 3 / (3 - n), so that the expected
        magnitude stays.
    """
    if random.uniform(0, 1, rng) < keep:
        return images
    dropped = torch.randperm(3, generator=rng)[: random.integer(1, 3, rng)]
    gain = torch.full((3,), 3 / (3 - len(dropped)), dtype=images.dtype)
    gain[dropped] = 0
    return images * gain.to(images.device)[:, None, None]


@dataclass(frozen=True)
class JitterConfig:
    """How much colours are changed.

    Attributes:
        share: of the samples that are changed at all.
        brightness, contrast, saturation: x draws a factor from [1 - x, 1 + x].
        hue: x draws a turn of the colour wheel from [-x, x]; 0.5 is half a turn.
    """

    share: float = 0.1
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.1

    def __post_init__(self) -> None:
        factors = (self.share, self.brightness, self.contrast, self.saturation)
        if not (all(0 <= x <= 1 for x in factors) and 0 <= self.hue <= 0.5):
            raise ValueError(f"share and strengths must be in [0, 1], hue in [0, 0.5], got {factors}, {self.hue}")


def jitter(rgb: Tensor, samples: Sequence[int], cfg: JitterConfig, seed: int) -> Tensor:
    """Photometric jitter: each sample by itself, each of its frames anew, the four changes in an order of its own.

    Draws follow the sample, wherever in a batch or on which rank it is.

    Args:
        rgb: clips [b t 3 h w] in [0, 1].
        samples: which sample each clip is.
        seed: of the run.

    Returns:
        [b t 3 h w] in [0, 1].
    """
    changed = rgb.clone()
    for clip, sample in zip(changed, samples, strict=True):
        rng = random.generator(seed, "jitter", sample)
        if random.uniform(0, 1, rng) < cfg.share:
            for frame in clip:
                frame.copy_(_recolour(frame, cfg, rng))
    return changed


def _recolour(image: Tensor, cfg: JitterConfig, rng: torch.Generator) -> Tensor:
    from kornia import enhance

    changes = (
        (enhance.adjust_brightness_accumulative, 1.0, cfg.brightness),
        (enhance.adjust_contrast_with_mean_subtraction, 1.0, cfg.contrast),
        (enhance.adjust_saturation_with_gray_subtraction, 1.0, cfg.saturation),
        (enhance.adjust_hue, 0.0, 2 * math.pi * cfg.hue),  # it takes radians
    )
    for k in torch.randperm(len(changes), generator=rng).tolist():
        change, middle, strength = changes[k]
        image = change(image, random.uniform(middle - strength, middle + strength, rng))
    return image
