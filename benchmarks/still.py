"""What a picture that does not move does to a mask: 100 identical frames, 50 random masks.

Blobs, boxes off the grid of cells and thin lines are carried through a video of one picture, the first of VIDEO. Their
area and their J against the given mask should stay what they were. A frame that repeats the last has its label; with
``--noise`` the pixels of each frame differ at random, so that none does.

    python -m benchmarks.still VIDEO [--weights FILE] [--noise LEVELS]
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw

from vcorr.evaluation.metrics.masks import jaccard
from vcorr.labels.label import MaskLabels
from vcorr.media.video import open_video
from vcorr.model.encoder import Model
from vcorr.model.weights import load_weights
from vcorr.propagation.propagator import Propagator

SIZE = (240, 320)  # of the part of the picture that is used


def masks(count: int, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """(kind, ids) of random masks: a blob, a box and a line in turn."""
    rng, (height, width), result = np.random.default_rng(seed), SIZE, []
    for number in range(count):
        image = Image.new("L", (width, height))
        draw = ImageDraw.Draw(image)
        kind = ("blob", "box", "line")[number % 3]
        if kind == "blob":
            angle, centre = np.linspace(0, 2 * np.pi, 60), rng.uniform(0.3, 0.7, 2) * (width, height)
            reach = rng.uniform(15, 60) * (1 + 0.3 * np.sin(rng.integers(2, 6) * angle + rng.uniform(0, 6)))
            outline = centre + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
            draw.polygon([(float(x), float(y)) for x, y in outline], fill=1)
        elif kind == "box":
            left, top = rng.integers(20, width - 160), rng.integers(20, height - 160)
            across, down = rng.integers(13, 120, 2)
            draw.rectangle([int(left), int(top), int(left + across), int(top + down)], fill=1)
        else:
            ends = rng.integers(20, (width - 20, height - 20), (2, 2))
            draw.line([int(v) for v in ends.flatten()], fill=1, width=int(rng.integers(3, 9)))
        result.append((kind, np.array(image)))
    return result


def main(
    video: Path,
    weights: Annotated[Path | None, typer.Option(help="default: the ones that come with vcorr")] = None,
    count: int = 50,
    frames: int = 100,
    noise: int = 0,
) -> None:
    torch.set_num_threads(1)
    with open_video(video) as source:
        rgb = np.ascontiguousarray(next(iter(source.frames(0, 1)))[1][: SIZE[0], : SIZE[1]])
    model = Model.of(load_weights(weights), "cpu")
    rng = np.random.default_rng(1)
    shown = [rgb]
    while noise and len(shown) < frames + 1:
        change = rng.integers(-noise, noise + 1, rgb.shape)
        shown.append(np.clip(rgb.astype(int) + change, 0, 255).astype(np.uint8))
    encode = model.encoder.query
    known = {id(frame): encode(frame) for frame in shown}

    def query(picture: np.ndarray) -> torch.Tensor:  # parts of frames, and enlarged ones, are others
        return known[id(picture)] if id(picture) in known else encode(picture)

    model = dataclasses.replace(model, encoder=dataclasses.replace(model.encoder, query=query))
    found: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    for kind, ids in masks(count):
        task = Propagator(model, MaskLabels.of([ids], SIZE, torch.device("cpu")))
        task.step(shown[0], ids)
        labels = [task.step(shown[t % len(shown)]) for t in range(1, frames + 1)]
        scores = [score for ids_at in (labels[0], labels[-1]) for score in (_area(ids_at, ids), _j(ids_at, ids))]
        found[kind].append((scores[0], scores[1], scores[2], scores[3]))
    columns = ["mask", "area after 1", "J after 1", f"area after {frames}", f"J after {frames}", "worst J"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for kind, rows in found.items():
        mean, worst = np.mean(rows, 0), min(row[3] for row in rows)
        print(f"| {kind} | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.3f} | {mean[3]:.3f} | {worst:.3f} |")


def _area(ids: np.ndarray, truth: np.ndarray) -> float:
    return float((ids > 0).sum() / (truth > 0).sum())


def _j(ids: np.ndarray, truth: np.ndarray) -> float:
    return float(jaccard(ids > 0, truth > 0))


if __name__ == "__main__":
    typer.run(main)
