"""The report as one page that opens from disk: no network, light or dark as the reader's system is.

All text is escaped, also inside the data of the charts: an error text comes from a server that may mean ill. Beyond
that the page forbids itself, by a content security policy, to load anything at all.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from analysis.report import figures
from analysis.report.charts import charts_of
from analysis.report.sections import sections_of
from analysis.report.terminal import EVERY_LATENCY, RATES, TOGETHER, TOLD_BY_RUNS, asked_in_words, campaign_in_words
from analysis.stats.intervals import ENOUGH_RUNS, LEAST_RUNS
from analysis.summary import Source, measured_from, summarise

__all__ = ["html_report"]

HERE = Path(__file__).parent
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
COLUMNS = {"mean": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"}
VERDICTS = {
    "ok": ("good", "✓", "OK"),
    "generator-limited": ("bad", "✕", "generator-limited"),
    "unstable": ("bad", "✕", "unstable"),
    "failed": ("bad", "✕", "failed"),
}
ADVISED = {"ttft_ms": "TTFT", "tpot_ms": "TPOT"}
OBJECTIVES = {"held": ("good", "✓"), "failed": ("bad", "✕"), "inconclusive": ("open", "?")}

Summary = Mapping[str, Any]


def html_report(source: Source, summary: Summary | None = None) -> str:
    """Return the page about a run's directory. summary: what `summarise` said of it, if that is at hand."""
    from plotly.offline import get_plotlyjs  # half a second to import, and needed by nothing else

    m = measured_from(source)
    summary = summarise(source) if summary is None else summary
    leading, parts = (list(sections_of(summary, leading=which)) for which in (True, False))
    first = [chart for part, told in leading if part.charts for chart in part.charts(told)]
    charts = charts_of(m, summary) + [chart for part, told in parts if part.charts for chart in part.charts(told)]
    body = "\n".join(
        [
            _header(summary, m.manifest),
            _tiles(summary),
            _objectives(summary),
            *(_section(part.title, part.page(told)) for part, told in leading),
            _chart_places(first),
            _latencies(summary),
            _rates(summary),
            _runs(summary),
            _endpoints(summary),
            *(_section(part.title, part.page(told)) for part, told in parts),
            _chart_places(charts, len(first)),
            _failures(summary),
            _instrument(summary),
            _facts(summary, m.manifest),
        ]
    )
    title = escape(" ".join(["loadgen:", *(str(target.get("url", "")) for target in summary["targets"])]))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<style>\n{(HERE / 'page.css').read_text('utf-8')}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f'<script type="application/json" id="charts">{_json(first + charts)}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>\n{(HERE / 'page.js').read_text('utf-8')}</script>\n"
        "</body>\n</html>\n"
    )


def _json(value: object) -> str:
    """Return JSON that may stand inside a script element, whatever texts are in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; cells are markup, and must have been escaped. The first column is the label."""
    head = list(head)
    slim = " class=slim" if len(head) < 6 else ""
    heads = "".join(f"<th scope=col>{cell}</th>" for cell in head)
    lines = []
    for first, *cells in rows:
        lines.append(f"<tr><th scope=row>{first}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return (
        f"<div class=wide><table{slim}>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def _figure(estimate: Mapping[str, Any]) -> str:
    few = "few tail samples" in estimate["notes"] and estimate["value"] is not None
    mark = '<abbr title="few tail samples: fewer than ten are expected beyond it">*</abbr>' if few else ""
    title = escape("; ".join(estimate["notes"]), quote=True)
    interval = escape(figures.interval(estimate))
    return f'<span title="{title}">{escape(figures.value(estimate))}{mark}<small>{interval}</small></span>'


def _header(summary: Summary, manifest: Mapping[str, Any]) -> str:
    kind, sign, word = VERDICTS.get(summary["verdict"], ("bad", "✕", str(summary["verdict"])))
    targets = [
        " · ".join(str(target[key]) for key in ("url", "api", "model", "version") if target.get(key))
        for target in summary["targets"]
    ]
    runs = summary["runs"]
    started = next((run["wall_start"] for run in manifest.get("runs") or [] if run.get("wall_start")), None)
    parts = [
        asked_in_words(summary),
        f"{runs} run{'s' if runs != 1 else ''}",
        f"{summary['window_s'] or 0:.4g} s measured",
        *([f"started {_moment(started)}"] if started else []),
        *(["interrupted"] if summary["interrupted"] else []),
    ]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in summary["verdict_reasons"])
    return (
        f"<header>\n<h1>{'<br>'.join(escape(target) for target in targets) or 'loadgen'}</h1>\n"
        f"<p>{escape(' · '.join(part for part in parts if part))}</p>\n"
        f'<p class="verdict {kind}"><span aria-hidden=true>{sign}</span> {escape(word)}</p>\n'
        + (f"<ul class=reasons>{reasons}</ul>\n" if reasons else "")
        + "</header>"
    )


