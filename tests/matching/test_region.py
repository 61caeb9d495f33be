"""The search for the region, against loops; and what it finds that the window does not reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from tests.propagation.test_video import label
from tests.toys import model, scene
from vcorr import rng
from vcorr.evaluation.metrics.masks import jaccard
from vcorr.kernels import memory_read
from vcorr.matching import region
from vcorr.media.video import open_video


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=rng.generator(seed, "test"), dtype=torch.float64)


def by_loops(query, key, radius, dilation, scale, border):
    """The mean displacement under the softmax over one cell's taps."""
    b, h, w, _ = query.shape
    mean = torch.zeros(b, h, w, 2, dtype=torch.float64)
    for image, y, x in np.ndindex(b, h, w):
        total, moved = 0.0, np.zeros(2)
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                ty, tx = y + dilation * dy, x + dilation * dx
                inside = 0 <= ty < h and 0 <= tx < w
                if not inside and border == "mask":
                    continue
                logit = scale * float(query[image, y, x] @ key[image, ty, tx]) if inside else 0.0
                total += math.exp(logit)
                moved += math.exp(logit) * dilation * np.array([dy, dx])
        mean[image, y, x] = torch.from_numpy(moved / total)
    return mean


@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize(
    ("size", "radius", "gap"), [((7, 9), 1, 31), ((5, 6), 2, 16), ((6, 4), 3, -50), ((1, 1), 2, 20)]
)
def test_offsets_are_those_of_plain_loops(border, size, radius, gap):
    query, key = noise(2, *size, 6), noise(2, *size, 6, seed=1)
    got = region.offsets(query, key, gap, search=15, radius=radius, scale=0.7, border=border)
    wanted = by_loops(query, key, radius, region.dilation(gap, 15), 0.7, border)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_scale_is_that_of_the_operators():
    query, key = noise(1, 5, 6, 9), noise(1, 5, 6, 9, seed=1)
    default, third = (region.offsets(query, key, 20, search=15, radius=2, scale=s) for s in (None, 1 / 3))
    torch.testing.assert_close(default, third)


@pytest.mark.parametrize(("dy", "dx"), [(8, -8), (0, 4), (-4, 12)])
def test_what_moved_beyond_the_window_is_read_all_the_same(dy, dx):
    """Steps of 4 cells at R = 3 reach 12; the fine window then reads there. The window alone reaches 3."""
    features, values = noise(1, 40, 44, 64), noise(1, 40, 44, 2, seed=1)
    key, value = features.roll((dy, dx), (1, 2)), values.roll((dy, dx), (1, 2))
    offset = region.offsets(features, key, 60, search=15, radius=3, scale=10.0)
    inside = (0, slice(14, -14), slice(14, -14))
    torch.testing.assert_close(offset[inside], torch.tensor([dy, dx]).double().expand(12, 16, 2))
    found = memory_read(features, [key], [value], radius=3, offset=[offset], scale=10.0)
    torch.testing.assert_close(found[inside], values[inside])
    missed = memory_read(features, [key], [value], radius=3, scale=10.0)
    assert float((missed - values)[inside].abs().mean()) > 0.3


def test_labels_are_found_in_a_frame_far_back(tmp_path):
    """One reference, the first frame; the squares move half a cell a frame and leave a window of one cell."""
    for step in range(8):
        Image.fromarray(scene(step)[0]).save(tmp_path / f"{step}.png")
    overlap = {}
    for search in (0, 2):
        how = model(radius=2, long=(0,), short=(), roi_search=search)
        with open_video(tmp_path) as video:
            overlap[search] = jaccard(label(video, {0: scene(0)[1]}, how)[7] == 1, scene(7)[1] == 1)
    assert overlap[2] > overlap[0]


def test_only_references_far_enough_are_searched(tmp_path, monkeypatch):
    """Of the labelled frame and t-1, from either end: those more than three frames away."""
    for step in range(8):
        Image.fromarray(scene(step)[0]).save(tmp_path / f"{step}.png")
    searched = []

    def offsets(query, key, gap, **options):
        searched.append((gap, options["search"], options["radius"], options["border"]))
        return found(query, key, gap, **options)

    found = region.offsets
    monkeypatch.setattr(region, "offsets", offsets)
    how = model(radius=1, border="zeros", long=(0,), short=(1,), roi_search=3)
    with open_video(tmp_path) as video:
        assert len(label(video, {0: scene(0)[1], 7: scene(7)[1]}, how)) == 8
    gaps = [4, 5, 6, 4, 5, 6]
    assert searched == [(gap, 3, 1, "zeros") for gap in gaps]
