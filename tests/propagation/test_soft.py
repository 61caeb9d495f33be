"""Value layers: numbers of pixels that are carried as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.toys import HEIGHT, WIDTH, model, save_mask, scene
from vcorr.errors import InputError, UsageError
from vcorr.labels.given import kind_of
from vcorr.labels.soft import SoftLabels
from vcorr.propagation.export import check_form, finished
from vcorr.propagation.plan import spans
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.run import Request, propagate_to
from vcorr.propagation.video import label_plan, propagate


def layers(k: int) -> np.ndarray:
    """A texture on the objects: -3 on the first, 5 on the second; and its opposite."""
    value = np.array([0, -3, 5], np.float32)[scene(k)[1]]
    return np.stack([value, -value], -1)


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def carried(given: dict[int, np.ndarray], frames: int = 6) -> dict[int, np.ndarray]:
    first = next(iter(given.values()))
    labels = SoftLabels(first.shape, first.dtype, torch.device("cpu"))
    plan = spans(list(given), 0, frames)
    pictures = lambda wanted: ((k, scene(k)[0]) for k in wanted)  # noqa: E731
    return dict(label_plan(pictures, plan, given, Propagator(model(), labels)))


@pytest.mark.parametrize("labelled", [[0], [0, 5]])
def test_values_go_with_what_moves_and_keep_their_size(labelled: list[int]) -> None:
    found = carried({k: layers(k) for k in labelled})
    for k in range(6):
        assert found[k].shape == (HEIGHT, WIDTH, 2) and found[k].dtype == np.float32
        inside = [np.argwhere(scene(k)[1] == i).mean(0).astype(int) for i in (1, 2)]
        assert [found[k][y, x, 0] for y, x in inside] == pytest.approx([-3, 5], abs=0.1)
        np.testing.assert_allclose(found[k][..., 1], -found[k][..., 0], atol=1e-4)
    np.testing.assert_array_equal(found[0], layers(0))


def test_the_folder(request_for: Callable[..., Request], tmp_path: Path) -> None:
    given = {k: save(tmp_path / f"given{k}.npy", layers(k)[..., 0].astype(np.float64)) for k in (0, 6)}
    assert kind_of(given[0]) == "soft"
    request = request_for(labels=given[0])
    summary = propagate_to(request)
    names = ["frames.csv", "manifest.json", "overlay.mp4", "values"]
    assert sorted(p.name for p in request.out.iterdir()) == names
    files = {k: request.out / "values" / f"{k:05d}.npy" for k in range(8)}
    assert all(np.load(path).dtype == np.float64 and np.load(path).shape == (HEIGHT, WIDTH) for path in files.values())
    assert files[0].read_bytes() == given[0].read_bytes()
    assert (summary.kind, summary.look) == ("soft", "")
    files[3].write_bytes(files[3].read_bytes()[:-9])
    whole = files[4].read_bytes()
    propagate_to(request)
    assert len(files[3].read_bytes()) == len(whole)
    propagate_to(request_for(labels=given[0], update=True, at={6: given[6]}))
    both = request_for("both", labels=given[0], at={6: given[6]})
    propagate_to(both)
    for k, path in files.items():
        assert path.read_bytes() == (both.out / "values" / path.name).read_bytes(), k
    with pytest.raises(UsageError, match="does not hold value layers"):
        check_form("coco", finished(request.out).kind)


def test_frames_in_python_have_values(frames: Path, weights: Path, tmp_path: Path) -> None:
    given = save(tmp_path / "given.npy", layers(0))
    found = list(propagate(frames, given, weights=weights, end=3))
    np.testing.assert_array_equal(found[0].values, layers(0))
    with pytest.raises(AttributeError, match="values and no mask"):
        _ = found[1].mask


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((HEIGHT, WIDTH), np.nan), "holds NaN or infinite values"),
        (np.zeros((HEIGHT, 9)), "is 9x48, but the video is 64x48"),
        (np.zeros((HEIGHT, WIDTH, 2, 2)), "is an array 48x64x2x2 of float64"),
    ],
)
def test_what_cannot_be_carried_is_refused(
    request_for: Callable[..., Request], tmp_path: Path, array: np.ndarray, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        propagate_to(request_for(labels=save(tmp_path / "given.npy", array)))
    assert not (tmp_path / "out").exists()


def test_masks_and_channels_that_differ_are_refused(request_for: Callable[..., Request], tmp_path: Path) -> None:
    first = save(tmp_path / "first.npy", layers(0))
    mask = save_mask(tmp_path / "mask4.png", scene(4)[1])
    with pytest.raises(InputError, match="is no array"):
        propagate_to(request_for(labels=first, at={4: mask}))
    with pytest.raises(InputError, match=r"has shape \(48, 64\), but .* has \(48, 64, 2\)"):
        propagate_to(request_for(labels=first, at={4: save(tmp_path / "other.npy", layers(4)[..., 0])}))
