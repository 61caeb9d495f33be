"""A frame's values rebuilt from those of reference frames: what training by reconstruction compares with the truth."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vcorr.kernels import memory_read
from vcorr.matching.cells import downsample, upsample
from vcorr.matching.settings import Matching


def rebuild(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    matching: Matching,
    *,
    stride: int,
) -> Tensor:
    """Rebuild the query frame's values from those of reference frames, read jointly (MAST, eq. 1-3).

    Args:
        query: features [b h w c]; keys: features of each reference [b h w c].
        values: what is copied, per reference, on pixels [b v H W].
        matching: how frames are compared, and how cells meet pixels.
        stride: pixels a cell.

    Returns:
        [b v H W].
    """
    cells = [downsample(v, stride, alignment=matching.alignment) for v in values]
    read = memory_read(query, keys, cells, **matching.window)
    size = (values[0].shape[-2], values[0].shape[-1])
    return upsample(read, stride, size, alignment=matching.alignment)
