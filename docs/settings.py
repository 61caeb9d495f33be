"""Draw the pictures of the settings of reading in docs/propagation.md.

python docs/settings.py docs/settings
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path

from vcorr.model.inference import References
from vcorr.propagation.memory import read_at
from vcorr.propagation.methods import METHODS

INK, FAINT, BLUE, RED, GREEN = "#555", "#bbb", "#1f6fd6", "#d2601a", "#2d8a4e"
LOGITS = (2.1, 0.4, 3.0, 1.2, 2.7, 0.1, 1.7, 0.8)  # of a cell with eight others


def svg(width: int, height: int, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    font = 'font-family="system-ui, sans-serif" font-size="12"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'{font}>\n<rect width="{width}" height="{height}" fill="#fff"/>\n{body}\n</svg>\n'
    )


def box(x: float, y: float, w: float, h: float, fill: str, stroke: str = "none") -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{fill}" stroke="{stroke}"/>'


def text(x: float, y: float, said: str, anchor: str = "start", fill: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{said}</text>'


def references() -> str:
    """The frames that frame 30 reads, by method."""
    rows = {"default, mast, momentum, liir": METHODS["mast"]["references"], "walk": METHODS["walk"]["references"]}
    rows["short=1, long="] = References((), (1,))
    parts = []
    for row, (name, which) in enumerate(rows.items()):
        y = 14 + 34 * row
        parts.append(text(180, y + 14, name, "end"))
        read = read_at(30, which)
        for k in range(31):
            fill = GREEN if k == 0 and k in read else BLUE if k in read else RED if k == 30 else "#eee"
            parts.append(box(190 + 15 * k, y, 13, 20, fill))
    y = 14 + 34 * len(rows)
    parts += [text(190 + 15 * k + 6, y + 8, str(k), "middle") for k in (0, 5, 10, 15, 20, 25, 30)]
    parts.append(text(190, y + 28, "green: the labelled frame; blue: read; orange: frame 30, which reads them"))
    return svg(670, y + 40, parts)


def radius() -> str:
    """The windows of radius 2 and 4 around a cell."""
    parts, step = [], 14
    for panel, size in enumerate((2, 4)):
        left = 20 + panel * 240
        for i in range(11):
            for j in range(11):
                inside = abs(i - 5) <= size and abs(j - 5) <= size
                fill = RED if (i, j) == (5, 5) else "#bcd5f5" if inside else "#f4f4f4"
                parts.append(box(left + step * j, 12 + step * i, step - 1, step - 1, fill))
        count = (2 * size + 1) ** 2
        parts.append(text(left, 188, f"radius={size}: {count} cells, {4 * size} pixels each way"))
    return svg(520, 200, parts)


def bars(panels: Iterable[tuple[str, list[float]]]) -> str:
    """Weights of eight cells, a panel each."""
    parts = []
    for panel, (name, weights) in enumerate(panels):
        left = 20 + 200 * panel
        for i, w in enumerate(weights):
            parts.append(box(left + 20 * i, 112 - 100 * w, 15, 100 * w, BLUE if w else FAINT))
            if not w:
                parts.append(box(left + 20 * i, 111, 15, 1, FAINT))
        parts += [f'<path d="M{left - 4} 112.5h166" stroke="{INK}"/>', text(left, 132, name)]
    return svg(20 + 200 * (panel + 1), 142, parts)


def softmax(logits: Iterable[float]) -> list[float]:
    exps = [math.exp(v) for v in logits]
    return [e / sum(exps) for e in exps]


def scale() -> str:
    return bars((f"scale times {factor:g}", softmax(factor * v for v in LOGITS)) for factor in (0.5, 1, 3))


def top_k() -> str:
    panels = []
    for k in (8, 4, 2):
        least = sorted(LOGITS)[-k]
        some = [v if v >= least else -math.inf for v in LOGITS]
        panels.append(("all" if k == 8 else f"top_k={k}", softmax(some)))
    return bars(panels)


def feedback() -> str:
    """An edge as later frames read it."""
    shares = (1, 1, 0.8, 0.45, 0.1, 0)
    parts = []
    for panel, (name, values) in enumerate((("soft", shares), ("hard", tuple(float(s > 0.5) for s in shares)))):
        left = 20 + 240 * panel
        for i, s in enumerate(values):
            grey = round(255 - 200 * s)
            parts.append(box(left + 34 * i, 14, 32, 32, f"rgb({grey},{grey},{grey})", FAINT))
            parts.append(text(left + 34 * i + 16, 62, f"{s:g}", "middle"))
        parts.append(text(left, 84, f"feedback={name}"))
    return svg(500, 94, parts)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for draw in (references, radius, scale, top_k, feedback):
        (folder / f"{draw.__name__}.svg").write_text(draw(), encoding="utf-8")
