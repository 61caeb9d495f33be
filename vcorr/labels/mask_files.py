"""What a mask file holds before ids are given out: palette indices, grey values or colours, and if they are clean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vcorr.errors import InputError
from vcorr.labels.draw import default_palette
from vcorr.media.image import load_pixels, open_image

MASK_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
LOSSY_FORMATS = ("JPEG", "WEBP")

_SAVE_AS_PNG = "save the mask as PNG, indexed or grey, from the program that painted it"
_HARD_EDGES = "paint without anti-aliasing, resize by nearest neighbour, or save as indexed PNG with the ids as indices"
_MANY = 64  # values: more of them, and most pixels unlike the next, are a photograph
_REACH = 6  # pixels that a soft edge is wide on either side
_NOISE = 12  # levels, in each channel
_BLEND = 6  # levels off the straight line between two colours
_CONTRAST = 32  # levels between the two: closer ones are ids that follow one another


@dataclass(frozen=True, eq=False)
class MaskPicture:
    """One mask file.

    Attributes:
        path: of the file.
        kind: "ids" (indexed, or 16-bit grey: the values are ids), "grey" (8 bits or fewer) or "colour".
        values: integers [h w]; colours as red << 16 | green << 8 | blue, transparent pixels black.
        palette: uint8 [n 3] of an indexed file, else None.
        bits: 8, where 255 may mean void, or 16.
    """

    path: Path
    kind: Literal["ids", "grey", "colour"]
    values: np.ndarray
    palette: np.ndarray | None = None
    bits: Literal[8, 16] = 8

    def colours(self) -> np.ndarray:
        """uint8 [256 3]: the file's palette, filled up by the default one, which also stands in for shades of grey."""
        palette = default_palette()
        if self.palette is None or (self.palette == self.palette[:, :1]).all():
            return palette
        palette[: len(self.palette)] = self.palette
        return palette


def read_mask_picture(path: Path, size: tuple[int, int] | None) -> MaskPicture:
    """Reads a mask file and refuses what cannot be one.

    Args:
        path: of the file.
        size: (height, width) that it must have, or None.

    Raises:
        InputError: unreadable, lossy, animated, another size, no integers, or soft edges.
    """
    with open_image(path, MASK_FORMATS + LOSSY_FORMATS) as image:
        if image.format not in MASK_FORMATS:
            raise InputError(
                path, f"is a {image.format}: its compression changes values along every edge", _SAVE_AS_PNG
            )
        if size is not None and (image.height, image.width) != size:
            what = f"is {image.width}x{image.height}, but the video is {size[1]}x{size[0]}"
            raise InputError(path, what, "paint on a frame of full size, as `vcorr frame VIDEO 0 frame.png` writes it")
        depth = _bits(image)
        _refuse_several(image, path)
        load_pixels(image, path)
        picture = _classify(image, path, depth)
    if picture.kind != "ids":
        _check_edges(picture)
    return picture


def _bits(image: Image.Image) -> str:
    """The raw mode of a file not yet decoded ("L;4": grey of 4 bits, which decoding would stretch to 255)."""
    tile = getattr(image, "tile", None)
    args = tile[0].args if tile else ""
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _refuse_several(image: Image.Image, path: Path) -> None:
    try:
        count = getattr(image, "n_frames", 1)
    except Exception as error:  # looks for further pages of a file that may be cut short
        raise InputError(path, f"is damaged or cut short ({error})", "export the mask again") from error
    if count > 1:
        raise InputError(path, f"holds {count} pictures", "give one mask per file, named by frame index")


