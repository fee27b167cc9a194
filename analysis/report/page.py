"""What the small pages have in common: one file without scripts that opens from disk, tables, and dots on an axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

__all__ = ["Strip", "page", "section", "strips", "table"]

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
WIDTH, LEFT, RIGHT, ROW, TOP, BELOW = 1000, 170, 30, 34, 14, 44
STYLE = """
.strips { width: 100%; min-width: 620px; height: auto; display: block; font-size: 13px; }
.strips text { fill: var(--ink); } .strips .quiet { fill: var(--quiet); } .strips .grid { stroke: var(--rule); }
.strips circle { fill: var(--ttft); opacity: .6; } .strips .mark { stroke: var(--quiet); stroke-dasharray: 4 4; }
.strips .range { stroke: var(--ttft); stroke-width: 3; }
"""


@dataclass(frozen=True, slots=True)
class Strip:
    """One row of a picture: a dot for each value, a line for an interval if there is one."""

    name: str
    values: Sequence[float]
    low: float | None = None
    high: float | None = None


def page(title: str, head: Iterable[str], sections: Iterable[str], style: str = STYLE) -> str:
    """Return the whole page. head: lines under the title, and sections: both are HTML already."""
    shown = escape(title)
    body = [f"<header>\n<h1>{shown}</h1>\n{''.join(f'<p>{line}</p>' for line in head)}\n</header>", *sections]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>loadgen: {shown}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<style>\n{(HERE / 'page.css').read_text('utf-8')}{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, content: str) -> str:
    """Return a section; nothing for no content. content: HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts that are not HTML yet."""
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>"


def strips(rows: Sequence[Strip], axis: str, mark: float | None = None) -> str:
    """Return the rows as a picture over one axis. axis: its title with the unit. mark: a value to draw a line at."""
    known = [value for row in rows for value in (*row.values, row.low, row.high) if value is not None]
    if not known:
        return ""
    least, most = (
        min(*known, mark if mark is not None else known[0]),
        max(*known, mark if mark is not None else known[0]),
    )
    room = (most - least) * 0.05 or max(abs(most), 1) * 0.05
    low, high, bottom = least - room, most + room, TOP + ROW * len(rows)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    parts = []
    for tick in _ticks(low, high):
        parts.append(f'<line class=grid x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text class=quiet x="{x(tick):.1f}" y="{bottom + 18}" text-anchor=middle>{tick:g}</text>')
    if mark is not None:
        parts.append(f'<line class=mark x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{TOP}" y2="{bottom}"/>')
    for place, row in enumerate(rows):
        y = TOP + ROW * (place + 0.5)
        parts.append(f'<text x="{LEFT - 14}" y="{y + 4:.1f}" text-anchor=end>{escape(row.name)}</text>')
        if row.low is not None and row.high is not None:
            parts.append(f'<line class=range x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts += [
            f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r=5><title>{value:g}</title></circle>' for value in row.values
        ]
    parts.append(
        f'<text class=quiet x="{(LEFT + WIDTH - RIGHT) / 2}" y="{bottom + 38}" text-anchor=middle>{escape(axis)}</text>'
    )
    label = escape(axis, quote=True)
    size = f"0 0 {WIDTH} {bottom + BELOW}"
    return (
        f'<div class=wide><svg class=strips viewBox="{size}" role=img aria-label="{label}">{"".join(parts)}</svg></div>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return about six round values between `low` and `high`."""
    rough = (high - low) / 6
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [float(tick) for tick in np.round(np.arange(np.ceil(low / step), high / step) * step, 12)]
