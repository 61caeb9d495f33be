"""Draws what a network does in training: a frame rebuilt from its references, and where query cells look."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from vcorr.kernels import memory_read
from vcorr.matching import affinity
from vcorr.matching.affinity import Rows, Views
from vcorr.matching.cells import downsample, upsample

Picture = NDArray[np.uint8]

SIDE = 320  # pixels, the longer side of pictures
COLOURS = ((255, 92, 92), (255, 205, 50), (60, 210, 255), (205, 130, 255))  # the colours of the marked query cells
ERROR = 0.5  # the difference with the brightest colour
RAMP = np.array([[8, 8, 24], [70, 20, 110], [190, 50, 90], [250, 150, 50], [255, 250, 200]], np.float64)


@dataclass(frozen=True)
class Look:
    """A batch and the features that its loss compares.

    Attributes:
        views: the features.
        rgb: the clips [b t 3 H W] in [0, 1].
        step: steps done in all stages with these weights.
    """

    views: Views
    rgb: Tensor
    step: int


@dataclass(frozen=True)
class Scene:
    """The first clip of a look, as pictures.

    Attributes:
        query, rebuilt, error: the query frame, the frame rebuilt from the references, and their difference.
        references: the reference frames.
        difference: the mean of the error.
        in_place: the mean difference of the query and the most similar reference, without any motion.
        marked: the query frame with the marked cells.
        looks: each reference with the weights of these cells, by colour.
        largest, entropy: of the softmax of these cells.
        shares: the share of the weights that each reference gets, [cells r].
    """

    query: Picture
    rebuilt: Picture
    error: Picture
    references: tuple[Picture, ...]
    difference: float
    in_place: float
    marked: Picture
    looks: tuple[Picture, ...]
    largest: tuple[float, ...]
    entropy: tuple[float, ...]
    shares: tuple[tuple[float, ...], ...]


@torch.no_grad()
def scene(look: Look) -> Scene:
    """Draws the first clip of a look.

    All colour channels of the references are read with the affinity, even if the loss rebuilds only some.
    """
    views = look.views
    query = look.rgb[:1, views.frame].float()
    references = [look.rgb[:1, k].float() for k in views.frames]
    rebuilt = _rebuilt(views, references)
    error = (rebuilt - query).abs().mean(1)[0]
    cells = _followed(query, views)
    rows = affinity.rows(views, 0, cells)
    picture, read = _picture(query), tuple(_picture(r) for r in references)
    stride = picture.shape[0] / views.query.shape[1]  # pixels of the picture in a cell
    kept = rows.weights.flatten(2).sum(-1)
    return Scene(
        query=picture,
        rebuilt=_picture(rebuilt),
        error=_heat(error),
        references=read,
        difference=float(error.mean()),
        in_place=min(float((r - query).abs().mean()) for r in references),
        marked=_marked(picture, cells, stride),
        looks=tuple(_look(r, rows, k, cells, views.matching.radius, stride) for k, r in enumerate(read)),
        largest=tuple(rows.largest.tolist()),
        entropy=tuple(rows.entropy.tolist()),
        shares=tuple(tuple(row) for row in kept.tolist()),
    )


def inline(picture: Picture) -> str:
    """A picture as a JPEG within a ``data:`` address."""
    with io.BytesIO() as file:
        Image.fromarray(picture).save(file, "JPEG", quality=88)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def fitted(picture: Picture, side: int = SIDE) -> Picture:
    """Resizes a picture to a longer side in pixels."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _rebuilt(views: Views, references: list[Tensor]) -> Tensor:
    """[1 3 H W]"""
    height, width = references[0].shape[-2:]
    stride = -(-height // views.query.shape[1])
    cells = [downsample(r, stride, alignment=views.matching.alignment) for r in references]
    with torch.autocast(references[0].device.type, enabled=False):
        read = memory_read(
            views.query[:1].float(),
            [key[:1].float() for key in views.keys],
            cells,
            **views.matching.window,
        )
    return upsample(read, stride, (height, width), alignment=views.matching.alignment).nan_to_num().clamp(0, 1)


def _followed(query: Tensor, views: Views) -> Tensor:
    """(y, x) of one cell in each quarter of the frame, [4 2]: where the picture changes most, away from its edge."""
    h, w = views.query.shape[1:3]
    grey = torch.nn.functional.adaptive_avg_pool2d(query.mean(1, keepdim=True), (h, w))[0, 0].cpu()
    change = torch.zeros_like(grey)
    change[1:-1] += (grey[2:] - grey[:-2]).abs()
    change[:, 1:-1] += (grey[:, 2:] - grey[:, :-2]).abs()
    top, left = h // 2, w // 2
    edge = min(h, w) // 10
    cells = []
    for (first, last), (begin, end) in product([(edge, top), (top, h - edge)], [(edge, left), (left, w - edge)]):
        part = change[first:last, begin:end]
        if part.numel():
            y, x = divmod(int(part.argmax()), part.shape[1])
            cells.append((first + y, begin + x))
    return torch.tensor(cells or [(0, 0)])


def _picture(rgb: Tensor) -> Picture:
    """Converts [1 3 H W] in [0, 1] to a picture."""
    return fitted((rgb[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def _heat(error: Tensor) -> Picture:
    """Colours [H W] by a ramp from 0 to ERROR."""
    at = np.nan_to_num(error.clamp(0, ERROR).double().cpu().numpy()) / ERROR * (len(RAMP) - 1)
    below = np.minimum(at.astype(int), len(RAMP) - 2)
    part = (at - below)[..., None]
    return fitted((RAMP[below] * (1 - part) + RAMP[below + 1] * part).round().astype(np.uint8))


def _marked(picture: Picture, cells: Tensor, stride: float) -> Picture:
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for (y, x), colour in zip(cells.tolist(), COLOURS, strict=False):
        middle, radius = ((x + 0.5) * stride, (y + 0.5) * stride), max(5.0, 0.8 * stride)
        box = [middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius]
        draw.ellipse([box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2], outline=(0, 0, 0), width=2)
        draw.ellipse(box, outline=colour, width=3)
    return np.asarray(image)


def _look(picture: Picture, rows: Rows, k: int, cells: Tensor, radius: int | None, stride: float) -> Picture:
    """Draws a reference in grey, the weights of each marked cell in its colour, and an outline of its window."""
    height, width = picture.shape[:2]
    drawn = np.repeat(picture.mean(-1, keepdims=True) * 0.6, 3, -1)
    for weights, colour in zip(rows.weights, COLOURS, strict=False):
        share = (weights[k] / weights.max().clamp(min=1e-12)).sqrt().nan_to_num().cpu().numpy()  # sqrt: small ones show
        tile = Image.fromarray((share * 255).round().astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
        opacity = np.asarray(tile, np.float64)[..., None] / 255
        drawn = drawn * (1 - opacity) + np.array(colour) * opacity
    image = Image.fromarray(drawn.round().astype(np.uint8))
    if radius is not None:
        draw = ImageDraw.Draw(image)
        for (y, x), colour in zip(cells.tolist(), COLOURS, strict=False):
            near = [(x - radius) * stride, (y - radius) * stride]
            far = [(x + radius + 1) * stride - 1, (y + radius + 1) * stride - 1]
            draw.rectangle([*near, *far], outline=colour)
    return np.asarray(image)
