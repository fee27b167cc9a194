"""The report as text, 80 columns, made from a summary alone.

What was asked, what came of it, the figures with their intervals under them, the state of the instrument, the verdict.
Colour only stresses: with it or without, the words are the same. Servers' texts are shown with their control characters
taken out, for a terminal obeys them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from analysis.report import figures
from analysis.report.agents import agents_in_words
from analysis.report.sections import sections_of
from analysis.report.words import clean, wrapped

__all__ = [
    "EVERY_LATENCY",
    "RATES",
    "TOGETHER",
    "TOLD_BY_RUNS",
    "asked_in_words",
    "campaign_in_words",
    "terminal_report",
]

LABEL = 13
COLUMN = 15
COLUMNS = ("mean", "p50", "p90", "p99")
EVERY_LATENCY = {
    "ttft_ms": "TTFT",
    "ttft_service_ms": "TTFT service",
    "itl_ms": "ITL",
    "event_gap_ms": "event gap",
    "tpot_ms": "TPOT",
    "e2e_ms": "E2E",
    "queue_ms": "wait to send",
}
TOGETHER = "concurrent runs, all agents"  # what the general figures are of, where agents ran alone as well
RATES = {
    "requests_per_s": "requests",
    "output_tokens_per_s": "output tokens",
    "total_tokens_per_s": "total tokens",
    "goodput_per_s": "goodput",
}
RUN_COLUMNS = {"TTFT mean": "ttft_ms", "TPOT mean": "tpot_ms", "requests/s": "requests_per_s"}
RUN_COLUMNS |= {"tokens/s": "output_tokens_per_s"}
RUN_KEYS = {"ttft_ms": "ttft_mean_ms", "tpot_ms": "tpot_mean_ms", "requests_per_s": "requests_per_s"}
LOOKED_AT = {"ttft_ms": "mean TTFT", "output_tokens_per_s": "output tokens/s"}
RUN_KEYS |= {"output_tokens_per_s": "output_tokens_per_s"}  # of per_run
VERDICTS = {"ok": "OK", "generator-limited": "GENERATOR-LIMITED", "unstable": "UNSTABLE", "failed": "FAILED"}
WITH_FAILURES = "with failures as +∞: "
ERRORS = 5
RUNS = 10

Summary = Mapping[str, Any]


def terminal_report(summary: Summary, *, colour: bool = False) -> str:
    """Return the report, no line wider than 80 columns, ending in a newline."""
    paint = _Paint(colour)
    blocks = [
        _headline(summary, paint),
        *_sections(summary, paint, leading=True),
        _requests(summary, paint),
        _latencies(summary, paint),
        _rates(summary, paint),
        _objectives(summary, paint),
        _runs(summary, paint),
        _endpoints(summary, paint),
        *_sections(summary, paint, leading=False),
        _instrument(summary, paint),
        _verdict(summary, paint),
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines) + "\n"


def _sections(summary: Summary, paint: _Paint, *, leading: bool) -> Iterator[list[str]]:
    for part, told in sections_of(summary, leading=leading):
        yield [paint.head(part.title), *part.text(told).splitlines()]


class _Paint:
    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and text.strip() else text

    def head(self, text: str) -> str:
        return self(text, "1")

    def dim(self, text: str) -> str:
        return self(text, "2")

    def verdict(self, text: str, good: bool, bad: bool) -> str:
        return self(text, "1;32" if good else "1;31" if bad else "1;33")


def _headline(summary: Summary, paint: _Paint) -> list[str]:
    lines = []
    for target in summary.get("targets") or []:
        told = [target[key] for key in ("url", "api", "model") if target.get(key)]
        lines += [paint.head(line) for line in wrapped(" · ".join(map(str, told)))]
    runs = summary["runs"]
    parts = [
        asked_in_words(summary),
        f"{runs} run{'s' if runs != 1 else ''}",
        f"{summary['window_s'] or 0:.4g} s measured",
    ]
    return lines + wrapped(" · ".join(part for part in parts if part))


def asked_in_words(summary: Summary) -> str:
    """Return what was asked for, a load or agents, in one phrase; empty if that is not known."""
    agents = summary.get("agents")
    return agents_in_words(agents) if agents else _load_in_words(summary.get("load") or {})


def _load_in_words(load: Mapping[str, Any]) -> str:
    if not load:
        return ""
    arrivals = load.get("arrivals") or ("poisson" if load.get("rate_per_s") else "closed")
    if load.get("stages"):
        return f"{'closed loop' if arrivals == 'closed' else f'open loop, {arrivals}'}, {len(load['stages'])} stages"
    if arrivals == "closed":
        return f"closed loop, {load.get('concurrency', '?')} in flight"
    if arrivals == "burst":
        return f"burst of {load.get('requests', '?')}"
    return f"open loop, {arrivals}, {load.get('rate_per_s', 0):g} requests/s"


def _requests(summary: Summary, paint: _Paint) -> list[str]:
    requests = summary["requests"]
    failed = sum(requests["failed"].values())
    ended = requests["completed"] + failed
    lines = [
        *([paint.head(TOGETHER)] if summary.get("agents") else []),
        paint.head("requests".ljust(LABEL))
        + f"{requests['offered']} offered, {requests['completed']} completed, {failed} failed"
        + (f" ({failed / ended:.1%})" if ended and failed else "")
        + f"; {requests['measured']} measured",
    ]
    for outcome, n in sorted(requests["failed"].items(), key=lambda item: (-item[1], item[0])):
        lines.append(" " * LABEL + f"{n} {outcome}")
    for error in summary["errors"][:ERRORS]:
        status = f"{error['status']} " if error["status"] is not None else ""
        if status or error["error"]:
            text = f"{error['n']} × {error['outcome']}: {status}{error['error']}"
            lines += wrapped(text[:300], " " * LABEL + "  ", " " * LABEL + "    ")
    lines += _arrivals(summary)
    if summary["stale_connections"]:
        lines.append(f"{'':{LABEL}}{summary['stale_connections']} requests sent again: connection found closed")
    return lines


def _arrivals(summary: Summary) -> list[str]:
    """Return how requests were due in the windows of an open loop, the runs from least to most."""
    told = summary["arrivals"] or []
    parts = []
    for key, name in (("rate_per_s", "due per second"), ("cv", "CV of gaps"), ("dispersion", "dispersion of counts")):
        known = [one[key] for one in told if one[key] is not None]
        if known:
            ends = dict.fromkeys(f"{end:.3g}" for end in (min(known), max(known)))
            parts.append(f"{name} {'..'.join(ends)}")
    return wrapped(", ".join(parts), " " * LABEL, " " * LABEL) if parts else []


def _latencies(summary: Summary, paint: _Paint) -> list[str]:
    metrics = summary["metrics"]
    if not summary["requests"]["measured_completed"]:
        return []
    head = "ms".ljust(LABEL) + "".join(name.rjust(COLUMN) for name in COLUMNS) + "n".rjust(7)
    lines = [paint.head(head)]
    # The gaps are the ITL, if there is one: the same figures twice would look like two findings.
    hidden = "itl_ms" if metrics["itl_ms"] is None else "event_gap_ms"
    shown = [(metrics[name], label) for name, label in EVERY_LATENCY.items() if name != hidden]
    for figure, label in shown:
        lines += _latency(label, figure, paint)
    notes = [*_intervals(metrics), *_notes(shown)]
    return lines + [paint.dim(line) for note in notes for line in wrapped(note, "  ", "    ")]


def _intervals(metrics: Mapping[str, Any]) -> list[str]:
    """Return what the intervals are, where they are over runs."""
    mean = metrics["ttft_ms"]["mean"]
    if mean["confidence"] is None:
        return []
    return [f"±, a..b: {100 * mean['confidence']:.3g} % intervals over runs, where a new one would lie"]


def _latency(label: str, shown: Mapping[str, Any], paint: _Paint) -> Iterator[str]:
    columns = [shown[name] for name in COLUMNS]
    values = "".join(_marked(column).rjust(COLUMN) for column in columns)
    yield f"{label:<{LABEL}}{values}{_count(shown['mean']['n']):>7}"
    intervals = "".join(figures.interval(column, COLUMN - 1).rjust(COLUMN) for column in columns).rstrip()
    if intervals:
        yield paint.dim(" " * LABEL + intervals)
    failures = [_after(WITH_FAILURES, column["notes"]) for column in columns]
    if any(failures):
        yield paint.dim("  failed = ∞".ljust(LABEL) + "".join(text.rjust(COLUMN) for text in failures))


def _marked(figure: Mapping[str, Any]) -> str:
    few = "few tail samples" in figure["notes"]
    return figures.value(figure) + ("*" if few and figure["value"] is not None else "")


def _after(prefix: str, notes: Iterable[str]) -> str:
    return next((note.removeprefix(prefix) for note in notes if note.startswith(prefix)), "")


def _count(n: int) -> str:
    return str(n) if n < 100_000 else f"{n / 1e3:.0f}k" if n < 10_000_000 else f"{n / 1e6:.0f}M"


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
SILENT = ("no data", WITH_FAILURES)
TOLD_BY_RUNS = ("within-run", "few runs", "no interval from")


def _notes(metrics: Iterable[tuple[Mapping[str, Any] | None, str]]) -> list[str]:
    """Return each distinct note once, with the figures it is about unless the table marks them."""
    where: dict[str, dict[str, list[str]]] = {}
    legend: dict[str, None] = {}
    for figure, label in metrics:
        for column in COLUMNS if figure else ():
            for note in figure[column]["notes"] if figure else ():
                marked = [key for key in LEGEND if key in note]
                legend |= dict.fromkeys(LEGEND[key] or f"means and gaps have {note}" for key in marked)
                if not marked and not note.startswith(SILENT):
                    where.setdefault(note, {}).setdefault(label, []).append(column)
    lines = list(legend)
    for note, labels in where.items():
        places = "; ".join(f"{label} {', '.join(columns)}" for label, columns in labels.items())
        lines.append(note if note.startswith("no percentile") else f"{note} ({places})")
    return lines


def _rates(summary: Summary, paint: _Paint) -> list[str]:
    if not summary["requests"]["completed"]:
        return []
    lines = [paint.head("per second")]
    notes: dict[str, None] = {}
    for name, label in RATES.items():
        rate = summary["metrics"][name]
        if name == "goodput_per_s" and rate["value"] is None:
            continue
        lines.append(f"{label:<{LABEL}}{figures.value(rate):>{COLUMN}} {figures.interval(rate)}".rstrip())
        notes |= dict.fromkeys(note for note in rate["notes"] if not note.startswith(TOLD_BY_RUNS))
    goodput = summary["goodput"]
    if goodput:
        share = goodput["attainment"]["value"]
        terms = ", ".join(f"{EVERY_LATENCY[name]} ≤ {limit:g} ms" for name, limit in goodput["terms"].items())
        if share is not None:
            lines += wrapped(f"goodput: {share:.1%} of the requests offered had {terms}", "  ", "    ")
    return lines + [paint.dim(line) for note in notes for line in wrapped(note, "  ", "    ")]


def _objectives(summary: Summary, paint: _Paint) -> list[str]:
    lines = []
    for objective in summary["objectives"]:
        answer = objective["verdict"]
        painted = paint.verdict(f"{answer:<13}", answer == "held", answer == "failed")
        sign = "≥" if objective["name"].endswith("_min") else "≤"
        value = figures.value(objective["value"])
        basis = "  within-run" if objective["basis"] == "within-run" and answer != "inconclusive" else ""
        lines.append(f"  {painted}{objective['name']:<26}{value:>14}  {sign} {objective['limit']:g}{basis}")
        if objective["reason"]:
            lines += [paint.dim(line) for line in wrapped(objective["reason"], " " * 15, " " * 15)]
    return [paint.head("objectives"), *lines] if lines else []


def _runs(summary: Summary, paint: _Paint) -> list[str]:
    """Return what each run said: what an estimate over five runs hides, and one bad run in ten moves."""
    runs, side = summary["per_run"], summary["over_runs"]
    lines = []
    if len(runs) > 1:
        head = "run".ljust(LABEL + 7) + "".join(name.rjust(12) for name in (*RUN_COLUMNS, "completed"))
        lines.append(paint.head(head))
        lines += [_run_row(entry) for entry in runs[:RUNS]]
        if len(runs) > RUNS:
            lines.append(f"  … and {len(runs) - RUNS} more")
        medians = (_five(side[name]["median"]) for name in RUN_COLUMNS.values())
        lines.append("median".ljust(LABEL + 7) + "".join(cell.rjust(12) for cell in medians))
        notes = ["! stands out from the other runs (robust z > 3.5); kept in every figure"] * any(
            metric in RUN_KEYS for entry in runs for metric in entry["outlier_in"]
        )
        parts = {label: side[key]["components"] for key, label in (("ttft_ms", "TTFT"), ("tpot_ms", "TPOT"))}
        notes += [f"{label}: {told['advice']}" for label, told in parts.items() if told]
        lines += [paint.dim(line) for note in notes for line in wrapped(note, "  ", "    ")]
    for text in campaign_in_words(summary):
        lines += wrapped(text)
    return lines


def _run_row(entry: Mapping[str, Any]) -> str:
    name = f"{entry['run']} {entry['cut_short'] or ''}"
    cells = [_five(entry[key]) + ("!" if metric in entry["outlier_in"] else "") for metric, key in RUN_KEYS.items()]
    return name.ljust(LABEL + 7) + "".join(cell.rjust(12) for cell in (*cells, str(entry["completed"])))


def _five(number: float | None) -> str:
    return "–" if number is None else f"{number:.5g}"


def missing_in_words(summary: Summary) -> str:
    """Return which planned runs did not finish and why: `3 runs missing: a in block 2; b in blocks 1-2 (refused)`."""
    missing = summary["missing_runs"]
    blocks: dict[str, list[int]] = {}
    for run in missing:
        blocks.setdefault(run["arm"], []).append(run["block"])
    of_arms = [f"{arm} in block{'s' if len(ones) > 1 else ''} {_ranges(ones)}" for arm, ones in blocks.items()]
    why = f" ({summary['halted']})" if summary["halted"] else ""
    return f"{len(missing)} run{'s' if len(missing) > 1 else ''} missing: {'; '.join(of_arms)}{why}"


def _ranges(numbers: Iterable[int]) -> str:
    """Return `1, 3-9` of 1, 3, 4 and so on, in any order."""
    ends: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ends and number == ends[-1][1] + 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def campaign_in_words(summary: Summary) -> list[str]:
    """Return what is to be told of the runs as a whole: how it stopped, whether order mattered, which are missing."""
    told = []
    stopping = summary["stopping"]
    if stopping is not None and stopping["runs"]:
        widths = ", ".join(f"{LOOKED_AT[name]} {_width(width)}" for name, width in stopping["half_width"].items())
        how = "stopped" if stopping["reached"] else "not narrow enough"
        told.append(f"{how} after {stopping['runs']} runs: {widths} (97 %, wanted ±{100 * stopping['within']:.2g} %)")
    checked = summary["early_late"]
    if checked is not None:
        ratios = ", ".join(f"{LOOKED_AT[name]} {_ratio(ratio)}" for name, ratio in checked["ratio"].items())
        told.append(f"late runs over early ones: {ratios}")
    control = summary["control"]
    if control is not None:
        ratios = ", ".join(f"{LOOKED_AT[name]} {_five(ratio)}" for name, ratio in control["ratio"].items())
        told.append(f"control {control['arm']}, end over start: {ratios}")
    if summary["missing_runs"]:
        told.append(missing_in_words(summary))
    return told


def _width(width: float | None) -> str:
    return "–" if width is None else f"±{100 * width:.2g} %"


def _ratio(ratio: Mapping[str, Any]) -> str:
    if ratio["value"] is None or ratio["low"] is None:
        return f"{ratio['value']:#.3g}" if ratio["value"] is not None else "–"
    return f"{ratio['value']:#.3g} ({ratio['low']:#.3g}..{ratio['high']:#.3g})"


def _endpoints(summary: Summary, paint: _Paint) -> list[str]:
    endpoints = summary.get("endpoints")
    if not endpoints:
        return []
    shown = {"TTFT p50": ("ttft_ms", "p50"), "TTFT p99": ("ttft_ms", "p99"), "TPOT p50": ("tpot_ms", "p50")}
    head = "endpoint".ljust(20) + "".join(name.rjust(12) for name in (*shown, "tokens/s", "failed"))
    lines = [paint.head(head)]
    for name, here in endpoints.items():
        cells = [figures.value(here[metric][stat]) for metric, stat in shown.values()]
        cells += [figures.value(here["output_tokens_per_s"]), str(here["requests"]["failed"])]
        lines.append(f"{clean(name)[:19]:<20}" + "".join(cell.rjust(12) for cell in cells))
    return lines


def _instrument(summary: Summary, paint: _Paint) -> list[str]:
    told = summary["instrument"]
    error, lag, send = told["stamp_error_us"], told["loop_lag_ms"], told["send_lag_ms"]
    parts = [f"stamps: {clean(told['tier'] or 'unknown tier')}"]
    if error["halfwidth"] is None:
        parts.append("stamp error not calibrated")
    else:
        parts.append(f"stamp error {error['bias'] or 0:+.3g} ± {error['halfwidth']:.2g} µs")
    if told["censored_share"] is not None:
        parts.append(f"tokens sharing a read {told['censored_share']:.2%}")
    if lag["p99"] is not None:
        parts.append(f"loop lag p99 {lag['p99']:.3g} ms, max {lag['max'] or 0:.3g} ms")
    if send["p99"] is not None:
        parts.append(f"send lag p99 {send['p99']:.3g} ms")
    if told["cpu_share"] is not None:
        parts.append(f"CPU {told['cpu_share']:.0%} of a core")
    if told["workers"]:
        parts.append(f"{told['workers']} worker{'s' if told['workers'] != 1 else ''}")
    lines = [paint.head("instrument"), *wrapped("; ".join(parts), "  ", "  ")]
    for note in summary["notes"]:
        lines += [paint.dim(line) for line in wrapped(note, "  ", "    ")]
    return lines


def _verdict(summary: Summary, paint: _Paint) -> list[str]:
    name = summary["verdict"]
    word: str = VERDICTS.get(name, str(name))
    if summary["interrupted"]:
        word += ", interrupted: what was measured until then"
    lines = [paint.verdict(f"verdict: {word}", name == "ok", name != "ok")]
    for reason in summary["verdict_reasons"]:
        lines += wrapped(reason, "  ", "    ")
    return lines
