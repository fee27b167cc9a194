"""Rows of dots and intervals over one axis, as SVG in the page: no script runs and nothing is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from analysis.report.document import Plot, PlotRow, Scale, Tone
from analysis.report.markup import Markup, element

__all__ = ["plot"]

WIDTH, LEFT, RIGHT, ROW, TOP, BELOW = 1000, 170, 30, 34, 14, 28
TITLE = 20  # of the axis
WIDEST = 4.0  # a ratio beyond it is drawn at the edge, or one wild metric would flatten all others
RATIOS = (0.25, 0.33, 0.5, 0.67, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0, 1.01, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0)
APART = 46  # between two ticks
KINDS = {Tone.GOOD: "good", Tone.BAD: "bad", Tone.WARN: "open", Tone.DIM: "same"}


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values from `low` to `high` over the picture's width."""

    low: float
    high: float
    scale: Scale

    def x(self, value: float) -> float:
        if self.scale is Scale.RATIO:
            inside = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            inside = (value - self.low) / (self.high - self.low)
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(inside, 0.0), 1.0)

    def ticks(self) -> list[float]:
        return self._ratios() if self.scale is Scale.RATIO else _round(self.low, self.high)

    def _ratios(self) -> list[float]:
        """The ticks that leave room for one another, the nearest to 1 first."""
        chosen = [1.0]
        for tick in sorted(RATIOS, key=lambda tick: abs(math.log(tick))):
            if self.low <= tick <= self.high and all(abs(self.x(tick) - self.x(other)) >= APART for other in chosen):
                chosen.append(tick)
        return chosen


def plot(picture: Plot) -> Markup:
    """The picture; empty where it has nothing to show."""
    axis = _axis(picture)
    if axis is None:
        return Markup()
    bottom = TOP + ROW * len(picture.rows)
    parts = [*_ground(picture, axis, bottom)]
    for place, row in enumerate(picture.rows):
        parts += _row(row, TOP + ROW * (place + 0.5), axis)
    height = bottom + BELOW
    if picture.axis:
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(element("text", picture.axis, class_="quiet", x=middle, y=bottom + 38, text_anchor="middle"))
        height += TITLE
    box = f"0 0 {WIDTH} {height}"
    label = picture.summary or picture.axis
    svg = element("svg", *parts, class_="plots", viewBox=box, role="img", aria_label=label)
    return element("div", svg, class_="wide")


def _axis(picture: Plot) -> _Axis | None:
    values = [value for row in picture.rows for value in (*row.dots, *(row.interval or ()), *(row.outer or ()))]
    if not values:
        return None
    if picture.scale is Scale.RATIO:
        values += picture.band or ()
        reach = min(WIDEST, max(max(value, 1 / value) for value in values)) ** 1.06
        return _Axis(1 / reach, reach, picture.scale)
    values += [picture.mark] if picture.mark is not None else []
    least, most = min(values), max(values)
    room = (most - least) * 0.05 or max(abs(most), 1) * 0.05
    return _Axis(least - room, most + room, picture.scale)


def _ground(picture: Plot, axis: _Axis, bottom: int) -> Iterable[Markup]:
    """The band, the grid with its labels, the mark."""
    if picture.band:
        low, high = map(axis.x, picture.band)
        yield element("rect", class_="band", x=low, y=TOP, width=high - low, height=bottom - TOP)
    for tick in axis.ticks():
        x, middle = axis.x(tick), picture.scale is Scale.RATIO and tick == 1
        yield element("line", class_="one" if middle else "grid", x1=x, x2=x, y1=TOP, y2=bottom)
        yield element("text", f"{tick:g}", class_="quiet", x=x, y=bottom + 18, text_anchor="middle")
    if picture.mark is not None:
        x = axis.x(picture.mark)
        yield element("line", class_="mark", x1=x, x2=x, y1=TOP, y2=bottom)


def _row(row: PlotRow, y: float, axis: _Axis) -> Iterable[Markup]:
    kind = KINDS.get(row.tone, "plain")
    yield element("text", row.label, x=LEFT - 14, y=y + 4, text_anchor="end")
    for style, ends in (("thin", row.outer), ("thick", row.interval)):
        if ends is not None:
            start = axis.x(ends[0])
            yield element("line", class_=f"{style} {kind}", x1=start, x2=max(axis.x(ends[1]), start + 1), y1=y, y2=y)
    for value in row.dots:
        yield element("circle", element("title", row.hint or f"{value:g}"), class_=kind, cx=axis.x(value), cy=y, r=5)


def _round(low: float, high: float) -> list[float]:
    """About six round values between `low` and `high`."""
    rough = (high - low) / 6
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [float(tick) for tick in np.round(np.arange(np.ceil(low / step), high / step) * step, 12)]
