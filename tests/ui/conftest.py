"""A session of a small video, and a client that has its token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="vcorr[ui] is not installed")
from starlette.testclient import TestClient

from vcorr.propagation.run import Request
from vcorr.ui.app import Hub, application
from vcorr.ui.server import opened
from vcorr.ui.session import Session

TOKEN = "a-token"


@pytest.fixture
def request_of(frames: Path, weights: Path, tmp_path: Path) -> Callable[..., Request]:
    def make(out: str = "out", **changes: object) -> Request:
        folder = tmp_path / out
        given: dict[str, object] = {"video": str(frames), "labels": folder / "labels", "out": folder}
        return Request(**(given | {"weights": weights} | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def session(request_of: Callable[..., Request]) -> Iterator[Session]:
    with opened(request_of()) as session:
        yield session


def client_of(session: Session, **headers: str) -> TestClient:
    app = application(session, TOKEN, Hub())
    return TestClient(app, base_url="http://127.0.0.1:8000", headers={"authorization": f"Bearer {TOKEN}"} | headers)


@pytest.fixture
def client(session: Session) -> TestClient:
    return client_of(session)


def finished(session: Session) -> None:
    """Wait for the job, which must not fail."""
    ended(session)
    assert session.job.error == ""


def ended(session: Session) -> None:
    until = time.monotonic() + 60
    while session.job.running:
        assert time.monotonic() < until
        time.sleep(0.005)
