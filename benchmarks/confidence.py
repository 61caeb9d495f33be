"""The coefficients of confidence (``vcorr.propagation.confidence``), and how well it foretells J.

    python -m benchmarks.confidence DAVIS [MULTI ...] [--keep FOLDER] [--size 480] [--weights FILE] [--json]

Labels each sequence of data sets in DAVIS's layout from its first mask, and fits a logistic function of the signals to
the true J of every frame and object but the first, each sequence with the same weight. What it reports is of each
sequence with the coefficients of all the others: the rank correlation (Spearman) with J over all frames and the mean of
the sequences', how many of the frames with the lowest tenth of confidence are among the tenth with the lowest J, the
mean difference, and the calibration error (mean difference of confidence and J in ten bins of confidence). --keep
keeps signals and J, a file a sequence, so that another fit takes seconds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vcorr.evaluation import davis_layout
from vcorr.evaluation.metrics.masks import jaccard
from vcorr.labels.label import MaskLabels
from vcorr.media.video import open_video
from vcorr.model.encoder import Model
from vcorr.model.weights import load_weights
from vcorr.propagation.confidence import LEAST, SIGNALS, WEIGHTS, signals
from vcorr.propagation.plan import Span
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import label_span
from vcorr.propagation.video import pictures

Array = NDArray[np.float64]
Measured = tuple[Array, Array]
"""Signals [n SIGNALS] and J [n] of the frames and objects of a sequence."""
RIDGE = 1e-2  # pull of the weights towards 0, of signals of unit variance
BINS = 10


def measured(sequence: davis_layout.Sequence, model: Model, short_side: int) -> Measured:
    """Label a sequence from its first mask."""
    with open_video(sequence.images) as video:
        size = video.height, video.width
        by_stem = {frame.stem: k for k, frame in enumerate(sequence.frames)}
        files = {by_stem[path.stem]: path for path in sequence.annotations}
        first = davis_layout.first_ids(sequence, size)
        labels = MaskLabels.of([first], size, model.encoder.device)
        propagator, span = Propagator(model, labels), Span(range(sequence.start, len(video)))
        found, scores = [], []
        steps = label_span(pictures(video, short_side), span, {sequence.start: labels.typed(first)}, propagator)
        for index, _, ids in steps:
            if index == sequence.start or index not in files:
                continue
            truth = davis_layout.read_annotation(files[index], size)
            assert propagator.values is not None
            found.append(signals(propagator.values))
            scores.append([jaccard(ids == i, truth == i) for i in labels.classes[1:]])
    return np.concatenate(found).astype(np.float64), np.concatenate(scores)


def fitted(sequences: Sequence[Measured], names: Sequence[str]) -> Array:
    """Bias and weights of the logits of some signals, by Newton's method: the least cross entropy with J."""
    x = np.concatenate([logits(found, names) for found, _ in sequences])
    j = np.concatenate([scores for _, scores in sequences])
    share = np.concatenate([np.full(len(scores), 1 / len(scores) / len(sequences)) for _, scores in sequences])
    mean = share @ x
    scale = np.sqrt(share @ (x - mean) ** 2)
    x = np.column_stack([np.ones(len(x)), (x - mean) / scale])
    ridge = RIDGE * np.diag([0.0] + [1.0] * len(names))
    b = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ b))
        curvature = (x * (share * p * (1 - p))[:, None]).T @ x + ridge
        b -= np.linalg.solve(curvature, x.T @ (share * (p - j)) + ridge @ b)
    weights = b[1:] / scale
    return np.concatenate([[b[0] - weights @ mean], weights])


def logits(found: Array, names: Sequence[str]) -> Array:
    p = np.clip(found[:, [SIGNALS.index(name) for name in names]], LEAST, 1 - LEAST)
    return np.log(p / (1 - p))


def foretold(found: Array, names: Sequence[str], coefficients: Array) -> Array:
    return 1 / (1 + np.exp(-coefficients[0] - logits(found, names) @ coefficients[1:]))


def report(confidence: Array, j: Array) -> dict[str, float]:
    """How well confidence foretells J."""
    tenth = max(1, len(j) // 10)
    lowest = np.argsort(confidence, kind="stable")[:tenth]
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    off = [abs(confidence[bins == i].mean() - j[bins == i].mean()) * np.mean(bins == i) for i in np.unique(bins)]
    return {
        "rank": spearman(confidence, j),
        "worst tenth": float(np.mean(j[lowest] <= np.sort(j)[tenth - 1])),
        "difference": float(np.abs(confidence - j).mean()),
        "calibration": float(np.sum(off)),
    }


def spearman(a: Array, b: Array) -> float:
    """Rank correlation; equal values share the mean of their ranks."""
    ranks = []
    for values in (a, b):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    return float(np.corrcoef(ranks)[0, 1]) if all(np.ptp(r) for r in ranks) else float("nan")


def left_out(sequences: Mapping[str, Measured], names: Sequence[str]) -> dict[str, tuple[Array, Array]]:
    """Confidence, by the coefficients of all other sequences, and J of each."""
    results = {}
    for name, (found, j) in sequences.items():
        others = [other for key, other in sequences.items() if key != name]
        results[name] = foretold(found, names, fitted(others, names)), j
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", type=Path, nargs="+", help="data sets in DAVIS's layout")
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=list(WEIGHTS), help="to fit with")
    parser.add_argument("--keep", type=Path, help="folder for signals and J")
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--weights", type=Path, help="weights file; default: the shipped ones")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_intermixed_args()
    model = Model.of(load_weights(args.weights), torch.device("cpu"))
    sequences: dict[str, Measured] = {}
    for root in args.roots:
        for sequence in davis_layout.sequences(root):
            kept = args.keep and args.keep / f"{root.name}-{sequence.name}-{args.size}.npz"
            if kept and kept.is_file():
                data = np.load(kept)
                found, j = data["signals"], data["j"]
            else:
                found, j = measured(sequence, model, args.size)
                if kept:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    np.savez(kept, signals=found, j=j)
            sequences[f"{root.name}/{sequence.name}"] = found, j
    results = left_out(sequences, args.signals)
    rows = {name: report(*result) for name, result in results.items()}
    whole = report(*(np.concatenate(column) for column in zip(*results.values(), strict=True)))
    coefficients = fitted(list(sequences.values()), args.signals)
    if args.json:
        print(json.dumps({"sequences": rows, "all": whole, "bias, " + ", ".join(args.signals): list(coefficients)}))
        return
    print(f"{'sequence':28s}    J  confidence  rank  worst tenth  difference")
    for name, row in rows.items():
        p, j = results[name]
        text = f"{row['rank']:5.2f}  {row['worst tenth']:11.0%}  {row['difference']:10.2f}"
        print(f"{name:28s} {j.mean():.2f}  {p.mean():10.2f} {text}")
    each = np.nanmean([row["rank"] for row in rows.values()])
    print(f"rank correlation {whole['rank']:.2f}, mean of the sequences' {each:.2f}; of the tenth of frames with the")
    print(f"lowest confidence {whole['worst tenth']:.0%} are of the tenth with the lowest J; mean difference")
    print(f"{whole['difference']:.3f}, calibration error {whole['calibration']:.3f}")
    print("bias, " + ", ".join(args.signals) + ": " + ", ".join(f"{c:.3f}" for c in coefficients))


if __name__ == "__main__":
    main()
