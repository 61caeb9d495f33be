"""DeepLabCut's table of predictions as we write it: x, y and likelihood, a row a frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from vcorr.labels.keypoints import Points

SCORER = "vcorr"


def table(points: Mapping[int, Points], indices: range, names: Sequence[str]) -> str:
    """The table; four header rows where points have individuals. A point without a place is empty."""
    pairs = [name.rpartition("/")[::2] for name in names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["scorer", *[SCORER] * (3 * len(names))])
    if any(individual for individual, _ in pairs):
        writer.writerow(["individuals", *[individual or "single" for individual, _ in pairs for _ in range(3)]])
    writer.writerow(["bodyparts", *[part for _, part in pairs for _ in range(3)]])
    writer.writerow(["coords", *["x", "y", "likelihood"] * len(names)])
    for k in indices:
        row: list[object] = [k]
        for (x, y), confidence in zip(points[k].xy.tolist(), points[k].confidence.tolist(), strict=True):
            row += ["" if x != x else x, "" if y != y else y, confidence]
        writer.writerow(row)
    return text.getvalue()
