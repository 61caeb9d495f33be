"""The size of cells: thin objects need small ones.

What is thinner than a few cells is lost among its neighbours: legs, ropes, people far away. So the frames of a video
are enlarged for the encoder until its objects are ``CELLS`` wide on average, but not without limit: the work grows with
the area, and windows, which have a number of cells, reach less far. A cell is a whole number of pixels of the frame.
"""

from __future__ import annotations

CELLS = 4  # mean width of objects that need no smaller cells, in cells
USUAL = 480  # pixels, the short side of frames that enlarging counts from


def cell_size(size: tuple[int, int], thickness: float, zoom: float, stride: int) -> int:
    """The side of a cell in pixels of a frame: ``stride``, or less where the frame is enlarged.

    Args:
        size: (height, width) of the frame. thickness: mean width of its objects, in pixels.
        zoom: times ``USUAL`` that the short side of an enlarged frame has at most.
        stride: pixels a cell of the encoder's features.

    >>> [cell_size((480, 854), thickness, 2.0, 4) for thickness in (30.0, 12.0, 5.0)]
    [4, 3, 2]
    >>> cell_size((240, 432), 5.0, 2.0, 4)
    1
    """
    if not zoom:
        return stride
    least = -(-stride * min(size) // int(zoom * USUAL))
    return max(1, min(stride, max(least, round(min(thickness, CELLS * stride) / CELLS))))
