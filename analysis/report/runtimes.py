"""A comparison of the client's runtimes as a document: settings, figures, cost, and which differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.estimate import Figure
from analysis.report import numbers
from analysis.report.document import (
    PAGE,
    TEXT,
    Align,
    Bullets,
    Column,
    Document,
    Paragraph,
    Plot,
    PlotRow,
    Row,
    Section,
    Table,
)
from analysis.report.words import detectable_in_words
from analysis.stats.equivalence import ComparisonVerdict
from analysis.stats.planning import Seen
from analysis.suites.differences import FigureCompared, FigureName, PairCompared
from analysis.suites.runtimes import Control, RuntimesSummary, Spread, VariantLine

__all__ = ["runtimes_document"]

NAME = 12
TITLES = {
    FigureName.EFFICIENCY: "Parallel efficiency, %: solo times over N times the makespan (what was gained)",
    FigureName.OVERLAP_EFFICIENCY: "Overlap efficiency, %: the guide's figure, blind to both agents slowing down",
}
NAMES = {
    FigureName.EFFICIENCY: "parallel efficiency",
    FigureName.OVERLAP_EFFICIENCY: "overlap efficiency",
    FigureName.MAKESPAN: "makespan",
}
AXIS = "% (mean with its 95 % interval; dots: least, mean, peak)"


def runtimes_document(summary: RuntimesSummary) -> Document:
    """The document about a comparison of runtimes; it has no title, because it may be a part of another one."""
    head = Section("Runtimes", (Paragraph(_head(summary)),), text_title="")
    pictures = [
        Section(title, (Plot([_plot_row(line.name, line.spread(figure)) for line in lines], AXIS),), only=PAGE)
        for figure, title in TITLES.items()
        if (lines := [line for line in summary.variants if line.spread(figure).runs])
    ]
    facts = Section("", (Bullets(_facts(summary)),))
    return Document("", [head, *pictures, *_tables(summary), facts])


def _head(summary: RuntimesSummary) -> str:
    many = summary.configurations
    configurations = f"{many} configurations" if many != 1 else "one configuration"
    return (
        f"{len(summary.variants)} variants, {configurations}, {summary.blocks} blocks in {summary.order} "
        f"order, seed {summary.seed}; each run in a fresh process"
    )


def _plot_row(name: str, spread: Spread) -> PlotRow:
    mean = _in_percent(spread.mean)
    dots = [100 * value for value in (spread.minimum, spread.peak) if value is not None]
    dots += [mean.value] if mean.value is not None else []
    return PlotRow(name, dots, None if mean.low is None or mean.high is None else (mean.low, mean.high))


# --- tables ----------------------------------------------------------------------------------------------------------


def _tables(summary: RuntimesSummary) -> Iterable[Section]:
    lines = summary.variants
    yield _settings(lines)
    for figure, title in TITLES.items():
        if any(line.spread(figure).runs for line in lines):
            yield _spreads(title, [(line.name, line.spread(figure)) for line in lines])
    yield _loop(lines, summary.contended_rule)
    for comparison in _with_pairs(summary):
        yield from (_pairs(comparison, pairs, how) for how, pairs in _families(comparison) if pairs)


def _table(title: str, columns: Sequence[tuple[str, int]], rows: Iterable[Sequence[str]]) -> Section:
    """A section of one table: the first column has the names of variants, the others are aligned to the right."""
    (first, width), *others = columns
    table = Table(
        (Column(first, width, Align.LEFT), *(Column(label, width) for label, width in others)),
        [Row(cells) for cells in rows],
    )
    return Section(title, (Paragraph(title, only=TEXT), table), text_title="", level=3)


def _settings(lines: Sequence[VariantLine]) -> Section:
    columns = (("variant", NAME), ("tier", 10), ("loop", 10), ("reads", 10), ("permits", 10), ("verdicts", 28))
    rows = [
        (
            line.name,
            line.tier,
            line.loop,
            _size(line.read_bytes) if line.tier == "kernel" else "its own",
            "all" if line.permits is None else str(line.permits),
            ", ".join(f"{verdict} {count}" for verdict, count in line.verdicts.items()) or "not measured",
        )
        for line in lines
    ]
    return _table("Variants", columns, rows)


def _size(read_bytes: int | None) -> str:
    return "8 KiB up" if read_bytes is None else f"{read_bytes / 1024:g} KiB"


def _spreads(title: str, spreads: Sequence[tuple[str, Spread]]) -> Section:
    columns = (
        *(("variant", NAME), ("runs", 6), ("peak", 8), ("mean", 8), ("95 %", 13)),
        *(("median", 8), ("SD runs", 9), ("SD conf", 9), ("min", 7)),
    )
    rows = [
        (
            name,
            str(spread.runs),
            _percent(spread.peak),
            _percent(spread.mean.value),
            numbers.interval(_in_percent(spread.mean), 12) or numbers.REFUSED,
            _percent(spread.median),
            _percent(spread.sd_of_runs),
            _percent(spread.sd_of_configuration_means),
            _percent(spread.minimum),
        )
        for name, spread in spreads
    ]
    return _table(title, columns, rows)


def _percent(share: float | None) -> str:
    return numbers.REFUSED if share is None else f"{100 * share:.2f}"


def _in_percent(figure: Figure) -> Figure:
    def scaled(share: float | None) -> float | None:
        return None if share is None else 100 * share

    return Figure(
        scaled(figure.value), scaled(figure.low), scaled(figure.high), figure.confidence, figure.n, figure.notes
    )


def _loop(lines: Sequence[VariantLine], rule: str) -> Section:
    columns = (
        *(("variant", NAME), ("contended", 11), ("makespan s", 20)),
        *(("lag p50", 9), ("lag p99", 9), ("lag max", 9), ("CPU %", 8)),
    )
    rows = []
    for line in lines:
        lag, makespan = line.loop_lag_ms, line.makespan_s.mean
        rows.append(
            (
                line.name,
                f"{line.contended.runs} of {line.contended.of}",
                f"{numbers.value(makespan)} {numbers.interval(makespan, 10)}".strip(),
                *(numbers.REFUSED if ms is None else f"{ms:.3g}" for ms in (lag.p50, lag.p99, lag.max)),
                _percent(line.cpu_share),
            )
        )
    title = f"Contended runs by the rule {rule}, makespan of the concurrent runs in s, event-loop lag in ms, CPU share"
    return _table(title, columns, rows)


# --- pairs -----------------------------------------------------------------------------------------------------------


def _with_pairs(summary: RuntimesSummary) -> Iterable[FigureCompared]:
    """The comparisons whose pairs are printed: by the truest figure there is, and by the makespan."""
    first = [comparison.figure for comparison in summary.comparisons][:1]
    return (one for one in summary.comparisons if one.figure in (*first, FigureName.MAKESPAN))


def _families(comparison: FigureCompared) -> Sequence[tuple[str, Sequence[PairCompared]]]:
    return (
        ("all pairs by Games-Howell", comparison.pairs),
        (f"against {comparison.against} by Dunnett", comparison.dunnett),
    )


def _pairs(comparison: FigureCompared, pairs: Sequence[PairCompared], how: str) -> Section:
    columns = (("a", NAME), ("b", 12), ("ratio", 10), ("95 %", 16), ("p", 9), ("verdict", 21))
    rows = [
        (
            pair.a,
            pair.b,
            numbers.value(pair.ratio),
            numbers.interval(pair.ratio, 15),
            f"{pair.p:.2g}",
            "diff., negligible" if pair.verdict is ComparisonVerdict.NEGLIGIBLE else pair.verdict.value,
        )
        for pair in pairs
    ]
    title = f"Ratios of {NAMES[comparison.figure]}, a/b: {how}; interval, p and verdict over the family of {len(pairs)}"
    return _table(title, columns, rows)


# --- what was found --------------------------------------------------------------------------------------------------


def _facts(summary: RuntimesSummary) -> list[str]:
    facts = [f"{name} left out: {reason}" for name, reason in summary.left_out.items()]
    if summary.missing:
        facts.append(f"incomplete or missing: {', '.join(summary.missing)}")
    facts += [f"{cell.directory}: {cell.error}" for cell in summary.cells if cell.error]
    if summary.control is not None:
        facts.append(_control(summary.control))
    facts += [f"{' and '.join(names)} are the same settings: what lies between them is noise" for names in summary.same]
    printed = [comparison.figure for comparison in _with_pairs(summary)]
    for comparison in summary.comparisons:
        facts += _of_figure(comparison, summary.margin, with_pairs=comparison.figure in printed)
    return list(dict.fromkeys(facts))


def _of_figure(comparison: FigureCompared, margin: float, *, with_pairs: bool) -> Iterable[str]:
    name, kruskal = NAMES[comparison.figure], comparison.kruskal
    ranks = "" if kruskal is None else f"; by ranks (Kruskal-Wallis) p {kruskal.p:.2g}"
    yield f"{name}: {comparison.conclusion}{ranks}"
    if comparison.not_tested and comparison.variants:
        yield f"too few runs to be tested: {', '.join(comparison.not_tested)}"
    for how, pairs in _families(comparison) if with_pairs else ():
        seen = [pair.detectable for pair in pairs if pair.detectable is not None]
        if seen:
            yield f"{name}, {how}, where inconclusive: {_detectable(seen, margin)}"


def _detectable(seen: Sequence[Seen], margin: float) -> str:
    """What several pairs could have seen: from the best of them to the worst, and what the worst needs."""
    worst = max(seen, key=lambda pair: pair.least)
    least = [f"{pair.least:.3f}" for pair in (min(seen, key=lambda pair: pair.least), worst)]
    between = least[1] if least[0] == least[1] else f"{least[0]} to {least[1]}, by the pair,"
    return detectable_in_words(worst, f"a ratio of {between}", f"{1 + margin:g}")


def _control(control: Control) -> str:
    figures = []
    for name, figure in control.figures.items():
        percent = _in_percent(figure.estimate)
        verdict = "as it must be" if figure.holds else "which it should NOT be"
        value = f"{NAMES[FigureName(name)]} {percent.value:.2f} % {numbers.interval(percent)}".strip()
        figures.append(f"{value}, {verdict}")
    return f"control {control.variant}, {100 * (control.expected or 0):.1f} % by design: {'; '.join(figures)}"
