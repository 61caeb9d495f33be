"""Score maps beside the masks, and labels that state only what they show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.toys import HEIGHT, WIDTH, save_mask, scene
from vcorr.errors import UsageError
from vcorr.labels.raw_ids import read_ids
from vcorr.propagation.adapt import Adaptation, Light
from vcorr.propagation.run import Request, propagate_to


def maps(out: Path, k: int) -> dict[str, np.ndarray]:
    with np.load(out / "scores" / f"{k:05d}.npz") as found:
        return {name: found[name] for name in found.files}


def scores(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((out / "scores").iterdir())}


def test_each_object_has_a_map_that_fits_the_mask(request_for: Callable[..., Request], tmp_path: Path) -> None:
    second = save_mask(tmp_path / "second.png", scene(6)[1])
    request = request_for(soft=True, at={6: second})
    propagate_to(request)
    for k in range(8):
        found, mask = maps(request.out, k), read_ids(request.out / "masks" / f"{k:05d}.png")
        assert list(found) == ["1", "2"]
        assert {m.dtype for m in found.values()} == {np.dtype(np.uint8)}
        assert {m.shape for m in found.values()} == {(HEIGHT, WIDTH)}
        if k in (0, 6):
            np.testing.assert_array_equal(found["1"], np.where(mask == 1, 255, 0))
        else:
            np.testing.assert_array_less(found["2"].astype(int)[mask == 1], found["1"].astype(int)[mask == 1] + 2)


def test_lost_and_damaged_maps_are_made_again(request_for: Callable[..., Request]) -> None:
    request = request_for(soft=True)
    propagate_to(request)
    before = scores(request.out)
    (request.out / "scores" / "00002.npz").unlink()
    damaged = request.out / "scores" / "00005.npz"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    propagate_to(request)
    assert scores(request.out) == before


def test_a_correction_changes_only_the_maps_that_it_touches(
    request_for: Callable[..., Request], tmp_path: Path
) -> None:
    third = save_mask(tmp_path / "third.png", scene(3)[1])
    request = request_for(soft=True, at={3: third})
    propagate_to(request)
    times = {p.name: p.stat().st_mtime_ns for p in (request.out / "scores").iterdir()}
    sixth = save_mask(tmp_path / "sixth.png", scene(6)[1])
    propagate_to(request_for(soft=True, update=True, at={6: sixth}))
    changed = {name for name, t in times.items() if (request.out / "scores" / name).stat().st_mtime_ns != t}
    assert changed == {f"{k:05d}.npz" for k in (4, 5, 6, 7)}
    whole = request_for("whole", soft=True, at={3: third, 6: sixth})
    propagate_to(whole)
    assert scores(request.out) == scores(whole.out)


def test_the_maps_of_an_adaptation_are_the_network_s(
    request_for: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Light, "widths", (8, 16))
    monkeypatch.setattr(Light, "decoder", (8,))
    request = request_for(soft=True, adapt=Adaptation("light", iterations=1))
    propagate_to(request)
    plain = request_for("plain", soft=True)
    propagate_to(plain)
    assert scores(request.out).keys() == scores(plain.out).keys()
    assert scores(request.out)["00000.npz"] == scores(plain.out)["00000.npz"]
    assert scores(request.out)["00004.npz"] != scores(plain.out)["00004.npz"]


def test_a_partial_label_keeps_the_rest_of_the_frame(request_for: Callable[..., Request], tmp_path: Path) -> None:
    request = request_for()
    propagate_to(request)
    before = read_ids(request.out / "masks" / "00004.png")
    painted = np.zeros_like(before)
    painted[:6, :6] = 2
    given = save_mask(tmp_path / "given.png", painted)
    again = request_for(update=True, partial=True, at={4: given})
    propagate_to(again)
    found = read_ids(request.out / "masks" / "00004.png")
    np.testing.assert_array_equal(found, np.where(painted, painted, before))
    lines: list[str] = []
    propagate_to(again, say=lines.append)
    assert any("complete already" in line for line in lines)
    with pytest.raises(UsageError, match=r"--partial: .*say --update --partial"):
        propagate_to(request_for("other", partial=True, at={4: given}))


def test_points_that_a_partial_label_leaves_out_stay(request_for: Callable[..., Request], tmp_path: Path) -> None:
    points, more = tmp_path / "points.csv", tmp_path / "more.csv"
    points.write_text("frame,point,x,y\n0,red,12,16\n0,blue,48,36\n")
    propagate_to(request_for(labels=points))
    before = (tmp_path / "out" / "keypoints.csv").read_text().splitlines()
    more.write_text("frame,point,x,y\n4,red,20,16\n")
    propagate_to(request_for(labels=points, update=True, partial=True, at={4: more}))
    after = (tmp_path / "out" / "keypoints.csv").read_text().splitlines()
    place = [row.split(",")[2:4] for row in before if row.startswith("4,blue")]
    assert "4,red,20.0,16.0,1.0" in after
    assert [row.split(",")[2:] for row in after if row.startswith("4,blue")] == [[*place[0], "1.0"]]
