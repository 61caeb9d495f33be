"""Reads still images from any source, within limits and upright, and writes them completely or not at all."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from vcorr.errors import InputError, OutputError
from vcorr.files import replacing
from vcorr.media.levels import WHOLE, Scale, scale_of

MAX_PIXELS = 2**26
"""The largest image or video frame in pixels: 67 million, twice as many as 8K."""

FRAME_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
FRAME_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"]
)

_ORIENTATION = 0x0112  # the EXIF tag
_PHOTOMETRIC = 0x0106  # the TIFF tag: 0 if white is zero
_SAMPLE_FORMAT = 0x0153  # the TIFF tag: 2 for signed integers
_CUT_TO_8_BITS = ("RGB", "RGBA", "LA")  # modes to which Pillow reduces 16-bit colours
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
_warnings_lock = threading.Lock()  # catch_warnings changes a list of the whole process


class UnreadableImage(InputError):
    """The file is empty, or not an image."""


def open_image(path: Path, formats: tuple[str, ...] = FRAME_FORMATS, content: BinaryIO | None = None) -> Image.Image:
    """Reads the header of an image, with format, mode and size; decodes no pixel.

    Args:
        path: of the file.
        formats: Pillow's names of the accepted formats.
        content: replaces the content of the file.

    Raises:
        UnreadableImage: the file is empty, or has another format.
        InputError: the file is missing, or larger than `MAX_PIXELS`.
    """
    advice = f"give an image ({', '.join(formats)})"
    try:
        if not path.is_file():
            raise InputError(path, "is not a file" if path.exists() else "does not exist", "check the path")
        if path.stat().st_size == 0:
            raise UnreadableImage(path, "is an empty file", advice)
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(content or path, formats=formats)
        # Without a name, Pillow does not map the file into memory. It would map a rotated TIFF with its rotated size,
        # and the process would crash if another program truncated a mapped file.
        image.filename = ""
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(path, f"has more than {MAX_PIXELS} pixels", "shrink it first") from None
    except UnidentifiedImageError:
        what, convert = "of an unknown kind", advice
        if _begins(path) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            what = "a TIFF of an unknown kind, such as float64 or other numbers of 64 bits"
            convert = "save it as float32, uint16 or uint8"
        raise UnreadableImage(path, f"cannot be read as an image ({what})", convert) from None
    except Exception as error:  # decoders raise any exception on hostile files
        raise UnreadableImage(path, f"cannot be read as an image ({_reason(error, path)})", advice) from error
    if _is_signed_byte(image):  # Pillow reads them as unsigned: -1 would be the brightest
        image.close()
        raise UnreadableImage(path, "is a TIFF of int8, numbers of 8 bits with a sign", "save it as uint8 or int16")
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}x{image.height}"
        image.close()
        raise InputError(path, f"is {size}, above the limit of {MAX_PIXELS} pixels", "shrink it first")
    return image


def load_pixels(image: Image.Image, path: Path) -> None:
    """Decodes the pixels of an opened image.

    Raises:
        InputError: the file is cut short or damaged.
    """
    try:
        image.load()
    except Exception as error:  # as above
        raise InputError(
            path, f"is damaged or cut short ({_reason(error, path)})", "copy or export the image again"
        ) from error


def displayed_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an opened image as displayed, which `load_upright` returns. Decodes no pixel."""
    sideways = _orientation(image) in _SIDEWAYS
    # Pillow rotates a TIFF when it decodes it, and states the rotated size before.
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_ORIENTATION) in _SIDEWAYS:
        sideways = False
    return (image.width, image.height) if sideways else (image.height, image.width)


def load_upright(image: Image.Image, path: Path) -> Image.Image:
    """Decodes an opened image and applies its EXIF orientation, once.

    Frames and masks use the same rule, so a mask painted over a frame fits it.

    Raises:
        InputError: the file is cut short or damaged.
    """
    _orientation(image)  # the image keeps it: the header counts, as for `displayed_size`
    load_pixels(image, path)
    turn = _UPRIGHT.get(_orientation(image))  # a decoder that rotates clears the tag
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8."""
    try:
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The getexif of PNG images would decode the pixels first.
            return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF counts as upright
        return 1


def _is_signed_byte(image: Image.Image) -> bool:
    kinds = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, 1) if image.format == "TIFF" else 1
    return image.mode in ("L", "RGB") and 2 in (kinds if isinstance(kinds, tuple) else (kinds,))


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image, not yet decoded, has more than 8 bits a channel and does not state its white level.

    PGM and PPM state it in their header; but programs write 65535 for any 16-bit data.
    """
    tile = getattr(image, "tile", None)
    args = tile[0].args if tile else ()
    if image.format == "PPM" and isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > 0:
        return args[-1] == 65535
    return image.mode.startswith(("I", "F")) or ";16" in str(args)


