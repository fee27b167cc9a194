"""The charts of the page, as plain data: what to draw, thinned out so that a million requests make no larger file.

A chart is `{"title", "note", "traces", "layout"}` with traces in plotly's terms. Colours are names of roles ("ttft",
"gap", "failed0", ...), which the page turns into colours of the scheme the reader has chosen. SVG traces only: the
WebGL ones build code from strings, which the page forbids itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import significant
from analysis.figures.timeline import Timeline, timeline_of
from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT, Bool
from analysis.report.telemetry import telemetry_charts
from analysis.stats import intervals
from analysis.stats.quantiles import FEW_TAIL_SAMPLES, Sorted, SortedArray, bounds, type7
from loadgen.record import Int64

__all__ = ["charts_of"]

Chart = dict[str, Any]
Trace = dict[str, Any]

CURVE_POINTS = 160
RUNS_DRAWN = 12
REQUESTS_DRAWN = 48
TOKENS_A_BIN, LEAST_BINS = 20, 25  # with fewer tokens in a bin their rate is a comb
PERCENTILES = {2: "p50", 10: "p90", 100: "p99", 1000: "p99.9", 10_000: "p99.99", 100_000: "p99.999"}


def charts_of(m: Measured, summary: Mapping[str, Any]) -> list[Chart]:
    """Return the charts, in the order in which they are read. No percentiles where the verdict forbids them."""
    charts = []
    if summary["verdict"] == "ok":
        ttft, whole = latency.ttft(m), m.counted
        kept = whole.answered & ~np.isnan(ttft)
        gap_name = "event gap" if summary["metrics"]["itl_ms"] is None else "ITL"
        requests, gaps = SortedArray(ttft[kept] / 1e6), _Ms(m.gaps.stamped)
        runs = [SortedArray(ttft[kept & (m.requests.run == run)] / 1e6) for run in whole.runs]
        gap_runs = [_Ms(m.gaps.by_run[run]) for run in whole.runs if run in m.gaps.by_run]
        charts += [_percentiles("TTFT", "ttft", requests, runs)] if requests.n else []
        charts += [_percentiles(gap_name, "gap", gaps, gap_runs, clustered=True)] if gaps.n else []
        charts += [_ecdf({"TTFT": ("ttft", requests), gap_name: ("gap", gaps)})] if requests.n else []
    charts += _strips(summary)
    lines = [timeline_of(m, run) for run in m.runs[:RUNS_DRAWN]]
    charts += [chart for chart in _over_time(m, lines) if any(any(trace["y"]) for trace in chart["traces"])]
    charts += telemetry_charts(m)
    waterfall = _waterfall(m)
    return charts + ([waterfall] if waterfall["traces"] else [])


class _Ms:
    def __init__(self, data: Sorted) -> None:
        self._data = data
        self.n = data.n

    def at(self, rank: int) -> float:
        return self._data.at(rank) / 1e6


def _short(values: NDArray[np.generic] | list[float]) -> list[float | None]:
    """Five digits are more than a plot can show; NaN is a gap in the line."""
    return [significant(value, 5) for value in np.asarray(values, dtype=np.float64).tolist()]


def _line(x: list[float | None], y: list[float | None], colour: str, name: str, **others: Any) -> Trace:
    width, dash = others.pop("width", 2), others.pop("dash", "solid")
    trace = {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "role": colour}
    return trace | {"line": {"width": width, "dash": dash}, "showlegend": False} | others


STRIPS = {
    "ttft_ms": ("TTFT mean", "ttft", "ms"),
    "output_tokens_per_s": ("output tokens per second", "gap", "tokens/s"),
}


def _strips(summary: Mapping[str, Any]) -> list[Chart]:
    """The value of each run as a dot, in the order of the runs, over the estimate and its interval."""
    charts = []
    for name, (title, colour, unit) in STRIPS.items():
        side, metric = summary["over_runs"][name], summary["metrics"][name]
        told = [
            (entry["run"], value)
            for entry, value in zip(summary["per_run"], side["values"], strict=True)
            if value is not None
        ]
        if len(told) > 1:
            apart = {one["run"] for one in summary["left_out"]}
            charts.append(_strip(title, colour, unit, told, metric.get("mean", metric), side, apart))
    return charts


def _strip(
    title: str,
    colour: str,
    unit: str,
    told: Sequence[tuple[int, float]],
    estimate: Mapping[str, Any],
    side: Mapping[str, Any],
    apart: Collection[int],
) -> Chart:
    runs = [run for run, _ in told]
    ends: list[float | None] = [min(runs) - 0.5, max(runs) + 0.5]
    traces = []
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    # A lower bound alone (tokens counted as events) has no confidence, and no band.
    is_band = low is not None and high is not None
    if is_band:
        band = _line([*ends, *ends[::-1]], _short([high, high, low, low]), colour, "interval", width=0)
        traces.append(band | {"fill": "toself", "hoverinfo": "skip", "band": True})
    if value is not None:
        traces.append(_line(ends, _short([value, value]), colour, "over runs", width=1, hoverinfo="skip"))
    for name, symbol, chosen in (
        ("run", "circle", [one for one in told if one[0] not in (*side["outliers"], *apart)]),
        ("stands out", "circle-open", [one for one in told if one[0] in side["outliers"]]),
        ("left out", "x", [one for one in told if one[0] in apart]),
    ):
        hover = f"{name} %{{x}}: %{{y:.5g}} {unit}<extra></extra>"
        dots: Trace = {"type": "scatter", "mode": "markers", "role": colour, "name": name, "hovertemplate": hover}
        dots |= {"x": [run for run, _ in chosen], "y": _short([y for _, y in chosen]), "marker": {"symbol": symbol}}
        traces += [dots | {"showlegend": False}] if chosen else []
    known = f" The band is the {100 * estimate['confidence']:.0f} % interval over runs." if is_band else ""
    note = f"One dot a run.{known}"
    note += " Rings stand out (robust z > 3.5), and are kept." if side["outliers"] else ""
    note += " Crosses did not come to their end, and are in no estimate." if apart else ""
    yaxis = {"title": {"text": unit}} if unit else {}
    ticks = {"dtick": 1} if len(runs) <= 20 else {}
    layout = {"xaxis": {"title": {"text": "run"}, "range": ends, **ticks}, "yaxis": yaxis}
    return {"title": f"{title}, run by run", "note": note, "traces": traces, "layout": layout}


def _percentiles(name: str, colour: str, data: Sorted, runs: Sequence[Sorted], *, clustered: bool = False) -> Chart:
    """Values over 1/(1-p), logarithmic: solid while ten samples lie beyond, dotted until one does."""
    most = max(2.0, float(data.n))
    solid = max(2.0, data.n / FEW_TAIL_SAMPLES)
    held = [run for run in runs if run.n]
    over_runs = len(held) >= intervals.LEAST_RUNS
    traces = []
    if over_runs or not clustered:
        traces.append(_band(data, held if over_runs else [], colour, most))
    if len(held) > 1:
        some = [run for run in held[:RUNS_DRAWN] if run.n > 1]
        traces += [_curve(run, 1.0, run.n, colour, "one run", width=1, opacity=0.45) for run in some]
    traces.append(_curve(data, 1.0, min(solid, most), colour, name))
    if most > solid:
        traces.append(_curve(data, solid, most, colour, f"{name}, few tail samples", dash="dot"))
    ticks = {at: text for at, text in PERCENTILES.items() if at <= most * 1.01}
    note = "Solid while at least ten samples lie beyond, dotted down to one."
    if over_runs:
        note += " The band is the 95 % interval over runs."
    elif not clustered:
        note += " The band is where the order statistics put it, 95 %, within-run."
    note += " Thin lines: single runs." if len(held) > 1 else ""
    layout = {
        "xaxis": {
            **{"type": "log", "tickvals": list(ticks), "ticktext": list(ticks.values())},
            "title": {"text": "percentile"},
        },
        "yaxis": {"title": {"text": "ms"}, "rangemode": "tozero"},
    }
    return {"title": f"{name} by percentile", "note": note, "traces": traces, "layout": layout}


def _odds(low: float, high: float) -> NDArray[np.float64]:
    return np.geomspace(low, max(high, low * 1.0001), CURVE_POINTS)


def _curve(data: Sorted, low: float, high: float, colour: str, name: str, **others: Any) -> Trace:
    odds = _odds(low, high)
    values = [type7(data, 1 - 1 / x) for x in odds]
    hover = f"{name}: %{{y:.4g}} ms<br>1 in %{{x:.4g}} is slower<extra></extra>"
    return _line(_short(odds), _short(values), colour, name, hovertemplate=hover, **others)


def _band(data: Sorted, runs: Sequence[Sorted], colour: str, most: float) -> Trace:
    """The interval at each percentile: over `runs`, where there are any, else of the order statistics alone."""
    xs, lows, highs = [], [], []
    for x in _odds(1.05, most).tolist():
        q = 1 - 1 / x
        low, high = intervals.hull(data, q, runs) if runs else bounds(data, q)[:2]
        if low is not None and high is not None:
            xs.append(x)
            lows.append(low)
            highs.append(high)
    outline = _line(_short(xs + xs[::-1]), _short(highs + lows[::-1]), colour, "95 %", width=0)
    return outline | {"fill": "toself", "hoverinfo": "skip", "band": True}


def _ecdf(series: Mapping[str, tuple[str, Sorted]]) -> Chart:
    traces = []
    shares = np.unique(np.concatenate([np.linspace(0, 1, CURVE_POINTS), 1 - np.geomspace(1e-4, 0.1, 40)]))
    for name, (colour, data) in series.items():
        if data.n == 0:
            continue
        values = [type7(data, float(share)) for share in shares]
        hover = f"%{{y:.2%}} of {name} ≤ %{{x:.4g}} ms<extra></extra>"
        traces.append(_line(_short(values), _short(shares), colour, name, hovertemplate=hover, showlegend=True))
    edges = [edge or 0.0 for trace in traces for edge in (trace["x"][0], trace["x"][-1])]
    scale = {"type": "log", "tickvals": _one_two_five(min(edges), max(edges))} if min(edges) > 0 else {}
    layout = {
        "xaxis": {"title": {"text": "ms"}, **scale},
        "yaxis": {"title": {"text": "share of samples"}, "tickformat": ".0%", "range": [0, 1.02]},
    }
    return {"title": "Share of samples no slower", "note": "", "traces": traces, "layout": layout}


def _one_two_five(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if len(decades) > 4 else (1, 2, 5)
    return [float(f"{step}e{decade}") for decade in decades for step in steps]


def _over_time(m: Measured, lines: list[Timeline]) -> list[Chart]:
    faint = {"opacity": 0.55} if len(lines) > 1 else {}
    flight, ttft, tokens, failed = [], [], [], []
    failures: dict[str, Trace] = {}
    merge = max((_few_tokens(line) for line in lines), default=1)
    for line in lines:
        x = _short(line.at_s)
        label = f"run {line.run}"
        flight.append(_line(x, _short(line.in_flight), "flight", label, **_hover(label, "in flight"), **faint))
        median, worst = f"{label}, median", f"{label}, slowest"
        dots = _dots(line.ttft_p50_ms)
        ttft.append(_line(x, _short(line.ttft_greatest_ms), "worst", worst, **_hover(worst, "ms"), width=1, **faint))
        ttft.append(_line(x, _short(line.ttft_p50_ms), "ttft", median, **_hover(median, "ms"), **faint, **dots))
        at, rate = (_short(_merged(values, merge)) for values in (line.at_s, line.tokens_per_s))
        tokens.append(_line(at, rate, "gap", label, **_hover(label, "tokens/s"), **faint))
        for name, counts in line.failures.items():
            _add_failures(failures, name, line, counts)
    failed = list(failures.values())
    seconds = {"title": {"text": "s since the start of the run"}}
    told = "" if _tokens_told(m) else " Events count as one token where the server did not tell."
    span = _measured_span(m)
    return [
        _timed("Requests in flight", "Mean over each bin.", flight, span, seconds, "requests"),
        _timed(
            "TTFT over time", "By the time a request was due. Thin: the slowest of each bin.", ttft, span, seconds, "ms"
        ),
        _timed("Tokens per second", "As they arrived." + told, tokens, span, seconds, "tokens/s"),
        _timed("Failed requests", "When they failed, all runs together.", failed, span, seconds, "requests in a bin"),
    ]


def _dots(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return what shows values that have no neighbour to draw a line to; nothing where there are none."""
    known = np.pad(~np.isnan(values), 1)
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    return {"mode": "lines+markers", "marker": {"size": 4}} if alone.any() else {}


