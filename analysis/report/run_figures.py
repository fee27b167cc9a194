"""The tables of latencies and rates in the report of a run, and the notes that belong under them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.catalogue import LATENCIES, RATES
from analysis.estimate import Figure, NoteCode
from analysis.figures.metrics import LatencyFigures
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
from analysis.report.labels import STATISTICS
from analysis.stats.intervals import ENOUGH_RUNS, LEAST_RUNS
from analysis.summary import Summary

__all__ = ["latency_section", "rate_section"]

LABEL, WIDTH = 13, 15
IN_TEXT = ("mean", "p50", "p90", "p99")

Labelled = tuple[str, LatencyFigures]


def latency_section(summary: Summary) -> Section:
    """The latencies; empty where no request that was measured completed."""
    if not summary.requests.measured_completed:
        return Section("Latency", [])
    metrics = summary.metrics
    # The gaps are the ITL, if there is one: the same figures twice would look like two findings.
    hidden = "event_gap_ms" if metrics.itl_ms else "itl_ms"
    figures = [(metric.label, metrics.latency(key)) for key, metric in LATENCIES.items() if key != hidden]
    latencies = [(label, latency) for label, latency in figures if latency]
    columns = [Column("ms", LABEL, Align.LEFT)]
    columns += [Column(label, WIDTH, only=_media(name)) for name, label in STATISTICS.items()]
    columns += [Column(name, only=PAGE) for name in ("min", "max", "sd")]
    columns += [Column("n", 7, only=TEXT), Column("n", only=MARKDOWN | PAGE)]
    rows = [row for label, latency in latencies for row in _latency(label, latency)]
    return Section("Latency", [Table(columns, rows, Doubts(Place.BELOW)), *_notes(summary, latencies)], text_title="")


def _media(name: str) -> Media:
    return EVERYWHERE if name in IN_TEXT else MARKDOWN | PAGE


def _latency(label: str, latency: LatencyFigures) -> Iterator[Row]:
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
    NoteCode.NO_INTERVAL: "means and gaps have {note}",
    NoteCode.FEW_RUNS: "few runs: intervals of 3 or 4 runs are right, and wide; ask for --runs 5",
    NoteCode.WITHIN_RUN: "intervals of percentiles are within-run: of these requests, not of a new run",
    NoteCode.SURVIVORS_ONLY: "latencies are those of answered requests only",
    NoteCode.FEW_TAIL_SAMPLES: "* few tail samples: fewer than ten are expected beyond it",
    NoteCode.BEYOND_DATA: "≥ alone: fewer than one request is expected beyond that percentile",
    NoteCode.NO_UPPER_LIMIT: "≥ below a value: too few requests for an upper limit",
}
SILENT = (NoteCode.NO_DATA, NoteCode.WITH_FAILURES, NoteCode.WITH_FAILURES_INFINITE)
OF_RUNS = (NoteCode.WITHIN_RUN, NoteCode.FEW_RUNS, NoteCode.NO_INTERVAL)  # said of all figures at once
INFINITE = "+∞"


def _with_failures(figure: Figure) -> str:
    """The percentile with failed requests as slower than any other, where it was noted."""
    if figure.has(NoteCode.WITH_FAILURES_INFINITE):
        return INFINITE
    noted = figure.note(NoteCode.WITH_FAILURES)
    return "" if noted is None else f"{noted.data['ms']:.4g}"


def _notes(summary: Summary, latencies: Sequence[Labelled]) -> list[Block]:
    """What stands under the table: text names the places of notes, Markdown lists them, the page folds them away."""
    confidence = summary.metrics.ttft_ms.mean.confidence
    over_runs = f"±, a..b: {100 * (confidence or 0):.3g} % intervals over runs, where a new one would lie"
    kind = f"{100 * confidence:.3g} %, over runs" if confidence else "95 %, within-run"
    legend = f"† fewer than ten samples are expected beyond it. Intervals are {kind}."
    placed = [
        (f"{label} {STATISTICS[name]}", note)
        for label, latency in latencies
        for name in STATISTICS
        for note in latency.statistic(name).note_codes
        if note.code is not NoteCode.NO_DATA
    ]
    single = dict.fromkeys(f"{place}: {note.sentence}" for place, note in placed if note.code not in OF_RUNS)
    return [
        Bullets([*([over_runs] if confidence else []), *_placed(latencies)], 2, tone=Tone.DIM, only=TEXT),
        Paragraph(legend, only=MARKDOWN),
        Bullets(list(dict.fromkeys(note.sentence for _, note in placed)), only=MARKDOWN),
        Paragraph(_about_intervals(summary), tone=Tone.DIM, only=PAGE),
        *([Details("Notes on single figures", [Bullets(list(single))], only=PAGE)] if single else []),
    ]


def _placed(latencies: Sequence[Labelled]) -> list[str]:
    """Each distinct note once, with the figures it is about unless the table marks them."""
    legend: dict[str, None] = {}
    where: dict[str, dict[str, list[str]]] = {}
    refusals: dict[str, None] = {}  # of all percentiles
    for label, latency in latencies:
        for name in IN_TEXT:
            for note in latency.statistic(name).note_codes:
                if note.code in LEGEND:
                    legend[LEGEND[note.code].format(note=note.sentence)] = None
                elif note.code is NoteCode.NO_PERCENTILE:
                    refusals[note.sentence] = None
                elif note.code not in SILENT:
                    where.setdefault(note.sentence, {}).setdefault(label, []).append(name)
    lines = [*legend, *refusals]
    for sentence, labels in where.items():
        places = "; ".join(f"{label} {', '.join(names)}" for label, names in labels.items())
        lines.append(f"{sentence} ({places})")
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
    rates = [(metric.label, summary.metrics.rate(key)) for key, metric in RATES.items()]
    if summary.metrics.goodput_per_s.value is None:
        rates.pop()
    columns = [
        Column("per second", LABEL, Align.LEFT),
        Column("", WIDTH),
        Column("", 0, Align.LEFT, gap=1, only=TEXT),
        Column("n", only=MARKDOWN | PAGE),
    ]
    rows = [Row((label, rate, numbers.interval(rate), str(rate.n))) for label, rate in rates]
    notes = [note for _, rate in rates for note in rate.note_codes]
    single = dict.fromkeys(note.sentence for note in notes if note.code not in OF_RUNS)
    return Section(
        "Throughput",
        [
            Table(columns, rows, Doubts(Place.HIDDEN)),
            *_goodput(summary),
            Bullets(list(single), 2, tone=Tone.DIM, only=TEXT | PAGE),
            Bullets(list(dict.fromkeys(note.sentence for note in notes)), only=MARKDOWN),
        ],
        text_title="",
    )


def _goodput(summary: Summary) -> list[Block]:
    goodput = summary.goodput
    if not goodput or goodput.attainment.value is None:
        return []
    terms = ", ".join(f"{LATENCIES[name].label} ≤ {limit:g} ms" for name, limit in goodput.terms.items())
    share = f"{goodput.attainment.value:.1%} of the requests offered had {terms}"
    return [Paragraph(f"goodput: {share}", 2, only=TEXT), Paragraph(f"{share}.", tone=Tone.DIM, only=PAGE)]
