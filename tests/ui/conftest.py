"""A session of a small video, and a client that has its token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="vcorr[ui] is not installed")
from starlette.testclient import TestClient

from tests.toys import scene
from tests.ui.browser import CHROMIUM, STEPS, Page, Server
from vcorr import rng
from vcorr.matching.settings import Matching
from vcorr.model import network
from vcorr.model.inference import Inference
from vcorr.model.resnet import ResNetConfig
from vcorr.model.weights import Weights, save_weights
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


# --- the page in a browser --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of the scene, and a tiny encoder."""
    root = tmp_path_factory.mktemp("page")
    (root / "frames").mkdir()
    for step in range(STEPS):
        Image.fromarray(scene(step)[0]).save(root / "frames" / f"{step:05d}.png")
    net = ResNetConfig(widths=(8, 8, 8, 8), features=8)
    params, stats = network.init(net, rng.generator(0, "init"))
    save_weights(root / "tiny.safetensors", Weights(params, stats, net, Matching(radius=4), Inference(), {}))
    return root


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Page]:
    """A page of the module's server."""
    page = Page(browser, server.address)
    page.ready()
    yield page
    page.tab.close()
    assert page.errors == []