def _few_tokens(line: Timeline) -> int:
    """Return how many bins to take as one, a power of two, so that they hold tokens enough to tell a rate."""
    merge, busy = 1, line.tokens_per_s[line.tokens_per_s > 0]
    tokens = float(busy.sum()) * line.width_s
    while len(line.at_s) // (2 * merge) >= LEAST_BINS and tokens * merge < TOKENS_A_BIN * len(line.at_s):
        merge *= 2
    return merge


def _merged(values: NDArray[np.float64], merge: int) -> NDArray[np.float64]:
    """Return means of `merge` successive values each; the last may be of fewer."""
    starts = np.arange(0, len(values), merge)
    return np.asarray(np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values))), np.float64)


def _hover(label: str, unit: str) -> dict[str, str]:
    return {"hovertemplate": f"{label}<br>%{{x:.4g}} s: %{{y:.4g}} {unit}<extra></extra>"}


def _add_failures(failures: dict[str, Trace], name: str, line: Timeline, counts: NDArray[np.float64]) -> None:
    trace = failures.get(name)
    if trace is None:
        hover = f"%{{y}} {name}<br>%{{x:.4g}} s<extra></extra>"
        role = f"failed{len(failures) % 4}"
        failures[name] = {
            **{"type": "bar", "x": _short(line.at_s), "y": _short(counts), "name": name, "role": role},
            **{"width": significant(line.width_s * 0.9, 5), "hovertemplate": hover, "showlegend": True},
        }
    else:
        trace["y"] = [(a or 0) + b for a, b in zip(trace["y"], counts.tolist(), strict=True)]


