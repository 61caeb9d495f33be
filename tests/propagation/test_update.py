"""Corrections of a folder of results: what they touch is labelled anew, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.toys import model, save_mask, scene
from vcorr.errors import InputError, OutputError, UsageError
from vcorr.labels.masks import read_mask
from vcorr.phrases import ranges
from vcorr.propagation import run
from vcorr.propagation.run import Request, propagate_to
from vcorr.propagation.update import stale_frames


@pytest.fixture
def given(tmp_path: Path) -> dict[int, Path]:
    return {k: save_mask(tmp_path / f"given{k}.png", scene(k)[1]) for k in range(1, 8)}


def masks(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted([*(out / "masks").iterdir(), *out.glob("confidence.csv")])}


def times(out: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in sorted((out / "masks").iterdir())}


def manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return found


def test_only_what_a_correction_touches_is_labelled_anew_and_it_can_be_taken_back(
    request_for: Callable[..., Request], given: dict[int, Path]
) -> None:
    first = request_for(at={3: given[3]})
    propagate_to(first)
    before, table, stood = masks(first.out), (first.out / "frames.csv").read_bytes(), times(first.out)
    lines: list[str] = []
    given[3].unlink()  # the folder has it
    summary = propagate_to(request_for(at={6: given[6]}, update=True), say=lines.append)
    assert "labelled now: 6. Labelled anew: 4 to 5, 7 (3 of 8 frames); the others stay as they are" in lines
    np.testing.assert_array_equal(read_mask(first.out / "masks" / "00006.png").ids, scene(6)[1])
    assert {n for n, t in times(first.out).items() if t != stood[n]} == {f"{k:05d}.png" for k in (4, 5, 6, 7)}
    assert (first.out / "frames.csv").read_bytes() == table and summary.overlay
    save_mask(given[3], scene(3)[1])
    whole = request_for("whole", at={3: given[3], 6: given[6]})
    propagate_to(whole)
    assert masks(first.out) == masks(whole.out)
    assert sorted(p.name for p in first.out.iterdir()) == sorted(p.name for p in whole.out.iterdir())
    assert manifest(first.out)["inputs"] == manifest(whole.out)["inputs"]
    assert "complete already" in _said(request_for(at={6: given[6]}, update=True))
    stood, lines = times(first.out), []
    propagate_to(request_for(update=True, without=[6]), say=lines.append)
    assert "taken back: 6. Labelled anew: 4 to 7 (4 of 8 frames); the others stay as they are" in lines
    assert masks(first.out) == before
    assert {n for n, t in times(first.out).items() if t == stood[n]} == {f"{k:05d}.png" for k in range(4)}
    assert "complete already" in _said(request_for(update=True, without=[6]))
    assert "complete already" in _said(first)


def _said(request: Request) -> str:
    lines: list[str] = []
    propagate_to(request, say=lines.append)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("when", "then"),
    [
        ("marked", "same"),
        ("marked", "other"),
        ("revised", "same"),
        ("revised", "other"),
        (1, "same"),
        (3, "other"),
        (5, "same"),
    ],
)
def test_an_update_that_is_killed_is_made_good(
    request_for: Callable[..., Request],
    given: dict[int, Path],
    monkeypatch: pytest.MonkeyPatch,
    when: str | int,
    then: str,
) -> None:
    """By the same command, or by the next correction that comes."""
    propagate_to(request_for(at={3: given[3]}))
    update = request_for(at={6: given[6]}, update=True)

    class Killed(BaseException):
        pass

    def kill(*content: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if when == "marked":
            patch.setattr(run, "remove", kill)
        if when == "revised":
            patch.setattr(run.Results, "prepare", kill)
        with pytest.raises(Killed):
            propagate_to(update, progress=lambda done, total: kill() if done >= total - 7 + int(when) else None)
    if then == "same":
        propagate_to(update)
        wanted = {3: given[3], 6: given[6]}
    else:
        other = {5: given[5]}
        if when == "marked":  # then the folder does not have it yet
            with pytest.raises(InputError, match="give that frame's label again: --at 6=FILE"):
                propagate_to(request_for(at=other, update=True))
            other[6] = given[6]
        propagate_to(request_for(at=other, update=True))
        wanted = {3: given[3], 5: given[5], 6: given[6]}
    whole = request_for("whole", at=wanted)
    propagate_to(whole)
    assert masks(update.out) == masks(whole.out)
    assert sorted(p.name for p in update.out.iterdir()) == sorted(p.name for p in whole.out.iterdir())
    assert "stale" not in manifest(update.out)


def test_a_result_that_was_edited_in_its_place_is_a_correction(
    request_for: Callable[..., Request], given: dict[int, Path]
) -> None:
    """Saved in colour, as programs do; before the run is complete as well."""
    request = request_for(at={3: given[3]})

    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        propagate_to(request, progress=stop)
    own = request.out / "masks" / "00002.png"
    palette = read_mask(request.out / "masks" / "00000.png").palette
    Image.fromarray(palette[scene(2)[1]]).save(own)
    propagate_to(request_for(at={2: own}, update=True))
    whole = request_for("whole", at={2: given[2], 3: given[3]})
    propagate_to(whole)
    assert masks(request.out) == masks(whole.out)
    Image.fromarray(palette[scene(4)[1]]).save(own)
    with pytest.raises(InputError, match=r"00002\.png: is not the label that frame 2 was given .* --at 2=FILE"):
        propagate_to(request_for(at={5: given[5]}, update=True))
    assert masks(request.out).keys() == masks(whole.out).keys()


def test_new_objects_come_with_a_correction_and_keep_their_ids(
    request_for: Callable[..., Request], given: dict[int, Path], tmp_path: Path
) -> None:
    """Also where a label shows the new one alone, in a colour of its own."""
    pictures = {0: scene(0)[1], 3: np.where(scene(3)[1] == 2, 3, 0), 6: np.where(scene(6)[1] == 1, 4, 3)}
    colours = np.array([[0, 0, 0], [250, 0, 0], [0, 0, 250], [200, 0, 200], [0, 200, 90]], np.uint8)
    paths = {}
    for k, ids in pictures.items():
        paths[k] = tmp_path / f"colours{k}.png"
        Image.fromarray(colours[ids]).save(paths[k])
    out = request_for(labels=paths[0], at={3: paths[3]}).out
    propagate_to(request_for(labels=paths[0], at={3: paths[3]}))
    at_3 = read_mask(out / "masks" / "00003.png").ids
    propagate_to(request_for(labels=paths[0], at={6: paths[6]}, update=True))
    np.testing.assert_array_equal(read_mask(out / "masks" / "00003.png").ids, at_3)
    (new,) = set(np.unique(at_3)) - {0}
    assert set(np.unique(read_mask(out / "masks" / "00006.png").ids)) == {new, new + 1}
    assert manifest(out)["objects"] == [1, 2, new, new + 1]
    propagate_to(request_for(labels=paths[0], update=True, without=[3, 6]))
    assert manifest(out)["objects"] == [1, 2]


def test_what_was_taken_back_stays_out_until_it_is_given_by_name(
    request_for: Callable[..., Request], given: dict[int, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for k in (2, 5):
        save_mask(folder / f"{k}.png", scene(k)[1])
    request = request_for(labels=folder)
    propagate_to(request)
    propagate_to(request_for(labels=folder, update=True, without=[5]))
    assert manifest(request.out)["inputs"]["labels"].keys() == {"2"}
    propagate_to(request_for(labels=folder, update=True, at={7: given[7]}))
    assert manifest(request.out)["inputs"]["labels"].keys() == {"2", "7"}
    propagate_to(request_for(labels=folder, update=True, at={5: given[5]}))
    assert manifest(request.out)["inputs"]["labels"].keys() == {"2", "5", "7"}
    assert "complete already" in _said(request_for(labels=folder, update=True))


def test_what_no_update_can_be_is_refused(request_for: Callable[..., Request], given: dict[int, Path]) -> None:
    with pytest.raises(UsageError, match="holds no results yet"):
        propagate_to(request_for(update=True))
    assert not request_for().out.exists()
    propagate_to(request_for(at={3: given[3]}))
    before = masks(request_for().out), manifest(request_for().out)
    for changes, words in [
        ({"update": True, "without": [4]}, "--without 4: frame 4 was given no label; these were: 0, 3"),
        ({"update": True, "without": [3], "at": {3: given[3]}}, "say one of the two"),
        ({"update": True, "without": [0, 3]}, "takes the last label back"),
        ({"without": [3]}, "say --update as well"),
    ]:
        with pytest.raises(UsageError, match=words):
            propagate_to(request_for(**changes))
    with pytest.raises(OutputError, match=r"inputs\.labels\.3 .* say --update to correct it"):
        propagate_to(request_for())
    with pytest.raises(OutputError, match=r"options\.end 8 -> 7.* give another --out"):
        propagate_to(request_for(update=True, end=7))
    assert (masks(request_for().out), manifest(request_for().out)) == before


def test_points_are_corrected_and_new_ones_come_with_a_correction(
    request_for: Callable[..., Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcorr.propagation.run.Model.of", lambda weights, device: model())
    (tmp_path / "points.csv").write_text("frame,point,x,y\n0,red,11.5,15.5\n0,blue,47.5,35.5\n4,red,19.5,15.5\n")
    (tmp_path / "more.csv").write_text("frame,point,x,y\n6,red,23.5,15.5\n6,green,5.25,5.5\n")
    labels = tmp_path / "points.csv"
    request = request_for(labels=labels)
    table = request.out / "keypoints.csv"
    propagate_to(request)
    before = table.read_bytes()
    said = _said(request_for(labels=labels, at={6: tmp_path / "more.csv"}, update=True))
    assert "labelled now: 6. Labelled anew: 5, 7 (2 of 8 frames)" in said
    whole = request_for("whole", labels=labels, at={6: tmp_path / "more.csv"})
    propagate_to(whole)
    assert table.read_bytes() == (whole.out / "keypoints.csv").read_bytes()
    assert "\n6,green,5.25,5.5,1.0\n" in table.read_text() and "\n1,green,,,0.0\n" in table.read_text()
    (tmp_path / "more.csv").unlink()
    propagate_to(request_for(labels=labels, update=True, without=[6]))
    assert table.read_bytes() == before
    assert sorted(p.name for p in request.out.iterdir()) == sorted(p.name for p in whole.out.iterdir())


def test_frames_are_stale_whose_own_or_next_labels_change() -> None:
    def of(**labels: str) -> dict[str, Any]:
        return {"inputs": {"labels": {name[1:]: digest for name, digest in labels.items()}}}

    before, frames = of(k2="a", k6="b", k9="c"), range(1, 12)
    for now, stale in [
        (before, []),
        (of(k2="a", k6="b", k9="c", k4="d"), [(3, 5)]),
        (of(k2="a", k6="x", k9="c"), [(3, 8)]),
        (of(k2="a", k9="c"), [(3, 8)]),
        (of(k2="x", k6="b", k9="c"), [(1, 5)]),
        (of(k2="a", k6="b", k9="c", k11="d"), [(10, 11)]),
        (of(k2="a", k6="b", k9="c", k12="d"), []),
    ]:
        assert ranges(stale_frames(before, now, frames)) == stale
