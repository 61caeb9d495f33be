"""Arrays as .npy: ids of objects as whole numbers, or values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vcorr.errors import InputError
from vcorr.labels.mask_files import Codes, MaskFile
from vcorr.labels.mask_ids import MAX_ID
from vcorr.media.image import MAX_PIXELS


def read_array(path: Path) -> NDArray[Any]:
    """The array of a file.

    Raises:
        InputError: missing, damaged, no plain numbers (such as pickled objects), or too large.
    """
    if not path.is_file():
        raise InputError(path, "is not a file" if path.exists() else "does not exist", "check the path")
    try:
        with path.open("rb") as file:
            shape, dtype = _header(file)
            if math.prod(shape) * dtype.itemsize != path.stat().st_size - file.tell():
                raise ValueError("its size is not that of its values")
            file.seek(0)
            array: NDArray[Any] = np.load(file, allow_pickle=False)
    except Exception as error:  # the reader parses a header from anyone, and raises errors of many kinds
        raise _no_array(path, error) from None
    if array.dtype.kind not in "buif" or array.ndim < 2 or min(array.shape) < 1:
        sides = "x".join(map(str, array.shape))
        raise InputError(path, f"is an array {sides} of {array.dtype}", "save numbers [H W]")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise InputError(path, f"has more than {MAX_PIXELS} pixels", "shrink it first")
    return array


def array_type(path: Path) -> np.dtype[Any]:
    """The type of the numbers of a file.

    Raises:
        InputError: it is damaged, or no array.
    """
    try:
        with path.open("rb") as file:
            return _header(file)[1]
    except Exception as error:
        raise _no_array(path, error) from None


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _no_array(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:100]
    return InputError(path, f"is no array of plain numbers ({reason})", "save it with numpy.save")


def read_ids_array(path: Path) -> MaskFile:
    """A mask: ids [H W] as whole numbers, or one object as booleans.

    Raises:
        InputError: as ``read_array``; fractions, another shape, or what is no id.
    """
    array = read_array(path)
    if array.dtype.kind == "f":
        raise InputError(path, f"holds {array.dtype}: values, not ids", "save ids as whole numbers")
    if array.ndim != 2:
        raise InputError(path, f"is an array {'x'.join(map(str, array.shape))}", "save ids as [H W], one frame a file")
    values, codes = np.unique(np.ascontiguousarray(array), return_inverse=True)
    if int(values[0]) < 0 or int(values[-1]) > MAX_ID:
        what = f"holds values from {int(values[0])} to {int(values[-1])}"
        raise InputError(path, what, f"ids must lie in 0 to {MAX_ID}")
    few = len(values) <= 256
    placed = codes.reshape(array.shape)
    white = 255 if array.dtype.kind == "u" and array.dtype.itemsize == 1 else MAX_ID + 1
    small: Codes = placed.astype(np.uint8) if few else placed.astype(np.uint16)
    return MaskFile(path, "ids", small, values.astype(np.int64), background="0", white=white)
