"""What tools say of the page: axe-core of its accessibility, tsc of its scripts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vcorr.ui
from tests.ui.browser import CHROMIUM, NODE, Page, Server

AXE, TSC = NODE / "axe-core" / "axe.min.js", NODE / ".bin" / "tsc"
SERIOUS = """(async () => {
  const { violations } = await axe.run();
  const serious = violations.filter((v) => ["serious", "critical"].includes(v.impact));
  return serious.map((v) => [v.id, v.nodes.map((n) => n.html)]);
})()"""


@pytest.mark.slow
@pytest.mark.skipif(not TSC.exists(), reason="there is no tsc: `make check` installs it where npm is")
def test_the_scripts_are_typed() -> None:
    config = Path(vcorr.ui.__path__[0]) / "jsconfig.json"
    done = subprocess.run([TSC, "-p", config], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module", params=["masks", "keypoints"])
def server(request: pytest.FixtureRequest, page_folder: Path) -> Iterator[Server]:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    server = Server(page_folder, "--kind", request.param)
    yield server
    server.end()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.skipif(not AXE.exists(), reason="there is no axe-core: `make check` installs it where npm is")
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Any, server: Server, colours: str) -> None:
    page = Page(browser, server.address, color_scheme=colours)
    page.ready()
    page.js(AXE.read_text(encoding="utf-8") + "; undefined")
    assert page.js(SERIOUS) == []
    for key in ("?", "Control+e"):  # the dialogs
        page.key(key)
        page.until("Boolean(document.querySelector('dialog[open]'))")
        assert page.js(SERIOUS) == []
        page.key("Escape")
    page.js("document.querySelector('#trouble').textContent = 'no connection'")
    page.js("document.querySelector('#trouble').hidden = false")
    page.stroke((20, 20))
    page.saved()
    assert page.js(SERIOUS) == []
    page.key("Delete")
    page.saved()
    page.tab.close()
