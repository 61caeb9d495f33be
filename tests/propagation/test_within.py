"""Runs that label some of the frames, folders that hold painted labels, and the names of their ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toys import save_mask, scene
from vcorr.errors import InputError, OutputError
from vcorr.files import held
from vcorr.propagation.run import Request, propagate_to


def masks(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((out / "masks").iterdir())}


@pytest.mark.parametrize("within", [range(4), range(5, 6), range(2, 5), range(7, 8)], ids=str)
def test_a_run_within_frames_is_the_start_of_the_whole_one(
    request_for: Callable[..., Request], tmp_path: Path, within: range
) -> None:
    at = {6: save_mask(tmp_path / "m6.png", scene(6)[1])}
    whole, parts = request_for("whole", at=at), request_for("parts", at=at)
    propagate_to(whole)
    written: list[int] = []
    propagate_to(parts, within=within, wrote=lambda k, label: written.append(k))
    assert set(within) <= set(written)
    assert json.loads((parts.out / "manifest.json").read_text())["complete"] is False
    assert {int(name[:-4]) for name in masks(parts.out)} == set(written) | {0, 6}
    drawn: list[int] = []
    propagate_to(parts, drew=drawn.append)
    assert drawn == list(range(8))
    assert masks(parts.out) == masks(whole.out)
    for name in ("confidence.csv", "frames.csv"):
        assert (parts.out / name).read_bytes() == (whole.out / name).read_bytes()


def test_a_folder_of_masks_names_its_ids(request_for: Callable[..., Request], tmp_path: Path) -> None:
    folder = tmp_path / "out" / "labels"
    folder.mkdir(parents=True)
    save_mask(folder / "00000.png", scene(0)[1])
    with pytest.raises(OutputError, match="is not empty"):
        propagate_to(request_for(labels=folder))
    names = folder / "objects.json"
    names.write_text('{"names": {"1": "red", "2": "", "9": "nobody"}, "colours": {}}')
    request = request_for(labels=folder)
    propagate_to(request)
    assert json.loads((request.out / "manifest.json").read_text())["names"] == {"1": "red"}
    names.write_text('{"names": {"1": "ruby", "2": "blue"}}')
    before = masks(request.out)
    propagate_to(request)
    assert json.loads((request.out / "manifest.json").read_text())["names"] == {"1": "ruby", "2": "blue"}
    assert masks(request.out) == before and "ruby" in (request.out / "review.html").read_text()
    for wrong in ('{"names": {"one": "red"}}', '{"names": []}', '{"names": {"1": 2}}'):
        names.write_text(wrong)
        with pytest.raises(InputError, match="does not name ids"):
            propagate_to(request)


def test_who_holds_the_folder_may_propagate_in_it(request_for: Callable[..., Request]) -> None:
    request = request_for()
    with held(request.out):
        with pytest.raises(OutputError, match="another process"):
            propagate_to(request)
        propagate_to(request, held_already=True)
