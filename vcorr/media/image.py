"""Still images from anyone: opened with limits, turned the right way up, and written whole or not at all."""

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
"""The largest image or video frame that is read: 67 million pixels, above 8K (33 million)."""

FRAME_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
FRAME_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"]
)

_ORIENTATION = 0x0112  # the EXIF tag
_PHOTOMETRIC = 0x0106  # the TIFF tag: 0 where white is zero
_SAMPLE_FORMAT = 0x0153  # the TIFF tag: 2 of numbers with a sign
_CUT_TO_8_BITS = ("RGB", "RGBA", "LA")  # modes in which Pillow reads colours of 16 bits
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
_warnings_lock = threading.Lock()  # catch_warnings swaps a list of the whole process


class UnreadableImage(InputError):
    """A file that is empty, or no image."""


def open_image(path: Path, formats: tuple[str, ...] = FRAME_FORMATS, content: BinaryIO | None = None) -> Image.Image:
    """Reads the header of an image: format, mode and size are then known, the pixels are not yet read.

    Args:
        path: of the file.
        formats: Pillow's names of those that may be read.
        content: what to read in place of the file.

    Raises:
        UnreadableImage: empty, or of another format.
        InputError: missing, or larger than `MAX_PIXELS`.
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
        # Without a name, Pillow does not map the file into memory: it maps a TIFF that lies on its side by the size
        # that it is turned to, and a mapped file that another program cuts short ends the process.
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
    except Exception as error:  # a decoder raises anything at all over a hostile file
        raise UnreadableImage(path, f"cannot be read as an image ({_reason(error, path)})", advice) from error
    if _is_signed_byte(image):  # Pillow takes the numbers as unsigned: -1 would be the brightest
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
    """(height, width) of an opened image as it is displayed, which is what `load_upright` returns.

    The header is enough: no pixel is decoded.
    """
    sideways = _orientation(image) in _SIDEWAYS
    # Pillow turns a TIFF itself as it decodes, and states the size that its tag leads to from the start.
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_ORIENTATION) in _SIDEWAYS:
        sideways = False
    return (image.width, image.height) if sideways else (image.height, image.width)


def load_upright(image: Image.Image, path: Path) -> Image.Image:
    """Decodes an opened image and turns it the way it is displayed: by its EXIF orientation, once.

    Frames and masks are both read through here, so that a mask painted over a frame lies on it.

    Raises:
        InputError: the file is cut short or damaged.
    """
    _orientation(image)  # kept by the image: what the header says counts, as for `displayed_size`
    load_pixels(image, path)
    turn = _UPRIGHT.get(_orientation(image))  # what is left to do: a decoder that turns clears the tag
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8."""
    try:
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The method of PNG images would decode the pixels first.
            return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # EXIF that is damaged says nothing; the pixels stand
        return 1


def _is_signed_byte(image: Image.Image) -> bool:
    kinds = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, 1) if image.format == "TIFF" else 1
    return image.mode in ("L", "RGB") and 2 in (kinds if isinstance(kinds, tuple) else (kinds,))


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image, not yet decoded, has more than 8 bits a channel, and does not say which level is white.

    PGM and PPM say it in their header; but 65535 is written for whatever lies in 16 bits.
    """
    tile = getattr(image, "tile", None)
    args = tile[0].args if tile else ()
    if image.format == "PPM" and isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > 0:
        return args[-1] == 65535
    return image.mode.startswith(("I", "F")) or ";16" in str(args)


def read_pixels(path: Path) -> np.ndarray:
    """The picture in an image file, as displayed; transparency is ignored.

    Returns:
        uint8 [h w 3]; or, of a file with more than 8 bits a channel, its levels as they are, [h w] or [h w 3]: of use
        once a `Scale` for all pictures of the video has brought them to 8 bits.

    Raises:
        InputError: see `open_image` and `load_pixels`.
    """
    with open_image(path) as image:
        return pixels_of(image, path, path.read_bytes() if _is_deep_colour(image) else None)


def pixels_of(image: Image.Image, path: Path, encoded: bytes | None = None) -> np.ndarray:
    """As `read_pixels`, of an opened image; without its bytes, colours of 16 bits come cut to 8."""
    if encoded is not None and _is_deep_colour(image) and (levels := _deep_colour(image, encoded)) is not None:
        return levels
    stated = image.mode == "I" and image.format == "PPM" and not is_deep(image)  # decoding spreads it over 16 bits
    white_is_zero = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    upright = load_upright(image, path)
    if not upright.mode.startswith(("I", "F")):
        return np.array(upright.convert("RGB"))
    levels = np.array(upright)
    levels = levels.astype(levels.dtype.newbyteorder("="))
    if stated:
        return to_rgb(levels, WHOLE)
    # Pillow inverts such pictures where they have 8 bits, and does not where they have more.
    return -levels.astype(np.float64) if white_is_zero else levels


def _is_deep_colour(image: Image.Image) -> bool:
    return image.mode in _CUT_TO_8_BITS and is_deep(image)


def _deep_colour(image: Image.Image, encoded: bytes) -> np.ndarray | None:
    """The channels of a file of 16 bits each, of which Pillow keeps the upper 8; None where FFmpeg cannot read it."""
    import av

    try:
        codec: Any = av.CodecContext.create({"TIFF": "tiff", "PPM": "ppm"}.get(image.format or "", "png"), "r")
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        picture = [*codec.decode(av.Packet(encoded)), *codec.decode(None)][0]
        assert isinstance(picture, av.VideoFrame)
        levels = picture.reformat(format="gray16le" if picture.format.name.startswith("ya") else "rgb48le").to_ndarray()
    except Exception:  # Pillow has the word on what is damaged, and how
        return None
    turned = _turn_array(levels, _orientation(image))
    return turned if turned.shape[:2] == displayed_size(image) else None


def _turn_array(array: np.ndarray, orientation: int) -> np.ndarray:
    """What `load_upright` does to an image, of an array [h w ...]."""
    turned = array.swapaxes(0, 1) if orientation in _SIDEWAYS else array
    rows, columns = (-1 if orientation in mirrored else 1 for mirrored in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(turned[::rows, ::columns])


def read_rgb(path: Path, scale: Scale | None = None) -> np.ndarray:
    """The picture in an image file as uint8 [h w 3], as displayed: EXIF orientation applied, transparency ignored.

    Args:
        path: of the file.
        scale: of pictures of more than 8 bits; None is the picture's own, of use where it does not belong to a video.

    Raises:
        InputError: see `open_image` and `load_pixels`.
    """
    return to_rgb(read_pixels(path), scale)


def to_rgb(pixels: np.ndarray, scale: Scale | None = None) -> np.ndarray:
    """What `read_pixels` returns, brought to uint8 [h w 3]."""
    if pixels.dtype != np.uint8:
        pixels = (scale or scale_of([pixels])).to_8_bits(pixels)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def shrunk_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """(height, width) with the short side brought down to `short_side` pixels, proportions kept; never enlarged.

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
    """Resizes uint8 [h w 3] to (height, width) by a cubic filter as wide as the step between pixels: no aliasing."""
    if rgb.shape[:2] == size:
        return rgb
    return np.array(Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def write_image(path: Path, image: Image.Image, **options: object) -> None:
    """Writes an image in the format of the path's suffix, beside and renamed: a reader never sees half of it.

    Raises:
        OutputError: the folder is missing, full or not writable, or the suffix names no format.
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
    """One line out of an exception, without the path, which the error names already."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.replace(repr(str(path)), "the file").split())[:200]