def _tokens_told(m: Measured) -> bool:
    return bool((m.tokens.counted != ABSENT)[m.tokens.events > 0].all())


def _measured_span(m: Measured) -> list[float] | None:
    """Return the measured window to be shaded, if all runs have the same one, near enough; seconds."""
    if not m.windows:
        return None
    first = m.windows[0]
    slack = 0.02 * max(1, first.to_ns - first.from_ns)
    alike = all(abs(w.from_ns - first.from_ns) <= slack and abs(w.to_ns - first.to_ns) <= slack for w in m.windows)
    return [first.from_ns / 1e9, first.to_ns / 1e9] if alike and first.to_ns > first.from_ns else None


def _timed(
    title: str, note: str, traces: list[Trace], span: list[float] | None, seconds: dict[str, Any], unit: str = ""
) -> Chart:
    end = max((trace["x"][-1] + trace["x"][0] for trace in traces if trace["x"]), default=1.0)
    layout: dict[str, Any] = {
        "xaxis": {**seconds, "range": [0, end]},
        "yaxis": {"rangemode": "tozero", **({"title": {"text": unit}} if unit else {})},
        "barmode": "stack",
    }
    counted = unit.startswith("requests")
    most = max((value or 0.0 for trace in traces if counted for value in trace["y"]), default=0.0)
    if 0 < most <= 5:  # counts: no ticks between them
        layout["yaxis"]["dtick"] = 1
    shaded = None if span is None or (span[0] <= 0 and span[1] >= end) else [span[0], min(span[1], end)]
    if shaded:
        note = f"{note} Shaded: measured.".strip()
    return {"title": title, "note": note, "traces": traces, "layout": layout, "measured": shaded}


