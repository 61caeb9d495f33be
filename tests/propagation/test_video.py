"""Propagation: the walks, what is read, what is held, and that labels follow what moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import vcorr
from tests.toys import HEIGHT, WIDTH, save_mask, scene
from vcorr.errors import InputError, UsageError
from vcorr.evaluation.metrics.masks import jaccard
from vcorr.labels.masks import Mask, default_palette, read_mask
from vcorr.matching.cells import downsample
from vcorr.media.video import Video, open_video
from vcorr.model import color, network
from vcorr.model import weights as checkpoint
from vcorr.model.inference import Reader
from vcorr.model.position import PositionConfig
from vcorr.propagation import video as propagation
from vcorr.propagation.video import Job, Walk, walks

SHARP = Reader(radius=3, scale=200.0)


class Colours:
    """Colours as features, of one length so that the nearest colour has the largest logit; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, rgb: np.ndarray) -> Tensor:
        self.calls += 1
        cells = downsample(color.to_lab(color.from_uint8(rgb[None])), 4, alignment="cell")
        return torch.cat([cells, (4 - cells.square().sum(-1, keepdim=True)).sqrt()], -1).contiguous()


def job(video: Video, labelled: dict[int, np.ndarray], reader: Reader = SHARP, short_side: int = 480) -> Job:
    masks = {k: Mask(ids, default_palette()) for k, ids in labelled.items()}
    return Job(video, masks, Colours(), reader, short_side, torch.device("cpu"))


def label_all(task: Job) -> dict[int, np.ndarray]:
    plan = walks(list(task.masks), 0, len(task.video))
    return {frame.index: frame.mask for walk in plan for frame in task.walk(walk)}


@given(labelled=st.sets(st.integers(0, 30), min_size=1), start=st.integers(0, 30), length=st.integers(1, 30))
def test_walks_give_every_frame_once(labelled: set[int], start: int, length: int) -> None:
    end = start + length
    if not any(start <= k < end for k in labelled):
        with pytest.raises(UsageError, match="no labelled frame"):
            walks(list(labelled), start, end)
        return
    plan = walks(list(labelled), start, end)
    given_out = [k for w in plan for k in (w.frames if w.frames.step > 0 else w.frames[1:])]
    assert sorted(given_out) == list(range(start, end))
    assert sum(map(len, plan)) == len(given_out)
    assert all(w.frames[0] in labelled for w in plan)
    assert all(w.until is None or (w.until in labelled and w.until == w.frames[-1] + 1) for w in plan)


@pytest.mark.parametrize("feedback", ["soft", "hard"])
@pytest.mark.parametrize("alignment", ["cell", "corner"])
def test_labels_follow_what_moves(frames: Path, feedback: str, alignment: str) -> None:
    reader = Reader(radius=3, scale=200.0, feedback=feedback, alignment=alignment)  # type: ignore[arg-type]
    with open_video(frames) as video:
        result = label_all(job(video, {0: scene(0)[1]}, reader))
    assert list(result) == list(range(8))
    for step, ids in result.items():
        truth = scene(step)[1]
        for value in (1, 2):
            # squares of 16 pixels at cells of 4; a mask left behind would be at 0.07 by the last frame
            assert jaccard(ids == value, truth == value) > 0.5, (step, value)


def test_given_labels_come_back_unchanged_with_their_ids(frames: Path) -> None:
    ids = scene(0)[1].astype(np.uint16)
    ids[ids == 1], ids[ids == 2] = 7, 300
    with open_video(frames) as video:
        result = label_all(job(video, {0: ids}))
    np.testing.assert_array_equal(result[0], ids)
    assert result[7].dtype == np.uint16
    assert set(np.unique(result[7])) == {0, 7, 300}


def test_a_correction_holds_and_spreads_both_ways(frames: Path) -> None:
    """An object that only a later mask knows is carried backwards to its own first frame and forwards."""
    first = np.where(scene(0)[1] == 1, 1, 0).astype(np.uint8)
    with open_video(frames) as video:
        result = label_all(job(video, {0: first, 4: scene(4)[1]}))
        np.testing.assert_array_equal(result[0], first)
        np.testing.assert_array_equal(result[4], scene(4)[1])
        assert jaccard(result[6] == 2, scene(6)[1] == 2) > 0.75
        back = label_all(job(video, {6: scene(6)[1]}))
    assert sorted(back) == list(range(8))
    assert jaccard(back[0] == 1, scene(0)[1] == 1) > 0.7


