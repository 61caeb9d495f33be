"""The addresses of the local server: who may ask, what they answer, and what the folder holds afterwards."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.toys import HEIGHT, WIDTH, scene
from tests.ui.conftest import client_of, ended, finished
from vcorr.errors import InputError, OutputError
from vcorr.files import held
from vcorr.labels.masks import read_mask
from vcorr.labels.raw_ids import read_ids
from vcorr.propagation.run import Request, propagate_to
from vcorr.ui.server import opened
from vcorr.ui.session import Session


def paint(client: TestClient, k: int, ids: np.ndarray, x: int = 0, y: int = 0) -> int:
    height, width = ids.shape
    answer = client.patch(
        f"/api/masks/{k}?x={x}&y={y}&width={width}&height={height}", content=ids.astype("<u2").tobytes()
    )
    assert answer.status_code == 200, answer.text
    return int(answer.json()["version"])


def masks(session: Session) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((session.out / "masks").iterdir())}


# --- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": ""}, 401),
        ({"authorization": b"Bearer \xe9"}, 401),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:8000"}, 421),
        ({"host": "192.0.2.7:8000"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "localhost:9000", "origin": "http://localhost:9000"}, 200),  # through ssh -L
        ({"host": "[::1]:8000"}, 200),
        ({"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, 200),
    ],
    ids=str,
)
def test_strangers_are_refused(client: TestClient, headers: dict[str, str | bytes], status: int) -> None:
    answer = client.get("/api/state", headers=headers)
    assert answer.status_code == status
    assert status == 200 or set(answer.json()) == {"error"}


def test_the_page_loads_nothing_from_elsewhere_and_holds_no_secret(client: TestClient) -> None:
    page = client.get("/", headers={"authorization": ""})
    assert page.status_code == 200 and "<title>" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for line in page.text.splitlines():
        assert "http:" not in line and "https:" not in line and "style=" not in line and "onclick" not in line
    script = client.get("/static/main.js", headers={"authorization": ""})
    assert script.headers["content-type"].startswith("text/javascript")
    for path in ("/static/..%2fguard.py", "/static/../app.py", "/static/nothing.js", "/download/nothing"):
        assert client.get(path).status_code == 404


# --- frames and masks -------------------------------------------------------------------------------------------------


def test_frames_come_by_index(client: TestClient) -> None:
    for k in (0, 5, 4, 7, 2):
        answer = client.get(f"/api/frames/{k}")
        picture = np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)
        assert np.abs(picture - scene(k)[0]).mean() < 4
    assert client.get("/api/frames/8").status_code == 404
    assert client.get("/api/frames/-1").status_code == 404


def test_a_damaged_frame_shows_the_one_beside_it(request_of: Callable[..., Request], frames: Path) -> None:
    (frames / "00003.png").write_bytes((frames / "00003.png").read_bytes()[:60])
    with opened(request_of()) as session:
        client = client_of(session)
        answer = client.get("/api/frames/3")
        picture = np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)
        assert np.abs(picture - scene(2)[0]).mean() < 4 and answer.headers["x-damaged"] == "1"
        assert "x-damaged" not in client.get("/api/frames/4").headers
        drawn = np.ones((1, WIDTH)).astype("<u2").tobytes()
        assert client.post(f"/api/magic/3?x=0&y=9&width={WIDTH}&height=1", content=drawn).status_code == 422


def test_a_very_wide_picture_comes_whole(request_of: Callable[..., Request], tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    wide.mkdir()
    for k in range(2):
        Image.new("RGB", (20_000, 33), (k, 90, 160)).save(wide / f"{k:05d}.png")
    with opened(request_of(video=str(wide))) as session:
        client = client_of(session)
        assert Image.open(io.BytesIO(client.get("/api/frames/1").content)).size == (20_000, 33)
        paint(client, 0, np.ones((33, 20_000)))
        assert read_ids(session.out / "labels" / "00000.png").all()


def test_a_stroke_is_on_the_disk_when_it_is_answered(client: TestClient, session: Session) -> None:
    assert client.get("/api/masks/3").status_code == 204
    version = paint(client, 3, np.full((4, 5), 2), x=10, y=20)
    painted = read_ids(session.out / "labels" / "00003.png")
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[20:24, 10:15] = 2
    np.testing.assert_array_equal(painted, expected)
    answer = client.get("/api/masks/3")
    assert answer.headers["x-version"] == str(version)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected)
    paint(client, 3, np.full((1, 1), 700))  # an id that needs 16 bits
    assert read_ids(session.out / "labels" / "00003.png")[0, 0] == 700
    assert client.get("/api/state").json()["labelled"] == [3]


def test_a_stroke_changes_its_own_pixels_alone(client: TestClient, session: Session) -> None:
    paint(client, 3, np.full((4, 5), 2))
    answer = client.patch("/api/masks/3?x=0&y=0&width=2&height=1", content=b"\1\0\xff\xff").json()
    assert answer["version"] == answer["before"] + 1
    assert read_ids(session.out / "labels" / "00003.png")[:2, :2].tolist() == [[1, 2], [2, 2]]


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("x=0&y=0&width=2&height=2", b"\0" * 6),
        ("x=0&y=0&width=2&height=2", b"\0" * 100_000),
        ("x=63&y=0&width=2&height=2", b"\0" * 8),
        ("x=0&y=0&width=100000&height=100000", b"\0" * 8),
        ("x=-1&y=0&width=1&height=1", b"\0\0"),
        ("x=0&y=0&width=1", b"\0\0"),
        ("", b""),
    ],
    ids=["short", "long", "outside", "huge", "negative", "one", "nothing"],
)
def test_bad_strokes_are_refused_and_change_nothing(
    client: TestClient, session: Session, query: str, body: bytes
) -> None:
    answer = client.patch(f"/api/masks/3?{query}", content=body)
    assert answer.status_code == 400 and "error" in answer.json()
    assert not (session.out / "labels" / "00003.png").exists()


def test_other_bad_requests_are_refused(client: TestClient) -> None:
    assert client.get("/api/masks/8").status_code == 400
    assert client.put("/api/objects/1", content=b"[").status_code == 400
    assert client.put("/api/objects/1", json={"path": "/etc/passwd"}).status_code == 400
    assert client.put("/api/objects/1", json={"colour": "red;"}).status_code == 400
    assert client.put("/api/objects/1", json={"name": "x" * 101}).status_code == 400
    assert client.put("/api/objects/70000", json={"name": "x"}).status_code == 400
    assert client.post("/api/export", json={"form": "../../x"}).status_code == 400
    answer = client.post("/api/propagate", json={})
    assert answer.status_code == 400 and "label one first" in answer.json()["error"]


def test_a_full_disk_is_told_and_the_mask_stays(
    client: TestClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = paint(client, 3, np.full((4, 5), 2))
    before = (session.out / "labels" / "00003.png").read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        answer = client.patch("/api/masks/3?x=0&y=0&width=1&height=1", content=b"\1\0")
    assert answer.status_code == 507 and "No space left" in answer.json()["error"]
    assert (session.out / "labels" / "00003.png").read_bytes() == before
    assert [p.name for p in (session.out / "labels").iterdir() if "part" in p.name] == []
    assert paint(client, 3, np.ones((1, 1))) == version + 1


def test_an_object_is_deleted_from_all_labels(client: TestClient, session: Session) -> None:
    for k in (0, 4):
        paint(client, k, scene(k)[1])
    assert client.delete("/api/objects/1").status_code == 200
    assert [one["id"] for one in client.get("/api/state").json()["objects"]] == [2]
    for k in (0, 4):
        expected = np.where(scene(k)[1] == 1, 0, scene(k)[1])
        np.testing.assert_array_equal(read_ids(session.out / "labels" / f"{k:05d}.png"), expected)


def test_scribbles_become_a_mask(client: TestClient, session: Session) -> None:
    """A line on each square: both come out, though one is scribbled on its left half alone; nothing is kept."""
    drawn = np.zeros((HEIGHT, WIDTH))
    drawn[14:17, 6:12] = 1
    drawn[30:42, 47] = 2
    drawn[2, 10:50] = 65535
    answer = client.post(f"/api/magic/0?x=0&y=0&width={WIDTH}&height={HEIGHT}", content=drawn.astype("<u2").tobytes())
    found, truth = np.asarray(Image.open(io.BytesIO(answer.content))), scene(0)[1]
    for i in (1, 2):
        assert ((found == i) & (truth == i)).sum() > 0.85 * ((found == i) | (truth == i)).sum()
    assert client.get("/api/state").json()["labelled"] == []
    nothing = client.post("/api/magic/0?x=0&y=0&width=1&height=1", content=b"\xff\xff")
    assert nothing.status_code == 400 and "scribble on" in nothing.json()["error"]


# --- propagate, correct, export ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_paint_propagate_stop_correct_and_export(client: TestClient, session: Session) -> None:
    """A correction redoes its spans alone; the command line finds the folder complete; the export is read back."""
    paint(client, 0, scene(0)[1])
    client.put("/api/objects/1", json={"name": "red"})
    assert client.post("/api/propagate", json={}).status_code == 202
    finished(session)
    state = client.get("/api/state").json()
    assert state["computed"] == [[0, 7]] and state["complete"] and state["stale"] == []
    assert set(client.get("/api/confidence").json()["values"]) == {"1", "2"}

    paint(client, 4, scene(4)[1])
    assert client.get("/api/state").json()["stale"] == [[1, 7]]
    client.post("/api/propagate", json={})
    finished(session)
    before = masks(session)
    paint(client, 6, scene(6)[1])
    client.post("/api/propagate", json={})
    finished(session)
    after = masks(session)
    assert client.get("/api/before/6").content == before["00006.png"]
    assert client.get("/api/before/3").status_code == 204
    assert [name for name in after if after[name] != before[name] and name < "00005.png"] == []
    for k in (0, 4, 6):
        np.testing.assert_array_equal(read_mask(session.out / "masks" / f"{k:05d}.png").ids, scene(k)[1])

    client.delete("/api/masks/6")
    client.post("/api/export", json={"form": "coco"})
    finished(session)
    assert masks(session) == before
    coco = json.loads((session.out / "export" / "coco.json").read_text())
    assert len(coco["videos"][0]["file_names"]) == 8 and coco["categories"][0]["name"] == "red"
    client.post("/api/export", json={"form": "yolo"})
    finished(session)
    address = client.post("/api/ticket").json()["address"]
    archive = zipfile.ZipFile(io.BytesIO(client.get(address, headers={"authorization": ""}).content))
    assert "yolo/00007.txt" in archive.namelist()
    assert client.get(address).status_code == 404  # once


def test_a_job_stops_between_frames_and_goes_on(client: TestClient, session: Session) -> None:
    paint(client, 0, scene(0)[1])
    tell = session.tell

    def stop_at_three(event: str, data: object) -> None:
        tell(event, data)  # type: ignore[arg-type]
        if session.job.frame == 3 and session.job.running:
            session.stop()

    session.tell = stop_at_three
    client.post("/api/propagate", json={})
    ended(session)
    assert session.job.said == "stopped" and session.job.error == ""
    assert client.get("/api/state").json()["computed"] == [[0, 3]]
    session.tell = tell
    client.post("/api/propagate", json={})
    finished(session)
    assert client.get("/api/state").json()["complete"]


def test_a_stretch_is_propagated_alone(client: TestClient, session: Session) -> None:
    paint(client, 4, scene(4)[1])
    client.post("/api/propagate", json={"first": 4, "last": 5})
    finished(session)
    assert client.get("/api/state").json()["computed"] == [[4, 5]]
    client.post("/api/propagate", json={"last": 4})
    finished(session)
    assert client.get("/api/state").json()["computed"] == [[0, 5]]
    client.post("/api/propagate", json={})
    finished(session)
    one = masks(session)
    shutil.rmtree(session.out / "masks")
    client.post("/api/propagate", json={})
    finished(session)
    assert masks(session) == one


def test_one_job_at_a_time(client: TestClient, session: Session) -> None:
    paint(client, 0, scene(0)[1])
    client.post("/api/propagate", json={})
    again = client.post("/api/propagate", json={})
    assert again.status_code == 400 or not session.job.running
    finished(session)


# --- the folder -------------------------------------------------------------------------------------------------------


def test_the_folder_is_the_state(request_of: Callable[..., Request]) -> None:
    with opened(request_of()) as session:
        client = client_of(session)
        paint(client, 0, scene(0)[1])
        client.put("/api/objects/2", json={"name": "blue", "colour": "#112233"})
        client.post("/api/propagate", json={})
        finished(session)
        paint(client, 5, scene(5)[1])
        before = client.get("/api/state").json()
    with opened(request_of()) as session:
        after = client_of(session).get("/api/state").json()
    for key in ("labelled", "computed", "stale", "objects", "range"):
        assert after[key] == before[key]


@pytest.mark.slow
def test_the_command_line_and_the_page_continue_each_other(
    request_of: Callable[..., Request], mask: Path, tmp_path: Path
) -> None:
    given = request_of(labels=mask)
    propagate_to(given)
    other = tmp_path / "m6.png"
    shutil.copy(mask, other)
    with opened(request_of()) as session:
        client = client_of(session)
        state = client.get("/api/state").json()
        assert state["labelled"] == [0] and state["computed"] == [[0, 7]] and state["stale"] == []
        paint(client, 3, scene(3)[1])
        client.post("/api/propagate", json={})
        finished(session)
    propagate_to(request_of(labels=mask, at={6: other}, update=True))
    with opened(request_of()) as session:
        client = client_of(session)
        state = client.get("/api/state").json()
        assert state["labelled"] == [0, 3, 6] and state["stale"] == []
        client.delete("/api/masks/3")
        client.post("/api/propagate", json={})
        finished(session)
        paint(client, 3, scene(3)[1])  # labelled once more, after it was taken back
        client.post("/api/propagate", json={})
        finished(session)
        np.testing.assert_array_equal(read_mask(session.out / "masks" / "00003.png").ids, scene(3)[1])
    propagate_to(request_of(labels=mask, without=[6], update=True))
    with opened(request_of()) as session:
        assert client_of(session).get("/api/state").json()["labelled"] == [0, 3]


@pytest.mark.slow
def test_a_folder_keeps_how_it_was_read(request_of: Callable[..., Request], mask: Path) -> None:
    how = {"soft": True, "method": "liir", "read": ("radius=3",), "check": "cycle"}
    propagate_to(request_of(labels=mask, **how))
    with opened(request_of()) as session:
        client = client_of(session)
        paint(client, 5, scene(5)[1])
        client.post("/api/propagate", json={})
        finished(session)
        assert client.get("/api/state").json()["complete"]
    options = json.loads((session.out / "manifest.json").read_text())["options"]
    assert options["soft"] and options["method"] == "liir" and options["read"] == ["radius=3"]


def test_one_process_a_folder(request_of: Callable[..., Request], mask: Path) -> None:
    request = request_of()
    with opened(request), pytest.raises(OutputError, match="another process works in it"):
        propagate_to(request_of(labels=mask))
    with held(request.out), pytest.raises(OutputError, match="another process"), opened(request):
        pass


def test_folders_of_others_are_refused(
    request_of: Callable[..., Request], frames: Path, mask: Path, tmp_path: Path
) -> None:
    propagate_to(request_of(labels=mask))
    other = tmp_path / "other"
    shutil.copytree(frames, other)
    (other / "00007.png").unlink()
    with pytest.raises(OutputError, match="another video"), opened(request_of(video=str(other))):
        pass
    with pytest.raises(OutputError, match="is not empty"), opened(request_of(out="frames")):
        pass
    with pytest.raises(InputError), opened(request_of(video=str(mask), out="new")):
        pass
    assert not (tmp_path / "new").exists()
