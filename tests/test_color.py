"""Lab by its formulas, and the channel that is hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vcorr import color, rng


def lab_by_formula(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab of sRGB [3 n] in [0, 1] under D65, in normalised units; the standard's numbers."""
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    x, y, z = (
        np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
        @ linear
    )

    def f(u):
        return np.where(u > 0.008856, np.cbrt(u), 7.787 * u + 16 / 116)

    x, z = x / 0.950456, z / 1.088754
    lightness = np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)
    return np.stack([(lightness - 50) / 50, 500 * (f(x) - f(y)) / 127, 200 * (f(y) - f(z)) / 127])


def test_lab_follows_the_formulas():
    """To 0.005 of a unit of L, a, b: white points differ in the fifth digit between sources."""
    rgb = np.random.default_rng(0).random((3, 5000))
    rgb[:, :1000] *= 0.05  # the linear parts of both curves
    got = color.to_lab(torch.from_numpy(rgb).view(1, 3, 50, 100)).reshape(3, -1).numpy()
    scale = np.array([50, 127, 127])[:, None]
    np.testing.assert_allclose(got * scale, lab_by_formula(rgb) * scale, rtol=0, atol=0.006)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        pytest.param((0, 0, 0), (-1, 0, 0), id="black"),
        pytest.param((1, 1, 1), (1, 0, 0), id="white"),
        pytest.param((1, 0, 0), ((53.24 - 50) / 50, 80.09 / 127, 67.20 / 127), id="red"),
        pytest.param((0, 0, 1), ((32.30 - 50) / 50, 79.19 / 127, -107.86 / 127), id="blue"),
    ],
)
def test_lab_of_known_colours(rgb, lab):
    got = color.to_lab(torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(got, torch.tensor(lab, dtype=torch.float64), rtol=0, atol=3e-4)


def test_lab_of_bytes_keeps_float32_and_goes_channels_last():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    rgb = color.from_uint8(pictures)
    assert rgb.shape == (2, 3, 5, 7) and rgb.dtype == torch.float32
    assert rgb.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(rgb.permute(0, 2, 3, 1).numpy(), pictures / 255, rtol=1e-6)
    lab = color.to_lab(rgb)
    assert lab.dtype == torch.float32 and lab.is_contiguous(memory_format=torch.channels_last)


def test_bytes_that_may_not_be_written_are_read_all_the_same():
    pictures = np.full((2, 2, 3), 51, np.uint8)
    pictures.flags.writeable = False
    assert color.from_uint8(pictures[:, ::-1]).unique().tolist() == pytest.approx([0.2])
    assert pictures.max() == 51


def test_one_channel_is_hidden_for_the_whole_batch():
    lab = torch.randn(4, 2, 3, 5, 6, generator=rng.generator(0, "test"))
    hidden_channels = set()
    for step in range(20):
        seen, hidden = color.hide_channel(lab, rng.generator(0, "hide", step))
        (which,) = [c for c in range(3) if not bool(seen[:, :, c].any())]
        for c in range(3):
            torch.testing.assert_close(seen[:, :, c], lab[:, :, c] * (0 if c == which else 1.5))
        assert torch.equal(hidden, lab[:, :, which : which + 1])
        hidden_channels.add(which)
    assert hidden_channels == {color.A, color.B}  # MAST never hides L


def test_hidden_channels_are_drawn_equally_often():
    lab = torch.ones(1, 3, 1, 1)
    drawn = [
        int((color.hide_channel(lab, rng.generator(0, "hide", k), channels=(0, 1, 2))[0].flatten() == 0).nonzero())
        for k in range(600)
    ]
    assert all(160 < drawn.count(c) < 240 for c in range(3))


@pytest.mark.parametrize("channels", [(), (3,), (-1,)])
def test_channels_that_lab_does_not_have_are_refused(channels):
    with pytest.raises(ValueError, match="channels must be some of"):
        color.hide_channel(torch.zeros(1, 3, 2, 2), rng.generator(0, "hide"), channels=channels)
