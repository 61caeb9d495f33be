"""Adaptation: a network that learns a video from its propagated masks, and labels it anew."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.toys import HEIGHT, WIDTH, model, save_mask, scene
from vcorr.cli import app
from vcorr.errors import UsageError
from vcorr.labels.label import MaskLabels
from vcorr.labels.masks import read_mask
from vcorr.propagation import adapted
from vcorr.propagation.adapt import Adaptation, Course, Full, Job, Light, fitted, losses, relabelled
from vcorr.propagation.run import Request, propagate_to
from vcorr.propagation.video import propagate

FEW = Adaptation("light", iterations=2, batch=2, lr=1e-3)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for form, widths in ((Full, (8, 8, 8, 8)), (Light, (8, 16))):
        monkeypatch.setattr(form, "widths", widths)
        monkeypatch.setattr(form, "decoder", (8,) * (5 if form is Full else 1))
    monkeypatch.setattr(Full, "side", 64)


def files(out: Path) -> dict[str, bytes]:
    found = [*out.rglob("*.png"), *out.glob("*.csv")]
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(found)}


def job(masks: Callable[[int], np.ndarray], frames: range = range(8)) -> Job:
    labels = MaskLabels.of([scene(0)[1]], (HEIGHT, WIDTH), torch.device("cpu"))
    read = model()

    def pictures(wanted: range) -> object:
        return ((k, scene(k)[0]) for k in wanted)

    return Job(frames, pictures, {0: scene(0)[1]}, masks, labels, read)  # type: ignore[arg-type]


@pytest.mark.slow
def test_what_propagation_got_wrong_now_and_then_is_put_right(tmp_path: Path) -> None:
    def masks(k: int) -> np.ndarray:
        ids = scene(k)[1].copy()
        if k == 5:
            ids[ids == 2] = 0  # lost
        return ids

    task = job(masks)
    network, view = fitted(task, Adaptation("light", iterations=30, lr=1e-2), tmp_path / "samples")
    found = dict(relabelled(task, network, view, range(8)))
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(found[0], scene(0)[1])
    assert np.mean(found[5] == scene(5)[1]) > 0.95  # 0.92 of the mask that it was given
    first, last = (np.mean([row[1] for row in rows]) for rows in (network.losses[:5], network.losses[-5:]))
    assert last < first / 2


def test_the_loss_is_cross_entropy_and_dice() -> None:
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[None, :, :, None]  # one pixel of either class
    entropy, dice = losses(torch.zeros(1, 2, 2, 1), shares)
    assert entropy.item() == pytest.approx(np.log(2))
    assert dice.item() == pytest.approx(1 - (2 * 0.5 + 1) / (1 + 1 + 1))
    sure = losses(100 * shares - 50, shares)
    assert [v.item() for v in sure] == pytest.approx([0, 0], abs=1e-6)


def test_early_frames_weigh_more_and_interleaved_ones_are_seen_first() -> None:
    given = {4: np.zeros((2, 2), np.uint8)}
    course = Course.of(range(9), given, FEW)
    assert list(course.frames) == [4, 3, 5, 2, 6, 1, 7, 0, 8]
    assert np.mean(course.weights) == pytest.approx(1)
    assert course.weights[-1] == pytest.approx(course.weights[0] / 2)
    ordered = Adaptation("light", interleaved=True, iterations=100)
    assert all(p < 2 for i in range(20) for p in course.drawn(i, ordered))
    assert max(p for i in range(90, 100) for p in course.drawn(i, ordered)) == 8
    assert len(Course.of(range(1000), {0: given[4]}, Adaptation(most=50)).frames) == 50


@pytest.mark.parametrize("form", [pytest.param("full", marks=pytest.mark.slow), "light"])
def test_the_folder(request_for: Callable[..., Request], mask: Path, form: str) -> None:
    lines: list[str] = []
    cfg = Adaptation(form, iterations=2, batch=1)  # type: ignore[arg-type]
    request = request_for(adapt=cfg)
    propagate_to(request, say=lines.append)
    names = ["adapt.csv", "confidence.csv", "frames.csv", "manifest.json", "masks", "overlay.mp4", "propagated"]
    assert sorted(p.name for p in request.out.iterdir()) == [*names, "review.html"]
    for folder in ("masks", "propagated"):
        assert len(list((request.out / folder).iterdir())) == 8
    np.testing.assert_array_equal(read_mask(request.out / "masks" / "00000.png").ids, read_mask(mask).ids)
    with (request.out / "adapt.csv").open() as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["1", "2"]
    assert any("2 of 2 iterations, loss" in line for line in lines)
    plain = request_for("plain")
    propagate_to(plain)
    propagated = {p.name: p.read_bytes() for p in (request.out / "propagated").iterdir()}
    assert propagated == {p.name: p.read_bytes() for p in (plain.out / "masks").iterdir()}
    lines.clear()
    propagate_to(request, say=lines.append)
    assert any("complete already" in line for line in lines)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_adaptation_goes_on_to_the_same_bytes(
    request_for: Callable[..., Request], monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    whole, broken = (request_for(name, adapt=FEW, end=4) for name in ("whole", "broken"))
    propagate_to(whole)
    monkeypatch.setattr(adapted, "SAVE_EVERY", -1.0)
    save = adapted.save_tensors
    saved: list[Path] = []

    def stop(path: Path, *args: object) -> None:
        save(path, *args)  # type: ignore[arg-type]
        if path.name == adapted.NETWORK:
            saved.append(path)
            if len(saved) == stop_after:
                raise KeyboardInterrupt

    monkeypatch.setattr(adapted, "save_tensors", stop)
    with pytest.raises(KeyboardInterrupt):
        propagate_to(broken)
    assert (broken.out / adapted.NETWORK).exists() and not (broken.out / adapted.SCRATCH).exists()
    propagate_to(broken)
    assert files(broken.out) == files(whole.out)
    assert sorted(p.name for p in broken.out.iterdir()) == sorted(p.name for p in whole.out.iterdir())


def test_a_correction_changes_what_the_network_learns_from(request_for: Callable[..., Request], tmp_path: Path) -> None:
    first = request_for(adapt=FEW, end=4)
    propagate_to(first)
    given = save_mask(tmp_path / "given.png", scene(2)[1])
    propagate_to(request_for(adapt=FEW, at={2: given}, update=True, end=4))
    whole = request_for("whole", adapt=FEW, at={2: given}, end=4)
    propagate_to(whole)
    assert files(first.out) == files(whole.out)
    np.testing.assert_array_equal(read_mask(first.out / "masks" / "00002.png").ids, scene(2)[1])
    (first.out / "masks" / "00003.png").unlink()
    propagate_to(request_for(adapt=FEW, update=True, end=4))
    assert files(first.out) == files(whole.out)


def test_keypoints_are_not_adapted(request_for: Callable[..., Request], tmp_path: Path) -> None:
    points = tmp_path / "points.csv"
    points.write_text("frame,point,x,y\n0,nose,10,10\n")
    with pytest.raises(UsageError, match=r"--adapt: labels anew by masks, but .* holds keypoints"):
        propagate_to(request_for(labels=points, adapt=FEW))


@pytest.mark.parametrize(
    ("words", "form"), [(["--adapt"], "full"), (["--adapt", "light"], "light"), (["--adapt=full"], "full")]
)
def test_the_option_may_stand_alone(
    frames: Path, mask: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], form: str
) -> None:
    asked: list[Request] = []

    def remember(request: Request, **_: object) -> None:
        asked.append(request)
        raise UsageError("stop", "here", "now")

    monkeypatch.setattr("vcorr.propagation.run.propagate_to", remember)
    CliRunner().invoke(app, ["propagate", *words, str(frames), str(mask)])
    assert asked[0].adapt == Adaptation.of(form)  # type: ignore[arg-type]


def test_frames_in_python_come_from_the_network(
    request_for: Callable[..., Request], frames: Path, mask: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adaptation, "of", lambda form, interleaved=False: FEW)
    found = list(propagate(frames, mask, weights=weights, adapt="light", end=4))
    request = request_for(adapt=FEW, end=4)
    propagate_to(request)
    assert [frame.index for frame in found] == list(range(4))
    for frame in found:
        np.testing.assert_array_equal(frame.mask, read_mask(request.out / "masks" / f"{frame.index:05d}.png").ids)
