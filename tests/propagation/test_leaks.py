"""A label that has leaked onto the ground stays there, unless it is a piece apart or its origin is looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.propagation.test_follow import LEFT, SIZE, encode, frame
from vcorr.labels.label import Ids, MaskLabels
from vcorr.matching.settings import Matching
from vcorr.model.encoder import Encoder, Model
from vcorr.model.inference import Inference, References
from vcorr.propagation.plan import Span
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import Start, label_span

LEAK = 6  # the frame after which part of the ground is labelled too in all that is read, but in frame 0
APART, BESIDE = (slice(12, 16), slice(50, 54)), (slice(8, 16), slice(40, 48))


def propagator(**settings) -> Propagator[Ids]:
    inference = Inference(References((0,), (1, 2, 3)), radius=6, scale=30.0, follow=0.05, **settings)
    model = Model(Encoder(encode, 4), Matching(radius=6, scale=30.0), inference)
    return Propagator(model, MaskLabels.of([frame(2)[1]], SIZE, torch.device("cpu")))


def leaked(task: Propagator[Ids], leak: tuple[slice, slice], frames: int) -> float:
    """Share of some cells of ground that is labelled frames after it was labelled for the first time."""
    for t in range(LEAK + frames + 1):
        picture, ids = frame(LEFT[t])
        label = task.step(picture, ids if t == 0 else None)
        if t == LEAK:
            for p in task.memory.frames.keys() - {0}:
                values = task.memory.frames[p].values.clone()
                values[0][leak] = torch.tensor([0.0, 1.0])
                task.memory.frames[p] = replace(task.memory.frames[p], values=values)
    y, x = (slice(4 * part.start, 4 * part.stop) for part in leak)
    return float(((label != ids) & (label == 1))[y, x].mean())


def test_a_piece_apart_goes_at_once() -> None:
    assert leaked(propagator(), APART, 1) > 0.7
    assert leaked(propagator(pieces=0.5), APART, 1) == 0


def test_what_never_lay_on_the_object_is_doubted_frame_by_frame() -> None:
    shares = [[leaked(propagator(origin=strength), BESIDE, frames) for frames in (1, 3)] for strength in (0.0, 3.0)]
    assert min(shares[0]) > 0.8
    assert shares[1][1] < 0.1


def test_both_take_errors_away_and_nothing_else() -> None:
    errors = []
    for task in (propagator(), propagator(origin=3.0, pieces=0.5)):
        for t in range(12):
            picture, ids = frame(LEFT[t])
            label = task.step(picture, ids if t == 0 else None)
        errors.append((label != ids).mean())
        assert (label[ids == 1] == 1).mean() > 0.98
    assert errors[1] < 0.1 * errors[0]


def test_a_stopped_span_knows_which_objects_were_in_one_piece() -> None:
    def pictures(frames: range):
        return ((i, frame(LEFT[i])[0]) for i in frames)

    task, span, given, values = propagator(pieces=0.5, origin=3.0), Span(range(9)), {0: frame(2)[1]}, []
    for index, _, label in label_span(pictures, span, given, task):
        values.append(task.values)
        if index == 4:
            start, last = Start(5, {name: part.clone() for name, part in task.state().items()}), label
    assert start.state["whole"].tolist() == [True]
    rest = propagator(pieces=0.5, origin=3.0)
    for index, _, _ in label_span(pictures, span, given, rest, start, last):
        torch.testing.assert_close(rest.values, values[index], rtol=0, atol=0)
    assert rest.memory.whole is not None


@pytest.mark.parametrize(
    "settings",
    [
        {"origin": -1.0},
        {"origin": float("nan")},
        {"origin": 1.0, "follow": None},
        {"origin": 1.0, "references": References((5,), (1,))},
        {"pieces": 1.0},
        {"pieces": -0.1},
        {"pieces": float("nan")},
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Inference(**{"follow": 0.05} | settings)
