"""Windows that go with what moves: an object that leaves the window is still read from the labelled frame."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vcorr import rng
from vcorr.labels.label import Ids, MaskLabels
from vcorr.matching.settings import Matching
from vcorr.model.encoder import Encoder, Model, Picture
from vcorr.model.inference import Inference, References
from vcorr.propagation.follow import followed
from vcorr.propagation.plan import Span
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import Start, label_span
from vcorr.propagation.timing import Seconds

CELLS, SIDE, STRIDE = (24, 64), 8, 4
SIZE = (CELLS[0] * STRIDE, CELLS[1] * STRIDE)
TABLE = torch.nn.functional.normalize(torch.randn(2000, 128, generator=rng.generator(0, "test")), dim=-1)
LEFT = range(2, 54, 2)  # where the object begins, two cells on at each frame


def frame(left: int) -> tuple[Picture, Ids]:
    """A square of cells of its own on a ground that stays; each cell of a colour of its own."""
    code = np.arange(CELLS[0] * CELLS[1]).reshape(CELLS)
    inside = slice(8, 8 + SIDE), slice(left, left + SIDE)
    code[inside] = 1600 + np.arange(SIDE**2).reshape(SIDE, SIDE)
    ids = np.zeros(CELLS, np.uint8)
    ids[inside] = 1
    pixels = code.repeat(STRIDE, 0).repeat(STRIDE, 1)
    return np.stack([pixels // 256, pixels % 256, 0 * pixels], -1).astype(np.uint8), ids.repeat(4, 0).repeat(4, 1)


def encode(picture: Picture) -> Tensor:
    codes = torch.from_numpy(picture[::STRIDE, ::STRIDE].astype(np.int64))
    return TABLE[codes[..., 0] * 256 + codes[..., 1]][None]


def propagator(follow: float | None) -> Propagator[Ids]:
    """Reads the labelled frame and the fourth to last: without following, both are soon out of reach."""
    inference = Inference(References((0,), (4,)), radius=6, scale=30.0, follow=follow)
    model = Model(Encoder(encode, STRIDE), Matching(radius=6, scale=30.0), inference)
    return Propagator(model, MaskLabels.of([frame(2)[1]], SIZE, torch.device("cpu")))


def overlap(one: Ids, other: Ids) -> float:
    return float(((one == 1) & (other == 1)).sum() / ((one == 1) | (other == 1)).sum())


@pytest.mark.slow
def test_an_object_that_leaves_the_window_keeps_its_label_where_it_is_followed() -> None:
    last = {}
    for follow in (None, 0.0, 0.05):
        task = propagator(follow)
        for t, left in enumerate(LEFT):
            picture, ids = frame(left)
            last[follow] = task.step(picture, ids if t == 0 else None)
    assert overlap(last[None], ids) == 0
    assert overlap(last[0.0], ids) > 0.75
    assert overlap(last[0.05], ids) > 0.75


def test_frames_that_repeat_do_not_lose_the_place() -> None:
    task = propagator(0.05)
    for t, left in enumerate([2, 2, 2, *LEFT[1:8], LEFT[7], *LEFT[8:]]):
        picture, ids = frame(left)
        label = task.step(picture, ids if t == 0 else None)
    assert overlap(label, ids) > 0.75


def test_the_time_of_following_is_time_of_reading() -> None:
    seconds, plain = Seconds(), propagator(0.05)

    def slow(*args) -> dict:
        time.sleep(0.05)
        return followed(*args)

    task = seconds.propagator(Propagator(plain.model, plain.labels, follow=slow))
    for t, left in enumerate(LEFT[:3]):
        task.step(frame(left)[0], frame(left)[1] if t == 0 else None)
    assert seconds.read >= 0.1


@pytest.mark.slow
def test_a_stopped_span_goes_on_with_the_places() -> None:
    def pictures(frames: range):
        return ((i, frame(LEFT[i])[0]) for i in frames)

    span, given, whole = Span(range(len(LEFT))), {0: frame(2)[1]}, []
    task = propagator(0.05)
    for index, _, label in label_span(pictures, span, given, task):
        whole.append(label)
        if index == 9:
            start = Start(10, task.state())

    def rest(start: Start):
        return [label for _, _, label in label_span(pictures, span, given, propagator(0.05), start, whole[9])]

    np.testing.assert_array_equal(rest(start), whole[10:])
    lost = {name: part for name, part in start.state.items() if not name.startswith("places.")}
    assert not np.array_equal(rest(replace(start, state=lost)), whole[10:])


@pytest.mark.parametrize(
    "wrong",
    [
        {"follow": -0.1},
        {"follow": 3.0},
        {"follow": float("nan")},
        {"follow": 0.1, "compactness": 2},
        {"follow": 0.1, "roi_search": 15},
        {"follow": 0.1, "references": References((0,), ())},
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="follow"):
        Inference(**wrong)


def test_the_whole_frame_needs_no_following() -> None:
    with pytest.raises(ValueError, match="follow"):
        Inference(radius=None, follow=0.1).matching(Matching())
