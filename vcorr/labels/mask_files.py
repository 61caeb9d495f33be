"""Reads one mask file as ids, grey levels or colours. ``mask_ids`` then matches them with those of other masks.

| file                                          | is read as                                                          |
|-----------------------------------------------|---------------------------------------------------------------------|
| indexed PNG, BMP, TIFF                        | ids: the index; index 0 is the background                           |
| the same, index 0 is a colour and another one | colours: the program that wrote it chose the order of the palette   |
| black or transparent; GIF                     |                                                                     |
| grey, 1 to 8 bits                             | levels: ids, or one object in white (``mask_ids`` decides)          |
| grey, 16 bits or more                         | ids: the value; if only 0 and white occur, levels                   |
| colour, with or without alpha                 | colours; black and transparent pixels are the background            |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcorr.errors import InputError
from vcorr.media.image import displayed_size, load_upright, open_image

MASK_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
LOSSY_FORMATS = ("JPEG", "WEBP")
WHITE, WHITE_16 = 255, 65535

SAVE_AS_PNG = "save the mask as PNG, indexed or grey, from the program that painted it"
TWO_WAYS = (
    "save it as RGB with a black background, so that the colours count, or as grey whose values are the ids, 0 for the "
    "background"
)
_UNTOLD = "which of its colours is the background cannot be told"
_DARK = 16  # levels: index 0 is the background if no channel is above this
_PHOTOMETRIC = 262  # the TIFF tag
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
_FEW_BITS = {"L;2": 3, "L;4": 15}  # raw modes -> the largest value

Codes = NDArray[np.uint8] | NDArray[np.uint16]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MaskFile:
    """The content of one mask file.

    Attributes:
        path: of the file.
        kind: ``ids`` (the values are ids), ``grey`` (levels of up to 8 bits) or ``colour``.
        codes: uint8 or uint16 [h w], the position in ``values`` of each pixel's value.
        values: int64 [n], ascending: ids, levels, or colours as red << 16 | green << 8 | blue. 0 is the background;
            transparent pixels have value 0.
        palette: int64 [256], the colour of each id, -1 where the file states none; None if the file has no palette.
        background: how the file shows its background, for messages.
        white: the level of white: 255, or 65535 in 16 bits. Next to ids it is void.
        full: the number in the file for white, where ``values`` holds 255.
    """

    path: Path
    kind: Literal["ids", "grey", "colour"]
    codes: Codes
    values: Integers
    palette: Integers | None = None
    background: str = "black"
    white: int = WHITE
    full: int = WHITE

    @property
    def objects(self) -> Integers:
        """All values but the background's."""
        objects: Integers = self.values[self.values != 0]
        return objects

    @property
    def is_grey(self) -> bool:
        """Whether all pixels are grey: a grey file, or a grey mask saved in colour."""
        return self.kind == "grey" or (self.kind == "colour" and bool((self.values == levels(self.values)).all()))

    def as_grey(self) -> MaskFile:
        """Turns a grey mask that was saved in colour into a grey one."""
        assert self.is_grey
        return MaskFile(self.path, "grey", self.codes, self.values & 255, background=self.background)

    def written(self, level: int) -> int:
        """The number in the file for a grey level."""
        return self.full if level == WHITE else level

    def count(self, values: Integers) -> int:
        """Counts the pixels that have one of these values."""
        return int(np.bincount(self.codes.ravel(), minlength=len(self.values))[np.isin(self.values, values)].sum())


def levels(colours: Integers) -> Integers:
    """The grey colours whose level is each colour's blue channel."""
    return (colours & 255) * 0x010101


def channels(colours: Integers) -> NDArray[np.float64]:
    """[n 3], red, green, blue."""
    return np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.float64)


def colour_codes(rgb: NDArray[np.uint8]) -> Integers:
    """[... 3] -> [...]: red << 16 | green << 8 | blue."""
    codes: Integers = rgb.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return codes


def shown(colour: int) -> str:
    """A colour as people write it: #ff0000."""
    return f"#{colour:06x}"


def merged(codes: Codes, values: Integers) -> tuple[Codes, Integers]:
    """Merges equal values and sorts them; returns the new (codes, values)."""
    kept, place = np.unique(values, return_inverse=True)
    table = place.reshape(-1)
    return (table.astype(np.uint8) if codes.dtype == np.uint8 else table.astype(np.uint16))[codes], kept


