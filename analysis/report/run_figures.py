"""The tables of latencies and rates in the report of a run, and the notes that belong under them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from analysis.estimate import Figure
from analysis.report import numbers
from analysis.report.document import (
    EVERYWHERE,
    MARKDOWN,
    PAGE,
    TEXT,
    Align,
    Block,
    Bullets,
    Column,
    Details,
    Doubts,
    Media,
    Paragraph,
    Place,
    Row,
    Section,
    Table,
    Tone,
)
from analysis.report.labels import LATENCIES, RATES, STATISTICS
from analysis.stats.intervals import ENOUGH_RUNS, LEAST_RUNS

__all__ = ["latency_section", "rate_section"]

LABEL, WIDTH = 13, 15
IN_TEXT = ("mean", "p50", "p90", "p99")

Summary = Any  # until it is typed
Latency = Any


def latency_section(summary: Summary) -> Section:
    """The latencies; empty where no request that was measured completed."""
    if not summary.requests.measured_completed:
        return Section("Latency", [])
    metrics = summary.metrics
    # The gaps are the ITL, if there is one: the same figures twice would look like two findings.
    hidden = "event_gap_ms" if metrics.itl_ms else "itl_ms"
    shown = [(label, metrics.latency(key)) for key, label in LATENCIES.items() if key != hidden]
    columns = [Column("ms", LABEL, Align.LEFT)]
    columns += [Column(label, WIDTH, only=_media(name)) for name, label in STATISTICS.items()]
    columns += [Column(name, only=PAGE) for name in ("min", "max", "sd")]
    columns += [Column("n", 7, only=TEXT), Column("n", only=MARKDOWN | PAGE)]
    rows = [row for label, latency in shown for row in _latency(label, latency)]
    return Section("Latency", [Table(columns, rows, Doubts(Place.BELOW)), *_notes(summary, shown)], text_title="")


def _media(name: str) -> Media:
    return EVERYWHERE if name in IN_TEXT else MARKDOWN | PAGE


def _latency(label: str, latency: Latency) -> Iterator[Row]:
    figures = [latency.statistic(name) for name in STATISTICS]
    extremes = [_four(value) for value in (latency.min, latency.max, latency.sd)]
    n = latency.mean.n
    yield Row((label, *figures, *extremes, _count(n), str(n)))
    failures = [_with_failures(figure) for figure in figures]
    if any(failures[at] for at, name in enumerate(STATISTICS) if name in IN_TEXT):
        yield Row(("  failed = ∞", *failures, "", "", "", "", ""), tone=Tone.DIM, only=TEXT)


def _four(number: float | None) -> str:
    return numbers.REFUSED if number is None else f"{number:.0f}" if abs(number) >= 1e4 else f"{number:.4g}"


def _count(n: int) -> str:
    return str(n) if n < 100_000 else f"{n / 1e3:.0f}k" if n < 10_000_000 else f"{n / 1e6:.0f}M"


# --- notes -----------------------------------------------------------------------------------------------------------

# What a mark in the table already says needs no list of places.
LEGEND = {
    "no interval from": "",  # in its own words
    "few runs": "few runs: intervals of 3 or 4 runs are right, and wide; ask for --runs 5",
    "within-run": "intervals of percentiles are within-run: of these requests, not of a new run",
    "survivors only": "latencies are those of answered requests only",
    "few tail samples": "* few tail samples: fewer than ten are expected beyond it",
    "fewer than one is expected beyond it": "≥ alone: fewer than one request is expected beyond that percentile",
    "no upper limit below": "≥ below a value: too few requests for an upper limit",
}
WITH_FAILURES = "with failures as +∞: "
SILENT = ("no data", WITH_FAILURES)
TOLD_BY_RUNS = ("within-run", "few runs", "no interval from")


def _with_failures(figure: Figure) -> str:
    """The percentile with failed requests as slower than any other, where it was noted."""
    return next((note.removeprefix(WITH_FAILURES) for note in figure.notes if note.startswith(WITH_FAILURES)), "")


def _notes(summary: Summary, shown: list[tuple[str, Latency]]) -> list[Block]:
    """What stands under the table: text names the places of notes, Markdown lists them, the page folds them away."""
    confidence = summary.metrics.ttft_ms.mean.confidence
    over_runs = (
        [f"±, a..b: {100 * confidence:.3g} % intervals over runs, where a new one would lie"] if confidence else []
    )
    kind = f"{100 * confidence:.3g} %, over runs" if confidence else "95 %, within-run"
    legend = f"† fewer than ten samples are expected beyond it. Intervals are {kind}."
    listed = dict.fromkeys(
        note
        for _, latency in shown
        for name in STATISTICS
        for note in latency.statistic(name).notes
        if note != "no data"
    )
    placed = dict.fromkeys(
        f"{label} {STATISTICS[name]}: {note}"
        for label, latency in shown
        for name in STATISTICS
        for note in latency.statistic(name).notes
        if note not in ("within-run", "no data", "few runs") and "no interval from" not in note
    )
    details = Details("Notes on single figures", [Bullets(list(placed))], only=PAGE)
    return [
        Bullets([*over_runs, *_placed(shown)], 2, tone=Tone.DIM, only=TEXT),
        Paragraph(legend, only=MARKDOWN),
        Bullets(list(listed), only=MARKDOWN),
        Paragraph(_about_intervals(summary), tone=Tone.DIM, only=PAGE),
        *([details] if placed else []),
    ]


def _placed(shown: list[tuple[str, Latency]]) -> list[str]:
    """Each distinct note once, with the figures it is about unless the table marks them."""
    where: dict[str, dict[str, list[str]]] = {}
    legend: dict[str, None] = {}
    for label, latency in shown:
        for name in IN_TEXT:
            for note in latency.statistic(name).notes:
                marked = [key for key in LEGEND if key in note]
                legend |= dict.fromkeys(LEGEND[key] or f"means and gaps have {note}" for key in marked)
                if not marked and not note.startswith(SILENT):
                    where.setdefault(note, {}).setdefault(label, []).append(name)
    lines = list(legend)
    for note, labels in where.items():
        places = "; ".join(f"{label} {', '.join(names)}" for label, names in labels.items())
        lines.append(note if note.startswith("no percentile") else f"{note} ({places})")
    return lines


def _about_intervals(summary: Summary) -> str:
    """What the page says of its intervals, and of the signs at figures."""
    runs = summary.runs - len(summary.left_out)
    kind = (
        "over runs: where the figures of a new run, or of many, would lie"
        if runs >= LEAST_RUNS
        else "within-run: of these requests, not of a new run; means have none, for that takes --runs 5"
    )
    if LEAST_RUNS <= runs < ENOUGH_RUNS:
        kind += "; few runs: they are right, and wide"
    return (
        f"Intervals are {100 * (summary.metrics.ttft_ms.mean.confidence or 0.95):.3g} %, {kind}. "
        "≥ alone: fewer than one sample is expected beyond that percentile. * fewer than ten are."
    )


# --- rates -----------------------------------------------------------------------------------------------------------


def rate_section(summary: Summary) -> Section:
    """The rates; empty where no request completed."""
    if not summary.requests.completed:
        return Section("Throughput", [])
    rates = [(label, summary.metrics.rate(key)) for key, label in RATES.items()]
    if summary.metrics.goodput_per_s.value is None:
        rates.pop()
    columns = [
        Column("per second", LABEL, Align.LEFT),
        Column("", WIDTH),
        Column("", 0, Align.LEFT, gap=1, only=TEXT),
        Column("n", only=MARKDOWN | PAGE),
    ]
    rows = [Row((label, rate, numbers.interval(rate), str(rate.n))) for label, rate in rates]
    everything = dict.fromkeys(note for _, rate in rates for note in rate.notes)
    telling = [note for note in everything if not note.startswith(TOLD_BY_RUNS)]
    return Section(
        "Throughput",
        [
            Table(columns, rows, Doubts(Place.HIDDEN)),
            *_goodput(summary),
            Bullets(telling, 2, tone=Tone.DIM, only=TEXT | PAGE),
            Bullets(list(everything), only=MARKDOWN),
        ],
        text_title="",
    )


def _goodput(summary: Summary) -> list[Block]:
    goodput = summary.goodput
    if not goodput or goodput.attainment.value is None:
        return []
    terms = ", ".join(f"{LATENCIES[name]} ≤ {limit:g} ms" for name, limit in goodput.terms.items())
    share = f"{goodput.attainment.value:.1%} of the requests offered had {terms}"
    return [Paragraph(f"goodput: {share}", 2, only=TEXT), Paragraph(f"{share}.", tone=Tone.DIM, only=PAGE)]
