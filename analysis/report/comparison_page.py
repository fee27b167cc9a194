"""A comparison as one page that opens from disk: a forest plot of the ratios over the margin, the table, the fairness.

The plot is SVG in the page: no script runs and nothing is loaded. Text comes from servers and paths, and is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from html import escape

from analysis.compare.comparison import Change, Compared, Comparison, Interval, Scale
from analysis.estimate import Figure
from analysis.report import comparison as words
from analysis.report.page import page, section
from analysis.stats.equivalence import ComparisonVerdict

__all__ = ["comparison_page"]

WIDTH, LEFT, RIGHT, ROW, TOP = 1000, 170, 30, 34, 14
WIDEST = 4.0  # a ratio beyond it is drawn at the edge, or one wild metric would flatten all others
TICKS = (0.25, 0.33, 0.5, 0.67, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0, 1.01, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0)
APART = 46  # between two ticks
STYLE = """
.forest { width: 100%; min-width: 680px; height: auto; display: block; font-size: 13px; }
.forest text { fill: var(--ink); } .forest .quiet { fill: var(--quiet); }
.forest .band { fill: var(--ttft); opacity: .13; } .forest .one { stroke: var(--quiet); }
.forest .grid { stroke: var(--rule); } .forest .thin { stroke-width: 1.5; } .forest .thick { stroke-width: 5; }
.forest .good { stroke: var(--good); fill: var(--good); } .forest .bad { stroke: var(--bad); fill: var(--bad); }
.forest .open { stroke: var(--open); fill: var(--open); } .forest .same { stroke: var(--quiet); fill: var(--quiet); }
.same { color: var(--quiet); } .facts td { white-space: normal; overflow-wrap: anywhere; min-width: 150px; }
.facts td:last-child { white-space: nowrap; overflow-wrap: normal; min-width: 0; }
.facts thead { display: table-header-group; } .facts thead th { text-align: left; }
"""

Axis = Callable[[float], float]  # a ratio to its place


def comparison_page(comparison: Comparison) -> str:
    """The page about a comparison."""
    named = (("A", comparison.a), ("B", comparison.b))
    sides = "<br>".join(f"{name}: {escape(words.side_in_words(side))}" for name, side in named)
    head = [
        f"{sides}<br>{escape(words.how_in_words(comparison))}",
        f"<b>{escape(words.answer_in_words(comparison))}</b>",
    ]
    body = [
        section("B/A", _forest(comparison)),
        section("Metrics", _metrics(comparison)),
        section("Fairness", _fairness(comparison)),
    ]
    return page(f"{comparison.a.directory} and {comparison.b.directory}", head, body, STYLE)


def _kind(shown: Compared) -> str:
    if shown.verdict is ComparisonVerdict.INCONCLUSIVE:
        return "open"
    if shown.verdict is ComparisonVerdict.DIFFERENT:
        return "bad" if shown.direction is Change.WORSE else "good"
    return "same"


def _forest(comparison: Comparison) -> str:
    """The ratios with their 95 % interval (thick) and the family's (thin); the band is the margin."""
    rows = [
        (shown, shown.family_interval)
        for shown in comparison.metrics.values()
        if shown.scale is Scale.RATIO and shown.family_interval is not None
    ]
    if not rows:
        return ""
    margin = 1 + comparison.margin
    ends = [end for _, interval in rows for end in (interval.low, interval.high) if end]
    reach = min(WIDEST, max(margin, *ends, *(1 / end for end in ends))) ** 1.06

    def x(ratio: float) -> float:
        inside = min(max(math.log(ratio) / math.log(reach), -1.0), 1.0)
        return LEFT + (WIDTH - LEFT - RIGHT) * (1 + inside) / 2

    bottom = TOP + ROW * len(rows)
    parts = [
        f'<rect class=band x="{x(1 / margin):.1f}" y="{TOP}" width="{x(margin) - x(1 / margin):.1f}" '
        f'height="{bottom - TOP}"/>'
    ]
    for tick in _ticks(x, reach):
        line = "one" if tick == 1 else "grid"
        parts.append(f'<line class={line} x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text class=quiet x="{x(tick):.1f}" y="{bottom + 18}" text-anchor=middle>{tick:g}</text>')
    for place, (shown, interval) in enumerate(rows):
        parts += _row(shown, interval, TOP + ROW * place + ROW / 2, x)
    summary = escape(f"Ratios B/A with intervals: {words.answer_in_words(comparison)}", quote=True)
    picture = (
        f'<svg class=forest viewBox="0 0 {WIDTH} {bottom + 28}" role=img aria-label="{summary}">{"".join(parts)}</svg>'
    )
    level = rows[0][1].confidence
    beside = f", thin: {level:.1%}, which holds for all at once" if comparison.family.size > 1 else ""
    return f"<div class=wide>{picture}</div><p class=note>Thick: 95 % interval{beside}. Band: the margin.</p>"


