"""The report of a run or a campaign: what was asked, what came of it, the figures, the instrument, the verdict.

Made from a summary; what only the page shows beside it (charts, the manifest) comes as `Extras`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from analysis.catalogue import LATENCIES, OF_RUNS, Answer, Basis, RunVerdict
from analysis.report import numbers
from analysis.report.document import (
    MARKDOWN,
    PAGE,
    TEXT,
    Align,
    Block,
    Bullets,
    Cell,
    Chart,
    Code,
    Column,
    Details,
    Document,
    Doubts,
    Facts,
    Mark,
    Paragraph,
    Place,
    Preformatted,
    Row,
    Section,
    Strong,
    Table,
    Tile,
    Tiles,
    Tone,
)
from analysis.report.labels import ANSWERS, TOGETHER, VERDICTS
from analysis.report.run_figures import latency_section, rate_section
from analysis.report.run_words import asked_in_words, campaign_in_words, counted_runs, targets_in_words
from analysis.report.sections import sections_of
from analysis.summary import Summary

__all__ = ["Extras", "run_document"]

LABEL = 13
ERRORS = 5
RUNS = 10  # of the table in text
STANDS_OUT = "! stands out from the other runs (robust z > 3.5); kept in every figure"
ELSEWHERE = TEXT | MARKDOWN


@dataclass(frozen=True, slots=True)
class Extras:
    """What the page shows that no summary holds. started: of the first run. manifest: parts of it, as JSON."""

    charts: Sequence[Chart] = ()
    started: str | None = None
    manifest: Sequence[tuple[str, str]] = ()


def run_document(summary: Summary, extras: Extras = Extras()) -> Document:
    """The report, in the order in which it is read. The page has its tiles and objectives first."""
    objectives = _objectives(summary)
    return Document(
        title="; ".join(targets_in_words(summary, versions=True)) or "loadgen",
        head=_headline(summary, extras),
        sections=[
            Section("", [_tiles(summary)], only=PAGE),
            replace(objectives, only=PAGE),
            *sections_of(summary, leading=True),
            _requests(summary),
            latency_section(summary),
            rate_section(summary),
            replace(objectives, only=ELSEWHERE),
            _runs(summary),
            _endpoints(summary),
            *sections_of(summary, leading=False),
            Section("", extras.charts, only=PAGE),
            _failures(summary),
            _instrument(summary),
            _manifest(extras),
            _verdict(summary),
        ],
    )


def _headline(summary: Summary, extras: Extras) -> list[Block]:
    parts = [asked_in_words(summary), counted_runs(summary.runs), f"{summary.window_s or 0:.4g} s measured"]
    parts = [part for part in parts if part]
    interrupted = ["interrupted"] if summary.interrupted else []
    started = [f"started {_moment(extras.started)}"] if extras.started else []
    word = "OK" if summary.verdict is RunVerdict.OK else summary.verdict.value
    return [
        *(Paragraph(target, tone=Tone.HEAD, only=TEXT) for target in targets_in_words(summary, versions=False)),
        Paragraph(" · ".join(parts), only=TEXT),
        Paragraph(" · ".join([*parts, *interrupted]), only=MARKDOWN),
        Paragraph(" · ".join([*parts, *started, *interrupted]), only=PAGE),
        Paragraph(Strong(f"Verdict: {summary.verdict}"), only=MARKDOWN),
        Paragraph(word, tone=_tone(summary), only=PAGE),
        Bullets(summary.verdict_reasons, only=MARKDOWN | PAGE),
    ]


def _tone(summary: Summary) -> Tone:
    return Tone.GOOD if summary.verdict is RunVerdict.OK else Tone.BAD


def _moment(iso: str) -> str:
    """`2026-01-31T10:20:30.400+00:00` without its T and fraction, and with the offset named."""
    day, _, time = iso.partition("T")
    offset = time[time.find("+") :] if "+" in time else ""
    return f"{day} {time[:8]} UTC{'' if offset in ('', '+00:00') else offset}"


def _tiles(summary: Summary) -> Tiles:
    metrics, requests, agents = summary.metrics, summary.requests, summary.agents
    gap, gaps = ("itl_ms", metrics.itl_ms) if metrics.itl_ms else ("event_gap_ms", metrics.event_gap_ms)
    failed = sum(requests.failed.values())
    share = f"{failed / (failed + requests.completed):.1%} failed" if failed else "none failed"
    leading = [Tile("TTFT p50", metrics.ttft_ms.p50, "ms"), Tile("TTFT p99", metrics.ttft_ms.p99, "ms")]
    if agents:
        leading = [Tile("speedup", agents.speedup), Tile("efficiency", agents.efficiency)]
    return Tiles(
        [
            *leading,
            Tile(f"{LATENCIES[gap].label} p50", gaps.p50, "ms"),
            Tile("output", metrics.output_tokens_per_s, "tokens/s"),
            Tile("requests", str(requests.completed), share),
        ]
    )


# --- requests --------------------------------------------------------------------------------------------------------


def _requests(summary: Summary) -> Section:
    requests, agents = summary.requests, bool(summary.agents)
    failed = sum(requests.failed.values())
    ended = requests.completed + failed
    counts = f"offered, {requests.completed} completed, {failed} failed"
    share = f" ({failed / ended:.1%})" if failed else ""
    whole = f"{requests.offered} requests {counts}; {requests.measured} measured."
    outcomes = [f"{n} {outcome}" for outcome, n in requests.failed.items()]
    errors = [f"{error.n} × {error.outcome}: {error.status or ''} {error.error[:300]}" for error in summary.errors]
    return Section(
        TOGETHER.capitalize() if agents else "",
        [
            Facts(
                [("requests", f"{requests.offered} {counts}{share}; {requests.measured} measured")], LABEL, only=TEXT
            ),
            *_outcomes(summary),
            Paragraph(whole, only=MARKDOWN | PAGE),
            Bullets([*outcomes, *errors[:ERRORS]], only=MARKDOWN),
        ],
        text_title=TOGETHER if agents else "",
        only=ELSEWHERE | PAGE if agents else ELSEWHERE,
    )


def _outcomes(summary: Summary) -> Iterator[Block]:
    """The lines of text under the counts: failures, what was said, how requests were due."""
    for outcome, n in sorted(summary.requests.failed.items(), key=lambda item: (-item[1], item[0])):
        yield Paragraph(f"{n} {outcome}", LABEL, only=TEXT)
    for error in summary.errors[:ERRORS]:
        status = f"{error.status} " if error.status is not None else ""
        if status or error.error:
            text = f"{error.n} × {error.outcome}: {status}{error.error}"
            yield Paragraph(text[:300], LABEL + 2, only=TEXT)
    yield Paragraph(_arrivals(summary), LABEL, 0, only=TEXT)
    if summary.stale_connections:
        text = f"{summary.stale_connections} requests sent again: connection found closed"
        yield Paragraph(text, LABEL, only=TEXT)


def _arrivals(summary: Summary) -> str:
    """How requests were due in the windows of an open loop, from the least to the most over the runs."""
    parts = []
    for key, name in (("rate_per_s", "due per second"), ("cv", "CV of gaps"), ("dispersion", "dispersion of counts")):
        values = [value for run in summary.arrivals or () if (value := getattr(run, key)) is not None]
        if values:
            ends = dict.fromkeys(f"{end:.3g}" for end in (min(values), max(values)))
            parts.append(f"{name} {'..'.join(ends)}")
    return ", ".join(parts)


def _failures(summary: Summary) -> Section:
    columns = [
        Column("outcome", align=Align.LEFT),
        Column("n"),
        Column("status"),
        Column("what was said", None, Align.LEFT),
    ]
    rows = [
        Row((error.outcome, str(error.n), str(error.status or numbers.REFUSED), Code(error.error)))
        for error in summary.errors
    ]
    return Section("Failures", [Table(columns, rows)], only=PAGE)


# --- objectives, runs, endpoints -------------------------------------------------------------------------------------


def _objectives(summary: Summary) -> Section:
    columns = [
        Column("", 15, Align.LEFT, only=TEXT),
        Column("", 26, Align.LEFT),
        Column("limit", only=MARKDOWN | PAGE),
        Column("measured", 14),
        Column("", 0, Align.LEFT, gap=2, only=TEXT),
        Column("verdict", only=MARKDOWN),
        Column("verdict", only=PAGE),
        Column("decided by", only=MARKDOWN | PAGE),
    ]
    rows = []
    for objective in summary.objectives:
        limit = f"{'≥' if objective.name.endswith('_min') else '≤'} {objective.limit:g}"
        within = objective.basis is Basis.WITHIN_RUN and objective.verdict is not Answer.INCONCLUSIVE
        verdict = f"{objective.verdict}: {objective.reason}" if objective.reason else str(objective.verdict)
        tone = ANSWERS[objective.verdict]
        rows.append(
            Row(
                (
                    Cell(f"  {objective.verdict}", tone=tone),
                    objective.name,
                    limit,
                    objective.value,
                    f"{limit}{'  within-run' if within else ''}",
                    verdict,
                    Cell(str(objective.verdict), objective.reason or "", tone=tone),
                    str(objective.basis),
                ),
                under=objective.reason or "",
            )
        )
    table = Table(columns, rows, Doubts(Place.HIDDEN), headed=MARKDOWN | PAGE, under_indent=15)
    return Section("Objectives", [table], text_title="objectives")


# Figures of single runs in the table of runs, and their labels; in text the unit of a latency goes without saying.
SIDE_BY_SIDE = (
    ("ttft_mean_ms", "TTFT mean, ms", "TTFT mean"),
    ("tpot_mean_ms", "TPOT mean, ms", "TPOT mean"),
    ("requests_per_s", "requests/s", "requests/s"),
    ("output_tokens_per_s", "tokens/s", "tokens/s"),
)


def _runs(summary: Summary) -> Section:
    """What each run had: what an estimate over five runs hides, and one bad run in ten moves."""
    blocks: list[Block] = []
    if len(summary.per_run) > 1:
        stands_out = any(_metric(key) in run.outlier_in for run in summary.per_run for key, *_ in SIDE_BY_SIDE)
        advised = [(LATENCIES[key].label, summary.over_runs[key]) for key in ("ttft_ms", "tpot_ms")]
        notes = [STANDS_OUT] if stands_out else []
        notes += [f"{label}: {side.components.advice}" for label, side in advised if side.components]
        blocks = [_run_table(summary), Bullets(notes, 2, tone=Tone.DIM)]
    blocks.append(Bullets(campaign_in_words(summary)))
    return Section("Runs", blocks, text_title="")


def _run_table(summary: Summary) -> Table:
    columns = [Column("run", 20, Align.LEFT)]
    columns += [Column(label, 12, text_label=short) for _, label, short in SIDE_BY_SIDE]
    columns += [Column("completed", 12), Column("window, s", only=PAGE)]
    rows = []
    for at, run in enumerate(summary.per_run):
        cells = [
            Cell(numbers.five(getattr(run, key)), mark=Mark.STANDS_OUT if _metric(key) in run.outlier_in else None)
            for key, *_ in SIDE_BY_SIDE
        ]
        name = Cell(str(run.run), run.cut_short or "")
        only = ELSEWHERE | PAGE if at < RUNS else MARKDOWN | PAGE
        rows.append(Row((name, *cells, str(run.completed), numbers.five(run.window_s)), only=only))
    if len(rows) > RUNS:
        more = f"  … and {len(rows) - RUNS} more"
        rows.append(Row((more, *[""] * (len(columns) - 1)), only=TEXT))
    medians = [numbers.five(summary.over_runs[_metric(key)].median) for key, *_ in SIDE_BY_SIDE]
    rows.append(Row(("median", *medians, "", "")))
    return Table(columns, rows)


def _metric(key: str) -> str:
    """The metric whose values over the runs a figure of single runs is."""
    return OF_RUNS[key].over_runs or key


def _endpoints(summary: Summary) -> Section:
    columns = [
        Column("", 20, Align.LEFT, cut=True, text_label="endpoint"),
        Column("TTFT p50, ms", 12, text_label="TTFT p50"),
        Column("TTFT p99, ms", 12, text_label="TTFT p99"),
        Column("TPOT p50, ms", 12, text_label="TPOT p50"),
        Column("tokens/s", 12),
        Column("completed", only=PAGE),
        Column("failed", 12),
    ]
    rows = [
        Row(
            (
                name,
                here.ttft_ms.p50,
                here.ttft_ms.p99,
                here.tpot_ms.p50,
                here.output_tokens_per_s,
                str(here.requests.completed),
                str(here.requests.failed),
            )
        )
        for name, here in (summary.endpoints or {}).items()
    ]
    return Section("Endpoints", [Table(columns, rows, Doubts(Place.HIDDEN))], text_title="")


# --- instrument, manifest, verdict -----------------------------------------------------------------------------------


def _instrument(summary: Summary) -> Section:
    state = summary.instrument
    error, lag, send = state.stamp_error_us, state.loop_lag_ms, state.send_lag_ms
    calibrated = (
        f"stamp error {error.bias or 0:+.3g} ± {error.halfwidth:.2g} µs" if error.halfwidth is not None else None
    )
    first = [f"stamps: {state.tier or 'unknown tier'}", calibrated or "stamp error not calibrated"]
    first += [f"tokens sharing a read {state.censored_share:.2%}"] if state.censored_share is not None else []
    parts = list(first)
    parts += [f"loop lag p99 {lag.p99:.3g} ms, max {lag.max or 0:.3g} ms"] if lag.p99 is not None else []
    parts += [f"send lag p99 {send.p99:.3g} ms"] if send.p99 is not None else []
    parts += [f"CPU {state.cpu_share:.0%} of a core"] if state.cpu_share is not None else []
    parts += [f"{state.workers} worker{'s' if state.workers != 1 else ''}"] if state.workers else []
    return Section(
        "Instrument",
        [
            Paragraph("; ".join(parts), 2, 0, only=TEXT),
            Bullets(summary.notes, 2, tone=Tone.DIM, only=TEXT),
            Bullets([*first, *summary.notes], only=MARKDOWN),
            Facts(list(_instrument_facts(summary)), only=PAGE),
            Bullets(summary.notes, only=PAGE),
        ],
        text_title="instrument",
    )


def _instrument_facts(summary: Summary) -> Iterator[tuple[str, str]]:
    """The page's table of the instrument, without what is not known."""
    state, error = summary.instrument, summary.instrument.stamp_error_us
    yield "stamps", state.tier or "unknown"
    calibrated = error.halfwidth is not None
    yield "stamp error", f"{error.bias or 0:+.3g} ± {error.halfwidth:.2g} µs" if calibrated else "not calibrated"
    if state.censored_share is not None:
        yield "tokens sharing a read", f"{state.censored_share:.2%}"
    for name, lag in (("event loop lag", state.loop_lag_ms), ("send lag", state.send_lag_ms)):
        quantiles = [("p50", lag.p50), ("p99", lag.p99), ("max", lag.max)]
        measured = [f"{quantile} {value:.3g} ms" for quantile, value in quantiles if value is not None]
        if measured:
            yield name, ", ".join(measured)
    if state.cpu_share is not None:
        yield "CPU of a core", f"{state.cpu_share:.0%}"
    if state.workers is not None:
        yield "workers", str(state.workers)
    if state.clock_source is not None:
        yield "clock", state.clock_source
    yield "connections found closed", str(summary.stale_connections)
    yield "token counts from", ", ".join(f"{name}: {n}" for name, n in summary.tokens_from.items())


def _manifest(extras: Extras) -> Section:
    """What the manifest says, as it says it: to be searched, not read."""
    return Section("What ran", [Details(name, [Preformatted(text)]) for name, text in extras.manifest], only=PAGE)


def _verdict(summary: Summary) -> Section:
    word = VERDICTS[summary.verdict]
    if summary.interrupted:
        word += ", interrupted: what was measured until then"
    return Section(
        "",
        [Paragraph(f"verdict: {word}", tone=_tone(summary)), Bullets(summary.verdict_reasons, 2)],
        only=TEXT,
    )
