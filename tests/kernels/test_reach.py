"""The cells that a label can reach: those whose readout is not background, whatever the features."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.kernels import oracle
from vcorr.kernels import label_query_mask, memory_read
from vcorr.kernels.arguments import MOST_CELLS


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@st.composite
def labelled(draw_):
    """Few labels other than background, and windows of every kind."""
    batch, count = draw_(st.integers(1, 2)), draw_(st.integers(1, 2))
    size, seed = (draw_(st.integers(1, 9)), draw_(st.integers(1, 14))), draw_(st.integers(0, 2**16))
    dilation, kind = draw_(st.sampled_from([1, 1, 2, 3, 11])), draw_(st.sampled_from(["none", "whole", "fractional"]))
    offset = None if kind == "none" else draw_(st.sampled_from([2.0, 20.0])) * draw(seed, batch, count, *size, 2)
    offset = offset.round() if kind == "whole" else offset
    whole_frame = kind == "none" and dilation == 1 and draw_(st.booleans())
    background = draw_(st.sampled_from([0, 2, None]))
    labels = (draw(seed + 1, batch, count, *size, 3) > 1.8).double()
    if background is not None:
        labels[..., background] = 1.0
    mask = draw(seed + 2, batch, count, *size) > -0.5 if draw_(st.booleans()) else None
    radius = None if whole_frame else draw_(st.integers(1, 3))
    window = draw_(st.sampled_from(["square", "disk"]))
    options = {"radius": radius, "dilation": dilation, "window": window, "offset": offset, "key_mask": mask}
    return labels, background, options


@examples(150)
@given(case=labelled())
def test_the_mask_is_where_a_label_can_be_read(case):
    labels, background, options = case
    found = label_query_mask(labels, background=background, **options)
    other = labels if background is None else labels[..., [c for c in range(3) if c != background]]
    features = torch.zeros(*labels[:, 0].shape[:3], 1, dtype=torch.float64)  # all taps weigh the same
    split = {name: None if options[name] is None else options[name].unbind(1) for name in ("offset", "key_mask")}
    keys = [features] * labels.shape[1]
    every = {**options, **split}
    readout, _ = oracle.read(features, keys, other.unbind(1), **every, border="zeros")
    if options["offset"] is None or bool((options["offset"] == options["offset"].round()).all()):
        assert torch.equal(found, readout.sum(-1) > 0)
    else:  # a masked cell takes the taps along that blend it
        assert found[readout.sum(-1) > 0].all()
        readout, _ = oracle.read(features, keys, other.unbind(1), **{**every, "key_mask": None}, border="zeros")
        assert not found[readout.sum(-1) == 0].any()


@pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"offset": True}, {"dilation": 2, "border": "zeros"}], ids=str)
def test_no_label_changes_where_other_cells_are_left_out(options):
    size = (1, 3, 40, 50)
    labels = torch.zeros(*size, 3)
    labels[..., 0] = 1
    for r, (y, x) in enumerate(((5, 6), (6, 8), (30, 41))):  # two objects, far apart
        labels[0, r, y : y + 3, x : x + 4] = torch.tensor([0.0, 0.5, 0.5])
    query, keys = (
        torch.nn.functional.normalize(draw(i, 1, n, 40, 50, 16).float(), dim=-1) for i, n in ((0, 1), (1, 3))
    )
    if options.get("offset"):
        options = {"offset": (3 * draw(2, *size, 2)).round().long()}
    window = {"radius": 4, **{n: options[n] for n in ("dilation", "offset") if n in options}}
    mask = label_query_mask(labels, **window)
    assert 0.01 < mask.float().mean() < 0.6
    full = memory_read(query[:, 0], keys, labels, scale=20.0, **options, radius=4)
    some = memory_read(query[:, 0], keys, labels, scale=20.0, **options, radius=4, query_mask=mask)
    torch.testing.assert_close(some[mask], full[mask])
    assert not some[~mask].any() and not full[..., 1:][~mask].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8, torch.int64, torch.bool])
def test_labels_of_any_type(dtype):
    labels = torch.zeros(2, 1, 4, 5, 2).to(dtype)
    labels[1, 0, 0, 0, 1] = 1
    found = label_query_mask(labels, radius=1)
    assert not found[0].any() and found[1].sum() == 4


def test_an_undefined_value_is_a_label():
    labels = torch.zeros(1, 1, 4, 5, 2)
    labels[0, 0, 0, 0, 1] = math.nan
    assert label_query_mask(labels, radius=1).sum() == 4


@pytest.mark.parametrize("window", ["square", "disk"])
def test_windows_of_any_size(window):
    labels = torch.zeros(1, 1, 4, 5, 2)
    labels[0, 0, 0, 0, 1] = 1
    far = torch.full((1, 1, 4, 5, 2), 2.0**40)
    assert label_query_mask(labels, radius=MOST_CELLS, window=window).all()
    assert label_query_mask(labels, radius=2, dilation=MOST_CELLS, window=window).sum() == 1
    assert not label_query_mask(labels, radius=MOST_CELLS, window=window, offset=far).any()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"values": []}, ValueError, "values must hold at least one reference, got none"),
        ({"values": torch.zeros(1, 4, 5, 2)}, ValueError, r"values must be \[b r h w c\] or a sequence"),
        ({"values": [torch.zeros(1, 4, 5, 2), torch.zeros(1, 4, 5, 3)]}, ValueError, "values must be .* of one size"),
        ({"background": 2}, ValueError, "background must be a channel of values, of 2, got 2"),
        ({"background": -1}, ValueError, "background must be at least 0, got -1"),
        ({"radius": -1}, ValueError, "radius must be at least 0, got -1"),
        ({"offset": torch.zeros(1, 1, 4, 6, 2)}, ValueError, r"offset must have shape \(1, 4, 5, 2\)"),
        ({"key_mask": torch.zeros(1, 1, 4, 5)}, TypeError, "key_mask must be boolean"),
    ],
)
def test_errors(change, error, text):
    with pytest.raises(error, match=text):
        label_query_mask(**{"values": torch.zeros(1, 1, 4, 5, 2), "radius": 1, **change})


@pytest.mark.parametrize("radius", [1, None])
def test_a_batch_of_no_image(radius):
    assert label_query_mask(torch.zeros(0, 2, 4, 5, 3), radius=radius).shape == (0, 4, 5)
