"""One frame after the other: what is encoded, read, kept and fed back, of any kind of label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.toys import HEIGHT, WIDTH, Colours, model, scene
from vcorr.kernels import label_query_mask
from vcorr.labels.label import Ids, MaskLabels
from vcorr.matching.cells import Grid
from vcorr.model.encoder import Encoder, Model
from vcorr.propagation import reading
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.timing import Seconds

CPU = torch.device("cpu")
SCENE = [scene(step) for step in range(8)]


def propagator(how: Model | None = None) -> Propagator[Ids]:
    return Propagator(how or model(), MaskLabels.of([SCENE[0][1]], (HEIGHT, WIDTH), CPU))


def label(task: Propagator[Ids], after: Callable[[], None] = lambda: None) -> list[Ids]:
    """Labels of the scene from those of its first frame; ``after`` is called after each."""
    result = []
    for step, (picture, ids) in enumerate(SCENE):
        result.append(task.step(picture, ids if step == 0 else None))
        after()
    return result


def test_every_frame_is_encoded_once_and_few_are_held() -> None:
    colours, held = Colours(), []
    task = propagator(model(Encoder(colours, 4)))
    label(task, after=lambda: held.append(len(task.memory.frames)))
    assert colours.calls == 8
    assert max(held) <= 7  # 0 and 5, and the last five
    task = propagator(model(long=(), short=(1,)))
    label(task)
    assert len(task.memory.frames) == 2  # the labelled frame, and the last


def test_references_are_encoded_by_their_own_encoder() -> None:
    """Queries and references are each encoded once; what is read is the references' features."""
    plain = label(propagator())
    query, reference = Colours(), Colours()
    both = label(propagator(model(Encoder(query, 4, slow=reference))))
    assert (query.calls, reference.calls) == (7, 8)
    np.testing.assert_array_equal(both, plain)
    flipped = label(propagator(model(Encoder(query, 4, slow=lambda picture: reference(picture[:, ::-1])))))
    assert (np.array(flipped) != plain).any()


@pytest.mark.slow
def test_compact_values_fed_back_do_not_grow() -> None:
    task = propagator(model(feedback="soft", compactness=1))

    def check() -> None:
        sums = torch.cat([frame.values.sum(-1).flatten() for frame in task.memory.frames.values()])
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-4, atol=1e-4)

    label(task, after=check)


def test_guided_masks_are_those_of_guided_shares() -> None:
    """A line of one pixel, and of its own colour, is narrower than a cell: bilinear shares lose it."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[21, 9:50] = 1
    picture = np.where(ids[..., None] > 0, 220, 40).repeat(3, -1).astype(np.uint8)
    found = {}
    for upsampling in ("bilinear", "guided"):
        task = Propagator(model(upsampling=upsampling), MaskLabels.of([ids], (HEIGHT, WIDTH), CPU))
        task.step(picture, ids)
        found[upsampling] = task.step(picture + np.uint8(1))
    assert not found["bilinear"].any()
    np.testing.assert_array_equal(found["guided"], ids)


@pytest.mark.parametrize("settings", [{}, {"top_k": 9}, {"feedback": "hard"}], ids=str)
def test_only_what_a_label_reaches_is_read(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and values are those of reading everywhere."""
    restricted = propagator(model(scale=5.0, least=0.01, **settings))
    masks, values = label(restricted), restricted.values
    everywhere = propagator(model(scale=5.0, least=0.01, **settings))
    read = []

    def all_cells(labels: list[Tensor], **_: object) -> Tensor:
        reached = label_query_mask(labels, radius=3)
        read.append(float(reached.float().mean()))
        return torch.ones_like(reached)

    monkeypatch.setattr(reading, "label_query_mask", all_cells)
    np.testing.assert_array_equal(masks, label(everywhere))
    torch.testing.assert_close(values, everywhere.values)
    assert min(read) < 0.75


