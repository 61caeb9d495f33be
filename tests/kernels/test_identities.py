"""Identities that every reading keeps, whatever computes it."""

from __future__ import annotations

import pytest
import torch

from vcorr.kernels import memory_read, memory_read_lse, negative_logsumexp, windowed_attention, windowed_attention_lse

IMPLEMENTATIONS = ["reference", "cpu"]


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def window_mean(value, radius):
    """The mean over the part of each window that lies in the frame, and the share of taps that does."""
    kernel = torch.ones(1, 1, 2 * radius + 1, 2 * radius + 1, dtype=value.dtype)
    planes = value.permute(3, 0, 1, 2)
    total = torch.nn.functional.conv2d(planes, kernel, padding=radius)
    count = torch.nn.functional.conv2d(torch.ones_like(planes), kernel, padding=radius)
    return (total / count).permute(1, 2, 3, 0), (count / kernel.sum()).permute(1, 2, 3, 0)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_constant_features_average_the_window(impl):
    ones, value = torch.ones(1, 6, 13, 4, dtype=torch.float64), draw(0, 1, 6, 13, 3)
    mean, share = window_mean(value, 2)
    masked = windowed_attention(ones, ones, value, radius=2, impl=impl)
    torch.testing.assert_close(masked, mean)
    zeros = windowed_attention(0 * ones, ones, value, radius=2, border="zeros", impl=impl)
    torch.testing.assert_close(zeros, mean * share)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_a_sharp_affinity_copies(impl):
    frame, value = torch.nn.functional.normalize(draw(0, 1, 8, 11, 16), dim=-1), draw(1, 1, 8, 11, 3)
    torch.testing.assert_close(windowed_attention(frame, frame, value, radius=3, scale=1e4, impl=impl), value)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("shift", [(1, 2), (-3, 0)])
def test_a_translation_within_the_radius_is_undone(impl, shift):
    frame, value = torch.nn.functional.normalize(draw(0, 1, 12, 14, 16), dim=-1), draw(1, 1, 12, 14, 3)
    moved = [x.roll(shift, (1, 2)) for x in (frame, value)]
    got = windowed_attention(frame, *moved, radius=3, scale=1e4, impl=impl)
    torch.testing.assert_close(got[:, 3:-3, 3:-3], value[:, 3:-3, 3:-3])


@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_copies_of_a_reference_are_one_reference(border):
    query, key, value = draw(0, 2, 7, 9, 4), draw(1, 2, 7, 9, 4), draw(2, 2, 7, 9, 3)
    one, lse = windowed_attention_lse(query, key, value, radius=2, border=border)
    three, joint = memory_read_lse(query, [key] * 3, [value] * 3, radius=2, border=border)
    torch.testing.assert_close(three, one)
    torch.testing.assert_close(joint, lse + torch.tensor(3.0).double().log())


@pytest.mark.parametrize("radius", [13, 40])
def test_a_window_past_the_frame_is_full_attention(radius):
    query, key, value = draw(0, 1, 9, 14, 4), draw(1, 1, 9, 14, 4), draw(2, 1, 9, 14, 3)
    full = torch.nn.functional.scaled_dot_product_attention(*(x.flatten(1, 2) for x in (query, key, value)))
    for given in (radius, None):
        torch.testing.assert_close(windowed_attention(query, key, value, radius=given).flatten(1, 2), full)


@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_no_offset_is_the_plain_window(border, dtype):
    query, key, value = draw(0, 1, 7, 12, 4), draw(1, 1, 7, 12, 4), draw(2, 1, 7, 12, 3)
    plain = windowed_attention_lse(query, key, value, radius=2, dilation=2, border=border)
    offset = torch.zeros(1, 7, 12, 2, dtype=dtype)
    torch.testing.assert_close(
        windowed_attention_lse(query, key, value, radius=2, dilation=2, border=border, offset=offset), plain
    )


def test_an_even_offset_is_a_shifted_reference():
    query, key, value = draw(0, 1, 9, 12, 4), draw(1, 1, 9, 12, 4), draw(2, 1, 9, 12, 3)
    offset = torch.tensor([2, -3]).expand(1, 9, 12, 2)
    got = windowed_attention(query, key, value, radius=1, offset=offset)
    moved = windowed_attention(query, key.roll((-2, 3), (1, 2)), value.roll((-2, 3), (1, 2)), radius=1)
    torch.testing.assert_close(got[:, 3:-3, 4:-4], moved[:, 3:-3, 4:-4])


def test_a_joint_softmax_merges_single_readings():
    query, keys, values = draw(0, 1, 7, 9, 4), draw(1, 1, 3, 7, 9, 4), draw(2, 1, 3, 7, 9, 3)
    dilations = (1, 2, 1)
    parts = [
        windowed_attention_lse(query, keys[:, r], values[:, r], radius=2, dilation=d) for r, d in enumerate(dilations)
    ]
    joint, lse = memory_read_lse(query, keys, values, radius=2, dilation=dilations)
    merged = torch.stack([part for _, part in parts]).logsumexp(0)
    torch.testing.assert_close(lse, merged)
    torch.testing.assert_close(joint, sum(out * (part - merged).exp()[..., None] for out, part in parts))


def test_one_hot_labels_stay_a_distribution():
    query, key = draw(0, 1, 9, 13, 8).float(), draw(1, 1, 9, 13, 8).float()
    labels = torch.nn.functional.one_hot(torch.randint(0, 4, (1, 9, 13), generator=torch.Generator().manual_seed(2)), 4)
    readout = memory_read(query, [key, key], [labels, labels], radius=3)
    assert readout.dtype == torch.float32
    torch.testing.assert_close(readout.sum(-1), torch.ones(1, 9, 13))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_intra_and_inter_video_affinity_is_one_softmax(impl):
    """LIIR eq. 4: the window's readout times sigmoid(intra - inter) is a softmax over window and bank together."""
    query, key, value, bank = draw(0, 1, 4, 5, 6), draw(1, 1, 4, 5, 6), draw(2, 1, 4, 5, 3), draw(3, 17, 6)
    readout, intra = windowed_attention_lse(query, key, value, radius=None, scale=1.0, impl=impl)
    inter = negative_logsumexp(query.reshape(20, 6), bank, scale=1.0, impl=impl).reshape(1, 4, 5)
    flat, cells = query.reshape(20, 6), key.reshape(20, 6)
    weights = torch.cat([flat @ cells.T, flat @ bank.T], 1).softmax(1)[:, :20]
    expected = (weights @ value.reshape(20, 3)).reshape(1, 4, 5, 3)
    torch.testing.assert_close(readout * (intra - inter).sigmoid()[..., None], expected)


def test_an_empty_bank_leaves_the_window_alone():
    query = draw(0, 5, 4)
    inter = negative_logsumexp(query, query[:0], scale=1.0)
    assert (inter == -torch.inf).all()
    assert (torch.zeros(5) - inter).sigmoid().eq(1).all()
