"""How fast the page of `vcorr ui` is: frames shown, strokes and points saved, frames propagated, memory.

    python -m benchmarks.page [VIDEO] [--frames N] [--many N] [--only PART ...]

It drives the page in Chromium (playwright). Times are what the page sees, from the asking to the picture or the answer;
beside them stands the processor time of the server, which does not hang on what else the machine does. Propagation is
compared with `vcorr propagate`, and memory is that of a server whose page scrubs through a file of ``--many`` frames.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer

from vcorr.media.video import open_video

ROOT = Path(__file__).parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """`vcorr ui` in a process of its own."""

    def __init__(self, video: Path, out: Path, *words: str) -> None:
        command = [sys.executable, "-m", "vcorr", "ui", str(video), "--out", str(out), "--no-browser", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def seconds(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def mib(self) -> float:
        """Memory in use now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def main(
    video: Annotated[Path, typer.Argument()] = ROOT / "examples" / "goat.mp4",
    frames: int = 30,
    many: int = 10_000,
    only: Annotated[list[str] | None, typer.Option(help="shown, points, propagated, memory; default: all")] = None,
) -> None:
    """Print the table."""
    from playwright.sync_api import sync_playwright

    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the beginning\n")
    print("| | median | worst | server's processor time |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="vcorr-") as folder, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        parts = {
            "shown": lambda: _shown(browser, video, Path(folder), frames),
            "points": lambda: _points(browser, video, Path(folder), frames),
            "propagated": lambda: _propagated(browser, video, Path(folder)),
            "memory": lambda: _memory(browser, Path(folder), many),
        }
        for name in only or parts:
            parts[name]()
        browser.close()


def _page(browser: Any, server: Server) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.goto(server.address)
    _until(page, "Boolean(window.vcorr) && vcorr.now.shown >= 0")
    return page


def _until(page: Any, code: str) -> None:
    """Wait; the page's policy lets nothing be evaluated in it from within."""
    while not page.evaluate(code):
        time.sleep(0.005)


def _shown(browser: Any, video: Path, folder: Path, count: int) -> None:
    server = Server(video, folder / "out")
    page = _page(browser, server)
    total = page.evaluate("vcorr.state().video.frames")
    order = random.Random(0).sample(range(total), min(count, total))  # noqa: S311
    _timed("frame shown, cold", server, len(order), lambda i: _jump(page, order[i]))
    page.reload()  # the server has them, the page does not
    _until(page, "Boolean(window.vcorr) && vcorr.now.shown >= 0")
    _timed("frame shown, warm", server, len(order), lambda i: _jump(page, order[i]))
    _jump(page, 0)
    _timed("stroke saved", server, count, lambda i: _stroke(page, 300 + 5 * i, 200))
    server.end()


def _propagated(browser: Any, video: Path, folder: Path) -> None:
    server = Server(video, folder / "live")
    page = _page(browser, server)
    _stroke(page, 400, 250)
    before = server.seconds()
    page.keyboard.press("p")
    _until(page, "vcorr.state().complete")
    used, rate = server.seconds() - before, page.evaluate("vcorr.state().job.rate")
    total = page.evaluate("vcorr.state().video.frames")
    server.end()
    mask = folder / "live" / "labels" / "00000.png"
    command = [sys.executable, "-m", "vcorr", "propagate", str(video), str(mask), "--out", str(folder / "again")]
    before = _of_children()
    subprocess.run(command, check=True, capture_output=True)
    alone = _of_children() - before
    print(f"| video propagated, a frame | {1000 / rate:.0f} ms | | {1000 * used / total:.0f} ms |")
    print(f"| the same by `vcorr propagate`, with its start | | | {1000 * alone / total:.0f} ms |", flush=True)


def _of_children() -> float:
    """Processor time of the processes that ended so far."""
    used = os.times()
    return used.children_user + used.children_system


def _points(browser: Any, video: Path, folder: Path, count: int) -> None:
    server = Server(video, folder / "points", "--kind", "keypoints")
    page = _page(browser, server)
    _timed("point saved", server, count, lambda i: _stroke(page, 300 + 5 * i, 200))
    server.end()


def _memory(browser: Any, folder: Path, many: int) -> None:
    video = folder / "many.mp4"
    with av.open(str(video), "w") as container, open_video(ROOT / "examples" / "goat.mp4") as goat:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = goat.width, goat.height, "yuv420p"
        pictures = [rgb for _, rgb in goat.frames(0, 8)]
        for k in range(many):
            frame = av.VideoFrame.from_ndarray(np.roll(pictures[k % 8], k, 1), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    server = Server(video, folder / "many")
    page = _page(browser, server)
    most, before = server.mib(), server.mib()
    order = random.Random(1)  # noqa: S311
    for _ in range(100):
        _jump(page, order.randrange(many))
        most = max(most, server.mib())
    print(
        f"| memory of the server, 100 jumps in {many} frames | {most:.0f} MiB | | {before:.0f} MiB at the beginning |"
    )
    server.end()


def _jump(page: Any, k: int) -> float:
    """Milliseconds until frame k is shown."""
    page.evaluate(f"(i => {{ i.value = {k}; i.dispatchEvent(new Event('change')) }})(document.querySelector('#index'))")
    _until(page, f"vcorr.now.shown === {k}")
    return float(page.evaluate("Number(document.body.dataset.took)"))


def _stroke(page: Any, x: float, y: float) -> float:
    """Milliseconds from the end of a stroke, or of a click, until it is on the disk."""
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 10, steps=4)
    page.mouse.up()
    _until(page, "vcorr.saver.waiting === 0")
    return float(page.evaluate("vcorr.saver.latest"))


def _timed(name: str, server: Server, count: int, one: Callable[[int], float]) -> None:
    before = server.seconds()
    times = [one(i) for i in range(count)]
    used = 1000 * (server.seconds() - before) / count
    print(f"| {name} | {statistics.median(times):.0f} ms | {max(times):.0f} ms | {used:.0f} ms |", flush=True)


if __name__ == "__main__":
    typer.run(main)
