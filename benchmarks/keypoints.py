"""PCK of keypoints carried from the first annotated frame of each sequence of joints JSON.

    python -m benchmarks.keypoints DATA [--only NAME ...] [--size 480] [--weights FILE] [--json]

DATA holds keypoints/*.json, each with the folder of its frames (``frames_dir``). A point counts where it is visible in
the first annotated frame and in the one that is scored; it is right at a share of the longer side of the box around all
points that are visible there (PCK_max; ``normaliser``). A point that is reported lost is wrong. Scores are over all
points of all sequences but those of the first frames.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from vcorr.labels.formats.joints import read_joints
from vcorr.labels.formats.text import read_json
from vcorr.labels.keypoints import KeypointLabels, Points
from vcorr.media.video import open_video
from vcorr.model.encoder import Model
from vcorr.model.weights import load_weights
from vcorr.propagation.plan import Span
from vcorr.propagation.propagator import Propagator
from vcorr.propagation.span import label_span
from vcorr.propagation.video import pictures

SHARES = (0.1, 0.2)
NORMALISER = "the longer side of the box around the points visible in the frame"


def scored(data: Path, path: Path, model: Model, short_side: int) -> list[tuple[float, float]]:
    """(distance as a share of the normaliser, confidence) of each point that counts."""
    joints = read_json(path)
    table = read_joints(path, joints)
    truth = {int(k): places for k, places in table.frames.items() if isinstance(k, str)}
    first, last = min(truth), max(truth)
    rows = []
    with open_video(data / joints["frames_dir"]) as video:
        labels = KeypointLabels(table.names, (video.height, video.width), model.encoder.device)
        xy = np.array([truth[first].get(name, (np.nan, np.nan)) for name in table.names])
        given, span = {first: Points.given(xy)}, Span(range(first, last + 1))
        for k, _, points in label_span(pictures(video, short_side), span, given, Propagator(model, labels)):
            if k == first or k not in truth:
                continue
            longer = float(np.ptp(np.array(list(truth[k].values())), axis=0).max())
            for i, name in enumerate(table.names):
                if name in truth[k] and name in truth[first]:
                    distance = float(np.linalg.norm(points.xy[i] - truth[k][name])) / longer
                    rows.append((np.inf if np.isnan(distance) else distance, float(points.confidence[i])))
    return rows


def pck(rows: list[tuple[float, float]]) -> dict[str, float]:
    """Share of points that lie within each of ``SHARES``, in percent."""
    return {f"PCK@{share}": 100 * float(np.mean([distance <= share for distance, _ in rows])) for share in SHARES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model = Model.of(load_weights(args.weights), torch.device("cpu"))
    results: dict[str, dict[str, float]] = {}
    every = []
    files = [p for p in sorted((args.data / "keypoints").glob("*.json")) if not args.only or p.stem in args.only]
    if not files:
        parser.error(f"{args.data / 'keypoints'} must hold a file *.json of the names asked for")
    for path in files:
        rows = scored(args.data, path, model, args.size)
        every += rows
        results[path.stem] = pck(rows) | {"points": len(rows)}
    results["all"] = pck(every) | {"points": len(every)}
    right = np.array([distance <= SHARES[1] for distance, _ in every])
    confidence = np.array([c for _, c in every])
    if right.any() and not right.all():
        pairs = confidence[right][:, None] - confidence[~right][None]
        results["all"]["confidence tells right from wrong (AUC)"] = float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    if args.json:
        print(json.dumps({"normaliser": NORMALISER, "size": args.size, **results}))
        return
    print(f"normaliser: {NORMALISER}; read at {args.size}")
    for name, scores in results.items():
        print(f"{name:16s}", "  ".join(f"{key} {value:.3g}" for key, value in scores.items()))


if __name__ == "__main__":
    main()
