"""Curves over steps as inline SVG, drawn for a page that brings the colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from vcorr.training.watch.history import Numbers, Series, smoothed, thinned

WIDTH, HEIGHT = 360, 190  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 22  # margins
DIGIT = 7  # no digit of a step is wider


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        label: its name.
        series: its points.
        smooth: draw a running mean, and the points faintly behind it.
        dots: mark each point.
    """

    label: str
    series: Series
    smooth: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """A value axis: [low, high]; logarithmic if ``log``."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(cls, values: Numbers, span: tuple[float, float] | None) -> Axis:
        """An axis for values; logarithmic if they are positive and differ by more than a factor of 50."""
        low, high = float(values.min()), float(values.max())
        if span is not None:
            low, high = min(low, span[0]), max(high, span[1])
            return cls(low, high if high > low else low + 1)
        if low > 0 and high / low > 50:
            return cls(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)), log=True)
        if high - low <= 1e-3 * abs(high):  # nearly constant
            return cls(min(0.0, 1.25 * low), max(0.0, 1.25 * high) or 1.0)
        room = (high - low) * 0.06
        floor = 0.0 if low >= 0 and low < 0.5 * high else low - room
        return cls(floor, high + room)

    def place(self, values: Numbers) -> Numbers:
        """The heights of values in the drawing."""
        low, high, at = self.low, self.high, np.clip(values, self.low, self.high)
        if self.log:
            low, high, at = math.log10(low), math.log10(high), np.log10(at)
        share = (at - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[float]:
        """Round values on the axis."""
        if self.log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            return [10.0**k for k in range(first, last + 1, (last - first - 1) // 5 + 1)]
        return _round_values(self.low, self.high, 5)


def chart(
    title: str,
    curves: Sequence[Curve],
    *,
    end: float,
    marks: Sequence[tuple[float, str]] = (),
    span: tuple[float, float] | None = None,
    limit: float | None = None,
    note: str = "",
) -> str:
    """A figure of HTML with one chart.

    Args:
        title: above it.
        curves: at most three, as the page has three colours.
        end: the last step of the step axis, which starts at 0.
        marks: (step, name) where stages begin.
        span: values that the axis always includes.
        limit: a dashed line at this value.
        note: one sentence below.
    """
    drawn = [c.series.values if not c.smooth else smoothed(c.series.values) for c in curves]
    raw = np.concatenate([_without_spikes(c.series.values) for c in curves])
    axis = Axis.around(np.concatenate([raw, *drawn]), span)
    body = [_grid(axis, end, marks)]
    if limit is not None and axis.low <= limit <= axis.high:
        y = float(axis.place(np.array([limit]))[0])
        body.append(f'<path class="limit" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
    for number, (curve, values) in enumerate(zip(curves, drawn, strict=True), start=1):
        if curve.smooth:
            body.append(_line(curve.series, axis, end, f"raw c{number}"))
        body.append(_line(Series(curve.series.steps, values), axis, end, f"line c{number}", dots=curve.dots))
    legend = "".join(
        f'<span class="key c{n}">{escape(c.label)} <b>{escape(show(float(values[-1])))}</b></span>'
        for n, (c, values) in enumerate(zip(curves, drawn, strict=True), start=1)
    )
    caption = f"<figcaption>{escape(note)}</figcaption>" if note else ""
    return (
        f'<figure class="chart"><h3>{escape(title)}</h3><div class="legend">{legend}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} over steps">'
        f"{''.join(body)}</svg>{caption}</figure>"
    )


def show(value: float) -> str:
    """A number in at most four digits and a unit.

    >>> [show(x) for x in (0, 0.09783, 12345.6, 2.5e6, 1e-5)]
    ['0', '0.0978', '12.3k', '2.5M', '1e-05']
    """
    size = abs(value)
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= unit and size < 1e12:
            unit = 1e3 if name == "k" else unit
            return f"{value / unit:.3g}{name}" if size / unit < 1000 else f"{value / unit:.0f}{name}"
    return f"{value:.0f}" if 1000 <= size < 1e4 else f"{value:.3g}"


def _grid(axis: Axis, end: float, marks: Sequence[tuple[float, str]]) -> str:
    parts = []
    for value in axis.ticks():
        y = float(axis.place(np.array([value]))[0])
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{show(value)}</text>')
    for step in _round_values(0, end, 4):
        label = show(step)
        x = min(_across(np.array([step]), end)[0], WIDTH - DIGIT * len(label) / 2)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{label}</text>')
    for step, name in marks:
        x = _across(np.array([step]), end)[0]
        parts.append(f'<path class="mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"><title>{escape(name)}</title></path>')
        parts.append(f'<text class="name" x="{x + 3:.1f}" y="{TOP + 9}">{escape(name[:12])}</text>')
    return "".join(parts)


def _line(series: Series, axis: Axis, end: float, kind: str, *, dots: bool = False) -> str:
    series = thinned(series)
    points = list(zip(_across(series.steps, end).tolist(), axis.place(series.values).tolist(), strict=True))
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    marked = "".join(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points)
    if len(points) == 1 or dots:
        return f'<path class="{kind}" d="M{path}"/>{marked}'
    return f'<path class="{kind}" d="M{path}"/>'


def _across(steps: Numbers, end: float) -> Numbers:
    return LEFT + np.clip(steps / max(end, 1), 0, 1) * (WIDTH - LEFT - RIGHT)


def _without_spikes(values: Numbers) -> Numbers:
    """Leaves out the highest 0.5 % of many values, so that a spike does not flatten its curve."""
    return values if len(values) < 200 else values[values <= np.quantile(values, 0.995)]


def _round_values(low: float, high: float, most: int) -> list[float]:
    """Up to ``most`` + 1 multiples of 1, 2 or 5 times a power of ten in [low, high]."""
    width = (high - low) / most
    power = 10.0 ** math.floor(math.log10(width))
    step = next((k * power for k in (1, 2, 5, 10) if k * power >= width * (1 - 1e-9)), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]