def _moment(iso: str) -> str:
    """Return `2026-01-31T10:20:30.400+00:00` without its T and fraction, and with the offset named."""
    day, _, time = iso.partition("T")
    offset = time[time.find("+") :] if "+" in time else ""
    return f"{day} {time[:8]} UTC{'' if offset in ('', '+00:00') else offset}"


def _tiles(summary: Summary) -> str:
    metrics, requests = summary["metrics"], summary["requests"]
    failed = sum(requests["failed"].values())
    gap = "itl_ms" if metrics["itl_ms"] is not None else "event_gap_ms"
    agents = summary.get("agents")
    leading = (
        [("speedup", agents["speedup"], ""), ("efficiency", agents["efficiency"], "")]
        if agents
        else [("TTFT p50", metrics["ttft_ms"]["p50"], "ms"), ("TTFT p99", metrics["ttft_ms"]["p99"], "ms")]
    )
    tiles = [
        *leading,
        (f"{EVERY_LATENCY[gap]} p50", metrics[gap]["p50"], "ms"),
        ("output", metrics["output_tokens_per_s"], "tokens/s"),
    ]
    shown = [
        f"<div class=tile><span>{escape(name)}</span><b>{escape(figures.value(estimate))}</b>"
        f"<small>{escape(' '.join(filter(None, (figures.interval(estimate), unit))))}</small></div>"
        for name, estimate, unit in tiles
    ]
    share = f"{failed / (failed + requests['completed']):.1%} failed" if failed else "none failed"
    shown.append(f"<div class=tile><span>requests</span><b>{requests['completed']}</b><small>{share}</small></div>")
    return f"<div class=tiles>{''.join(shown)}</div>"


def _objectives(summary: Summary) -> str:
    rows = []
    for objective in summary["objectives"]:
        kind, sign = OBJECTIVES[objective["verdict"]]
        bound = "≥" if objective["name"].endswith("_min") else "≤"
        within = " within-run" if objective["basis"] == "within-run" and kind != "open" else ""
        answer = f'<span class="badge {kind}">{sign} {objective["verdict"]}{within}</span>'
        answer += f"<small>{escape(objective['reason'])}</small>" if objective["reason"] else ""
        rows.append([escape(objective["name"]), f"{bound} {objective['limit']:g}", _figure(objective["value"]), answer])
    return _section("Objectives", _table(["", "limit", "measured", ""], rows) if rows else "")