def test_every_frame_is_encoded_once_and_few_are_held(frames: Path) -> None:
    with open_video(frames) as video:
        task = job(video, {0: scene(0)[1]})
        held = [len(task.refs) for _ in task.walk(Walk(range(8)))]
    assert isinstance(task.encode, Colours)
    assert task.encode.calls == 8
    assert max(held) <= 7  # 0 and 5, and the last five


def test_a_large_video_is_read_small_and_labelled_at_full_size(frames: Path) -> None:
    with open_video(frames) as video:
        result = label_all(job(video, {0: scene(0)[1]}, short_side=24))
    assert all(ids.shape == (HEIGHT, WIDTH) for ids in result.values())
    assert jaccard(result[3] == 1, scene(3)[1] == 1) > 0.6


def test_more_classes_than_are_enlarged_at_a_time(frames: Path) -> None:
    """Classes are compared a few at a time; the split must not show."""
    ids = scene(0)[1].copy()
    for value in range(3, 20):
        ids[0, value * 3 : value * 3 + 3] = value
    ids[ids == 2] = 200
    with open_video(frames) as video:
        result = label_all(job(video, {0: ids}))
    assert jaccard(result[2] == 1, scene(2)[1] == 1) > 0.75
    assert jaccard(result[2] == 200, scene(2)[1] == 2) > 0.75


def test_python_api(frames: Path, mask: Path, weights: Path) -> None:
    result = list(vcorr.propagate(frames, mask, weights=weights, start=2, end=6))
    assert [frame.index for frame in result] == [2, 3, 4, 5]
    np.testing.assert_array_equal(result[0].mask, read_mask(mask).ids)  # a single mask labels the first frame asked for
    again = list(vcorr.propagate(frames, mask, weights=weights, start=2, end=6))
    assert all((a.mask == b.mask).all() for a, b in zip(result, again, strict=True))


@pytest.mark.parametrize("space", ["lab", "rgb", "gray"])
def test_the_encoder_sees_what_its_weights_say(
    weights: Path, space: color.Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propagation, "native_bf16", lambda device: False)
    model = checkpoint.load_weights(weights)
    model = replace(model, reader=replace(model.reader, space=space))
    rgb = scene(0)[0]
    got = propagation.encoder(model, "cpu")(rgb)
    seen = color.to_space(color.from_uint8(rgb[None]), space)
    wanted, _ = network.apply(model.net, model.params, model.stats, seen, train=False)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    others = [color.to_space(color.from_uint8(rgb[None]), s) for s in ("lab", "rgb", "gray") if s != space]
    for other in others:
        unlike, _ = network.apply(model.net, model.params, model.stats, other, train=False)
        assert float((got - unlike).abs().max()) > 0.01


def test_labels_read_as_corrflow_does_follow_what_moves(frames: Path) -> None:
    """One reference, the frame before; R = 6; one class a pixel fed back."""
    reader = Reader(radius=6, scale=200.0, alignment="bilinear", long=(), short=(1,), feedback="hard")
    with open_video(frames) as video:
        task = job(video, {0: scene(0)[1]}, reader)
        result = {frame.index: frame.mask for frame in task.walk(Walk(range(8)))}
        read_whole = label_all(job(video, {0: scene(0)[1]}, replace(reader, radius=None)))
    assert len(task.refs) <= 3  # the labelled frame, and the last
    for value in (1, 2):
        assert jaccard(result[7] == value, scene(7)[1] == value) > 0.7
        assert jaccard(read_whole[7] == value, scene(7)[1] == value) > 0.5


