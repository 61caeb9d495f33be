"""Scores of results by a second implementation, written from the published descriptions, beside those of vcorr.

    python -m benchmarks.rescore davis ROOT PRED [--sequence NAME ...]   J and F of each object: mean, recall, decay
    python -m benchmarks.rescore masks TRUTH PRED                        mean IoU of each sequence
    python -m benchmarks.rescore keypoints TRUTH PRED                    PCK of each point, by box diagonal and side

PRED is what ``vcorr evaluate BENCHMARK --out PRED`` kept, what ``vcorr propagate`` wrote into PRED/NAME, or PRED itself
where there is one video: for ``davis`` one --sequence, for ``masks`` a TRUTH of masks alone. It reads PNG files by
Pillow, and shares no formula with vcorr: distances between contour pixels in place of dilation, sets of pixels in place
of a confusion matrix, loops over points. Prints the scores of both and the largest difference of any number; ends with
1 where that exceeds ``CLOSE``.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLOSE = 1e-6
CHUNK = 1000  # contour pixels compared with all others at once
Numbers = dict[str, float]


def ids_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


# --- J and F --------------------------------------------------------------------------------------------------------


def region_similarity(mask: np.ndarray, truth: np.ndarray) -> float:
    together = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / together if together else 1.0


def contour(mask: np.ndarray) -> np.ndarray:
    """(y, x) of pixels that differ from the one to the right, below, or right and below, of those that there are."""
    found = np.zeros(mask.shape, bool)
    for y, row in enumerate(mask):
        under = mask[min(len(mask) - 1, y + 1)]
        found[y, :-1] |= row[:-1] != row[1:]
        found[y] |= row != under
        found[y, :-1] |= row[:-1] != under[1:]
    return np.argwhere(found)


def near(these: np.ndarray, those: np.ndarray, radius: int) -> float:
    """The share of points within a distance of one of the others."""
    hits = 0
    for first in range(0, len(these), CHUNK):
        apart = these[first : first + CHUNK, None].astype(float) - those[None]
        hits += int((np.square(apart).sum(2).min(1) <= radius**2).sum())
    return hits / len(these)


def contour_accuracy(mask: np.ndarray, truth: np.ndarray) -> float:
    found, wanted = contour(mask), contour(truth)
    if not len(found) and not len(wanted):
        return 1.0
    if not len(found) or not len(wanted):
        return 0.0
    radius = math.ceil(0.008 * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))
    precision, recall = near(found, wanted, radius), near(wanted, found, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def three(name: str, values: list[float]) -> Numbers:
    """Mean, recall, and decay from the first to the last quarter."""
    edges = [round(1 + quarter * (len(values) - 1) / 4 + 1e-10) - 1 for quarter in range(5)]
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return {
        f"{name} mean": sum(values) / len(values),
        f"{name} recall": sum(v > 0.5 for v in values) / len(values),
        f"{name} decay": sum(first) / len(first) - sum(last) / len(last),
    }


def davis(root: Path, pred: Path, names: Sequence[str] | None = None) -> tuple[Numbers, Numbers]:
    """Every number of every object, by both; of the set's sequences, or of those with these names."""
    from vcorr.evaluation.davis import evaluate_davis

    if names is not None and len(names) == 1 and (pred / "masks").is_dir():
        with tempfile.TemporaryDirectory(prefix="vcorr-") as folder:
            Path(folder, names[0]).symlink_to(pred.resolve())
            return davis(root, Path(folder), names)
    scores = evaluate_davis(root, pred, sequences=names, workers=1)
    ours, theirs = {}, {}
    for sequence in scores.sequences:
        for o in sequence.objects:
            for name, found in (("J", o.j), ("F", o.f)):
                for what in ("mean", "recall", "decay"):
                    ours[f"{sequence.name} {o.id} {name} {what}"] = float(getattr(found, what))
    listed = root / "ImageSets/2017/val.txt"
    annotations = root / "Annotations/480p"
    if names is None:
        names = listed.read_text().split() if listed.is_file() else sorted(p.name for p in annotations.iterdir())
    every: list[float] = []
    for name in names:
        files = sorted((annotations / name).glob("*.png"), key=lambda file: int(file.stem))
        folder = pred / name / "masks" if (pred / name / "masks").is_dir() else pred / name
        first = ids_of(files[0])
        first = np.where(first == 255, 0, first)
        for k in range(1, int(first.max()) + 1):
            js, fs = [], []
            for file in files[1:-1]:
                mask, truth = ids_of(folder / file.name) == k, ids_of(file) == k
                js.append(region_similarity(mask, truth))
                fs.append(contour_accuracy(mask, truth))
            numbers = three("J", js) | three("F", fs)
            theirs |= {f"{name} {k} {what}": value for what, value in numbers.items()}
            every.append((numbers["J mean"] + numbers["F mean"]) / 2)
    return ours | {"J&F": scores.overall.j_and_f}, theirs | {"J&F": sum(every) / len(every)}


# --- mean IoU -------------------------------------------------------------------------------------------------------