def _latencies(summary: Summary) -> str:
    metrics = summary["metrics"]
    if not summary["requests"]["measured_completed"]:
        return ""
    rows = []
    notes: dict[str, None] = {}
    counted = summary["runs"] - len(summary["left_out"])
    for name, label in EVERY_LATENCY.items():
        shown = metrics[name]
        # The gaps are the ITL, if there is one: the same figures twice would look like two findings.
        if shown is None or (name == "event_gap_ms" and metrics["itl_ms"] is not None):
            continue
        extremes = [_four(shown[key]) for key in ("min", "max", "sd")]
        rows.append([escape(label), *(_figure(shown[key]) for key in COLUMNS), *extremes, str(shown["mean"]["n"])])
        notes |= dict.fromkeys(f"{label} {COLUMNS[key]}: {note}" for key in COLUMNS for note in shown[key]["notes"])
    head = ["ms", *COLUMNS.values(), "min", "max", "sd", "n"]
    kind = (
        "over runs: where the figures of a new run, or of many, would lie"
        if counted >= LEAST_RUNS
        else "within-run: of these requests, not of a new run; means have none, for that takes --runs 5"
    )
    if LEAST_RUNS <= counted < ENOUGH_RUNS:
        kind += "; few runs: they are right, and wide"
    few = (
        f"<p class=note>Intervals are {100 * (metrics['ttft_ms']['mean']['confidence'] or 0.95):.3g} %, {kind}. "
        "≥ alone: fewer than one sample is expected beyond that percentile. * fewer than ten are.</p>"
    )
    told = (": within-run", ": no data", ": few runs")
    listed = "".join(
        f"<li>{escape(note)}</li>" for note in notes if not note.endswith(told) and "no interval from" not in note
    )
    details = f"<details><summary>Notes on single figures</summary><ul>{listed}</ul></details>" if listed else ""
    return _section(_titled("Latency", summary), _table(head, rows) + few + details)


def _four(number: float | None) -> str:
    return "–" if number is None else f"{number:.0f}" if abs(number) >= 1e4 else f"{number:.4g}"


def _titled(title: str, summary: Summary) -> str:
    return f"{title}, {TOGETHER}" if summary.get("agents") else title


def _rates(summary: Summary) -> str:
    rows: list[list[str]] = []
    notes: dict[str, None] = {}
    for name, label in RATES.items() if summary["requests"]["completed"] else ():
        rate = summary["metrics"][name]
        if name == "goodput_per_s" and rate["value"] is None:
            continue
        notes |= dict.fromkeys(note for note in rate["notes"] if not note.startswith(TOLD_BY_RUNS))
        rows.append([escape(label), _figure(rate), str(rate["n"])])
    goodput = summary["goodput"]
    note = "".join(f"<p class=note>{escape(text)}</p>" for text in notes)
    if goodput and goodput["attainment"]["value"] is not None:
        terms = ", ".join(f"{EVERY_LATENCY[name]} ≤ {limit:g} ms" for name, limit in goodput["terms"].items())
        note += f"<p class=note>{goodput['attainment']['value']:.1%} of the requests offered had {escape(terms)}.</p>"
    head = ["per second", "mean", "completed requests"]
    return _section(_titled("Throughput", summary), _table(head, rows) + note if rows else "")


def _runs(summary: Summary) -> str:
    side = summary["over_runs"]
    columns = {"ttft_mean_ms": "TTFT mean, ms", "tpot_mean_ms": "TPOT mean, ms", "requests_per_s": "requests/s"}
    columns |= {"output_tokens_per_s": "output tokens/s", "completed": "completed", "window_s": "window, s"}
    metrics = {"ttft_mean_ms": "ttft_ms", "tpot_mean_ms": "tpot_ms"}
    rows = [
        [
            f"{run['run']} ({run['cut_short']})" if run["cut_short"] else str(run["run"]),
            *(_of_run(run[key], metrics.get(key, key) in run["outlier_in"]) for key in columns),
        ]
        for run in summary["per_run"]
    ]
    medians = (side.get(metrics.get(key, key)) for key in columns)
    rows.append(["median", *("" if one is None else _of_run(one["median"], False) for one in medians)])
    told = [f"{name}: {side[key]['components']['advice']}" for key, name in ADVISED.items() if side[key]["components"]]
    told += campaign_in_words(summary)
    table = _table(["run", *columns.values()], rows) if len(rows) > 2 else ""
    return _section(
        "Concurrent runs" if summary.get("agents") else "Runs",
        table + "".join(f"<p class=note>{escape(line)}</p>" for line in told),
    )


def _of_run(number: float | None, out: bool) -> str:
    mark = '<abbr title="stands out from the other runs (robust z > 3.5); kept in every figure">!</abbr>' if out else ""
    return "–" if number is None else f"{number:.5g}{mark}"


