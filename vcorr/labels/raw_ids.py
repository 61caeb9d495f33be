"""Reads the raw ids of a mask file: annotations, results to score, and masks that vcorr wrote."""

from __future__ import annotations

from os import PathLike

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcorr.errors import InputError, VcorrError

Ids = NDArray[np.uint8] | NDArray[np.uint16]

_MODES = {"P": np.uint8, "L": np.uint8, "1": np.uint8, "I;16": np.uint16}
_STRETCHED = {"L;2": 85, "L;4": 17}  # Pillow scales grey of 2 and 4 bits to 255


def read_ids(path: str | PathLike[str], size: tuple[int, int] | None = None) -> Ids:
    """Reads the ids of a mask file without any interpretation, for scores.

    Args:
        path: a PNG of one channel: indexed, or grey of 1 to 16 bits.
        size: (height, width) that it must have; None for any. A file of another size is not decoded.

    Returns:
        uint8 [h w]; uint16 [h w] for a file of 16 bits.

    Raises:
        InputError: the file is missing, is not a readable PNG of one channel, or has another size.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode not in _MODES:
                what = f"pixels of kind {image.mode} where one id a pixel is wanted"
                raise InputError(path, what, "write an indexed or a grey PNG whose values are the ids")
            if size not in (None, (image.height, image.width)):
                what = f"{image.width}x{image.height} pixels where {size[1]}x{size[0]} are wanted"
                raise InputError(path, what, "write masks at the size of the annotations, without smoothing")
            step = _STRETCHED.get(_stored(image), 1)
            ids: Ids = np.asarray(image).astype(_MODES[image.mode], copy=False) // step
            return ids
    except VcorrError:
        raise
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "check the path") from error
    except Exception as error:  # decoders raise many kinds of errors on damaged bytes
        raise InputError(path, f"not a readable PNG ({error})", "write the file again") from error


def _stored(image: Image.Image) -> str:
    """The raw mode of an image that is not yet decoded."""
    args = image.tile[0].args if image.tile else ""  # type: ignore[attr-defined]
    return args if isinstance(args, str) else ""
