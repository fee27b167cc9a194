"""The report as markdown, for an issue, a pull request or a notebook, made from a summary alone.

The same figures as in the terminal, in the same order. What comes from a server or a profile is escaped: it must not
become a link, a tag or a column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from analysis.report import figures
from analysis.report.sections import sections_of
from analysis.report.terminal import EVERY_LATENCY, RATES, TOGETHER, asked_in_words, campaign_in_words
from analysis.report.words import escaped

__all__ = ["markdown_report"]

COLUMNS = {"mean": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p999": "p99.9"}
RUNS = {"ttft_ms": "TTFT mean, ms", "tpot_ms": "TPOT mean, ms"}
RUNS |= {"requests_per_s": "requests/s", "output_tokens_per_s": "tokens/s"}
PER_RUN = {"ttft_ms": "ttft_mean_ms", "tpot_ms": "tpot_mean_ms"}
ERRORS = 5

Summary = Mapping[str, Any]


def markdown_report(summary: Summary) -> str:
    """Return the report as markdown, ending in a newline."""
    blocks = [
        _headline(summary),
        *_sections(summary, leading=True),
        _requests(summary),
        _latencies(summary),
        _rates(summary),
        _objectives(summary),
        _runs(summary),
        _endpoints(summary),
        *_sections(summary, leading=False),
        _instrument(summary),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _sections(summary: Summary, *, leading: bool) -> Iterator[str]:
    for section, content in sections_of(summary, leading=leading):
        yield section.markdown(content).strip()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _listed(texts: Iterable[object]) -> str:
    return "\n".join(f"- {escaped(text)}" for text in texts)


def _figure(estimate: Mapping[str, Any]) -> str:
    few = "few tail samples" in estimate["notes"] and estimate["value"] is not None
    interval = figures.interval(estimate)
    beside = f" {interval}" if interval.startswith("±") else f" ({interval})" if interval else ""
    return f"{figures.value(estimate)}{'†' if few else ''}{beside}"


def _headline(summary: Summary) -> str:
    targets = [
        " · ".join(str(target[key]) for key in ("url", "api", "model", "version") if target.get(key))
        for target in summary["targets"]
    ]
    runs = summary["runs"]
    parts = [
        asked_in_words(summary),
        f"{runs} run{'s' if runs != 1 else ''}",
        f"{summary['window_s'] or 0:.4g} s measured",
        *(["interrupted"] if summary["interrupted"] else []),
    ]
    lines = [
        f"# {'; '.join(escaped(target) for target in targets) or 'loadgen'}",
        escaped(" · ".join(part for part in parts if part)),
        f"**Verdict: {summary['verdict']}**",
    ]
    return "\n\n".join([*lines, *([_listed(summary["verdict_reasons"])] if summary["verdict_reasons"] else [])])


def _requests(summary: Summary) -> str:
    requests = summary["requests"]
    failed = sum(requests["failed"].values())
    text = (
        f"{requests['offered']} requests offered, {requests['completed']} completed, {failed} failed; "
        f"{requests['measured']} measured."
    )
    told = [f"{n} {outcome}" for outcome, n in requests["failed"].items()]
    told += [
        f"{error['n']} × {error['outcome']}: {error['status'] or ''} {error['error'][:300]}"
        for error in summary["errors"][:ERRORS]
    ]
    title = f"## {TOGETHER.capitalize()}\n\n" if summary.get("agents") else ""
    return title + text + (f"\n\n{_listed(told)}" if told else "")


def _latencies(summary: Summary) -> str:
    metrics = summary["metrics"]
    if not summary["requests"]["measured_completed"]:
        return ""
    rows, notes = [], dict[str, None]()
    for name, label in EVERY_LATENCY.items():
        shown = metrics[name]
        # The gaps are the ITL, if there is one: the same figures twice would look like two findings.
        if shown is None or (name == "event_gap_ms" and metrics["itl_ms"] is not None):
            continue
        rows.append([label, *(_figure(shown[key]) for key in COLUMNS), str(shown["mean"]["n"])])
        notes |= dict.fromkeys(note for key in COLUMNS for note in shown[key]["notes"] if note != "no data")
    table = _table(["ms", *COLUMNS.values(), "n"], rows)
    confidence = metrics["ttft_ms"]["mean"]["confidence"]
    kind = f"{100 * confidence:.3g} %, over runs" if confidence else "95 %, within-run"
    legend = f"† fewer than ten samples are expected beyond it. Intervals are {kind}."
    return f"## Latency\n\n{table}\n\n{legend}\n\n{_listed(notes)}".rstrip()


def _rates(summary: Summary) -> str:
    rows, notes = [], dict[str, None]()
    for name, label in RATES.items() if summary["requests"]["completed"] else ():
        rate = summary["metrics"][name]
        if name == "goodput_per_s" and rate["value"] is None:
            continue
        rows.append([label, _figure(rate), str(rate["n"])])
        notes |= dict.fromkeys(rate["notes"])
    return f"## Throughput\n\n{_table(['per second', '', 'n'], rows)}\n\n{_listed(notes)}".rstrip() if rows else ""


def _objectives(summary: Summary) -> str:
    rows = [
        [
            escaped(one["name"]),
            f"{'≥' if one['name'].endswith('_min') else '≤'} {one['limit']:g}",
            _figure(one["value"]),
            one["verdict"] + (f": {escaped(one['reason'])}" if one["reason"] else ""),
            one["basis"],
        ]
        for one in summary["objectives"]
    ]
    table = _table(["", "limit", "measured", "verdict", "decided by"], rows)
    return f"## Objectives\n\n{table}" if rows else ""


def _runs(summary: Summary) -> str:
    runs, side = summary["per_run"], summary["over_runs"]
    blocks = []
    if len(runs) > 1:
        rows = []
        for run in runs:
            name = f"{run['run']} ({run['cut_short']})" if run["cut_short"] else str(run["run"])
            cells = [_five(run[PER_RUN.get(key, key)]) + (" !" if key in run["outlier_in"] else "") for key in RUNS]
            rows.append([name, *cells, str(run["completed"])])
        rows.append(["median", *(_five(side[key]["median"]) for key in RUNS), ""])
        blocks.append(_table(["run", *RUNS.values(), "completed"], rows))
        told = ["! stands out from the other runs (robust z > 3.5); kept in every figure"] * any(
            key in RUNS for run in runs for key in run["outlier_in"]
        )
        told += [
            f"{label.split()[0]}: {side[key]['components']['advice']}"
            for key, label in RUNS.items()
            if side[key]["components"]
        ]
        blocks += [_listed(told)] if told else []
    blocks += [_listed(told)] if (told := campaign_in_words(summary)) else []
    return "\n\n".join(["## Runs", *blocks]) if blocks else ""


def _five(number: float | None) -> str:
    return "–" if number is None else f"{number:.5g}"


def _endpoints(summary: Summary) -> str:
    rows = [
        [
            escaped(name),
            _figure(here["ttft_ms"]["p50"]),
            _figure(here["ttft_ms"]["p99"]),
            _figure(here["tpot_ms"]["p50"]),
            _figure(here["output_tokens_per_s"]),
            str(here["requests"]["failed"]),
        ]
        for name, here in (summary.get("endpoints") or {}).items()
    ]
    head = ["", "TTFT p50, ms", "TTFT p99, ms", "TPOT p50, ms", "tokens/s", "failed"]
    return f"## Endpoints\n\n{_table(head, rows)}" if rows else ""


def _instrument(summary: Summary) -> str:
    told = summary["instrument"]
    error = told["stamp_error_us"]
    facts = [f"stamps: {told['tier'] or 'unknown tier'}"]
    if error["halfwidth"] is None:
        facts.append("stamp error not calibrated")
    else:
        facts.append(f"stamp error {error['bias'] or 0:+.3g} ± {error['halfwidth']:.2g} µs")
    if told["censored_share"] is not None:
        facts.append(f"tokens sharing a read {told['censored_share']:.2%}")
    return f"## Instrument\n\n{_listed([*facts, *summary['notes']])}"
