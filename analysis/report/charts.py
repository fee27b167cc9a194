"""The charts of the page, as plain data: what to draw, thinned out so that a million requests make no larger file.

Traces and layouts are in plotly's terms. Colours are names of roles ("ttft", "gap", "failed0", ...), which the page
turns into colours of the scheme the reader has chosen. SVG traces only: the WebGL ones build code from strings, which
the page forbids itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.catalogue import RunVerdict
from analysis.estimate import Figure, significant
from analysis.figures.curves import Curve, Curves
from analysis.figures.drawn import Drawn, Stage, Waterfall
from analysis.figures.timeline import Timeline
from analysis.report.document import Chart, Json
from analysis.report.telemetry_charts import telemetry_charts
from analysis.summary import Summary

__all__ = ["charts_of"]

TOKENS_A_BIN, LEAST_BINS = 20, 25  # with fewer tokens in a bin their rate is a comb
PERCENTILES = {2: "p50", 10: "p90", 100: "p99", 1000: "p99.9", 10_000: "p99.99", 100_000: "p99.999"}
SECONDS: Json = {"text": "s since the start of the run"}
FAILURE_ROLES = 4
COUNTABLE = 5  # up to as many requests an axis has a tick for each

Trace = dict[str, Json]
Numbers = list[float | None]


def charts_of(drawn: Drawn, summary: Summary) -> list[Chart]:
    """The charts, in the order in which they are read. No percentiles where the verdict forbids them."""
    charts = []
    if summary.verdict is RunVerdict.OK:
        gap_name = "ITL" if summary.metrics.itl_ms else "event gap"
        series = [("TTFT", "ttft", drawn.ttft), (gap_name, "gap", drawn.gaps)]
        measured = [(name, role, curves) for name, role, curves in series if curves]
        charts += [_percentiles(name, role, curves) for name, role, curves in measured]
        charts += [_shares(measured)] if drawn.ttft else []
    charts += _strips(summary)
    charts += _over_time(drawn)
    charts += telemetry_charts(drawn.servers, drawn.boards)
    charts += [_waterfall(drawn.waterfall)] if drawn.waterfall else []
    return [chart for chart in charts if chart.traces]


def _short(values: NDArray[np.generic] | Sequence[float]) -> Numbers:
    """Five digits are more than a plot can show; NaN is a gap in the line."""
    return [significant(value, 5) for value in np.asarray(values, dtype=np.float64).tolist()]


def _line(
    x: Numbers, y: Numbers, role: str, name: str, *, width: float = 2, dash: str = "solid", **others: Json
) -> Trace:
    trace: Trace = {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "role": role}
    return trace | {"line": {"width": width, "dash": dash}, "showlegend": False} | others


# --- runs ------------------------------------------------------------------------------------------------------------

STRIPS = (
    ("ttft_ms", "TTFT mean", "ttft", "ms"),
    ("output_tokens_per_s", "output tokens per second", "gap", "tokens/s"),
)


def _strips(summary: Summary) -> list[Chart]:
    """The value of each run as a dot, in the order of the runs, over the estimate and its interval."""
    charts = []
    estimates = {"ttft_ms": summary.metrics.ttft_ms.mean, "output_tokens_per_s": summary.metrics.output_tokens_per_s}
    apart = {run.run for run in summary.left_out}
    for key, title, role, unit in STRIPS:
        side = summary.over_runs[key]
        runs = zip(summary.per_run, side.values, strict=True)
        values = [(run.run, value) for run, value in runs if value is not None]
        if len(values) > 1:
            charts.append(_strip(title, role, unit, values, estimates[key], side.outliers, apart))
    return charts


def _strip(
    title: str,
    role: str,
    unit: str,
    values: Sequence[tuple[int, float]],
    estimate: Figure,
    outliers: Collection[int],
    apart: Collection[int],
) -> Chart:
    runs = [run for run, _ in values]
    ends: Numbers = [min(runs) - 0.5, max(runs) + 0.5]
    traces, low, high = [], estimate.low, estimate.high
    # A lower bound alone (tokens counted as events) has no confidence, and no band.
    is_band = low is not None and high is not None
    if low is not None and high is not None:
        band = _line([*ends, *ends[::-1]], _short([high, high, low, low]), role, "interval", width=0)
        traces.append(band | {"fill": "toself", "hoverinfo": "skip", "band": True})
    if estimate.value is not None:
        traces.append(_line(ends, _short([estimate.value] * 2), role, "over runs", width=1, hoverinfo="skip"))
    for name, symbol, chosen in (
        ("run", "circle", [point for point in values if point[0] not in (*outliers, *apart)]),
        ("stands out", "circle-open", [point for point in values if point[0] in outliers]),
        ("left out", "x", [point for point in values if point[0] in apart]),
    ):
        traces += [_dots_of_runs(name, symbol, role, unit, chosen)] if chosen else []
    confidence = f" The band is the {100 * (estimate.confidence or 0):.0f} % interval over runs." if is_band else ""
    note = f"One dot a run.{confidence}"
    note += " Rings stand out (robust z > 3.5), and are kept." if outliers else ""
    note += " Crosses did not come to their end, and are in no estimate." if apart else ""
    ticks: Trace = {"dtick": 1} if len(runs) <= 20 else {}
    layout: Trace = {"xaxis": {"title": {"text": "run"}, "range": ends, **ticks}, "yaxis": {"title": {"text": unit}}}
    return Chart(f"{title}, run by run", note, traces, layout)


def _dots_of_runs(name: str, symbol: str, role: str, unit: str, chosen: Sequence[tuple[int, float]]) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "role": role,
        "name": name,
        "hovertemplate": f"{name} %{{x}}: %{{y:.5g}} {unit}<extra></extra>",
        "x": [run for run, _ in chosen],
        "y": _short([value for _, value in chosen]),
        "marker": {"symbol": symbol},
        "showlegend": False,
    }


# --- percentiles -----------------------------------------------------------------------------------------------------


def _percentiles(name: str, role: str, curves: Curves) -> Chart:
    """Values over 1/(1-p), logarithmic: solid while ten samples lie beyond, dotted until one does."""
    traces = []
    if curves.band:
        odds, lows, highs = curves.band.odds, curves.band.lows, curves.band.highs
        outline = _line(_short([*odds, *odds[::-1]]), _short([*highs, *lows[::-1]]), role, "95 %", width=0)
        traces.append(outline | {"fill": "toself", "hoverinfo": "skip", "band": True})
    traces += [_curve(run, role, "one run", width=1, opacity=0.45) for run in curves.of_runs]
    traces.append(_curve(curves.solid, role, name))
    if curves.dotted:
        traces.append(_curve(curves.dotted, role, f"{name}, few tail samples", dash="dot"))
    ticks = {at: text for at, text in PERCENTILES.items() if at <= max(2.0, curves.n) * 1.01}
    note = "Solid while at least ten samples lie beyond, dotted down to one."
    if curves.band:
        over_runs = " The band is the 95 % interval over runs."
        within = " The band is where the order statistics put it, 95 %, within-run."
        note += over_runs if curves.band.over_runs else within
    note += " Thin lines: single runs." if curves.several_runs else ""
    layout: Trace = {
        "xaxis": {
            "type": "log",
            "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
            "title": {"text": "percentile"},
        },
        "yaxis": {"title": {"text": "ms"}, "rangemode": "tozero"},
    }
    return Chart(f"{name} by percentile", note, traces, layout)


def _curve(curve: Curve, role: str, name: str, *, width: float = 2, dash: str = "solid", **others: Json) -> Trace:
    hover = f"{name}: %{{y:.4g}} ms<br>1 in %{{x:.4g}} is slower<extra></extra>"
    x, y = _short(curve.odds), _short(curve.values)
    return _line(x, y, role, name, width=width, dash=dash, hovertemplate=hover, **others)


def _shares(series: Sequence[tuple[str, str, Curves]]) -> Chart:
    traces = []
    for name, role, curves in series:
        hover = f"%{{y:.2%}} of {name} ≤ %{{x:.4g}} ms<extra></extra>"
        x, y = _short(curves.by_share), _short(curves.shares)
        traces.append(_line(x, y, role, name, hovertemplate=hover) | {"showlegend": True})
    edges = [edge for _, _, curves in series for edge in _short(curves.by_share[[0, -1]])]
    least, most = min(edge or 0.0 for edge in edges), max(edge or 0.0 for edge in edges)
    scale: Trace = {"type": "log", "tickvals": _one_two_five(least, most)} if least > 0 else {}
    layout: Trace = {
        "xaxis": {"title": {"text": "ms"}, **scale},
        "yaxis": {"title": {"text": "share of samples"}, "tickformat": ".0%", "range": [0, 1.02]},
    }
    return Chart("Share of samples no slower", "", traces, layout)


def _one_two_five(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if len(decades) > 4 else (1, 2, 5)
    return [float(f"{step}e{decade}") for decade in decades for step in steps]


# --- over time -------------------------------------------------------------------------------------------------------


def _over_time(drawn: Drawn) -> list[Chart]:
    """The charts over the seconds of the runs that have anything to show."""
    lines = drawn.timelines
    merge = max(map(_few_tokens, lines), default=1)
    as_one = "" if drawn.tokens_counted else " Events count as one token where the server did not tell."
    thin = "By the time a request was due. Thin: the slowest of each bin."
    timed = (
        ("Requests in flight", "Mean over each bin.", _flight(lines), "requests"),
        ("TTFT over time", thin, _ttft(lines), "ms"),
        ("Tokens per second", f"As they arrived.{as_one}", _tokens(lines, merge), "tokens/s"),
        ("Failed requests", "When they failed, all runs together.", _failures(lines), "requests in a bin"),
    )
    end = max((float(line.at_s[-1] + line.at_s[0]) for line in lines if len(line.at_s)), default=1.0)
    return [
        _timed(title, note, traces, drawn.measured_s, end, unit)
        for title, note, traces, unit in timed
        if any(any(_values(trace["y"])) for trace in traces)
    ]


def _values(numbers: Json) -> Numbers:
    """The numbers of a trace."""
    return [float(n) if isinstance(n, int | float) else None for n in numbers] if isinstance(numbers, list) else []


def _faint(lines: Sequence[Timeline]) -> Trace:
    return {"opacity": 0.55} if len(lines) > 1 else {}


def _flight(lines: Sequence[Timeline]) -> list[Trace]:
    return [
        _line(_short(line.at_s), _short(line.in_flight), "flight", name, hovertemplate=_hover(name, "in flight"))
        | _faint(lines)
        for line in lines
        for name in [f"run {line.run}"]
    ]


def _ttft(lines: Sequence[Timeline]) -> list[Trace]:
    traces = []
    for line in lines:
        x, median, worst = _short(line.at_s), f"run {line.run}, median", f"run {line.run}, slowest"
        greatest, middle = _short(line.ttft_greatest_ms), _short(line.ttft_p50_ms)
        traces.append(_line(x, greatest, "worst", worst, width=1, hovertemplate=_hover(worst, "ms")) | _faint(lines))
        usual = _line(x, middle, "ttft", median, hovertemplate=_hover(median, "ms")) | _faint(lines)
        traces.append(usual | _dots(line.ttft_p50_ms))
    return traces


def _dots(values: NDArray[np.float64]) -> Trace:
    """What shows values that have no neighbour to draw a line to; nothing where there are none."""
    there = np.pad(~np.isnan(values), 1)
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    return {"mode": "lines+markers", "marker": {"size": 4}} if alone.any() else {}


def _tokens(lines: Sequence[Timeline], merge: int) -> list[Trace]:
    traces = []
    for line in lines:
        name = f"run {line.run}"
        at, rate = (_short(_merged(values, merge)) for values in (line.at_s, line.tokens_per_s))
        traces.append(_line(at, rate, "gap", name, hovertemplate=_hover(name, "tokens/s")) | _faint(lines))
    return traces


def _few_tokens(line: Timeline) -> int:
    """The number of bins to take as one, a power of two, so that they hold enough tokens for a rate."""
    merge, busy = 1, line.tokens_per_s[line.tokens_per_s > 0]
    tokens = float(busy.sum()) * line.width_s
    while len(line.at_s) // (2 * merge) >= LEAST_BINS and tokens * merge < TOKENS_A_BIN * len(line.at_s):
        merge *= 2
    return merge


def _merged(values: NDArray[np.float64], merge: int) -> NDArray[np.float64]:
    """Means of `merge` successive values each; the last may be of fewer."""
    starts = np.arange(0, len(values), merge)
    return np.asarray(np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values))), np.float64)


def _hover(label: str, unit: str) -> str:
    return f"{label}<br>%{{x:.4g}} s: %{{y:.4g}} {unit}<extra></extra>"


def _failures(lines: Sequence[Timeline]) -> list[Trace]:
    """A bar per bin and outcome, of all runs; the bins are those of the first run that had the outcome."""
    names = dict.fromkeys(name for line in lines for name in line.failures)
    traces: list[Trace] = []
    for at, name in enumerate(names):
        having = [line for line in lines if name in line.failures]
        traces.append(
            {
                "type": "bar",
                "x": _short(having[0].at_s),
                "y": _short(np.sum([line.failures[name] for line in having], axis=0)),
                "name": name,
                "role": f"failed{at % FAILURE_ROLES}",
                "width": significant(having[0].width_s * 0.9, 5),
                "hovertemplate": f"%{{y}} {name}<br>%{{x:.4g}} s<extra></extra>",
                "showlegend": True,
            }
        )
    return traces


def _timed(
    title: str, note: str, traces: list[Trace], span: tuple[float, float] | None, end: float, unit: str
) -> Chart:
    yaxis: Trace = {"rangemode": "tozero", "title": {"text": unit}}
    if unit.startswith("requests"):
        most = max((value or 0.0 for trace in traces for value in _values(trace["y"])), default=0.0)
        yaxis |= {"dtick": 1} if 0 < most <= COUNTABLE else {}  # counts: no ticks between them
    layout: Trace = {"xaxis": {"title": SECONDS, "range": [0, end]}, "yaxis": yaxis, "barmode": "stack"}
    shaded = None if span is None or (span[0] <= 0 and span[1] >= end) else [span[0], min(span[1], end)]
    return Chart(title, f"{note} Shaded: measured.".strip() if shaded else note, traces, layout, measured=shaded)


# --- single requests -------------------------------------------------------------------------------------------------


def _waterfall(waterfall: Waterfall) -> Chart:
    """Successive requests from the middle of the first run: waiting, until the first token, streaming."""
    stages = (
        ("wait", "before sent", waterfall.waiting),
        ("ttft", "until the first token", waterfall.first_token),
        ("gap", "streaming", waterfall.streaming),
        ("failed0", "failed", waterfall.failed),
    )
    names = [f"#{seq}" for seq in waterfall.seq]
    traces = [_bars(role, name, stage, names) for role, name, stage in stages if len(stage.rows)]
    layout: Trace = {
        "xaxis": {"title": SECONDS},
        "yaxis": {"autorange": "reversed", "showticklabels": False, "showgrid": False},
        "barmode": "overlay",
        "bargap": 0.25,
    }
    note = f"{len(names)} successive requests from the middle of the run."
    return Chart("Request by request", note, traces, layout, tall=True)


def _bars(role: str, name: str, stage: Stage, names: Sequence[str]) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "role": role,
        "name": name,
        "showlegend": True,
        "y": stage.rows.tolist(),
        "base": _precise(stage.begin_s.tolist()),
        "x": _precise(stage.length_s.tolist()),
        "text": [names[row] for row in stage.rows.tolist()],
        "textposition": "none",
        "hovertemplate": f"%{{text}} {name}: %{{x:.4g}} s<extra></extra>",
    }


def _precise(seconds: Iterable[float]) -> list[float]:
    """Seconds to the tenth of a millisecond: late in a long run five digits would not place a request."""
    return [round(value, 4) if math.isfinite(value) else 0.0 for value in seconds]
