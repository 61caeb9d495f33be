"""Videos are labelled: labels follow what moves, however they are read."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vcorr
from tests import callers
from tests.toys import HEIGHT, WIDTH, model, save_mask, scene
from vcorr.errors import InputError, UsageError
from vcorr.evaluation.metrics.masks import jaccard
from vcorr.labels.masks import Mask, default_palette, read_mask
from vcorr.media.video import Video, open_video
from vcorr.model.encoder import Model
from vcorr.propagation.plan import spans
from vcorr.propagation.run import Request, propagate_to
from vcorr.propagation.video import Frame, label_video, propagate


def label(
    video: Video, labelled: dict[int, np.ndarray], how: Model | None = None, *, short_side: int = 480
) -> dict[int, np.ndarray]:
    masks = {k: Mask(ids, default_palette()) for k, ids in labelled.items()}
    plan = spans(list(masks), 0, len(video))
    return {f.index: f.mask for f in label_video(video, plan, masks, how or model(), short_side=short_side)}


@pytest.mark.slow
@pytest.mark.parametrize("name", callers.STATES)
def test_the_state_of_the_caller_changes_no_mask_and_is_left_alone(
    frames: Path, mask: Path, weights: Path, name: str
) -> None:
    wanted = list(vcorr.propagate(frames, mask, weights=weights))
    with callers.STATES[name]():
        before, got = callers.state(), []
        for frame in vcorr.propagate(frames, mask, weights=weights):
            assert callers.state() == before
            got.append(frame)
        assert callers.state() == before
    assert got == wanted


@pytest.mark.parametrize("feedback", ["soft", "hard"])
@pytest.mark.parametrize("alignment", ["cell", "corner"])
def test_labels_follow_what_moves(frames: Path, feedback: str, alignment: str) -> None:
    how = model(feedback=feedback, alignment=alignment)  # type: ignore[arg-type]
    with open_video(frames) as video:
        result = label(video, {0: scene(0)[1]}, how)
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
        result = label(video, {0: ids})
    np.testing.assert_array_equal(result[0], ids)
    assert result[7].dtype == np.uint16
    assert set(np.unique(result[7])) == {0, 7, 300}


def test_a_correction_holds_and_spreads_both_ways(frames: Path) -> None:
    """An object that only a later mask knows is carried backwards to its own first frame and forwards."""
    first = np.where(scene(0)[1] == 1, 1, 0).astype(np.uint8)
    with open_video(frames) as video:
        result = label(video, {0: first, 4: scene(4)[1]})
        np.testing.assert_array_equal(result[0], first)
        np.testing.assert_array_equal(result[4], scene(4)[1])
        assert jaccard(result[6] == 2, scene(6)[1] == 2) > 0.75
        back = label(video, {6: scene(6)[1]})
    assert sorted(back) == list(range(8))
    assert jaccard(back[0] == 1, scene(0)[1] == 1) > 0.7


def test_a_large_video_is_read_small_and_labelled_at_full_size(frames: Path) -> None:
    with open_video(frames) as video:
        result = label(video, {0: scene(0)[1]}, short_side=24)
    assert all(ids.shape == (HEIGHT, WIDTH) for ids in result.values())
    assert jaccard(result[3] == 1, scene(3)[1] == 1) > 0.6


def test_more_classes_than_are_enlarged_at_a_time(frames: Path) -> None:
    """Classes are compared a few at a time; the split must not show."""
    ids = scene(0)[1].copy()
    for value in range(3, 20):
        ids[0, value * 3 : value * 3 + 3] = value
    ids[ids == 2] = 200
    with open_video(frames) as video:
        result = label(video, {0: ids})
    assert jaccard(result[2] == 1, scene(2)[1] == 1) > 0.75
    assert jaccard(result[2] == 200, scene(2)[1] == 2) > 0.75


def test_python_api(frames: Path, mask: Path, weights: Path) -> None:
    result = list(vcorr.propagate(frames, mask, weights=weights, start=2, end=6))
    assert [frame.index for frame in result] == [2, 3, 4, 5]
    np.testing.assert_array_equal(result[0].mask, read_mask(mask).ids)  # a single mask labels the first frame asked for
    again = list(vcorr.propagate(frames, mask, weights=weights, start=2, end=6))
    assert all((a.mask == b.mask).all() for a, b in zip(result, again, strict=True))


def test_labels_read_as_corrflow_does_follow_what_moves(frames: Path) -> None:
    """One reference, the frame before; R = 6; one class a pixel fed back."""
    corrflow = {"alignment": "bilinear", "long": (), "short": (1,), "feedback": "hard"}
    with open_video(frames) as video:
        result = label(video, {0: scene(0)[1]}, model(radius=6, **corrflow))
        read_whole = label(video, {0: scene(0)[1]}, model(radius=None, **corrflow))
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
    how = model(feedback=feedback, border=border, compactness=2)  # type: ignore[arg-type]
    with open_video(frames) as video:
        result = label(video, {0: scene(0)[1]}, how)
    for step, ids in result.items():
        assert jaccard(ids == 1, scene(step)[1] == 1) > 0.5, step


@pytest.mark.parametrize(
    ("top_k", "settings"),
    [(1000, {"radius": 1}), (10**9, {"radius": None}), (20, {"radius": 1, "long": (), "short": ()})],
)
def test_a_top_k_above_the_taps_present_reads_them_all(frames: Path, top_k: int, settings: dict[str, Any]) -> None:
    """The first frame after the labelled one has a single reference to read from."""
    with open_video(frames) as video:
        result = label(video, {0: scene(0)[1]}, model(scale=10.0, top_k=top_k, **settings))
        wanted = label(video, {0: scene(0)[1]}, model(scale=10.0, **settings))
    for k in wanted:
        np.testing.assert_array_equal(result[k], wanted[k])


@pytest.mark.parametrize("size", [0, 1, -480])
def test_a_size_at_which_nothing_is_seen_is_refused(frames: Path, mask: Path, weights: Path, size: int) -> None:
    with pytest.raises(UsageError, match=f"--size {size}: is too small"):
        next(vcorr.propagate(frames, mask, weights=weights, short_side=size))


def test_the_device_may_be_found_out(frames: Path, mask: Path, weights: Path) -> None:
    assert next(vcorr.propagate(frames, mask, weights=weights, device="auto")).index == 0
    with pytest.raises(UsageError, match="abacus"):
        next(vcorr.propagate(frames, mask, weights=weights, device="abacus"))


def test_frames_are_equal_where_their_labels_are() -> None:
    ids = scene(0)[1]
    assert Frame(3, ids) == Frame(3, ids.copy())
    assert Frame(3, ids) != Frame(4, ids) and Frame(3, ids) != Frame(3, scene(1)[1]) and Frame(3, ids) != 3
    assert Frame(3, ids) in [Frame(2, ids), Frame(3, ids)]


def test_frames_say_how_sure_they_are_and_show_in_a_notebook(
    request_for: Callable[..., Request], frames: Path, mask: Path, weights: Path, tmp_path: Path
) -> None:
    second = save_mask(tmp_path / "second.png", scene(5)[1])
    request = request_for(at={5: second})
    propagate_to(request)
    rows = csv.DictReader((request.out / "confidence.csv").read_text().splitlines())
    written = {(int(row["frame"]), int(row["object"])): float(row["confidence"]) for row in rows}
    found = list(propagate(frames, mask, weights=weights, at={5: second}))
    for frame in found:
        assert frame.confidence == pytest.approx({i: written[frame.index, i] for i in (1, 2)}, abs=2e-3)
    png = found[0]._repr_png_()
    assert png is not None
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (WIDTH, HEIGHT)
        np.testing.assert_array_equal(np.asarray(image).any(-1), found[0].mask > 0)