def read_pixels(path: Path) -> np.ndarray:
    """Reads an image file as displayed; ignores transparency.

    Returns:
        uint8 [h w 3]; for more than 8 bits a channel, the raw levels, [h w] or [h w 3], which need a `Scale`.

    Raises:
        InputError: see `open_image` and `load_pixels`.
    """
    with open_image(path) as image:
        return pixels_of(image, path, path.read_bytes() if _is_deep_colour(image) else None)


def pixels_of(image: Image.Image, path: Path, encoded: bytes | None = None) -> np.ndarray:
    """`read_pixels` for an opened image. Without ``encoded``, its bytes, 16-bit colours are cut to 8 bits."""
    if encoded is not None and _is_deep_colour(image) and (levels := _deep_colour(image, encoded)) is not None:
        return levels
    stated = image.mode == "I" and image.format == "PPM" and not is_deep(image)  # decoding scales it to 16 bits
    white_is_zero = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    upright = load_upright(image, path)
    if not upright.mode.startswith(("I", "F")):
        return np.array(upright.convert("RGB"))
    levels = np.array(upright)
    levels = levels.astype(levels.dtype.newbyteorder("="))
    if stated:
        return to_rgb(levels, WHOLE)
    # Pillow inverts such pictures if they have 8 bits, but not if they have more.
    return -levels.astype(np.float64) if white_is_zero else levels


def _is_deep_colour(image: Image.Image) -> bool:
    return image.mode in _CUT_TO_8_BITS and is_deep(image)


def _deep_colour(image: Image.Image, encoded: bytes) -> np.ndarray | None:
    """The 16-bit channels of a file, of which Pillow keeps the upper 8 bits; None if FFmpeg cannot read it."""
    import av

    try:
        codec: Any = av.CodecContext.create({"TIFF": "tiff", "PPM": "ppm"}.get(image.format or "", "png"), "r")
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        picture = [*codec.decode(av.Packet(encoded)), *codec.decode(None)][0]
        assert isinstance(picture, av.VideoFrame)
        levels = picture.reformat(format="gray16le" if picture.format.name.startswith("ya") else "rgb48le").to_ndarray()
    except Exception:  # Pillow will report what is damaged
        return None
    turned = _turn_array(levels, _orientation(image))
    return turned if turned.shape[:2] == displayed_size(image) else None


def _turn_array(array: np.ndarray, orientation: int) -> np.ndarray:
    """`load_upright` for an array [h w ...]."""
    turned = array.swapaxes(0, 1) if orientation in _SIDEWAYS else array
    rows, columns = (-1 if orientation in mirrored else 1 for mirrored in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(turned[::rows, ::columns])


def read_rgb(path: Path, scale: Scale | None = None) -> np.ndarray:
    """Reads an image file as uint8 [h w 3]: applies EXIF orientation, ignores transparency.

    Args:
        path: of the file.
        scale: for pictures of more than 8 bits; None uses the picture's own, for pictures that belong to no video.

    Raises:
        InputError: see `open_image` and `load_pixels`.
    """
    return to_rgb(read_pixels(path), scale)


def to_rgb(pixels: np.ndarray, scale: Scale | None = None) -> np.ndarray:
    """Converts the result of `read_pixels` to uint8 [h w 3]."""
    if pixels.dtype != np.uint8:
        pixels = (scale or scale_of([pixels])).to_8_bits(pixels)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def shrunk_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """(height, width) with the short side reduced to `short_side` pixels, proportions kept; never enlarged.

    >>> shrunk_size(1080, 1920, 480)
    (480, 853)
    >>> shrunk_size(240, 432, 480)
    (240, 432)
    """
    shortest = min(height, width)
    if short_side is None or shortest <= short_side:
        return height, width
    return max(1, round(height * short_side / shortest)), max(1, round(width * short_side / shortest))


def shrink(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 [h w 3] to (height, width) with a cubic filter that widens with the scale, so without aliasing."""
    if rgb.shape[:2] == size:
        return rgb
    return np.array(Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def write_image(path: Path, image: Image.Image, **options: object) -> None:
    """Writes an image in the format of the path's suffix, under a temporary name, and renames it.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, or the suffix names no format.
    """
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise OutputError(path, f"'{path.suffix}' is no image format", "name it .png or .jpg")
    with replacing(path) as file:
        image.save(file, format=kind, **options)


def _begins(path: Path) -> bytes:
    """The first four bytes of a file."""
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError:
        return b""


def _reason(error: Exception, path: Path) -> str:
    """An exception as one line, without the path, which the error names already."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.replace(repr(str(path)), "the file").split())[:200]