def _ticks(x: Axis, reach: float) -> list[float]:
    """The ticks that leave room for one another, the nearest to 1 first."""
    chosen: list[float] = []
    for tick in sorted(TICKS, key=lambda tick: abs(math.log(tick))):
        inside = 1 / reach <= tick <= reach
        if inside and all(abs(x(tick) - x(other)) >= APART for other in chosen if other != 1):
            chosen.append(tick)
    return [tick for tick in chosen if tick == 1 or abs(x(tick) - x(1)) >= APART]


def _row(shown: Compared, interval: Interval, y: float, x: Axis) -> list[str]:
    estimate, kind = shown.b_to_a, _kind(shown)
    parts = [f'<text x="{LEFT - 14}" y="{y + 4:.1f}" text-anchor=end>{escape(shown.label)}</text>']
    for style, ends in (("thin", interval), ("thick", estimate)):
        parts += _line(ends, f"{style} {kind}", y, x)
    label = escape(f"{shown.label}: {words.interval_in_words(shown)}, {words.verdict_in_words(shown)}")
    if estimate.value is not None:
        place = f'cx="{x(estimate.value):.1f}" cy="{y:.1f}"'
        parts.append(f"<circle class={kind} {place} r=5><title>{label}</title></circle>")
    return parts


def _line(ends: Interval | Figure, style: str, y: float, x: Axis) -> list[str]:
    if ends.low is None or ends.high is None:
        return []
    start, end = x(ends.low), max(x(ends.high), x(ends.low) + 1)
    return [f'<line class="{style}" x1="{start:.1f}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>']


def _metrics(comparison: Comparison) -> str:
    rows = []
    for shown in comparison.metrics.values():
        test = shown.secondary
        ps = f"{words.p_in_words(shown.p)}<small>{words.p_in_words(shown.p_holm)}</small>"
        rows.append(
            [
                escape(f"{shown.label}{', ms' if shown.unit == 'ms' else ''}"),
                *(
                    f"{words.value_in_words(side.value, shown.scale)}<small>{side.n} runs</small>"
                    for side in (shown.a, shown.b)
                ),
                f"{escape(words.interval_in_words(shown))}<small>{escape(words.family_in_words(shown))}</small>",
                ps if shown.p is not None else "",
                "" if test is None else words.p_in_words(test.exact_p),
                f'<span class="badge {_kind(shown)}">{escape(words.verdict_in_words(shown))}</span>',
            ]
        )
    exact = next((shown.secondary.exact_test for shown in comparison.metrics.values() if shown.secondary), "")
    head = ["", "A", "B", "B/A, 95 %<small> family</small>", "p<small> Holm</small>", f"p, exact {exact}", "verdict"]
    return _table(head, rows) + _list([*words.doubts(comparison), *filter(None, [words.agreement(comparison)])])


def _fairness(comparison: Comparison) -> str:
    signs = {True: "same", False: "different", None: "not known"}
    rows = []
    for fact in comparison.fairness.facts:
        kind = "open" if fact.same is False else "same"
        cells = ["–" if value is None else escape(words.fact_in_words(value)) for value in (fact.a, fact.b)]
        rows.append([escape(fact.name), *cells, f"<span class={kind}>{signs[fact.same]}</span>"])
    table = _table(["", "A", "B", ""], rows).replace("<table", "<table class=facts", 1)
    return table + _list([words.work_in_words(comparison.fairness), *comparison.fairness.notes, *comparison.notes])


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; cells are markup, and must have been escaped. The first column is the label."""
    heads = "".join(f"<th scope=col>{cell}</th>" for cell in head)
    lines = [
        f"<tr><th scope=row>{first}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for first, *cells in rows
    ]
    body = "\n".join(lines)
    return f"<div class=wide><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"


def _list(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""
