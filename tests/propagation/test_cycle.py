"""Labels that are carried back: what is lost on the way does not come back."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.toys import HEIGHT, WIDTH, model, save_mask, scene
from vcorr.errors import UsageError
from vcorr.labels.label import MaskLabels
from vcorr.propagation import cycle
from vcorr.propagation.cycle import Reach, found_back, reaches
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.run import Request, propagate_to


def test_every_frame_is_in_one_stretch_of_the_nearest_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle, "STEP", 3)
    chains = reaches([4, 13], range(1, 16))
    frames = sorted(k for chain in chains for reach in chain for k in reach.frames)
    assert frames == [k for k in range(1, 16) if k not in (4, 13)]
    assert chains[1] == [Reach(4, 7), Reach(7, 8)]
    assert chains[2] == [Reach(13, 10), Reach(10, 9)]
    assert list(chains[2][0].back.frames) == [10, 11, 12, 13]
    assert reaches([0], range(1)) == []


def test_an_object_that_is_lost_does_not_find_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle, "STEP", 3)

    def masks(k: int) -> np.ndarray:
        ids = scene(k)[1].copy()
        if k >= 5:
            ids[ids == 2] = 0
        return ids

    labels = MaskLabels.of([scene(0)[1]], (HEIGHT, WIDTH), torch.device("cpu"))
    frames = range(8)

    def pictures(wanted: range) -> object:
        return ((k, scene(k)[0]) for k in wanted)

    left = found_back(
        pictures,  # type: ignore[arg-type]
        reaches([0], frames),
        frames,
        masks,
        [1, 2],
        Propagator(model(), labels),
    )
    assert left.shape == (8, 2) and (left[0] == 1).all()
    assert left[:, 0].min() > 0.7
    assert left[3, 1] > 0.9 and left[4:, 1].max() == 0


def test_confidences_take_it_in(request_for: Callable[..., Request], tmp_path: Path) -> None:
    plain, request = request_for("plain"), request_for(check="cycle")
    propagate_to(plain)
    propagate_to(request)

    def column(out: Path, table: str, name: str) -> np.ndarray:
        with (out / table).open() as file:
            return np.array([float(row[name]) for row in csv.DictReader(file)])

    before, after = (column(out, "confidence.csv", "confidence") for out in (plain.out, request.out))
    np.testing.assert_allclose(after, before * column(request.out, "cycle.csv", "left"), atol=2e-3)
    kept = (request.out / "cycle.csv").read_bytes()
    (request.out / "cycle.csv").unlink()
    propagate_to(request)
    assert (request.out / "cycle.csv").read_bytes() == kept
    lines: list[str] = []
    propagate_to(request, say=lines.append)
    assert any("complete already" in line for line in lines)
    given = save_mask(tmp_path / "given.png", scene(5)[1])
    propagate_to(request_for(check="cycle", update=True, at={5: given}))
    whole = request_for("whole", check="cycle", at={5: given})
    propagate_to(whole)
    assert (request.out / "cycle.csv").read_bytes() == (whole.out / "cycle.csv").read_bytes()


def test_points_are_not_checked(request_for: Callable[..., Request], tmp_path: Path) -> None:
    points = tmp_path / "points.csv"
    points.write_text("frame,point,x,y\n0,nose,10,10\n")
    with pytest.raises(UsageError, match="--check cycle: is for masks, not for keypoints"):
        propagate_to(request_for(labels=points, check="cycle"))