def read_mask_file(path: Path, size: tuple[int, int] | None = None) -> MaskFile:
    """Reads a mask file and applies its EXIF orientation, as for frames.

    Args:
        path: of the file.
        size: (height, width) that it must have, or None.

    Raises:
        InputError: the file is unreadable or lossy, holds several pictures, has another size or values that are not
            ids, or its background is ambiguous.
    """
    with open_image(path, MASK_FORMATS + LOSSY_FORMATS) as image:
        _refuse_lossy(image, path)
        height, width = displayed_size(image)
        if size is not None and (height, width) != size:
            turned = ", turned by 90 degrees" if (width, height) == size and height != width else ""
            what = f"is {width}x{height}, but the video is {size[1]}x{size[0]}{turned}"
            raise InputError(path, what, "paint on a frame of full size, as `vcorr frame VIDEO 0 frame.png` writes it")
        raw, top = _stored(image)
        _refuse_several(image, path)
        inverted = image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0  # type: ignore[attr-defined]
        if inverted and image.mode != "1":
            what = "shows its value 0 as white (WhiteIsZero), so that it can be read two ways"
            raise InputError(path, what, "save it with black for the background, or as PNG")
        upright = load_upright(image, path)
        if upright.mode == "P":
            return _indexed(upright, path, gif=image.format == "GIF")
        if upright.mode in ("1", "L") or upright.mode.startswith(("I", "F")):
            return _grey(upright, path, top)
        return _colour(upright, path, raw)


def _refuse_lossy(image: Image.Image, path: Path) -> None:
    name = image.format
    if name == "TIFF" and image.info.get("compression") in _LOSSY_TIFF:
        name = f"TIFF compressed as {image.info['compression']}"
    elif name in MASK_FORMATS:
        return
    raise InputError(path, f"is a {name}: its compression changes values along every edge", SAVE_AS_PNG)


def _refuse_several(image: Image.Image, path: Path) -> None:
    try:
        count = getattr(image, "n_frames", 1)
    except Exception as error:  # Pillow looks for further pages, and the file may be cut short
        raise InputError(path, f"is damaged or cut short ({error})", "export the mask again") from error
    if count > 1:
        raise InputError(path, f"holds {count} pictures", "give one mask per file, named by frame index")


def _stored(image: Image.Image) -> tuple[str, int]:
    """(raw mode, largest value) of a file before it is decoded.

    Decoding scales ("L;4", 15) and PGM's ("L", 3) to 255. The largest value is 0 where nothing is scaled.
    """
    tile = getattr(image, "tile", None)
    args = tile[0].args if tile else ""
    parts = (args,) if isinstance(args, str) else tuple(args or ("",))
    raw = str(parts[0])
    if tile and tile[0].codec_name in ("ppm", "ppm_plain") and isinstance(parts[-1], int):
        return raw, parts[-1]
    return raw, next((top for mode, top in _FEW_BITS.items() if raw.startswith(mode)), 0)


def _coded(pixels: NDArray[np.generic], path: Path) -> tuple[Codes, Integers]:
    """(codes, values) of integer pixels."""
    values, codes = np.unique(pixels, return_inverse=True)
    if len(values) > WHITE_16:
        raise InputError(path, f"has {len(values)} different values: a picture, not a mask", "give the mask itself")
    return codes.reshape(pixels.shape).astype(np.uint8 if len(values) <= 256 else np.uint16), values.astype(np.int64)


