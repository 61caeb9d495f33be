"""J&F of a network fitted to each video, by iterations, beside the propagated masks (Zhu et al. 2020, Figure 3).

    python -m benchmarks.adaptation DAVIS [--form light] [--only NAME ...] [--every 50] [--iterations 300] [--json]

Labels each sequence of a data set in DAVIS's layout from its first mask, fits a network to these masks, and scores what
it makes of the frames after every so many iterations: all frames but the first and the last. --stride N scores every
Nth of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.corrections import j_and_f
from vcorr.evaluation import davis_layout
from vcorr.labels.label import MaskLabels
from vcorr.media.video import open_video
from vcorr.model.encoder import Model
from vcorr.model.weights import load_weights
from vcorr.propagation.adapt import VIEWS, Adaptation, Job, Network, fitted, relabelled
from vcorr.propagation.plan import spans
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.video import label_plan, pictures


@dataclasses.dataclass(frozen=True)
class Curve:
    """J&F of a sequence in percent.

    Attributes:
        propagated: of the masks that the network learns from. adapted: of the network, by iterations.
        seconds: of processor time that the propagation and the fitting took, without the scoring.
    """

    propagated: float
    adapted: Mapping[int, float]
    seconds: tuple[float, float]


def measured(
    sequence: davis_layout.Sequence, model: Model, cfg: Adaptation, every: int, stride: int, short_side: int
) -> Curve:
    """Propagate, fit, and score a sequence."""
    with open_video(sequence.images) as video:
        size, stop = (video.height, video.width), len(video)
        by_stem = {frame.stem: k for k, frame in enumerate(sequence.frames)}
        truth = {by_stem[path.stem]: davis_layout.read_annotation(path, size) for path in sequence.annotations}
        first, last = min(truth), max(truth)
        start = np.where(truth[first] == davis_layout.VOID, 0, truth[first])
        labels = MaskLabels.of([start], size, model.encoder.device)
        given, read = {first: labels.typed(start)}, pictures(video, short_side)
        began = time.process_time()
        masks = dict(label_plan(read, spans([first], first, stop), given, Propagator(model, labels)))
        propagating = time.process_time() - began
        scored = [k for k in sorted(truth) if first < k < last][::stride]
        objects = [int(i) for i in np.unique(start) if i]
        job = Job(range(first, stop), read, given, masks.__getitem__, labels, model)
        view, adapted, scoring = VIEWS[cfg.form](job), {}, 0.0

        def reached(network: Network) -> None:
            nonlocal scoring
            if network.iteration % every == 0 or network.iteration == cfg.iterations:
                before = time.process_time()
                found = dict(relabelled(job, network, view, scored))
                adapted[network.iteration] = j_and_f(found, truth, objects, scored)
                scoring += time.process_time() - before

        began = time.process_time()
        with tempfile.TemporaryDirectory(prefix="vcorr-") as folder:
            fitted(job, cfg, Path(folder) / "samples", reached=reached)
        fitting = time.process_time() - began - scoring
        return Curve(j_and_f(masks, truth, objects, scored), adapted, (propagating, fitting))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="data set in DAVIS's layout")
    parser.add_argument("--form", choices=("full", "light"), default="light")
    parser.add_argument("--interleave", action="store_true")
    parser.add_argument("--only", nargs="*", help="these sequences alone")
    parser.add_argument("--every", type=int, default=50, help="iterations from one score to the next")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--stride", type=int, default=1, help="score every Nth frame")
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="weights file; default: the shipped ones")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model = Model.of(load_weights(args.weights), torch.device(args.device))
    cfg = dataclasses.replace(Adaptation.of(args.form, interleaved=args.interleave), iterations=args.iterations)
    curves: dict[str, Curve] = {}
    for sequence in davis_layout.sequences(args.root, names=args.only):
        curves[sequence.name] = curve = measured(sequence, model, cfg, args.every, args.stride, args.size)
        if not args.json:
            points = "  ".join(f"{n}: {score:.1f}" for n, score in curve.adapted.items())
            took = f"{curve.seconds[0]:.0f} s + {curve.seconds[1]:.0f} s"
            print(f"{sequence.name:20s} propagated {curve.propagated:5.1f}   {points}   ({took})", flush=True)
    if args.json:
        print(json.dumps({name: dataclasses.asdict(curve) for name, curve in curves.items()}))
        return
    each = list(curves.values())
    means = "  ".join(f"{n}: {np.mean([c.adapted[n] for c in each]):.1f}" for n in each[0].adapted)
    print(f"{'mean':20s} propagated {np.mean([c.propagated for c in each]):5.1f}   {means}")


if __name__ == "__main__":
    main()