def test_folder_of_masks_and_range(frames: Path, weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    save_mask(folder / "00003.png", scene(3)[1])
    result = list(vcorr.propagate(frames, folder, weights=weights))
    assert [frame.index for frame in result] == [2, 1, 0, 3, 4, 5, 6, 7]
    with pytest.raises(UsageError, match="no labelled frame within frames 4 to 7"):
        list(vcorr.propagate(frames, folder, weights=weights, start=4))
    with pytest.raises(UsageError, match="not within the 8 frames"):
        list(vcorr.propagate(frames, folder, weights=weights, end=9))


def test_unfit_inputs_are_refused_before_any_frame(frames: Path, weights: Path, tmp_path: Path) -> None:
    small = save_mask(tmp_path / "small.png", np.ones((10, 10), np.uint8))
    with pytest.raises(InputError, match="10x10"):
        next(vcorr.propagate(frames, small, weights=weights))
    with pytest.raises(InputError, match="no such file"):
        next(vcorr.propagate(frames, small, weights=tmp_path / "none.safetensors"))


# --- other ways to read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feedback", ["soft", "hard"])
@pytest.mark.parametrize("border", ["mask", "zeros"])
def test_compact_readings_follow_what_moves(frames: Path, feedback: str, border: str) -> None:
    reader = Reader(radius=3, scale=200.0, feedback=feedback, border=border, compactness=2)  # type: ignore[arg-type]
    with open_video(frames) as video:
        result = label_all(job(video, {0: scene(0)[1]}, reader))
    for step, ids in result.items():
        assert jaccard(ids == 1, scene(step)[1] == 1) > 0.5, step


def test_compact_labels_fed_back_as_scores_do_not_grow(frames: Path) -> None:
    reader = Reader(radius=3, scale=200.0, feedback="soft", compactness=1)
    with open_video(frames) as video:
        task = job(video, {0: scene(0)[1]}, reader)
        for _ in task.walk(Walk(range(8))):
            sums = torch.cat([label.sum(-1).flatten() for label in task.labels_kept().values()])
            torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-4, atol=1e-4)


def test_references_are_encoded_by_their_own_encoder(frames: Path) -> None:
    """Queries and references are each encoded once; what is read is the references' features."""
    with open_video(frames) as video:
        task = job(video, {0: scene(0)[1]})
        plain = label_all(task)
        query, reference = Colours(), Colours()
        task.encode = propagation.TwoEncoders(query, reference)
        both = label_all(task)
        assert (query.calls, reference.calls) == (7, 8)
        assert all((plain[k] == both[k]).all() for k in plain)
        flipped = Colours()
        task.encode = propagation.TwoEncoders(query, lambda rgb: flipped(rgb[:, ::-1]))
        assert not all((plain[k] == ids).all() for k, ids in label_all(task).items())
        assert task.seconds_a_frame() > 0


def test_weights_with_a_slow_encoder_read_references_with_it(weights: Path, tmp_path: Path) -> None:
    model = checkpoint.load_weights(weights)
    slow = {k: v + 0.1 for k, v in model.params.items()}
    slow_stats = {k: v + 0.2 for k, v in model.stats.items()}
    both = replace(model, slow=slow, slow_stats=slow_stats, reader=replace(model.reader, slow=True))
    checkpoint.save_weights(tmp_path / "both.safetensors", both)
    loaded = checkpoint.load_weights(tmp_path / "both.safetensors")
    assert all(torch.equal(loaded.slow[k], slow[k]) for k in slow)
    encode, rgb = propagation.encoder(loaded, "cpu"), scene(0)[0]
    assert isinstance(encode, propagation.TwoEncoders)
    torch.testing.assert_close(encode(rgb), propagation.encoder(model, "cpu")(rgb))
    wanted = propagation.encoder(replace(model, params=slow, stats=slow_stats), "cpu")(rgb)
    torch.testing.assert_close(encode.reference(rgb), wanted)
    alike = replace(loaded, reader=replace(loaded.reader, slow=False))
    assert not isinstance(propagation.encoder(alike, "cpu"), propagation.TwoEncoders)
    del slow["head.bias"]
    checkpoint.save_weights(tmp_path / "damaged.safetensors", both)
    with pytest.raises(InputError, match="lacks 1 tensors"):
        checkpoint.load_weights(tmp_path / "damaged.safetensors")


def test_a_learned_position_reaches_every_frame(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resized to the size at hand, and again when that changes."""
    monkeypatch.setattr(propagation, "native_bf16", lambda device: False)
    model = checkpoint.load_weights(weights)
    net = replace(model.net, position=PositionConfig("1dape", 16))
    place = torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(0))
    model = replace(model, net=net, params=model.params | {"position.map": place})
    encode = propagation.encoder(model, "cpu")
    for rgb in (scene(0)[0], scene(1)[0], scene(0)[0][:31, :40]):
        seen = color.to_lab(color.from_uint8(np.ascontiguousarray(rgb)[None]))
        wanted, _ = network.apply(net, model.params, model.stats, seen, train=False)
        torch.testing.assert_close(encode(np.ascontiguousarray(rgb)), wanted, rtol=1e-4, atol=1e-4)


def test_compactness_and_top_k_exclude_one_another() -> None:
    with pytest.raises(ValueError, match="compactness must be >= 0, and 0 where there is a top_k, got 2 with top_k 5"):
        Reader(compactness=2, top_k=5)
