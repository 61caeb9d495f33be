"""What drives the real page: ``vcorr ui`` in a process, and a tab of a browser, spoken to in pixels of a frame."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.toys import HEIGHT, WIDTH
from vcorr.labels.raw_ids import read_ids

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
NODE = Path(__file__).parents[2] / ".venv" / "node" / "node_modules"  # where `make check` puts tools of npm
SECONDS = 30  # that anything may take
STEPS = 8  # frames


class Server:
    """``vcorr ui`` in a process of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder, self.out, self.words = folder, folder / "out", words
        self.start()

    def start(self) -> None:
        words = ["ui", str(self.folder / "frames"), "--out", str(self.out), "--no-browser", "--device", "cpu"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vcorr", *words, *self.words, "--weights", str(self.folder / "tiny.safetensors")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        if not self.address.startswith("http://127.0.0.1:"):
            self.kill()
            raise AssertionError("vcorr ui does not start")

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        self.process.terminate()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait(SECONDS)

    def hashes(self) -> dict[int, str]:
        files = (self.out / "masks").glob("*.png")
        return {int(p.stem): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    def painted(self, k: int) -> np.ndarray | None:
        path = self.out / "labels" / f"{k:05d}.png"
        return read_ids(path) if path.exists() else None


class Page:
    """A tab, spoken to in pixels of the frame."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.tab = browser.new_page(viewport={"width": 1280, "height": 720}, **options)
        self.errors: list[str] = []
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.goto(address)

    def js(self, code: str) -> Any:
        return self.tab.evaluate(code)

    def until(self, code: str) -> None:
        end = time.monotonic() + SECONDS
        while not self.js(code):
            assert time.monotonic() < end, f"{code}: {self.js('document.body.innerText')}"
            time.sleep(0.01)

    def ready(self) -> None:
        self.until("Boolean(window.vcorr) && vcorr.now.shown >= 0")

    def saved(self) -> None:
        self.until("vcorr.painter.stepping === 0 && vcorr.saver.waiting === 0")
        self.until("vcorr.now.shown === vcorr.now.wanted && vcorr.loader.masks.get(vcorr.now.shown) === vcorr.now.mask")

    def show(self, k: int) -> None:
        self.js(f"(i => {{ i.value = {k}; i.dispatchEvent(new Event('change')) }})(document.querySelector('#index'))")
        self.until(f"vcorr.now.shown === {k}")

    def at(self, x: float, y: float) -> tuple[float, float]:
        code = "(b => [b.left + vcorr.view.x, b.top + vcorr.view.y, vcorr.view.scale])"
        left, top, scale = self.js(f"{code}(document.querySelector('#stage').getBoundingClientRect())")
        return left + x * scale, top + y * scale

    def stroke(self, *places: tuple[float, float], button: str = "left", lift: bool = True) -> None:
        mouse = self.tab.mouse
        mouse.move(*self.at(*places[0]))
        mouse.down(button=button)
        for place in places[1:]:
            mouse.move(*self.at(*place), steps=3)
        if lift:
            mouse.up(button=button)

    def key(self, name: str) -> None:
        self.tab.keyboard.press(name)

    def mask(self) -> np.ndarray:
        return np.array(self.js("Array.from(vcorr.now.mask.ids)")).reshape(HEIGHT, WIDTH)

    def done(self, refused: str = "") -> None:
        """Wait until no job runs; the last may have been refused with such an error, and with no other."""
        self.until("!vcorr.state().job.running")
        error = self.js("vcorr.state().job.error")
        assert error == "" or (refused and refused in error), error
