"""Scores as one HTML page without script: everything is inline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from vcorr.evaluation.objects import MaskScores, ObjectScores
from vcorr.labels.draw import default_palette, overlay
from vcorr.labels.raw_ids import Ids
from vcorr.pages.document import document, jpeg

SHOWN = 3  # best and worst sequences with pictures
FRAMES = 4  # frames of each
BINS = 10  # parts of a video
SIDE = 320  # pixels, the longer side of pictures
_STYLE = "svg{width:100%;max-width:560px;height:auto}"

Picture = NDArray[np.uint8]
Shown = Callable[[str], tuple[Picture | None, Ids]]
"""Name of a frame -> its picture [h w 3], if there is one, and the result's ids."""


@dataclass(frozen=True)
class Shot:
    """A sequence with pictures.

    Args:
        name: of the sequence.
        objects: its scores.
        shown: the frames to draw.
    """

    name: str
    objects: tuple[ObjectScores, ...]
    shown: Shown

    @property
    def score(self) -> float:
        """J&F, the mean over its objects."""
        return MaskScores.average(self.objects).j_and_f


def page(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], sequences: Sequence[Shot]) -> str:
    """The page: the table, J&F against the position in the video, the best and the worst sequences as pictures."""
    ranked = sorted(sequences, key=lambda s: s.score)
    worst = ranked[: min(SHOWN, (len(ranked) + 1) // 2)]
    best = ranked[len(worst) :][-SHOWN:][::-1]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<div class="scroll">{_table(columns, rows)}</div>',
        '<h2>Drift</h2><p class="dim">J&amp;F against the position in the video, from first to last scored frame: the '
        f"mean over all objects in each of {BINS} parts.</p>{_chart(drift(sequences))}",
        *(["<h2>Best</h2>", *map(_strip, best)] if best else []),
        "<h2>Worst</h2>",
        *map(_strip, worst),
    ]
    return document(title, parts, _STYLE)


def drift(sequences: Sequence[Shot]) -> list[float]:
    """Mean J&F in each part of the videos; an object with fewer frames than parts counts in the parts that it has.

    Frame i of n lies in part floor(BINS * i / n).
    """
    sums: list[list[float]] = [[] for _ in range(BINS)]
    for scores in (o for s in sequences for o in s.objects):
        own: list[list[float]] = [[] for _ in range(BINS)]
        for i, (j, f) in enumerate(zip(scores.js, scores.fs, strict=True)):
            own[BINS * i // len(scores.js)].append((j + f) / 2)
        for part, values in zip(sums, own, strict=True):
            part.extend([float(np.mean(values))] if values else [])
    return [float(np.mean(part)) if part else float("nan") for part in sums]


def _chart(values: Sequence[float]) -> str:
    points = [(40 + (i + 0.5) * 50, 10 + 160 * (1 - v)) for i, v in enumerate(values) if not np.isnan(v)]
    grid = "".join(
        f'<path d="M40 {10 + 160 * (1 - s)}H540" stroke="#8884"/>'
        f'<text x="34" y="{14 + 160 * (1 - s)}" text-anchor="end">{100 * s:.0f}</text>'
        for s in (0, 0.25, 0.5, 0.75, 1)
    )
    line = "L".join(f"{x:.0f} {y:.1f}" for x, y in points)
    dots = "".join(
        f'<circle cx="{x:.0f}" cy="{y:.1f}" r="3" fill="#1f6fd6"/>'
        f'<text x="{x:.0f}" y="{y - 7:.1f}" text-anchor="middle">{100 - (y - 10) / 1.6:.0f}</text>'
        for x, y in points
    )
    return (
        f'<svg viewBox="0 -8 550 203" role="img" aria-label="J&amp;F against position">{grid}'
        f'<path d="M{line}" fill="none" stroke="#1f6fd6" stroke-width="2"/>{dots}'
        '<text x="40" y="190">first frame</text><text x="540" y="190" text-anchor="end">last frame</text></svg>'
    )


def _strip(sequence: Shot) -> str:
    frames = max((o.frames for o in sequence.objects), key=len)
    chosen = dict.fromkeys(frames[round(i * (len(frames) - 1) / (FRAMES - 1))] for i in range(FRAMES))
    figures = "".join(
        f"<figure>{_image(*sequence.shown(name))}<figcaption>{escape(name)}</figcaption></figure>" for name in chosen
    )
    return f'<h3>{escape(sequence.name)}: {100 * sequence.score:.1f}</h3><div class="strip">{figures}</div>'


def _image(picture: Picture | None, ids: Ids) -> str:
    if picture is None or picture.shape[:2] != ids.shape:
        picture = np.full((*ids.shape, 3), 40, np.uint8)
    return f'<img alt="" src="{jpeg(overlay(picture, ids, default_palette()), SIDE)}">'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