def _endpoints(summary: Summary) -> str:
    rows = []
    for name, here in (summary.get("endpoints") or {}).items():
        cells = [_figure(here["ttft_ms"]["p50"]), _figure(here["ttft_ms"]["p99"]), _figure(here["tpot_ms"]["p50"])]
        cells += [_figure(here["output_tokens_per_s"]), str(here["requests"]["completed"])]
        rows.append([escape(name), *cells, str(here["requests"]["failed"])])
    head = ["", "TTFT p50, ms", "TTFT p99, ms", "TPOT p50, ms", "output tokens/s", "completed", "failed"]
    return _section("Endpoints", _table(head, rows) if rows else "")


def _chart_places(charts: list[dict[str, Any]], start: int = 0) -> str:
    """Return where the page draws `charts`, of which the first is number `start` in its data."""
    places = []
    whole_row = {at for at, chart in enumerate(charts) if chart.get("tall") or chart.get("wide")}
    edges = [-1, *sorted(whole_row), len(charts)]
    # The last of an odd number between them has no neighbour.
    whole_row |= {end - 1 for begin, end in itertools.pairwise(edges) if (end - begin) % 2 == 0}
    for at, chart in enumerate(charts):
        index = start + at
        tall = " tall" * bool(chart.get("tall")) + " whole" * (at in whole_row)
        note = f"<p class=note>{escape(chart['note'])}</p>" if chart["note"] else ""
        places.append(
            f'<figure class="chart{tall}"><figcaption>{escape(chart["title"])}</figcaption>{note}'
            f'<div id="chart-{index}" class=plot></div></figure>'
        )
    return f"<div class=charts>{''.join(places)}</div>" if places else ""


def _failures(summary: Summary) -> str:
    rows = [
        [
            escape(error["outcome"]),
            str(error["n"]),
            str(error["status"] or "–"),
            f"<code>{escape(error['error'])}</code>",
        ]
        for error in summary["errors"]
    ]
    return _section("Failures", _table(["outcome", "n", "status", "what was said"], rows) if rows else "")


def _instrument(summary: Summary) -> str:
    told = summary["instrument"]
    error, lag, send = told["stamp_error_us"], told["loop_lag_ms"], told["send_lag_ms"]
    calibrated = error["halfwidth"] is not None
    rows = {
        "stamps": told["tier"] or "unknown",
        "stamp error": f"{error['bias'] or 0:+.3g} ± {error['halfwidth']:.2g} µs" if calibrated else "not calibrated",
        "tokens sharing a read": _percent(told["censored_share"], 2),
        "event loop lag": _quantiles(lag),
        "send lag": _quantiles(send),
        "CPU of a core": _percent(told["cpu_share"], 0),
        "workers": told["workers"],
        "clock": told["clock_source"],
        "connections found closed": summary["stale_connections"],
        "token counts from": ", ".join(f"{name}: {n}" for name, n in summary["tokens_from"].items()),
    }
    notes = "".join(f"<li>{escape(note)}</li>" for note in summary["notes"])
    table = _table(["", ""], [[escape(name), escape(str(value))] for name, value in rows.items() if value is not None])
    return _section("Instrument", table.replace("class=slim", "class=facts") + (f"<ul>{notes}</ul>" if notes else ""))


def _percent(share: float | None, decimals: int) -> str | None:
    return None if share is None else f"{share:.{decimals}%}"


def _quantiles(told: Mapping[str, float | None]) -> str | None:
    known = [f"{name} {value:.3g} ms" for name, value in told.items() if value is not None]
    return ", ".join(known) or None


def _facts(summary: Summary, manifest: Mapping[str, Any]) -> str:
    """Return what the manifest says, as it says it: to be searched, not read."""
    blocks = []
    for key in ("profile", "targets", "host", "workload"):
        if manifest.get(key):
            text = json.dumps(manifest[key], indent=2, ensure_ascii=False)
            blocks.append(f"<details><summary>{key}</summary><pre>{escape(text)}</pre></details>")
    return _section("What ran", "".join(blocks))
