"""Turns still images into clips by a homography that grows from frame to frame.

MAST-momentum (Zhu et al. 2020) learns from 100 images in this way, but does not state its ranges. Here the first frame
is a square of the picture. In the last frame, each corner of the square has moved by up to 12 % of its side along both
axes; the frames between move in equal steps. All frames lie within the picture.

Points are (x, y) in pixels from the outer corner of the top left pixel: the picture spans [0, w] by [0, h], and the
centre of its first pixel is (0.5, 0.5). A quad has four points: top left, top right, bottom right, bottom left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vcorr import rng as random

UNIT = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64, device="cpu")
LARGEST_MOVE = 0.25  # share of the side, from which on a quad may fold over


def homographies(quads: Tensor) -> Tensor:
    """Matrices [n 3 3], float64, that map the corners of the unit square to those of each quad.

    Args:
        quads: [n 4 2] convex quads, (x, y).
    """
    from kornia.geometry.transform import get_perspective_transform  # 0.2 s to import

    matrices: Tensor = get_perspective_transform(UNIT.expand(len(quads), 4, 2), quads.double())
    return matrices


def warp(picture: Tensor, quads: Tensor, size: int) -> Tensor:
    """Warps quads of a picture to squares, [n c size size].

    Sampling is bilinear. If a quad is at least 1.5 times as large as the square, each pixel averages several samples.
    Points outside the picture (quads of `draw_quads` have none) read its edge.

    Args:
        picture: [c h w], float.
        quads: [n 4 2], (x, y) in pixels of the picture; on the CPU.
        size: side of the squares, pixels.
    """
    sides = (quads.roll(-1, 1) - quads).norm(dim=-1)
    points = max(1, round(float(sides.max()) / size))  # samples of a pixel along each axis
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
    """Draws the first and the last quad of a clip, [4 2] each: a square, and the square with moved corners.

    Args:
        height, width: of the picture, in pixels.
        smallest: smallest side of the square. The largest side leaves room to move; if it is smaller, it is used.
        move: largest move of a corner along each axis, as a share of the side, in [0, 0.25).
        rng: draws.
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
    """A clip, uint8 [t size size 3], from one picture, uint8 [h w 3].

    Args:
        picture: the picture.
        shares: the position of each frame between the first quad (0) and the last (1).
        size, smallest, move, rng: see `warp` and `draw_quads`.
    """
    height, width = picture.shape[:2]
    first, last = draw_quads(height, width, smallest, move, rng)
    quads = torch.stack([first.lerp(last, share) for share in shares])
    frames = warp(picture.movedim(-1, 0).float(), quads, size)
    return frames.round_().clamp_(0, 255).byte().movedim(1, -1)