def _grey(image: Image.Image, path: Path, top: int) -> MaskFile:
    """Reads a grey file. ``top``: see ``_stored``."""
    pixels = np.asarray(image)
    if image.mode == "F" and not (np.isfinite(pixels).all() and (pixels == np.rint(pixels)).all()):
        raise InputError(path, "holds fractions, not ids", "save it as grey of 8 or 16 bits")
    deep = image.mode not in ("1", "L") and not (image.mode == "F" and pixels.max() <= WHITE)
    white = WHITE_16 if deep else WHITE
    if image.mode not in ("1", "L") and (pixels.min() < 0 or pixels.max() > white):
        what = f"holds values from {int(pixels.min())} to {int(pixels.max())}"
        raise InputError(path, what, f"ids must lie in 0 to {WHITE_16}")
    codes, values = _coded(pixels, path)
    background = "black"
    clear = image.info.get("transparency")
    if isinstance(clear, int) and (clear := clear * (white // top if top else 1)) in values:
        codes, values = merged(codes, np.where(values == clear, 0, values))
        background = "transparent"
    if deep and np.isin(values, (0, white)).all():
        return MaskFile(path, "grey", codes, values // 257, background=background, full=top or white)
    if top:
        values = (values * top + white // 2) // white
    return MaskFile(path, "ids" if deep else "grey", codes, values, background=background, white=white)


def _colour(image: Image.Image, path: Path, raw: str) -> MaskFile:
    if raw.endswith(("16B", "16L", "16N")):
        kind = "grey of 16 bits with alpha" if raw.startswith("LA") else "colour of 16 bits a channel"
        raise InputError(path, f"is {kind}", "save it with 8 bits a channel, or as grey whose values are the ids")
    rgba = np.asarray(image.convert("RGBA"))
    alpha = rgba[..., 3]
    opacities = np.flatnonzero(np.bincount(alpha.ravel(), minlength=256))
    colours = np.zeros(alpha.shape, np.int32)
    for channel in np.moveaxis(rgba[..., :3], -1, 0):
        level = channel.astype(np.int32)
        if len(opacities[opacities > 0]) > 1:  # several opacities are soft edges; a single one is a layer's
            level = (level * alpha + 127) // 255
        colours = colours << 8 | level
    codes, values = _coded(np.where(alpha > 0, colours, 0), path)
    return MaskFile(path, "colour", codes, values, background="black" if opacities[0] > 0 else "transparent")


def _indexed(image: Image.Image, path: Path, *, gif: bool) -> MaskFile:
    """Reads an indexed file: by index if index 0 is the background, else by colour."""
    colours, opaque = _palette(image)
    codes, indices = _coded(np.asarray(image), path)
    clear = ~opaque[indices]
    of_used = np.where(clear, 0, np.maximum(colours[indices], 0))
    if gif and len(indices) > 1 and not (of_used == 0).any():
        raise InputError(path, f"shows nothing as black: {_UNTOLD}", TWO_WAYS)
    if gif or _order_is_the_writers(path, indices, of_used, clear, colours, opaque):
        codes, values = merged(codes, of_used)
        return MaskFile(path, "colour", codes, values, background="transparent" if clear.any() else "black")
    background = "transparent" if clear.any() else f"index 0 ({shown(max(0, int(colours[0])))})"
    codes, values = merged(codes, np.where(clear, 0, indices))
    if (of_used == levels(indices)).all():  # programs without a palette write greys
        return MaskFile(path, "ids", codes, values, background=background)
    return MaskFile(path, "ids", codes, values, np.where(opaque, colours, -1), background)


def _palette(image: Image.Image) -> tuple[Integers, NDArray[np.bool_]]:
    """Returns colours, int64 [256], -1 where the file states none; and whether each is opaque, bool [256]."""
    entries = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    colours, alpha = np.full(256, -1, np.int64), np.full(256, 255, np.int64)
    colours[: len(entries)] = colour_codes(entries)
    clear = image.info.get("transparency")
    if isinstance(clear, bytes):
        alpha[: len(clear)] = list(clear[:256])
    elif isinstance(clear, int) and 0 <= clear < 256:
        alpha[clear] = 0
    return colours, alpha > 0


def _order_is_the_writers(
    path: Path,
    indices: Integers,
    of_used: Integers,
    clear: NDArray[np.bool_],
    colours: Integers,
    opaque: NDArray[np.bool_],
) -> bool:
    """Whether the colours of an indexed file show that index 0 is not its background.

    A program that optimises the palette chooses the order of the colours.

    Raises:
        InputError: index 0 and the colours name two backgrounds, or none.
    """
    first = max(0, int(colours[0]))
    if not opaque[0] or (channels(np.array([first])) <= _DARK).all():
        return False
    black = bool(((of_used == 0) & ~clear).any())
    hues = channels(np.append(of_used, first))
    grey = bool((hues == hues[:, :1]).all())
    if 0 in indices and (not (black or clear.any()) or (black and grey)):
        what = f"shows its index 0 as {shown(first)}" + (" and another as black" if black else ", nothing as black")
        raise InputError(path, f"{what}: {_UNTOLD}", TWO_WAYS)
    return black or bool(clear.any())
