"""A frame's values rebuilt from those of reference frames: what training by reconstruction compares with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from vcorr.kernels import memory_read
from vcorr.matching.cells import Alignment, downsample, upsample


def rebuild(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    radius: int | None,
    stride: int,
    scale: float | None = None,
    border: Literal["mask", "zeros"] = "mask",
    alignment: Alignment = "cell",
) -> Tensor:
    """Rebuild the query frame's values from those of reference frames, read jointly (MAST, eq. 1-3).

    Args:
        query: features [b h w c]; keys: features of each reference [b h w c].
        values: what is copied, per reference, on pixels [b v H W].
        radius: of the window, in cells; None is the whole frame.
        stride: pixels a cell.
        scale: of the logits; None is 1 / sqrt(c).
        border: taps outside the frame take no part (mask), or count with logit 0 and value 0 (zeros).
        alignment: how cells and pixels meet, see ``cells``.

    Returns:
        [b v H W].
    """
    cells = [downsample(v, stride, alignment=alignment) for v in values]
    read = memory_read(query, keys, cells, radius=radius, scale=scale, border=border)
    size = (values[0].shape[-2], values[0].shape[-1])
    return upsample(read, stride, size, alignment=alignment)