def test_a_frame_that_repeats_the_last_has_its_label() -> None:
    """Whatever the network makes of it; what the caller does with arrays that it holds changes nothing."""
    ids, rng = np.zeros((HEIGHT, WIDTH), np.uint8), np.random.default_rng(0)
    ids[9:12, 3:50] = 1  # thinner than a cell, and unlike anything in the picture
    colours = Colours()
    task = Propagator(model(Encoder(colours, 4), scale=1.0), MaskLabels.of([ids], (HEIGHT, WIDTH), CPU))
    shown = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    task.step(shown, ids)
    for _ in range(100):
        label = task.step(shown.copy())
        np.testing.assert_array_equal(label, ids)
        label[:] = 0
    assert colours.calls == 1
    shown[:] = rng.integers(0, 256, shown.shape)  # the next frame, in the same memory
    changed = task.step(shown)
    assert colours.calls == 2
    np.testing.assert_array_equal(task.step(shown), changed)
    task.forget()
    with pytest.raises(ValueError, match="the first frame must come with its label"):
        task.step(shown)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 4), top_k=st.sampled_from([None, 1, 5]))
def test_soft_labels_of_a_still_scene_stay(seed: int, classes: int, top_k: int | None) -> None:
    """Where each cell matches itself alone, what is fed back is what was read, however often, off the grid or thin."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, classes, (HEIGHT, WIDTH)).astype(np.uint8)
    ids[0, 0] = 1
    features = torch.eye(HEIGHT // 4 * (WIDTH // 4)).reshape(1, HEIGHT // 4, WIDTH // 4, -1)
    how = model(Encoder(lambda picture: features, 4), scale=200.0, feedback="soft", top_k=top_k)
    task = Propagator(how, MaskLabels.of([ids], (HEIGHT, WIDTH), CPU))
    task.step(np.zeros((HEIGHT, WIDTH, 3), np.uint8), ids)
    before = task.values
    for k in range(1, 13):
        task.step(np.full((HEIGHT, WIDTH, 3), k, np.uint8))
        torch.testing.assert_close(task.values, before)


def test_a_label_given_on_the_way_starts_anew() -> None:
    """What follows is what a stream that begins there gives."""
    task = propagator()
    for picture, ids in (SCENE[0], SCENE[1]):
        task.step(picture, ids)
    later = [task.step(picture) for picture, _ in SCENE[2:5]]
    other = SCENE[4][1]
    np.testing.assert_array_equal(task.step(SCENE[4][0], other), other)
    begun = propagator()
    begun.step(*SCENE[1])
    np.testing.assert_array_equal(later, [begun.step(picture) for picture, _ in SCENE[2:5]])


def test_a_stream_begins_with_a_label() -> None:
    task = propagator()
    with pytest.raises(ValueError, match="the first frame must come with its label, got none"):
        task.step(SCENE[0][0])
    label(task)
    task.forget()
    with pytest.raises(ValueError, match="the first frame must come with its label"):
        task.step(SCENE[0][0])


def test_timed_parts_do_what_they_did() -> None:
    seconds = Seconds()
    timed = label(seconds.propagator(propagator()))
    np.testing.assert_array_equal(timed, label(propagator()))
    assert min(seconds.encoder, seconds.read, seconds.other) > 0 == seconds.io


# --- values that are no shares of classes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Maps:
    """Values [H W v] carried as they are."""

    channels: int
    size: tuple[int, int] = (HEIGHT, WIDTH)
    background = False

    def to_cells(self, label: Tensor, grid: Grid) -> Tensor:
        return grid.downsample(label.permute(2, 0, 1)[None])

    def from_cells(self, cells: Tensor, grid: Grid) -> Tensor:
        return grid.upsample(cells)[0].permute(1, 2, 0)


@pytest.mark.parametrize("feedback", ["soft", "hard"])
@pytest.mark.parametrize("border", ["mask", "zeros"])
@pytest.mark.parametrize("compactness", [0, 2])
def test_maps_of_values_keep_their_level(feedback: str, border: str, compactness: int) -> None:
    """A constant stays what it is, also where part of the window lies outside or the weights sum to more than 1."""
    how = model(scale=5.0, feedback=feedback, border=border, compactness=compactness)  # type: ignore[arg-type]
    task = Propagator(how, Maps(2))
    given = torch.tensor([3.0, -0.5]).expand(HEIGHT, WIDTH, 2)
    for step, (picture, _) in enumerate(SCENE):
        found = task.step(picture, given if step == 0 else None)
        torch.testing.assert_close(found, given, rtol=1e-4, atol=1e-4)
