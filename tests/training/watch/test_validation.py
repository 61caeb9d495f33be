"""Labelled clips tried while training: scores are those of the frames that propagation gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.toys import save_mask, scene
from vcorr import rng
from vcorr.errors import InputError
from vcorr.evaluation import davis_layout
from vcorr.evaluation.metrics.masks import boundary_f, jaccard
from vcorr.matching.settings import Matching
from vcorr.model import network
from vcorr.model.inference import Inference
from vcorr.model.resnet import ResNetConfig
from vcorr.model.weights import Weights, save_tensors, save_weights
from vcorr.propagation.video import propagate
from vcorr.training.watch import validation
from vcorr.training.watch.validation import ValidationClips


@pytest.fixture
def root(tmp_path):
    """Five sequences of the toy scene, of 8 frames, annotated on every second."""
    root = tmp_path / "DAVIS"
    for name in "abcde":
        images, masks = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for k in range(8):
            picture, ids = scene(k)
            Image.fromarray(picture).save(images / f"{k:05d}.png")
            if k % 2 == 0:
                save_mask(masks / f"{k:05d}.png", ids)
    return root


@pytest.fixture
def weights(tmp_path):
    """A tiny encoder, untrained, read sharply enough to carry a label."""
    net = ResNetConfig(widths=(8, 8, 8, 8), features=8)
    params, stats = network.init(net, rng.generator(0, "init"))
    path = tmp_path / "tiny.safetensors"
    save_weights(path, Weights(params, stats, net, Matching(radius=2, scale=300.0), Inference(), {}))
    return path


def test_scores_are_those_of_what_propagation_gives(root, weights) -> None:
    found = ValidationClips(root).score(weights, torch.device("cpu"))
    assert [clip.name for clip in found.clips] == ["a", "c", "e"]
    j, f = [], []
    annotations = root / "Annotations/480p/a"
    for frame in propagate(root / "JPEGImages/480p/a", annotations / "00000.png", weights=weights):
        if frame.index in (2, 4, 6):
            truth = davis_layout.read_annotation(annotations / f"{frame.index:05d}.png")
            j += [jaccard(frame.mask == k, truth == k) for k in (1, 2)]
            f += [boundary_f(frame.mask == k, truth == k) for k in (1, 2)]
    first = found.clips[0]
    assert (first.frames, first.j, first.f) == (3, pytest.approx(np.mean(j)), pytest.approx(np.mean(f)))
    assert 0 < found.j_and_f < 1 and found.j_and_f == pytest.approx((first.j + first.f) / 2)  # all clips are alike


def test_some_frames_of_the_first_clip_are_drawn(root, weights) -> None:
    found = ValidationClips(root).score(weights, torch.device("cpu"))
    assert [k for k, _ in found.pictures] == [0, 2, 4, 5, 7]
    picture, ids = scene(0)
    drawn = found.pictures[0][1]
    assert drawn.shape == picture.shape and drawn.dtype == np.uint8
    assert (drawn[ids == 0] == picture[ids == 0]).all() and (drawn[ids > 0] != picture[ids > 0]).any()


def test_long_clips_are_cut_and_large_frames_drawn_small(root, weights, monkeypatch) -> None:
    monkeypatch.setattr(validation, "FRAMES", 5)
    monkeypatch.setattr(validation, "SIDE", 24)
    found = ValidationClips(root).score(weights, torch.device("cpu"))
    assert [clip.frames for clip in found.clips] == [2, 2, 2]
    assert {p.shape for _, p in found.pictures} == {(24, 32, 3)}


def test_it_can_be_given_up(root, weights) -> None:
    asked = []
    cancelled = lambda: bool(asked.append(1)) or len(asked) > 3  # noqa: E731
    assert ValidationClips(root).score(weights, torch.device("cpu"), cancelled=cancelled) is None
    assert len(asked) == 4


def test_a_folder_of_another_kind_is_refused_before_training(tmp_path, root) -> None:
    with pytest.raises(InputError, match="no such folder"):
        ValidationClips(tmp_path)
    save_mask(root / "Annotations/480p/c/00000.png", np.zeros_like(scene(0)[1]))
    with pytest.raises(InputError, match="no object in the first annotation"):
        ValidationClips(root)
    for late in ("2", "4", "6"):
        (root / f"Annotations/480p/a/0000{late}.png").unlink()
    with pytest.raises(InputError, match="no annotation in the 24 frames after the first"):
        ValidationClips(root)


def test_weights_that_cannot_be_read_are_an_error(root, tmp_path) -> None:
    save_tensors(tmp_path / "w.safetensors", {"a": torch.ones(1)}, {})
    with pytest.raises(InputError):
        ValidationClips(root).score(tmp_path / "w.safetensors", torch.device("cpu"))
