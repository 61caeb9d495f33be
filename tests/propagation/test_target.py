"""A model of what the object looks like takes back what has leaked; and it is not fed back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.toys import HEIGHT, WIDTH, Colours, scene
from vcorr.labels.label import Ids, MaskLabels
from vcorr.matching import appearance
from vcorr.matching.cells import Grid
from vcorr.matching.settings import Matching
from vcorr.model.encoder import Encoder, Model, Picture
from vcorr.model.inference import Inference, References
from vcorr.propagation import target
from vcorr.propagation.plan import Span
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import Start, label_span

FRAMES = 14
colours = Colours()


def vague(picture: Picture) -> Tensor:
    """Features that hardly tell one cell from another."""
    features = colours(picture)
    features[..., :3] *= 0.2
    return torch.nn.functional.normalize(features, dim=-1)


def with_context(picture: Picture) -> tuple[Tensor, Tensor]:
    return vague(picture), colours(picture)[:, ::2, ::2]


def propagator(appearance: float) -> Propagator[Ids]:
    inference = Inference(References((0,), (1,)), appearance=appearance)
    model = Model(Encoder(vague, 4, with_context=with_context), Matching(3, 30.0), inference)
    return Propagator(model, MaskLabels.of([scene(0)[1]], (HEIGHT, WIDTH), torch.device("cpu")))


def overlap(ids: Ids, truth: Ids) -> float:
    return float(np.mean([((ids == i) & (truth == i)).sum() / ((ids == i) | (truth == i)).sum() for i in (1, 2)]))


def test_what_looks_like_the_object_wins_and_is_not_fed_back() -> None:
    with_model, without = propagator(8.0), propagator(0.0)
    for t in range(FRAMES):
        picture, ids = scene(t)
        labels = [task.step(picture, ids if t == 0 else None) for task in (with_model, without)]
        for p, frame in without.memory.frames.items():
            torch.testing.assert_close(with_model.memory.frames[p].values, frame.values, rtol=0, atol=0)
    assert overlap(labels[0], ids) > overlap(labels[1], ids) + 0.1
    assert with_model.values is not None and without.values is not None
    torch.testing.assert_close(with_model.values.sum(-1), torch.ones(without.values.shape[:3]))


def test_it_learns_every_few_frames_and_anew_from_a_given_label() -> None:
    task, models = propagator(4.0), []
    for t in range(2 * target.EVERY + 1):
        task.step(scene(t)[0], scene(t)[1] if t == 0 else None)
        assert task.memory.target is not None
        models.append(task.memory.target.fine)
    changed = [t for t in range(1, len(models)) if models[t] is not models[t - 1]]
    assert changed == [target.EVERY, 2 * target.EVERY]
    fresh = propagator(4.0)
    for each in (task, fresh):
        each.step(*scene(3))
    assert task.memory.target is not None and fresh.memory.target is not None
    torch.testing.assert_close(task.memory.target.fine, fresh.memory.target.fine, rtol=0, atol=0)
    assert task.memory.target.later is None


@pytest.mark.parametrize("stop", [1, target.EVERY + 2])
def test_a_stopped_span_goes_on_with_the_model(stop: int) -> None:
    def pictures(frames: range):
        return ((i, scene(i)[0]) for i in frames)

    span, given, whole, values = Span(range(FRAMES)), {0: scene(0)[1]}, [], []
    task = propagator(4.0)
    for index, _, label in label_span(pictures, span, given, task):
        whole.append(label)
        values.append(task.values)
        if index == stop - 1:
            start = Start(stop, {name: part.clone() for name, part in task.state().items()})
    rest = propagator(4.0)
    for index, _, label in label_span(pictures, span, given, rest, start, whole[stop - 1]):
        np.testing.assert_array_equal(label, whole[index])
        torch.testing.assert_close(rest.values, values[index], rtol=0, atol=0)


def test_an_encoder_without_context_is_refused() -> None:
    task = propagator(1.0)
    model = replace(task.model, encoder=Encoder(vague, 4))
    with pytest.raises(ValueError, match="with_context"):
        Propagator(model, task.labels)


def test_fine_features_put_the_edge_right() -> None:
    """Context cells are 8 pixels wide; the squares begin in the middle of one."""
    (picture, ids), labels = scene(0), propagator(0.0).labels
    feature, context = colours(picture), with_context(picture)[1]
    values = labels.to_cells(ids, Grid(4, "cell", (HEIGHT, WIDTH), (HEIGHT, WIDTH)))
    known, truth = target.Target.of(feature, context, values), values[0].argmax(-1)
    coarse = appearance.scores(known.context, context[0], (truth.shape[0], truth.shape[1])).argmax(-1)
    undecided = torch.full_like(values, 1 / 3)
    fine = appearance.corrected(undecided[0], known.look(feature, context).scored, 50.0).argmax(-1)
    assert (coarse != truth).sum() > 10
    assert (fine == truth).all()