def _classify(image: Image.Image, path: Path, depth: str) -> MaskPicture:
    if image.mode in ("P", "PA"):
        indices = np.asarray(image if image.mode == "P" else image.getchannel("P"))
        return MaskPicture(path, "ids", indices, np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3))
    if depth == "LA;16B" or image.mode == "F":
        what = "is grey of 16 bits with alpha" if depth == "LA;16B" else "holds fractions, not ids"
        raise InputError(path, what, "save it as grey of 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            what = f"holds values from {values.min()} to {values.max()}"
            raise InputError(path, what, "ids must lie in 0 to 65535")
        if np.isin(values, (0, 65535)).all():
            return MaskPicture(path, "grey", values // 257)
        return MaskPicture(path, "ids", values, bits=16)
    if image.mode in ("1", "L"):
        values = np.asarray(image).astype(np.int64)
        return MaskPicture(path, "grey", values // {"L;2": 85, "L;4": 17}.get(depth, 1))
    rgba = np.asarray(image.convert("RGBA")).astype(np.int64)
    rgb = (rgba[..., :3] * rgba[..., 3:] + 127) // 255
    return MaskPicture(path, "colour", rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2])


def _check_edges(picture: MaskPicture) -> None:
    """Refuses photographs, and values that only occur as blends between two areas: each would become an object."""
    values, counts = np.unique(picture.values, return_counts=True)
    if len(values) < 3:
        return
    name = "colours" if picture.kind == "colour" else "grey values"
    if len(values) > _MANY and np.mean(picture.values[:, 1:] == picture.values[:, :-1]) < 0.5:
        what = f"has {len(values)} {name}, hardly two neighbours alike: a picture, not a mask"
        raise InputError(picture.path, what, "give the mask that was painted over it")
    areas = np.union1d(picture.values[_inner(picture.values)], 0)
    thin = [int(v) for v in values[np.argsort(-counts)] if v not in areas]
    strays = [v for v in thin[:_MANY] if _is_stray(picture, v, areas)]
    # One stray colour is an edge (of a rectangle); one grey value may be an id between two others.
    if len(strays) > (0 if picture.kind == "colour" else 2) or len(thin) > max(_MANY, len(areas)):
        example = strays[0] if strays else thin[0]
        y, x = np.argwhere(picture.values == example)[0]
        pixels = int(counts[np.isin(values, thin)].sum())
        shown = f"#{example:06x}" if picture.kind == "colour" else str(example)
        what = f"has soft edges: {len(thin)} stray {name} of {pixels} pixels in all, such as {shown} at x={x} y={y}"
        raise InputError(picture.path, what, _HARD_EDGES)


def _inner(values: np.ndarray) -> np.ndarray:
    """Pixels whose eight neighbours have the same value, bool [h w]; beyond the frame the border goes on."""
    height, width = values.shape
    padded = np.pad(values, 1, mode="edge")
    same = np.ones(values.shape, bool)
    for y in range(3):
        for x in range(3):
            same &= padded[y : y + height, x : x + width] == values
    return same


def _is_stray(picture: MaskPicture, value: int, areas: np.ndarray) -> bool:
    """Whether most pixels of a value lie between two areas near by, in place and in colour, or are one with noise."""
    places = np.argwhere(picture.values == value)
    places = places[:: max(1, len(places) // 16)]
    colour = _channels(np.array([value]), picture.kind)[0]
    hits = 0
    for y, x in places:
        window = picture.values[max(0, y - _REACH) : y + _REACH + 1, max(0, x - _REACH) : x + _REACH + 1]
        near = np.unique(window)
        ends = _channels(near[np.isin(near, areas)], picture.kind)
        hits += any(_on_line(colour, a, b) for i, a in enumerate(ends) for b in ends[:i]) or _is_noise(colour, ends)
    return 2 * hits > len(places)


def _is_noise(colour: np.ndarray, areas: np.ndarray) -> bool:
    """Whether a colour is all but that of an area, as lossy files have it. Small grey values are ids, however close."""
    if len(colour) == 1:
        areas = areas[areas[:, 0] == 255]
    return bool((np.abs(areas - colour).max(axis=1, initial=0) <= _NOISE).any())


def _channels(values: np.ndarray, kind: str) -> np.ndarray:
    if kind == "grey":
        return values[:, None].astype(np.float64)
    return np.stack([values >> 16, values >> 8 & 255, values & 255], axis=1).astype(np.float64)


def _on_line(colour: np.ndarray, a: np.ndarray, b: np.ndarray) -> bool:
    if np.abs(a - b).max() < _CONTRAST:
        return False
    along = np.clip(np.dot(colour - a, b - a) / np.dot(b - a, b - a), 0, 1)
    return bool(np.abs(a + along * (b - a) - colour).max() <= _BLEND)
