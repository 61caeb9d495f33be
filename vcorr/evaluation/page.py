"""Scores as one HTML page without script: everything is inline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vcorr.errors import InputError
from vcorr.evaluation.objects import ObjectScores
from vcorr.files import replacing
from vcorr.labels.draw import default_palette, overlay
from vcorr.labels.raw_ids import Ids
from vcorr.pages.document import document, jpeg

SHOWN = 3  # best and worst sequences with pictures
FRAMES = 4  # frames of each
BINS = 10  # parts of a video
SIDE = 320  # pixels, the longer side of pictures
_STYLE = "svg{width:100%;max-width:560px;height:auto}"

Picture = NDArray[np.uint8]


class Table(Protocol):
    """What the page shows of any benchmark's scores."""

    @property
    def columns(self) -> tuple[str, ...]: ...
    def rows(self) -> list[tuple[str, ...]]: ...


@dataclass(frozen=True)
class Shot:
    """A sequence with pictures.

    Args:
        name: of the sequence.
        scores: of each of its objects, or one of the whole sequence; in [0, 1].
        series: the scores of each object in its frames, NaN where nothing counts.
        frames: names of the frames, some of which are drawn.
        picture: draws the result of a frame: uint8 [h w 3].
    """

    name: str
    scores: tuple[float, ...]
    series: tuple[tuple[float, ...], ...]
    frames: tuple[str, ...]
    picture: Callable[[str], Picture]

    @property
    def score(self) -> float:
        """The mean over its objects."""
        return float(np.mean(self.scores))


def shot_of_masks(
    name: str, objects: Sequence[ObjectScores], shown: Callable[[str], tuple[Picture | None, Ids]]
) -> Shot:
    """A sequence scored by J&F.

    Args:
        shown: name of a frame -> its picture, if there is one, and the ids of the result.
    """
    series = tuple(tuple((j + f) / 2 for j, f in zip(o.js, o.fs, strict=True)) for o in objects)
    frames = max((o.frames for o in objects), key=len)
    return Shot(name, tuple(o.j_and_f for o in objects), series, frames, lambda frame: on_picture(*shown(frame)))


def on_picture(picture: Picture | None, ids: Ids) -> Picture:
    """Masks over a picture, or over grey where there is none of their size."""
    if picture is None or picture.shape[:2] != ids.shape:
        picture = np.full((*ids.shape, 3), 40, np.uint8)
    return overlay(picture, ids, default_palette())


def write_page(
    path: Path,
    title: str,
    measure: str,
    table: Table,
    shots: Iterable[Shot],
    attributes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes the page: the table, groups by attribute, the score against the position in the video, pictures.

    Args:
        title: what was scored, and by which protocol.
        measure: the name of the shots' scores.
        attributes: of sequences by name, if known.

    Raises:
        InputError: no sequence has an attribute.
        OutputError: the page cannot be written.
    """
    text = page(title, measure, table, list(shots), attributes)
    with replacing(path) as file:
        file.write(text.encode())


def page(
    title: str, measure: str, table: Table, shots: Sequence[Shot], attributes: Mapping[str, Sequence[str]] | None
) -> str:
    """The text of the page, see `write_page`."""
    ranked = sorted((shot for shot in shots if not np.isnan(shot.score)), key=lambda s: s.score)
    worst = ranked[: min(SHOWN, (len(ranked) + 1) // 2)]
    best = ranked[len(worst) :][-SHOWN:][::-1]
    name = escape(measure)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<div class="scroll">{_table(table.columns, table.rows())}</div>',
        *([] if attributes is None else [_groups(measure, shots, attributes)]),
        f'<h2>Drift</h2><p class="dim">{name} against the position in the video, from first to last scored frame: the '
        f"mean over all objects in each of {BINS} parts.</p>{_chart(name, drift(shots))}",
        *(["<h2>Best</h2>", *map(_strip, best)] if best else []),
        "<h2>Worst</h2>",
        *map(_strip, worst),
    ]
    return document(title, parts, _STYLE)


def groups(shots: Sequence[Shot], attributes: Mapping[str, Sequence[str]]) -> list[tuple[str, int, float, float]]:
    """(attribute, sequences, score with it, score without it) in order of names; means over objects, NaN for none."""
    known = sorted({a for shot in shots for a in attributes.get(shot.name, ())})
    rows = []
    for attribute in known:
        sides: tuple[list[Shot], list[Shot]] = ([], [])
        for shot in shots:
            sides[attribute not in attributes.get(shot.name, ())].append(shot)
        means = [_mean([score for shot in side for score in shot.scores]) for side in sides]
        rows.append((attribute, len(sides[0]), means[0], means[1]))
    return rows


def _groups(measure: str, shots: Sequence[Shot], attributes: Mapping[str, Sequence[str]]) -> str:
    rows = [(a, str(n), _percent(w), _percent(o)) for a, n, w, o in groups(shots, attributes)]
    if not rows:
        names = ", ".join(shot.name for shot in shots[:3])
        raise InputError("--attributes", "names none of the scored sequences", f"name sequences such as {names}")
    columns = ("attribute", "sequences", f"{measure} with it", f"{measure} without it")
    return f'<h2>Groups by attribute</h2><div class="scroll">{_table(columns, rows)}</div>'


def _mean(values: Sequence[float]) -> float:
    kept = [v for v in values if not np.isnan(v)]
    return float(np.mean(kept)) if kept else float("nan")


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{100 * value:.1f}"


def drift(shots: Sequence[Shot]) -> list[float]:
    """Mean score in each part of the videos; an object with fewer frames than parts counts in the parts that it has.

    Frame i of n lies in part floor(BINS * i / n).
    """
    sums: list[list[float]] = [[] for _ in range(BINS)]
    for series in (series for shot in shots for series in shot.series):
        own: list[list[float]] = [[] for _ in range(BINS)]
        for i, score in enumerate(series):
            if not np.isnan(score):
                own[BINS * i // len(series)].append(score)
        for part, values in zip(sums, own, strict=True):
            part.extend([float(np.mean(values))] if values else [])
    return [_mean(part) for part in sums]


def _chart(measure: str, values: Sequence[float]) -> str:
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
        f'<svg viewBox="0 -8 550 203" role="img" aria-label="{measure} against position">{grid}'
        f'<path d="M{line}" fill="none" stroke="#1f6fd6" stroke-width="2"/>{dots}'
        '<text x="40" y="190">first frame</text><text x="540" y="190" text-anchor="end">last frame</text></svg>'
    )


def _strip(shot: Shot) -> str:
    last = len(shot.frames) - 1
    chosen = dict.fromkeys(shot.frames[round(i * last / (FRAMES - 1))] for i in range(FRAMES))
    figures = "".join(
        f'<figure><img alt="" src="{jpeg(shot.picture(name), SIDE)}"><figcaption>{escape(name)}</figcaption></figure>'
        for name in chosen
    )
    return f'<h3>{escape(shot.name)}: {100 * shot.score:.1f}</h3><div class="strip">{figures}</div>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
