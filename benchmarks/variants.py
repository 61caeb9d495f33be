"""Ways of reading labels with the same weights, side by side: the first frames of some sequences of a data set.

    python -m benchmarks.variants DAVIS [VARIANT ...] [--weights FILE] [--sequences libby,kite-surf] [--frames 40]

A variant is settings of the weights file, parted by semicolons: ``inference.top_k=20;inference.scale=20``. Without any,
labels are read as the weights say. Frames are encoded once, and kept in half precision. Each row is J&F of the
sequences, their mean, the decay of J, and the core-seconds of a frame without its encoding. So short a part shows less
decay than a whole sequence, and less than a point of difference is noise.
"""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from vcorr.config import override
from vcorr.evaluation import davis_layout
from vcorr.evaluation.objects import MaskScores, ScoredFrame, score
from vcorr.labels.label import MaskLabels
from vcorr.labels.raw_ids import read_ids
from vcorr.media.video import open_video
from vcorr.model.encoder import Encode, Model
from vcorr.model.inference import Settings
from vcorr.model.weights import load_weights
from vcorr.propagation.propagator import Propagator

QUICK = "drift-straight,scooter-black,kite-surf,libby,dance-twirl"


def main(
    root: Path,
    variants: Annotated[list[str] | None, typer.Argument()] = None,
    weights: Path | None = None,
    sequences: str = QUICK,
    frames: int = 40,
) -> None:
    torch.set_num_threads(1)
    loaded = load_weights(weights)
    ways = {}
    for variant in variants or [""]:
        pairs = [pair for pair in variant.split(";") if pair]
        settings = override(Settings(loaded.matching, loaded.inference, loaded.space), pairs)
        changed = dataclasses.replace(loaded, matching=settings.matching, inference=settings.inference)
        ways[variant or "as the weights say"] = Model.of(changed, "cpu")
    rows: dict[str, list[MaskScores]] = {way: [] for way in ways}
    cost = dict.fromkeys(ways, 0.0)
    names, read = [], 0
    for sequence in davis_layout.sequences(root, names=sequences.split(",")):
        names.append(sequence.name)
        with open_video(sequence.images) as video:
            pictures = [rgb for _, rgb in video.frames(sequence.start, min(sequence.start + frames, len(video)))]
        truth = {int(path.stem): path for path in sequence.annotations}
        first = Model.of(loaded, "cpu")
        features = {id(picture): first.encoder.query(picture).half() for picture in pictures}
        read += len(pictures) - 1
        given = read_ids(sequence.annotations[0])
        objects = [int(i) for i in np.unique(given) if i]
        for way, model in ways.items():
            known = dataclasses.replace(model.encoder, query=partial(_known, features, model.encoder.query))
            labels = MaskLabels.of([given], given.shape, torch.device("cpu"))
            task = Propagator(dataclasses.replace(model, encoder=known), labels)
            scored = []
            for index, picture in enumerate(pictures, start=sequence.start):
                began = time.process_time()
                ids = task.step(picture, given if index == sequence.start else None)
                cost[way] += time.process_time() - began
                if index > sequence.start and index in truth:
                    scored.append(ScoredFrame(str(index), read_ids(truth[index]), ids, objects))
            rows[way].append(MaskScores.average(score(scored)))
    print("| reading | " + " | ".join(names) + " | mean | decay | s a frame |\n|" + "---|" * (len(names) + 4))
    for way, found in rows.items():
        mean = MaskScores.average(found)
        cells = [f"{100 * s.j_and_f:.1f}" for s in [*found, mean]]
        print(f"| {way} | {' | '.join(cells)} | {100 * mean.j.decay:.1f} | {cost[way] / read:.2f} |")


def _known(features: dict[int, torch.Tensor], encode: Encode, picture: np.ndarray) -> torch.Tensor:
    """Features of a whole frame, which are known, or of what was cut or enlarged from one."""
    return features[id(picture)].float() if id(picture) in features else encode(picture)


if __name__ == "__main__":
    typer.run(main)