def _waterfall(m: Measured) -> Chart:
    """Successive requests from the middle of the first run: waiting, until the first token, streaming."""
    chosen = _sample(m)
    requests, tokens = m.requests, m.tokens
    rows = np.arange(len(chosen))
    due, sent = requests.intended_ns[chosen], requests.sent_ns[chosen]
    first, last, done = tokens.first_ns[chosen], tokens.last_ns[chosen], requests.done_ns[chosen]
    ok = requests.ok[chosen]
    names = [f"#{seq}" for seq in requests.seq[chosen].tolist()]
    parts = [
        ("wait", "before sent", due, sent, ok & (sent - due > 0)),
        ("ttft", "until the first token", sent, first, ok & (first != ABSENT)),
        ("gap", "streaming", first, last, ok & (first != ABSENT)),
        ("failed0", "failed", np.where(sent == ABSENT, due, sent), done, ~ok & (done != ABSENT)),
    ]
    traces = [_bars(*part, rows, names) for part in parts if part[-1].any()]
    layout = {
        "xaxis": {"title": {"text": "s since the start of the run"}},
        "yaxis": {"autorange": "reversed", "showticklabels": False, "showgrid": False},
        "barmode": "overlay",
        "bargap": 0.25,
    }
    note = f"{len(chosen)} successive requests from the middle of the run."
    return {"title": "Request by request", "note": note, "traces": traces, "layout": layout, "tall": True}


def _sample(m: Measured) -> Int64:
    if not m.windows:
        return np.empty(0, np.int64)
    known = (m.requests.run == m.windows[0].run) & (m.requests.done_ns != ABSENT)
    candidates = np.flatnonzero(known & m.inside)
    if len(candidates) == 0:
        candidates = np.flatnonzero(known)
    candidates = candidates[np.argsort(m.requests.intended_ns[candidates], kind="stable")]
    start = max(0, (len(candidates) - REQUESTS_DRAWN) // 2)
    return candidates[start : start + REQUESTS_DRAWN]


def _bars(colour: str, name: str, start: Int64, end: Int64, shown: Bool, rows: Int64, names: list[str]) -> Trace:
    length = (end - start)[shown]
    return {
        **{"type": "bar", "orientation": "h", "role": colour, "name": name, "showlegend": True},
        **{"y": rows[shown].tolist(), "base": _precise(start[shown]), "x": _precise(length)},
        **{"text": [names[row] for row in rows[shown]], "textposition": "none"},
        "hovertemplate": f"%{{text}} {name}: %{{x:.4g}} s<extra></extra>",
    }


def _precise(ns: Int64) -> list[float]:
    """Seconds to the tenth of a millisecond: late in a long run five digits would not place a request."""
    return [round(value, 4) if math.isfinite(value) else 0.0 for value in (ns / 1e9).tolist()]
