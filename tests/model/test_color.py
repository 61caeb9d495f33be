"""Lab by its formulas, what is hidden from the network, classes of colour, and jitter."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vcorr import rng
from vcorr.model import color
from vcorr.model.color import CENTROIDS, JitterConfig


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


@pytest.mark.slow
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


def test_lab_is_not_rounded_under_autocast():
    """A training step and the encoder of propagate run under it; in bfloat16 a pixel was up to a unit of L off."""
    rgb = torch.rand(1, 3, 20, 20, generator=rng.generator(0, "test"))
    with torch.autocast("cpu", torch.bfloat16):
        inside = color.to_lab(rgb)
    assert torch.equal(inside, color.to_lab(rgb)) and inside.dtype == torch.float32


def test_what_a_network_sees_in_each_space():
    rgb = torch.rand(2, 3, 4, 5, generator=rng.generator(0, "test"))
    assert torch.equal(color.to_space(rgb, "lab"), color.to_lab(rgb))
    assert torch.equal(color.to_space(rgb, "rgb"), rgb)
    gray = color.to_space(rgb, "gray")
    luma = 0.299 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2]
    for channel in range(3):
        torch.testing.assert_close(gray[:, channel], luma)
    assert gray.is_contiguous(memory_format=torch.channels_last)
    normed = color.to_space(rgb, "imagenet")
    torch.testing.assert_close(normed[:, 2] * 0.225 + 0.406, rgb[:, 2])
    torch.testing.assert_close(normed[:, 0] * 0.229 + 0.485, rgb[:, 0])
    with pytest.raises(ValueError, match="space must be one of lab, rgb, gray, imagenet, got 'hsv'"):
        color.to_space(rgb, "hsv")


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


# --- classes of colour ----------------------------------------------------------------------------------------------


def of_ab(ab: np.ndarray, lightness: float = 0.0) -> torch.Tensor:
    """Normalised Lab [3 1 n] of (a, b) pairs [n 2] in plain units."""
    return torch.from_numpy(np.stack([np.full(len(ab), lightness), *(ab.T / 127)]))[:, None]


def test_each_centroid_is_its_own_class_whatever_the_lightness():
    """The published table, in its order."""
    assert len(CENTROIDS) == len(set(CENTROIDS)) == 16
    assert (CENTROIDS[0], CENTROIDS[4], CENTROIDS[15]) == ((10.2, -25.5), (-22.9, 4.3), (0.2, 0.0))
    assert [round(sum(axis), 1) for axis in zip(*CENTROIDS, strict=True)] == [144.6, -115.0]
    for lightness in (-1.0, 0.3, 1.0):
        assert color.classes(of_ab(np.array(CENTROIDS), lightness)).flatten().tolist() == list(range(16))


@given(st.lists(st.tuples(st.floats(-110, 110), st.floats(-110, 110)), min_size=1, max_size=20))
def test_the_nearest_centroid_is_the_class(pairs):
    ab = np.array(pairs)
    distances = np.sqrt(((ab[:, None] - np.array(CENTROIDS)) ** 2).sum(-1))
    chosen = color.classes(of_ab(ab)).flatten().numpy()
    np.testing.assert_allclose(distances[np.arange(len(ab)), chosen], distances.min(1), rtol=1e-9, atol=1e-9)


def test_known_colours_fall_into_the_classes_one_expects():
    """Grey is the centre nearest 0; saturated blue, red and yellow are the outermost ones of their quarter."""
    rgb = torch.tensor([[0.5, 0.5, 0.5], [0, 0, 1], [0.8, 0.4, 0.3], [0.7, 0.7, 0.2]]).T[None, :, None]
    wanted = [(0.2, 0.0), (54.3, -73.9), (34.0, 15.1), (-9.1, 43.4)]
    assert [CENTROIDS[k] for k in color.classes(color.to_lab(rgb)).flatten().tolist()] == wanted


def test_one_hot_of_classes():
    labels = torch.randint(0, 16, (2, 3, 4, 5), generator=rng.generator(0, "test"))
    p = color.one_hot(labels)
    assert p.shape == (2, 3, 16, 4, 5) and p.dtype == torch.float32
    assert torch.equal(p.argmax(2), labels) and torch.equal(p.sum(2), torch.ones(2, 3, 4, 5))
    assert bool(((p == 0) | (p == 1)).all())


# --- dropped channels -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_channels_are_dropped_for_the_whole_batch_and_the_rest_rescaled():
    images = torch.rand(3, 2, 3, 4, 5, generator=rng.generator(0, "test")) + 0.1
    dropped = []
    for step in range(2000):
        seen = color.drop_channels(images, rng.generator(0, "drop", step))
        gone = [c for c in range(3) if not bool(seen[..., c, :, :].any())]
        for c in set(range(3)) - set(gone):
            torch.testing.assert_close(seen[..., c, :, :], images[..., c, :, :] * (3 / (3 - len(gone))))
        dropped.append(tuple(gone))
    share = {gone: dropped.count(gone) / 2000 for gone in set(dropped)}
    assert set(share) == {(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)}
    assert share[()] == pytest.approx(0.3, abs=0.035)  # 3.4 standard deviations
    for gone in set(share) - {()}:
        assert share[gone] == pytest.approx(0.35 / 3, abs=0.025)


def test_nothing_is_dropped_or_always_something():
    images = torch.rand(1, 3, 2, 2, generator=rng.generator(0, "test")) + 0.1
    for step in range(50):
        assert torch.equal(color.drop_channels(images, rng.generator(0, "drop", step), keep=1.0), images)
        assert not torch.equal(color.drop_channels(images, rng.generator(0, "drop", step), keep=0.0), images)


# --- jitter ---------------------------------------------------------------------------------------------------------

ALWAYS = JitterConfig(share=1.0)


def clips(b=3, t=2):
    return torch.rand(b, t, 3, 4, 5, generator=rng.generator(0, "test"))


def test_jitter_follows_the_sample_not_its_place():
    rgb = clips()
    whole = color.jitter(rgb, (7, 8, 9), ALWAYS, seed=3)
    turned = color.jitter(rgb.flip(0), (9, 8, 7), ALWAYS, seed=3)
    assert torch.equal(whole, turned.flip(0))
    assert torch.equal(color.jitter(rgb[1:2], (8,), ALWAYS, seed=3), whole[1:2])
    assert not torch.equal(color.jitter(rgb, (7, 8, 9), ALWAYS, seed=4), whole)
    assert not torch.equal(color.jitter(rgb, (17, 18, 19), ALWAYS, seed=3), whole)


def test_jitter_is_drawn_for_each_frame_and_leaves_its_argument():
    rgb = clips(1, 1).expand(1, 4, -1, -1, -1).contiguous()
    before = rgb.clone()
    changed = color.jitter(rgb, (0,), ALWAYS, seed=0)
    assert torch.equal(rgb, before) and changed.shape == rgb.shape
    assert bool((changed >= 0).all() and (changed <= 1).all())
    assert len({tuple(frame.flatten().tolist()) for frame in changed[0]}) == 4
    assert float((changed - rgb).abs().max()) < 0.5


def test_jitter_touches_a_tenth_of_the_samples():
    rgb = clips(1).expand(1000, -1, -1, -1, -1)
    changed = (color.jitter(rgb, range(1000), JitterConfig(), seed=0) != rgb).flatten(1).any(1)
    assert 70 < int(changed.sum()) < 130
    assert torch.equal(color.jitter(rgb[:50], range(50), JitterConfig(share=0.0), seed=0), rgb[:50])


def test_jitter_keeps_channels_last():
    rgb = clips().flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (3, 2))
    changed = color.jitter(rgb, (0, 1, 2), ALWAYS, seed=0)
    assert changed.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def only(**strength):
    return JitterConfig(
        **({"share": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0} | strength)
    )


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_change_by_its_definition(name):
    """Brightness: a factor; contrast: away from the mean luma; saturation: away from luma; hue: a turn in HSV."""
    rgb = clips(40, 1).double() * 0.5 + 0.25  # nothing is clipped
    changed = color.jitter(rgb, range(40), only(**{name: 0.1}), seed=0)
    luma = (rgb * torch.tensor([0.299, 0.587, 0.114])[:, None, None].double()).sum(2, keepdim=True)
    middle = {"brightness": 0.0, "contrast": luma.mean((-2, -1), keepdim=True), "saturation": luma, "hue": None}[name]
    drawn = []
    for k in range(40):
        if name == "hue":
            before, after = (
                [colorsys.rgb_to_hsv(*pixel) for pixel in x[k, 0].flatten(1).T.tolist()] for x in (rgb, changed)
            )
            turns = [(a[0] - b[0] + 0.5) % 1 - 0.5 for a, b in zip(after, before, strict=True)]
            np.testing.assert_allclose([a[1:] for a in after], [b[1:] for b in before], atol=1e-6)
        else:
            away = rgb - middle
            factors = ((changed - middle)[k] / away[k])[away[k].abs() > 0.01]
            turns = (factors - 1).tolist()
        assert np.ptp(turns) < 1e-5
        drawn.append(float(np.mean(turns)))
    assert -0.1 <= min(drawn) < -0.06 and 0.06 < max(drawn) <= 0.1


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"brightness": -0.1}, {"hue": 0.6}, {"contrast": float("nan")}])
def test_jitter_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="share and strengths must be in"):
        JitterConfig(**wrong)


def test_samples_that_do_not_match_the_clips_are_refused():
    with pytest.raises(ValueError, match="zip"):
        color.jitter(clips(), (1, 2), ALWAYS, seed=0)
