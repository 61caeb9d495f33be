"""Colours and lines over pictures."""

from __future__ import annotations

import numpy as np
import pytest

from vcorr.labels.draw import contour, default_palette, overlay


def test_the_palette_by_its_rule() -> None:
    palette = default_palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert len(np.unique(palette, axis=0)) == 256
    assert palette[0].tolist() == [0, 0, 0]
    # 22 = 0b010110: red has bits 0 and 3, green 1 and 4, blue 2 and 5 of the id, from the highest bit down
    assert palette[0b010110].tolist() == [0, 128 + 64, 128]


def test_tint_line_and_background() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    ids = np.zeros((20, 30), np.uint8)
    ids[5:15, 5:20] = 1
    before = rgb.copy()
    drawn = overlay(rgb, ids, default_palette(), opacity=0.4)
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(drawn[ids == 0], rgb[ids == 0])
    tint = np.array([(128 + 255) / 2, 0, 0])
    inner = (slice(6, 14), slice(6, 19))
    np.testing.assert_allclose(drawn[inner], rgb[inner] * 0.6 + tint * 0.4, atol=0.51)
    ring = ids.astype(bool)
    ring[inner] = False
    assert (drawn[ring] == (255, 0, 0)).all()


@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_line_runs_inside_of_objects_and_between_them(width: int) -> None:
    ids = np.zeros((20, 30), np.uint16)
    ids[:, 10:20], ids[:, 20:] = 300, 2
    line = contour(ids, width=width)
    assert np.flatnonzero(line[10]).tolist() == [*range(10, 10 + width), *range(20 - width, 20 + width)]
    assert not line[:, -1].any() and not line[0, 12 + width - 1]  # the border of the picture is no border of an object


def test_opacity_ends() -> None:
    rgb = np.full((9, 9, 3), 77, np.uint8)
    ids = np.ones((9, 9), np.uint8)
    np.testing.assert_array_equal(overlay(rgb, ids, default_palette(), opacity=0), rgb)
    assert (overlay(rgb, ids, default_palette(), opacity=1) == (192, 0, 0)).all()


def test_colours_start_again_above_255() -> None:
    rgb = np.zeros((4, 4, 3), np.uint8)
    high, low = (overlay(rgb, np.full((4, 4), k, np.uint16), default_palette()) for k in (256, 1))
    np.testing.assert_array_equal(high, low)


def test_black_objects_have_a_white_line() -> None:
    ids = np.zeros((9, 9), np.uint8)
    ids[3:6, 3:6] = 1
    assert overlay(np.zeros((9, 9, 3), np.uint8), ids, np.zeros((256, 3), np.uint8))[3, 3].tolist() == [255, 255, 255]


def test_what_does_not_fit() -> None:
    rgb, ids = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match=r"rgb must be \[h w 3\] over ids \[h w\]"):
        overlay(rgb, ids, default_palette())
    with pytest.raises(ValueError, match="opacity must lie in 0 to 1"):
        overlay(rgb, ids[:, :4], default_palette(), opacity=1.5)