def masks(truth: Path, pred: Path) -> tuple[Numbers, Numbers]:
    """Mean IoU of every sequence, by both; classes by pixels as sets, over all annotations but the first."""
    from vcorr.evaluation.masks import evaluate_masks

    scores = evaluate_masks(truth, pred, workers=1)
    ours = {sequence.name: sequence.mean_iou for sequence in scores.sequences} | {"mIoU": scores.mean_iou}
    annotations = next(p for p in (truth / "Annotations/480p", truth / "Annotations", truth) if p.is_dir())
    alone = next(annotations.glob("*.png"), None) is not None
    theirs = {}
    for sequence in scores.sequences:
        place = pred if alone else pred / sequence.name
        folder = place / "masks" if (place / "masks").is_dir() else place
        masks_of = annotations if alone else annotations / sequence.name
        files = sorted(masks_of.glob("*.png"), key=lambda file: int(file.stem))
        both: dict[int, int] = {}
        either: dict[int, int] = {}
        for file in files[1:]:
            right, found = ids_of(file), ids_of(folder / file.name)
            for c in {*np.unique(right).tolist(), *np.unique(found).tolist()}:
                both[c] = both.get(c, 0) + np.count_nonzero((right == c) & (found == c))
                either[c] = either.get(c, 0) + np.count_nonzero((right == c) | (found == c))
        theirs[sequence.name] = sum(both[c] / either[c] for c in either) / len(either)
    return ours, theirs | {"mIoU": sum(theirs.values()) / len(theirs)}


# --- PCK ------------------------------------------------------------------------------------------------------------


def keypoints(truth: Path, pred: Path) -> tuple[Numbers, Numbers]:
    """PCK of every point and their means, by both; the first annotated frame is given, a lost point is wrong."""
    from vcorr.evaluation.keypoints import evaluate_keypoints
    from vcorr.labels.keypoint_set import read_point_table

    scores = evaluate_keypoints(truth, pred)
    ours = {}
    for row in scores.to_json()["points"]:
        ours |= {f"{row['name']} {key}": row[key] for key in row if key.startswith("pck") and row[key] is not None}
    ours |= {key: value for key, value in scores.to_json().items() if key.startswith("pck")}
    right: dict[str, list[bool]] = {}
    files = sorted(truth.glob("*.[cj]*")) if truth.is_dir() else [truth]
    for file in files:
        result = pred / file.stem if truth.is_dir() else pred
        results = [result / "keypoints.csv", result.with_suffix(".csv"), result]
        wanted, found = read_point_table(file).frames, read_point_table(next(p for p in results if p.is_file())).frames
        numbers = {frame_number(frame): places for frame, places in wanted.items() if places}
        there = {frame_number(frame): places for frame, places in found.items()}
        for frame in sorted(numbers)[1:]:
            xs, ys = zip(*numbers[frame].values(), strict=True)
            width, height = max(xs) - min(xs), max(ys) - min(ys)
            limits = {"instance": 0.6 * math.sqrt(width**2 + height**2), "max": max(width, height)}
            for name, (x, y) in numbers[frame].items():
                place = there.get(frame, {}).get(name)
                apart = math.inf if place is None else math.dist((x, y), place)
                for measure, limit in limits.items():
                    for alpha in (0.1, 0.2):
                        right.setdefault(f"{name} pck_{measure}@{alpha}", []).append(apart <= alpha * limit)
    theirs = {key: sum(hits) / len(hits) for key, hits in right.items()}
    for key in {key.rpartition(" ")[2] for key in theirs}:
        own = [value for name, value in theirs.items() if name.endswith(f" {key}")]
        theirs[key] = sum(own) / len(own)
    return ours, theirs


def frame_number(frame: int | str) -> int:
    """A frame's index, or the number at the end of its name."""
    return frame if isinstance(frame, int) else int(re.findall("[0-9]+", Path(frame).stem)[-1])


# --------------------------------------------------------------------------------------------------------------------


def lines(ours: Numbers, theirs: Numbers) -> Iterator[str]:
    """The scores of the whole, and the largest difference."""
    for name in [name for name in ours if " " not in name]:
        yield f"{name}: vcorr {ours[name]:.9f}, second implementation {theirs[name]:.9f}"
    worst = max(ours, key=lambda name: abs(ours[name] - theirs[name]))
    yield f"{len(ours)} numbers, largest difference {abs(ours[worst] - theirs[worst]):.1e} ({worst})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("davis", "masks", "keypoints"))
    parser.add_argument("truth", type=Path)
    parser.add_argument("pred", type=Path)
    parser.add_argument("--sequence", action="append", metavar="NAME", help="of davis: this one alone; may be repeated")
    given = parser.parse_args()
    if given.sequence and given.what != "davis":
        parser.error("--sequence is for davis")
    if given.what == "davis":
        ours, theirs = davis(given.truth, given.pred, given.sequence)
    else:
        ours, theirs = {"masks": masks, "keypoints": keypoints}[given.what](given.truth, given.pred)
    if ours.keys() != theirs.keys():
        raise SystemExit(f"not the same numbers: {', '.join(sorted(ours.keys() ^ theirs.keys())[:5])}")
    print("\n".join(lines(ours, theirs)))
    sys.exit(any(abs(ours[name] - theirs[name]) > CLOSE for name in ours))


if __name__ == "__main__":
    main()
