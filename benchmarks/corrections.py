"""J&F of what is not labelled, with the first mask alone and with the truth of the middle frame as well.

    python -m benchmarks.corrections DAVIS [--only NAME ...] [--frames 30] [--size 480] [--weights FILE] [--json]

Labels each sequence of a data set in DAVIS's layout twice. Both are scored on the same frames: all but the first, the
middle and the last one (DAVIS's protocol leaves out the first and the last).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch

from vcorr.evaluation import davis_layout
from vcorr.evaluation.metrics.masks import boundary_f, jaccard
from vcorr.labels.label import MaskLabels
from vcorr.labels.raw_ids import Ids
from vcorr.media.video import open_video
from vcorr.model.encoder import Model
from vcorr.model.weights import load_weights
from vcorr.propagation.plan import spans
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.video import label_plan, pictures


def scored(sequence: davis_layout.Sequence, model: Model, count: int | None, short_side: int) -> tuple[float, float]:
    """J&F of a sequence, with one labelled frame and with two."""
    with open_video(sequence.images) as video:
        size = video.height, video.width
        stop = min(len(video), sequence.start + (count or len(video)))
        by_stem = {frame.stem: k for k, frame in enumerate(sequence.frames)}
        files = {by_stem[path.stem]: path for path in sequence.annotations if by_stem[path.stem] < stop}
        truth = {k: davis_layout.read_annotation(path, size) for k, path in files.items()}
        first, last = min(truth), max(truth)
        middle = min(truth, key=lambda k: (abs(2 * k - first - last), k))
        given = {k: np.where(truth[k] == davis_layout.VOID, 0, truth[k]) for k in (first, middle)}
        frames = truth.keys() - {first, middle, last}
        labels = MaskLabels.of(given.values(), size, model.encoder.device)
        one, two = (
            dict(
                label_plan(
                    pictures(video, short_side),
                    spans(list(known), first, stop),
                    {k: labels.typed(ids) for k, ids in known.items()},
                    Propagator(model, labels),
                )
            )
            for known in ({first: given[first]}, given)
        )
    objects = [int(i) for i in np.unique(given[first]) if i]
    return (j_and_f(one, truth, objects, frames), j_and_f(two, truth, objects, frames))


def j_and_f(got: Mapping[int, Ids], truth: Mapping[int, Ids], objects: list[int], frames: Collection[int]) -> float:
    """Mean of J and F over frames and objects, in percent; void pixels count nowhere."""
    scores = []
    for k in frames:
        for i in objects:
            mask, wanted = (got[k] == i) & (truth[k] != davis_layout.VOID), truth[k] == i
            scores.append((jaccard(mask, wanted) + boundary_f(mask, wanted)) / 2)
    return 100 * float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="data set in DAVIS's layout")
    parser.add_argument("--only", nargs="*", help="these sequences alone")
    parser.add_argument("--frames", type=int, help="of each sequence; default: all")
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--weights", type=Path, help="weights file; default: the shipped ones")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model = Model.of(load_weights(args.weights), torch.device("cpu"))
    results: dict[str, tuple[float, float]] = {}
    for sequence in davis_layout.sequences(args.root, names=args.only):
        results[sequence.name] = one, two = scored(sequence, model, args.frames, args.size)
        if not args.json:
            print(f"{sequence.name:20s} {one:5.1f} {two:5.1f}  {two - one:+5.1f}", flush=True)
    better = sum(two > one for one, two in results.values())
    if args.json:
        print(json.dumps({"sequences": results, "better": better}))
        return
    mean = np.mean(list(results.values()), 0)
    print(f"{'mean':20s} {mean[0]:5.1f} {mean[1]:5.1f}; the second label raises {better} of {len(results)} sequences")


if __name__ == "__main__":
    main()
