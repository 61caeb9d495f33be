"""J of the mask that magic strokes make on the first frames of a DAVIS folder, after 1, 3 and 5 scribbles.

    python -m benchmarks.scribbles DAVIS

A scribble is a line through the largest part that is wrong: of what is missing of the object, or of what the mask has
too much. The first one is on the object. Each runs along its part's principal axis, from the deepest point, as far as
it stays inside. Every object of a frame is done by itself.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from vcorr.labels.raw_ids import read_ids
from vcorr.media.video import shrunk_size
from vcorr.model.encoder import Model
from vcorr.model.weights import load_weights
from vcorr.ui.magic import BACKGROUND, Magic

SCRIBBLES = 5
WIDTH = 3  # pixels to each side of the line

Bools = NDArray[np.bool_]


def main(root: Path) -> None:
    """Print a row a sequence, and the mean."""
    magic, rows, seconds = Magic(lambda: Model.of(load_weights(), "cpu")), [], []
    names = sorted(p.name for p in (root / "JPEGImages" / "480p").iterdir() if p.is_dir())
    print(f"{'sequence':20}" + "".join(f"{n:>8}" for n in range(1, SCRIBBLES + 1)))
    for number, name in enumerate(names):
        ids = read_ids(root / "Annotations" / "480p" / name / "00000.png")
        with Image.open(root / "JPEGImages" / "480p" / name / "00000.jpg") as image:
            height, width = shrunk_size(image.height, image.width, 480)
            picture = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
        for i in [int(i) for i in np.unique(ids) if i not in (0, 255)]:
            rows.append(series(magic, number, picture, ids == i, seconds))
            print(f"{name + ('' if i == 1 else f' {i}'):20}" + "".join(f"{100 * j:8.1f}" for j in rows[-1]), flush=True)
    print(f"{'mean':20}" + "".join(f"{100 * j:8.1f}" for j in np.mean(rows, axis=0)))
    print(f"a stroke takes {1000 * np.median(seconds):.0f} ms (median), the first of a frame {1000 * max(seconds):.0f}")


def series(magic: Magic, k: int, picture: NDArray[np.uint8], truth: Bools, seconds: list[float]) -> list[float]:
    """J after each scribble."""
    scribbles, found, result = np.zeros(truth.shape, np.uint16), np.zeros(truth.shape, bool), []
    for _ in range(SCRIBBLES):
        missing, excess = truth & ~found, found & ~truth
        on_object = largest(missing).sum() >= largest(excess).sum()
        part = largest(missing if on_object else excess)
        if part.any():
            scribbles[line(part) & (truth if on_object else ~truth)] = 1 if on_object else BACKGROUND
        began = time.perf_counter()
        found = magic.mask(k, lambda: picture, scribbles) == 1
        seconds.append(time.perf_counter() - began)
        result.append(float((found & truth).sum() / (found | truth).sum()))
    return result


def largest(mask: Bools) -> Bools:
    """The largest connected part of a mask."""
    parts, count = ndimage.label(mask)
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else mask


def line(part: Bools) -> Bools:
    """A line through a part, along its principal axis."""
    depth = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
    centre = np.array(np.unravel_index(depth.argmax(), depth.shape), float)
    _, _, axes = np.linalg.svd(np.argwhere(part)[:: max(1, part.sum() // 5000)] - np.argwhere(part).mean(0), False)
    drawn = np.zeros(part.shape, bool)
    for way in (1, -1):
        at = centre.copy()
        while True:
            y, x = np.rint(at).astype(int)
            if not (0 <= y < part.shape[0] and 0 <= x < part.shape[1]) or depth[y, x] < min(4, depth.max()):
                break
            drawn[y, x] = True
            at += way * axes[0]
    return ndimage.binary_dilation(drawn, iterations=WIDTH)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
