"""Still images as training data: each becomes a clip by a homography that grows from frame to frame.

MAST-momentum (Zhu et al. 2020) learns from 100 images this way and does not print its ranges. Here the first frame is
a square of the picture; each corner of the square is moved by up to 12 % of its side, along and across; the frames
between go there in equal steps. Nothing outside the picture is ever seen.

Points are (x, y) in pixels from the outer corner of the top left pixel: the picture spans [0, w] by [0, h], its first
pixel is centred on (0.5, 0.5). Quads are four of them: top left, top right, bottom right, bottom left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vcorr import rng as random

UNIT = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64, device="cpu")
LARGEST_MOVE = 0.25  # of the side: from here on, a quad may fold over


def homographies(quads: Tensor) -> Tensor:
    """Matrices [n 3 3] (float64) that take the corners of the unit square to those of each quad.

    Args:
        quads: [n 4 2] convex quads, (x, y).
    """
    from kornia.geometry.transform import get_perspective_transform  # 0.2 s to import

    matrices: Tensor = get_perspective_transform(UNIT.expand(len(quads), 4, 2), quads.double())
    return matrices


def warp(picture: Tensor, quads: Tensor, size: int) -> Tensor:
    """What a picture shows inside quads, each straightened into a square: [n c size size].

    Sampled bilinearly; where a quad is larger than the square (from 1.5 times on), at more points a pixel, which are
    averaged.
    Points outside the picture (quads of `draw_quads` have none) and within half a pixel of its rim read the rim.

    Args:
        picture: [c h w], float.
        quads: [n 4 2], (x, y) in pixels of the picture; on the CPU.
        size: side of the squares, pixels.
    """
    sides = (quads.roll(-1, 1) - quads).norm(dim=-1)
    points = max(1, round(float(sides.max()) / size))  # a pixel and direction
    centres = (torch.arange(size * points, dtype=picture.dtype, device=picture.device) + 0.5) / (size * points)
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    flat = torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # [3 p]
    height, width = picture.shape[-2:]
    to_grid = torch.tensor([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]], dtype=torch.float64)
    x, y, w = ((to_grid @ homographies(quads)).to(picture) @ flat).unbind(1)  # [n p] each
    grid = torch.stack([x / w, y / w], -1).view(len(quads), size * points, size * points, 2)
    seen = torch.nn.functional.grid_sample(
        picture.expand(len(quads), *picture.shape), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return seen if points == 1 else torch.nn.functional.avg_pool2d(seen, points)


def draw_quads(height: int, width: int, smallest: int, move: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(first, last) quad of a clip [4 2]: a square, and the same with its corners moved. Both lie in the picture.

    Args:
        height, width: of the picture, pixels.
        smallest: least side of the square; the largest is what leaves room to move. Where that is less, it is taken.
        move: how far a corner moves along either axis at most, as a share of the side, in [0, 0.25).
    """
    largest = min(height, width) / (1 + 2 * move)
    side = random.uniform(min(smallest, largest), largest, rng)
    room = move * side
    left = random.uniform(room, width - room - side, rng)
    top = random.uniform(room, height - room - side, rng)
    first = torch.tensor([left, top], dtype=torch.float64) + side * UNIT
    return first, first + room * (2 * torch.rand(4, 2, generator=rng, dtype=torch.float64) - 1)


def still_clip(
    picture: Tensor, shares: Sequence[float], size: int, smallest: int, move: float, rng: torch.Generator
) -> Tensor:
    """A clip, uint8 [t size size 3], from one picture, uint8 [h w 3]; draws its quads by `draw_quads`.

    Args:
        shares: how far each frame has gone from the first quad (0) to the last (1).
    """
    height, width = picture.shape[:2]
    first, last = draw_quads(height, width, smallest, move, rng)
    quads = torch.stack([first.lerp(last, share) for share in shares])
    frames = warp(picture.movedim(-1, 0).float(), quads, size)
    return frames.round_().clamp_(0, 255).byte().movedim(1, -1)
