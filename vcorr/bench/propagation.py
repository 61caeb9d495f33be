"""Speed, peak memory and where the time goes when a video is labelled, at several lengths.

The film is drawn here, or a video of one's own played to and fro until it has as many frames. Each run is the command
itself, in a process of its own, whose peak resident memory the operating system reports.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vcorr.errors import VcorrError
from vcorr.media.video import VideoWriter, open_video

# The peak of children counts what their parent held when they began: so a small process starts the command.
LAUNCHER = """
import subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=sys.stderr)
if sys.platform != "win32":
    import resource
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
CYCLE = 60  # frames of a user's video that are played to and fro
SHARES = ("encoder", "read", "io", "other")


@dataclass(frozen=True)
class Film:
    """A video to label: pixels, frames, objects."""

    height: int = 480
    width: int = 854
    frames: int = 60
    objects: int = 1


FILMS = {
    "480p": Film(frames=30),
    "480p-60": Film(),
    "480p-10-objects": Film(objects=10),
    "480p-600": Film(frames=600),
}
QUICK = ("480p",)


@dataclass(frozen=True)
class PropagationRow:
    """How one film was labelled.

    Attributes:
        peak_mb: the most memory the process held, None where the system does not say.
        seconds, frames_per_second: from the first frame to the last, without starting up and drawing the overlay.
        shares: of that time, by part.
    """

    case: str
    frames: int
    objects: int
    height: int
    width: int
    peak_mb: float | None
    seconds: float
    frames_per_second: float
    shares: dict[str, float]


class CommandFailedError(VcorrError):
    """``vcorr propagate`` ended with an error."""


def measure(
    name: str, film: Film, video: Path | None, labels: Path | None, options: Sequence[str], say: Callable[[str], None]
) -> PropagationRow:
    """Label a film drawn for it, or ``video`` from the mask ``labels``, and say how it went.

    Args:
        options: for ``vcorr propagate``, such as --weights FILE.

    Raises:
        InputError: the video cannot be read.
        CommandFailedError: the command failed; its last line says why.
    """
    with tempfile.TemporaryDirectory(prefix="vcorr-") as folder:
        scratch = Path(folder)
        say(f"{name}: writing {film.frames} frames")
        pictures = draw(film) if video is None else _to_and_fro(video, film.frames)
        height, width = _write(scratch / "film.mp4", pictures)
        with _mask(film) if labels is None else Image.open(labels) as mask:
            objects = len(np.unique(np.asarray(mask))) - 1
            mask.crop((0, 0, width, height)).save(scratch / "mask.png")
        say(f"{name}: labelling")
        out = scratch / "out"
        inputs = [str(scratch / "film.mp4"), str(scratch / "mask.png")]
        command = [sys.executable, "-m", "vcorr", "propagate", *inputs, "--out", str(out)]
        result = subprocess.run(  # noqa: S603
            [sys.executable, "-c", LAUNCHER, *command, *options], capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise CommandFailedError(name, (result.stderr.strip() or "killed").splitlines()[-1], "see vcorr propagate")
        manifest = json.loads((out / "manifest.json").read_text())
    unit = 1 if sys.platform == "darwin" else 1024
    return PropagationRow(
        name,
        manifest["video"]["frames"],
        objects,
        height,
        width,
        round(int(result.stdout) * unit / 1e6, 1) if result.stdout.strip() else None,
        manifest["seconds"],
        round(manifest["video"]["frames"] / manifest["seconds"], 2),
        manifest["shares"],
    )


def draw(film: Film) -> Iterator[NDArray[np.uint8]]:
    """Textured disks that move over textured ground: nothing to learn from, but all of a film's work."""
    generator = np.random.default_rng(0)
    ground = _texture(generator, film.height, film.width)
    skins = [_texture(generator, film.height, film.width) for _ in range(min(film.objects, 8))]
    for step in range(film.frames):
        ids = shapes(film, step)
        picture = ground.copy()
        for index in range(1, film.objects + 1):
            skin = np.roll(skins[index % len(skins)], 2 * step, axis=1)
            picture[ids == index] = skin[ids == index]
        yield picture


def shapes(film: Film, step: int) -> NDArray[np.uint8]:
    """Ids [h w] of the disks at a step: they cross the frame row by row, two pixels a step, and come in again."""
    ids = np.zeros((film.height, film.width), np.uint8)
    y, x = np.mgrid[: film.height, : film.width]
    radius = 0.4 * film.height / (film.objects + 1)
    for index in range(film.objects):
        center_y = film.height * (index + 1) / (film.objects + 1)
        center_x = (film.width * (0.3 + 0.1 * index) + 2 * step) % film.width
        ids[(y - center_y) ** 2 + (x - center_x) ** 2 < max(2.0, radius) ** 2] = index + 1
    return ids


def _texture(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Smooth random colours."""
    coarse = generator.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _mask(film: Film) -> Image.Image:
    image = Image.fromarray(shapes(film, 0))
    image.putpalette([c for i in range(256) for c in (i, 37 * i % 256, 91 * i % 256)])
    return image


def _write(path: Path, pictures: Iterator[NDArray[np.uint8]]) -> tuple[int, int]:
    """Write a film and return its height and width, cut to even numbers as 4:2:0 has them."""
    first = next(pictures)
    height, width = (size - size % 2 for size in first.shape[:2])
    with VideoWriter(path, height=height, width=width, fps=25) as writer:
        for picture in itertools.chain([first], pictures):
            writer.write(picture[:height, :width])
    return height, width


def _to_and_fro(source: Path, frames: int) -> Iterator[NDArray[np.uint8]]:
    with open_video(source) as video:
        pictures = [rgb for _, rgb in video.frames(0, min(len(video), CYCLE))]
    cycle = [*pictures, *pictures[-2:0:-1]]
    for k in range(frames):
        yield cycle[k % len(cycle)]


def _memory(row: PropagationRow) -> str:
    return "unknown" if row.peak_mb is None else f"{row.peak_mb:.0f} MB"


def text(row: PropagationRow) -> str:
    """A line for the eye."""
    shares = ", ".join(f"{part} {row.shares[part]:.0%}" for part in SHARES)
    return (
        f"{row.case}: {row.frames} frames of {row.width}x{row.height}, {row.objects} object{'s' * (row.objects != 1)}:"
        f" {row.frames_per_second:.2f} frames/s, peak memory {_memory(row)} ({shares})"
    )


def markdown(rows: Sequence[PropagationRow]) -> Iterable[str]:
    """The table of the README."""
    yield "| video | objects | frames | peak memory | frames/s | encoder | read | reading and writing | other |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        shares = " | ".join(f"{row.shares[part]:.0%}" for part in SHARES)
        yield (
            f"| {row.width}x{row.height} | {row.objects} | {row.frames} | {_memory(row)} "
            f"| {row.frames_per_second:.2f} | {shares} |"
        )
