"""Keypoints that are placed in the page, by the addresses of the local server, and what the folder holds afterwards."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.toys import HEIGHT, WIDTH
from tests.ui.conftest import client_of, finished
from vcorr.errors import OutputError, UsageError
from vcorr.labels.given import read_given
from vcorr.media.video import open_video
from vcorr.propagation.run import Request, propagate_to
from vcorr.ui.server import opened
from vcorr.ui.session import Session


@pytest.fixture
def session(request_of: Callable[..., Request]) -> Iterator[Session]:
    with opened(request_of(kind="keypoints")) as session:
        yield session


@pytest.fixture
def client(session: Session) -> TestClient:
    return client_of(session)


def place(client: TestClient, k: int, **places: tuple[float, float] | None) -> int:
    """Points by their number: ``_1=(x, y)``."""
    answer = client.patch(f"/api/points/{k}", json={id_[1:]: at for id_, at in places.items()})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["version"])


def shown(client: TestClient, k: int) -> dict[int, list[float]]:
    return {int(i): at for i, at in client.get(f"/api/points/{k}").json().items()}


def rows(session: Session) -> dict[tuple[int, str], list[str]]:
    """Of the results."""
    table = list(csv.reader((session.out / "keypoints.csv").read_text().splitlines()))[1:]
    return {(int(row[0]), row[1]): row[2:] for row in table}


def test_a_point_is_on_the_disk_when_it_is_answered(client: TestClient, session: Session, frames: Path) -> None:
    assert shown(client, 3) == {}
    version = place(client, 3, _1=(10.25, 20))
    place(client, 3, _2=(-0.5, 47.49))
    answer = client.get("/api/points/3")
    assert answer.json() == {"1": [10.25, 20, 1], "2": [-0.5, 47.49, 1]}
    assert int(answer.headers["x-version"]) == version + 1
    place(client, 3, _1=None)
    place(client, 5, _2=(7, 8))
    with open_video(frames) as video:
        given = read_given(video, session.out / "labels", 0, 8)
        assert (given.kind == "keypoints" and given.objects == ["point 1", "point 2"]) or given.objects == ["point 2"]
        assert {k: given.digest(k) for k in given.by_frame} == session.labels.digests
    client.delete("/api/points/3")
    assert client.get("/api/state").json()["labelled"] == [5]
    client.delete("/api/points/5")
    assert not (session.out / "labels" / "keypoints.csv").exists()


@pytest.mark.parametrize(
    "places",
    [
        {"1": [WIDTH - 0.5, 3]},
        {"1": [3, -1]},
        {"0": [3, 3]},
        {"x": [3, 3]},
        {"1": [3]},
        {"1": ["3", 4]},
        {"1": True},
        [],
    ],
    ids=str,
)
def test_bad_places_are_refused_and_change_nothing(client: TestClient, session: Session, places: object) -> None:
    assert client.patch("/api/points/3", json=places).status_code == 400
    body = b'{"1": [NaN, 3]}'
    assert client.patch("/api/points/3", content=body).status_code == 400
    assert client.patch("/api/points/8", json={"1": [3, 3]}).status_code == 400
    assert not (session.out / "labels" / "keypoints.csv").exists()
    assert client.get("/api/state").json()["labelled"] == []


def test_a_full_disk_is_told_and_the_points_stay(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    place(client, 3, _1=(10, 20))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert client.patch("/api/points/3", json={"1": [11, 20]}).status_code == 507
        assert client.put("/api/objects/1", json={"name": "nose"}).status_code == 507
    assert shown(client, 3) == {1: [10, 20, 1]}
    assert client.get("/api/state").json()["objects"][0]["name"] == "point 1"


def test_points_are_named_and_deleted(client: TestClient, session: Session) -> None:
    place(client, 3, _1=(10, 20), _2=(30, 40))
    assert client.put("/api/objects/1", json={"name": " nose "}).status_code == 200
    assert client.put("/api/objects/2", json={"name": "nose"}).status_code == 400
    assert client.put("/api/objects/2", json={"name": "a\nb"}).status_code == 400
    assert [one["name"] for one in client.get("/api/state").json()["objects"]] == ["nose", "point 2"]
    assert client.delete("/api/objects/2").status_code == 200
    assert shown(client, 3) == {1: [10, 20, 1]}
    assert (session.out / "labels" / "keypoints.csv").read_text() == "frame,point,x,y,id\n3,nose,10.0,20.0,1\n"


def test_a_new_folder_takes_either_kind(request_of: Callable[..., Request]) -> None:
    with opened(request_of(kind="keypoints")):
        pass
    with opened(request_of(kind="masks")) as session:
        client = client_of(session)
        assert client.patch("/api/points/3", json={"1": [3, 3]}).status_code == 400
        assert client.put("/api/kind", json={"kind": "values"}).status_code == 400
        assert client.put("/api/kind", json={"kind": "keypoints"}).status_code == 200
        state = client.get("/api/state").json()
        assert state["kind"] == "keypoints" and state["free"] and state["forms"] == ["coco", "deeplabcut", "csv"]
        place(client, 3, _1=(3, 3))
        assert client.put("/api/kind", json={"kind": "masks"}).status_code == 400
        assert client.get("/api/masks/3").status_code == 400
    with opened(request_of()) as session:
        assert shown(client_of(session), 3) == {1: [3, 3, 1]}
    with pytest.raises(UsageError, match="holds keypoints"), opened(request_of(kind="masks")):
        pass


@pytest.mark.slow
def test_place_propagate_correct_and_export(client: TestClient, session: Session) -> None:
    """A correction redoes its spans alone, keeps what was before, and a new point redoes no frame that lacks it."""
    place(client, 0, _1=(12, 16), _2=(48, 36))
    client.post("/api/propagate", json={})
    finished(session)
    state = client.get("/api/state").json()
    assert state["computed"] == [[0, 7]] and state["complete"] and state["stale"] == []
    assert set(client.get("/api/confidence").json()["values"]) == {"1", "2"}
    found = rows(session)
    for k in range(1, 8):
        for i, at in shown(client, k).items():
            assert [float(cell) for cell in found[k, f"point {i}"]] == at
    client.put("/api/objects/3", json={"name": "tail"})
    assert client.get("/api/state").json()["complete"]

    place(client, 4, _1=(20, 16), _2=(40, 36))
    client.post("/api/propagate", json={})
    finished(session)
    before = rows(session)
    place(client, 6, _2=(36, 36), _3=(5, 6))
    assert client.get("/api/state").json()["stale"] == [[5, 7]]
    client.post("/api/propagate", json={})
    finished(session)
    after = rows(session)
    assert {key: row for key, row in after.items() if key[0] < 5 and key[1] != "tail"} == {
        key: row for key, row in before.items() if key[0] < 5
    }
    assert after[6, "point 2"] == ["36.0", "36.0", "1.0"] and after[6, "tail"] == ["5.0", "6.0", "1.0"]
    assert client.get("/api/points-before/6").json()["2"] == [float(cell) for cell in before[6, "point 2"]]
    assert client.get("/api/points-before/3").status_code == 204

    for form, name in (("coco", "coco.json"), ("deeplabcut", "deeplabcut.csv"), ("csv", "keypoints.csv")):
        client.post("/api/export", json={"form": form})
        finished(session)
        assert (session.out / "export" / name).stat().st_size > 100
    assert json.loads((session.out / "export" / "coco.json").read_text())["categories"][0]["keypoints"][2] == "tail"


@pytest.mark.slow
def test_the_command_line_and_the_page_continue_each_other(request_of: Callable[..., Request], tmp_path: Path) -> None:
    points = tmp_path / "points.csv"
    points.write_text("frame,point,x,y\n0,b,12,16\n0,a,48,36\n0,never,,\n")
    propagate_to(request_of(labels=points))
    with opened(request_of()) as session:
        client = client_of(session)
        state = client.get("/api/state").json()
        assert state["labelled"] == [0] and state["computed"] == [[0, 7]] and state["stale"] == []
        assert [one["name"] for one in state["objects"]] == ["b", "a", "never"]
        assert shown(client, 0) == {1: [12, 16, 1], 2: [48, 36, 1]}
        place(client, 4, _1=(20, 16), _2=None)
        client.post("/api/propagate", json={})
        finished(session)
    more = tmp_path / "more.csv"
    more.write_text("frame,point,x,y\n6,a,36,36\n6,b,24,16\n")
    propagate_to(request_of(labels=points, at={6: more}, update=True))
    with opened(request_of()) as session:
        client = client_of(session)
        state = client.get("/api/state").json()
        assert state["labelled"] == [0, 4, 6] and state["stale"] == []
        assert shown(client, 6) == {1: [24, 16, 1], 2: [36, 36, 1]}
        client.delete("/api/points/4")
        client.post("/api/propagate", json={})
        finished(session)
        place(client, 4, _1=(20, 17))  # labelled once more, after it was taken back
        client.post("/api/propagate", json={})
        finished(session)
        assert rows(session)[4, "b"] == ["20.0", "17.0", "1.0"]
        assert client.get("/api/state").json()["complete"]
    propagate_to(request_of(labels=points, without=[6], update=True))
    with opened(request_of()) as session:
        assert client_of(session).get("/api/state").json()["labelled"] == [0, 4]


def test_value_layers_are_refused(request_of: Callable[..., Request], tmp_path: Path) -> None:
    values = tmp_path / "values.npy"
    np.save(values, np.zeros((HEIGHT, WIDTH, 2), np.float32))
    propagate_to(request_of(labels=values))
    with pytest.raises(OutputError, match="holds value layers"), opened(request_of()):
        pass
