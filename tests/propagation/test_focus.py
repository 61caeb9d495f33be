"""The encoder sees the parts of a frame in which its objects can be, at the size that thin objects need."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.propagation.test_follow import CELLS, LEFT, SIZE, STRIDE, encode, frame
from vcorr.labels.label import Ids, MaskLabels
from vcorr.matching.settings import Matching
from vcorr.model.encoder import Encoder, Model, Picture
from vcorr.model.inference import Inference, References
from vcorr.propagation import focus
from vcorr.propagation.focus import Part, Parts, Sight
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.zoom import cell_size

CPU = torch.device("cpu")
RADIUS = 3
SIGHT = Sight((240, 428), 4, 4)


def values(*held: tuple[int, int, int, int], cells: tuple[int, int] = (60, 107)) -> torch.Tensor:
    """Shares of the background and of an object for each box (top, left, bottom, right) of cells."""
    shares = torch.zeros(1, *cells, 1 + len(held))
    for number, (top, left, bottom, right) in enumerate(held, start=1):
        shares[0, top:bottom, left:right, number] = 1
    shares[..., 0] = 1 - shares[..., 1:].amax(-1)
    return shares


def seen(parts: Parts, size: tuple[int, int]) -> np.ndarray:
    """How many parts hold each pixel of a frame."""
    count = np.zeros(size, int)
    for part in parts:
        count[part.top : part.bottom, part.left : part.right] += 1
    return count


@given(
    objects=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 106), st.integers(1, 12)), min_size=1, max_size=4),
    margin=st.integers(0, 12),
)
@settings(deadline=None, max_examples=60)
def test_every_cell_near_an_object_is_in_one_part(objects: list[tuple[int, int, int]], margin: int) -> None:
    size = (237, 425)
    held = values(*((y, x, y + side, x + side) for y, x, side in objects))
    parts = Sight(size, 4, 4).parts([held], [], margin)
    count = seen(parts, size)
    assert count.max() == 1
    for part in parts:
        assert part.top % 32 == part.left % 32 == 0
        assert part.bottom % 32 == 0 or part.bottom == size[0]
        assert part.right % 32 == 0 or part.right == size[1]
    for y, x, side in objects:
        rows = slice(max(0, 4 * (y - margin)), 4 * (y + side + margin))
        assert count[rows, max(0, 4 * (x - margin)) : 4 * (x + side + margin)].min() == 1


def test_objects_far_apart_have_parts_of_their_own() -> None:
    near = SIGHT.parts([values((2, 2, 5, 5), (2, 20, 5, 25))], [], 3)
    far = SIGHT.parts([values((2, 2, 5, 5), (2, 90, 5, 95))], [], 3)
    assert near == (Part(0, 0, 32, 128),)
    assert far == (Part(0, 0, 32, 32), Part(0, 320, 32, 416))


def test_a_lost_object_is_looked_for_where_it_was_labelled() -> None:
    now, first = values((2, 2, 5, 5), (0, 0, 0, 0)), values((50, 2, 53, 5), (2, 90, 5, 95))
    parts = SIGHT.parts([now], [first], 3)
    assert parts == (Part(0, 0, 32, 32), Part(0, 320, 32, 416))
    assert SIGHT.parts([values((0, 0, 0, 0))], [], 3) == SIGHT.strips


@pytest.mark.parametrize("size", [(480, 854), (720, 1281), (1080, 1921), (33, 40000)])
def test_strips_make_up_the_frame(size: tuple[int, int]) -> None:
    strips = Sight(size, 4, 4).strips
    assert (seen(strips, size) == 1).all()
    assert all(part.bottom - part.top == 32 or size[1] * (part.bottom - part.top) <= focus.AT_ONCE for part in strips)


def test_features_of_parts_are_those_of_the_whole_frame_and_zeros_beside_them() -> None:
    picture, _ = frame(10)
    whole, sight = encode(picture), Sight(SIZE, STRIDE, STRIDE)
    parts = (Part(0, 0, 32, 64), Part(64, 128, 96, 256))
    got = sight.features(encode, picture, parts)
    inside = torch.zeros(1, *CELLS, dtype=torch.bool)
    inside[:, :8, :16] = inside[:, 16:, 32:] = True
    torch.testing.assert_close(got[inside], whole[inside], rtol=0, atol=0)
    assert not got[~inside].any()
    assert torch.equal(focus.known(got), inside)
    torch.testing.assert_close(sight.features(encode, picture, sight.strips), whole)


def propagator(encoder: Encoder = Encoder(encode, STRIDE), **how: object) -> Propagator[Ids]:  # noqa: B008 (frozen)
    inference = Inference(References((0,), (1, 2)), radius=RADIUS, scale=30.0, **how)  # type: ignore[arg-type]
    model = Model(encoder, Matching(radius=RADIUS, scale=30.0), inference)
    return Propagator(model, MaskLabels.of([frame(2)[1]], SIZE, CPU))


def labelled(task: Propagator[Ids], frames: range = range(8), width: int = SIZE[1]) -> list[Ids]:
    """Labels of so many columns of the square."""
    found = []
    for t in frames:
        picture, ids = frame(LEFT[t])
        ids[:, LEFT[t] * STRIDE + width :] = 0
        found.append(task.step(picture, ids if t == 0 else None))
    return found


def test_labels_are_those_of_whole_frames_and_less_is_encoded() -> None:
    """A margin of two windows: all that a cell which a label can reach is compared with is there."""
    pixels: list[int] = []

    def counted(picture: Picture) -> torch.Tensor:
        pixels.append(picture.shape[0] * picture.shape[1])
        return encode(picture)

    whole = labelled(propagator())
    part = labelled(propagator(Encoder(counted, STRIDE), focus=2 * RADIUS))
    np.testing.assert_array_equal(np.stack(part), np.stack(whole))
    assert pixels[0] == SIZE[0] * SIZE[1]
    assert max(pixels[1:]) < 0.7 * pixels[0]


def test_a_state_goes_on_with_parts_and_size() -> None:
    broken, whole = propagator(focus=4, zoom=2.0), propagator(focus=4, zoom=2.0)
    wanted = labelled(whole, width=8)
    labelled(broken, range(4), width=8)
    again = propagator(focus=4, zoom=2.0)
    again.restore(4, broken.state(), lambda p: frame(LEFT[p])[0], None)
    assert again.sight == whole.sight == Sight(SIZE, 2, STRIDE)
    np.testing.assert_array_equal(np.stack(labelled(again, range(4, 8))), np.stack(wanted[4:]))


def test_thin_objects_are_read_at_a_larger_size() -> None:
    thick, thin = np.zeros((480, 640), np.uint8), np.zeros((480, 640), np.uint8)
    thick[100:300, 100:300] = 1
    thin[100:300, 100:110] = 1
    labels = MaskLabels.of([thick], (480, 640), CPU)
    assert labels.thickness(thick) == 100
    assert labels.thickness(thin) == pytest.approx(2 * 2000 / 420)
    assert labels.thickness(thin * 0) == math.inf
    both = MaskLabels.of([thick + 2 * np.fliplr(thin)], (480, 640), CPU)
    assert both.thickness(thick + 2 * np.fliplr(thin)) == pytest.approx(2 / (1 / 100 + 420 / 4000))
    assert cell_size((480, 640), labels.thickness(thick), 2.0, 4) == 4
    assert cell_size((480, 640), labels.thickness(thin), 2.0, 4) == 2
    assert cell_size((480, 640), labels.thickness(thin), 1.5, 4) == 3
    assert cell_size((480, 640), labels.thickness(thin), 0.0, 4) == 4
    assert cell_size((160, 240), 2.0, 2.0, 4) == 1
    assert cell_size((1080, 1920), 2.0, 2.0, 4) == 4


@pytest.mark.parametrize("cell", [1, 2, 3])
def test_an_enlarged_part_is_that_of_the_enlarged_frame(cell: int) -> None:
    """Cell by cell, also where the frame is no multiple of them."""
    picture = np.repeat(np.arange(59 * 86).reshape(59, 86, 1) % 251, 3, 2).astype(np.uint8)
    sight = Sight((59, 86), cell, 4)
    assert sight.size == (4 * -(-59 // cell), 4 * -(-86 // cell))
    (whole,) = sight.whole
    all_of_it, part = sight.shown(picture, whole), Part(16, 20, *sight.size)
    assert all_of_it.shape[:2] == sight.size
    shown = sight.shown(picture, part)
    np.testing.assert_array_equal(shown[16:, 16:], all_of_it[32:, 36:])
    assert np.abs(shown.astype(int).mean() - all_of_it[16:, 20:].mean()) < 1


def test_a_frame_read_at_another_size_keeps_its_given_label_and_its_place() -> None:
    """Of a square between smooth surroundings: what is enlarged looks the same."""
    ground = np.linspace(0, 100, SIZE[1])[None, :, None] + np.linspace(0, 60, SIZE[0])[:, None, None] + np.zeros(3)
    ids = np.zeros(SIZE, np.uint8)
    ids[20:36, 60:76] = 1
    picture = np.where(ids[..., None] == 1, [220, 40, 40], ground).astype(np.uint8)

    def colours(picture: Picture) -> torch.Tensor:
        pixels = torch.from_numpy(picture.astype(np.float32) / 25).permute(2, 0, 1)[None]
        cells = torch.nn.functional.avg_pool2d(pixels, STRIDE, ceil_mode=True).permute(0, 2, 3, 1)
        return torch.nn.functional.normalize(torch.cat([cells, torch.ones_like(cells[..., :1])], -1), dim=-1)

    task = propagator(Encoder(colours, STRIDE), zoom=2.0, focus=6)
    np.testing.assert_array_equal(task.step(picture, ids), ids)
    assert task.sight == Sight(SIZE, 2, STRIDE) and task.sight.size == (2 * SIZE[0], 2 * SIZE[1])
    for shift in range(1, 6):
        found = task.step(np.roll(picture, shift, 1))
        wanted = np.roll(ids, shift, 1)
        assert (found != wanted).sum() < 0.2 * wanted.sum()


def test_an_encoder_that_knows_places_cannot_be_shown_parts() -> None:
    placed = dataclasses.replace(Encoder(encode, STRIDE), placed=True)
    with pytest.raises(ValueError, match="focus must be None"):
        propagator(placed, focus=8)
