"""Labels the example in the page of `vcorr ui`, as a newcomer would, and takes the pictures of docs/ui.md on the way.

    python docs/ui.py [FOLDER]      # pictures go to FOLDER; default: docs

It needs playwright and Chromium. It prints how long each step took.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
BODY = [
    ((400, 200), (470, 130), (535, 120)),
    ((385, 230), (392, 290), (372, 370)),
    ((450, 270), (440, 340), (450, 372)),
]
GROUND = [
    ((330, 80), (335, 330)),
    ((590, 110), (570, 260), (480, 330)),
    ((408, 350), (415, 290)),
    ((340, 410), (520, 410)),
    ((440, 110), (490, 70)),
]


def main(folder: Path) -> None:
    """Take the pictures."""
    out = Path(tempfile.mkdtemp(prefix="vcorr-")) / "out"
    words = [sys.executable, "-m", "vcorr", "ui", str(ROOT / "examples/goat.mp4"), "--out", str(out), "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as started:  # noqa: S603
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        try:
            _film(browser.new_page(viewport={"width": 1280, "height": 720}), address, folder)
        finally:
            server.terminate()
            browser.close()


def _film(page: Any, address: str, folder: Path) -> None:
    began = time.monotonic()

    def until(code: str) -> None:
        while not page.evaluate(code):
            time.sleep(0.05)

    def take(name: str) -> None:
        time.sleep(0.3)
        image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        image.save(folder / f"ui-{name}.jpg", quality=78, optimize=True)
        print(f"{time.monotonic() - began:6.1f} s  {name}", flush=True)

    def stroke(*places: tuple[float, float]) -> None:
        code = "(b => [b.left + vcorr.view.x, b.top + vcorr.view.y, vcorr.view.scale])"
        left, top, scale = page.evaluate(f"{code}(document.querySelector('#stage').getBoundingClientRect())")
        for i, (x, y) in enumerate(places):
            page.mouse.move(left + x * scale, top + y * scale, steps=4)
            if i == 0:
                page.mouse.down()
        page.mouse.up()
        until("!vcorr.painter.magic.asking && vcorr.saver.waiting === 0")

    page.goto(address)
    until("Boolean(window.vcorr) && vcorr.now.shown === 0")
    page.keyboard.press("m")
    stroke(*BODY[0])
    take("scribble")
    for line in BODY[1:]:
        stroke(*line)
    page.keyboard.press("Shift+m")
    for line in GROUND:
        stroke(*line)
    page.fill("#objects input[type=text]", "goat")
    page.keyboard.press("Enter")
    page.mouse.move(1100, 500)
    page.keyboard.press("b")
    take("mask")
    page.click("#both")
    until("vcorr.state().job.done > 8")
    take("propagate")
    until("!vcorr.state().job.running && vcorr.state().computed.length > 0")
    time.sleep(2)  # the confidence comes after the masks
    page.keyboard.press("c")
    until("vcorr.now.shown === vcorr.now.wanted")
    take("check")
    page.fill("#index", "20")
    page.keyboard.press("Enter")
    until("vcorr.now.shown === 20")
    page.keyboard.press("e")
    stroke((712, 152), (738, 160), (722, 176), (740, 186), (728, 196), (718, 200))
    stroke((674, 122), (692, 150))
    take("correct")
    page.click("#both")
    until("vcorr.state().job.running")
    until("!vcorr.state().job.running && vcorr.state().stale.length === 0")
    take("corrected")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
