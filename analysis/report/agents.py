"""Agents and contention for people: text of 80 columns, markdown and charts, made from `summary["agents"]` alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import msgspec

from analysis.report import figures
from analysis.report.words import WIDTH, clean, detectable_in_words, escaped, wrapped
from analysis.stats.planning import Seen

__all__ = ["agents_charts", "agents_html", "agents_in_words", "agents_markdown", "agents_text"]

LABEL = 20
FIGURE = 20
VERDICTS = {"contention": "CONTENTION", "none": "none", "inconclusive": "INCONCLUSIVE", "unknown": "unknown"}
CAUSES = {
    "queue": "waiting for another agent's call to end",
    "prefill_interference": "another agent's prompt being evaluated",
    "slower_decode": "decoding beside another agent",
    "cold_load": "model load",
    "short_answer": "a short answer",
    "kv_pressure": "a full KV cache",
    "clocks": "lowered GPU clocks",
    "client": "this client",
    "network": "network",
    "permit": "waiting for a permit",
    "unequal_agents": "agents of unequal length",
    "unknown": "unknown",
}
COLUMNS = {"wall_s": "wall s", "ttft_ms": "TTFT ms", "tpot_ms": "TPOT ms", "output_tokens_per_s": "tokens/s"}
ARMS = {"solo": "alone", "concurrent": "together"}
STRETCHED = {"ttft": "TTFT service", "tpot": "TPOT"}
RUNS_SHOWN = 5  # of those that something happened in

Content = Mapping[str, Any]
Chart = dict[str, Any]


def agents_text(told: Content) -> str:
    """Return the section as text without its title, no line wider than 80 columns, ending in a newline."""
    lines = wrapped(_what_ran(told))
    notes: dict[str, None] = {}
    for label, estimate, meaning in _speedup(told):
        figure = f"{figures.value(estimate)} {figures.interval(estimate, FIGURE - 8)}"
        lines += wrapped(meaning, f"{label:<{LABEL}}{figure:<{FIGURE}}", " " * (LABEL + FIGURE))
        notes |= dict.fromkeys(estimate["notes"])
    lines += ["", *_table(told)]
    for line in (*_more(told), *told["notes"], *notes):
        lines += wrapped(line, "  ", "    ")
    lines += ["", f"{'contention':<{LABEL}}{VERDICTS[told['contention']['verdict']]}"]
    for line in _contention(told):
        lines += wrapped(line, "  ", "    ")
    return "\n".join(lines) + "\n"


def agents_markdown(told: Content) -> str:
    """Return the section with its heading, ending in a newline."""
    lines = [
        "## Agents",
        "",
        escaped(_what_ran(told)),
        "",
        f"| figure | value | {_level(told)} interval | |",
        "|---|---:|---:|---|",
    ]
    notes: dict[str, None] = {}
    for label, estimate, meaning in _speedup(told):
        lines.append(f"| {label} | {figures.value(estimate)} | {figures.interval(estimate)} | {escaped(meaning)} |")
        notes |= dict.fromkeys(estimate["notes"])
    head = ["agent", "", *COLUMNS.values()]
    lines += ["", f"| {' | '.join(head)} |", "|---|---|" + "---:|" * len(COLUMNS)]
    for name, agent in told["per_agent"].items():
        for arm in ("solo", "concurrent"):
            cells = [_whole(agent[arm][figure]) for figure in COLUMNS]
            lines.append(f"| {escaped(name)} | {ARMS[arm]} | {' | '.join(cells)} |")
    lines += ["", *(f"- {escaped(line)}" for line in (*_more(told), *told["notes"], *notes))]
    lines += ["", "### Contention", "", f"**{VERDICTS[told['contention']['verdict']]}**", ""]
    lines += [f"- {escaped(line)}" for line in _contention(told)]
    return "\n".join(lines) + "\n"


def agents_html(told: Content) -> str:
    """Return the section as markup for the page, without its title."""
    notes: dict[str, None] = {}
    rows = []
    for label, estimate, meaning in _speedup(told):
        rows.append([escape(label.strip()), _cell(estimate), escape(clean(meaning))])
        notes |= dict.fromkeys(estimate["notes"])
    agents = [
        [f"{escape(clean(name))}, {ARMS[arm]}", *(_cell(agent[arm][figure]) for figure in COLUMNS)]
        for name, agent in told["per_agent"].items()
        for arm in ARMS
        if agent[arm]["runs"]
    ]
    verdict = told["contention"]["verdict"]
    return "\n".join(
        [
            f"<p class=note>{escape(clean(_what_ran(told)))}</p>",
            _rows(["", f"value, {_level(told)}", ""], rows, "slim said"),
            _rows(["mean over runs", *COLUMNS.values()], agents),
            _list([*_more(told), *told["notes"], *notes]),
            f"<h3>Contention: {'found' if verdict == 'contention' else escape(verdict)}</h3>",
            _list(_contention(told)),
        ]
    )


def agents_charts(told: Content) -> list[Chart]:
    """Return the charts that there is something for, in the terms of charts.py."""
    return [chart for chart in (_lanes(told), _decomposition(told), _timeline(told)) if chart]


# --- what both texts say ---------------------------------------------------------------------------------------------


def agents_in_words(told: Content) -> str:
    """Return what was asked for, in one phrase: how many agents, their workload, permits, the time to think."""
    n, permits = len(told["names"]), told["permits"]
    each = list(told["per_agent"].values())
    parts = [f"{n} agents", *dict.fromkeys(str(one["workload"]) for one in each if one["workload"])]
    parts += [f"{permits} permit{'s' if permits != 1 else ''}"] if permits is not None else []
    parts += [f"{ms:g} ms to think" for ms in dict.fromkeys(one["think_ms"] for one in each) if ms]
    return ", ".join(parts)


def _what_ran(told: Content) -> str:
    parts = [", ".join(told["names"])]
    parts += [str(told["scenario"])] if told["scenario"] else []
    runs = told["runs"]
    parts.append(f"{told['blocks']} blocks; {runs['concurrent']} concurrent and {runs['solo']} solo runs")
    return " · ".join(parts)


def _speedup(told: Content) -> Iterator[tuple[str, Content, str]]:
    """Yield (label, estimate, what it is)."""
    yield "speedup", told["speedup"], "time one after the other / time together"
    yield "ideal speedup", told["ideal_speedup"], "if nothing slowed down: all / longest"
    yield "efficiency", told["efficiency"], f"speedup / {len(told['names'])} = balance / stretch"
    yield "  of the ideal", told["heterogeneous_efficiency"], "speedup / ideal speedup"
    yield "  balance", told["balance"], "how much of the time agents are busy"
    yield "  stretch", told["stretch"], "time of each together / alone"
    yield "overlap", told["overlap"], "how many are busy at once; no speedup"
    yield "together / alone", told["combined_over_solo"], "tokens/s of all / of one at a time"
    word = told["grades"]["overlap_efficiency"]
    yield "overlap efficiency", told["overlap_efficiency"], f"the guide's figure{f': {word}' if word else ''}"


def _table(told: Content) -> list[str]:
    width = (WIDTH - LABEL) // len(COLUMNS)
    lines = ["agent".ljust(LABEL) + "".join(name.rjust(width) for name in COLUMNS.values())]
    for name, agent in told["per_agent"].items():
        for label, arm in ((name, "solo"), ("", "concurrent")):
            if not agent[arm]["runs"]:
                continue
            estimates = [agent[arm][figure] for figure in COLUMNS]
            values = "".join(figures.value(estimate).rjust(width) for estimate in estimates)
            lines.append(f"{clean(label)[:10]:<11}{ARMS[arm]:<{LABEL - 11}}{values}")
            doubts = "".join(figures.interval(estimate, width - 1).rjust(width) for estimate in estimates)
            lines += [" " * LABEL + doubts] if doubts.strip() else []
    return [line.rstrip() for line in lines]


def _level(told: Content) -> str:
    """Return the confidence of the section's intervals: 97 % where runs were added until they were narrow."""
    known = [estimate["confidence"] for _, estimate, _ in _speedup(told) if estimate["confidence"] is not None]
    return f"{100 * known[0]:.3g} %" if known else "95 %"


def _whole(estimate: Content) -> str:
    return f"{figures.value(estimate)} {figures.interval(estimate)}".strip()


def _more(told: Content) -> Iterator[str]:
    stretches = [
        f"{name} {_whole(one['stretch'])}" for name, one in told["per_agent"].items() if one["stretch"]["value"]
    ]
    if stretches:
        yield f"stretch: {', '.join(stretches)}"
    yield f"start skew {_whole(told['start_skew_ms'])} ms; fairness {_whole(told['fairness'])} (Jain, of tokens/s)"
    if told["permits"] is not None and told["permits"] < len(told["names"]):
        waits = {name: one["permit_wait_ms"] for name, one in told["per_agent"].items()}
        yield f"waited for a permit: {', '.join(f'{name} {_whole(one)} ms' for name, one in waits.items())}"
    for key, estimate in told["deltas"].items():
        if isinstance(estimate, Mapping) and estimate["value"] is not None:
            yield f"{_difference(key)}: {_whole(estimate)} {_unit(key)}"
    for one in told["short_answers"][:RUNS_SHOWN]:
        usual = f"{one['tokens']} tokens, usually {one['usual_tokens']:g}"
        yield f"short answer: run {one['run']}, {one['agent']}, call {one['turn'] + 1}: {usual}"
    for one in told["cold_loads"][:RUNS_SHOWN]:
        yield f"cold load: run {one['run']}, {one['agent']}, call {one['turn'] + 1}: {one['load_s']:.3g} s"
    for kind in ("short_answers", "cold_loads"):
        if len(told[kind]) > RUNS_SHOWN:
            yield f"… and {len(told[kind]) - RUNS_SHOWN} more {kind.replace('_', ' ')}"
    for name, agent in told["per_agent"].items():
        for arm in ("solo", "concurrent"):
            outliers = agent[arm]["wall_s"]["spread"]["outliers"]
            marked = sorted({*outliers["iqr"], *outliers["z"]})
            if marked:
                runs = f"run{'s' if len(marked) > 1 else ''} {', '.join(map(str, marked))}"
                without = agent[arm]["wall_s"]["spread"]["mean_without_outliers"]
                rest = "" if without is None else f"; mean without {without:.4g} s"
                yield f"wall time stands out, and is kept: {name} {ARMS[arm]}, {runs}{rest}"


DIFFERENCES = {
    "ttft_ms_": ("TTFT", "ms"),
    "ttft_service_ms_": ("TTFT service", "ms"),
    "output_tokens_per_s_": ("output", "tokens/s"),
}


def _difference(key: str) -> str:
    """Return what a key of `deltas` says: `ttft_ms_b_minus_a` as `TTFT, b minus a`."""
    prefix = next(prefix for prefix in DIFFERENCES if key.startswith(prefix))
    return f"{DIFFERENCES[prefix][0]}, {key.removeprefix(prefix).replace('_minus_', ' minus ')}"


def _unit(key: str) -> str:
    return next(unit for prefix, (_, unit) in DIFFERENCES.items() if key.startswith(prefix))


def _contention(told: Content) -> Iterator[str]:
    found = told["contention"]
    yield from found["reasons"]
    limit = found["threshold"]
    for name in ("ttft", "tpot"):
        seen = found[f"{name}_stretch_detectable"]
        if seen is not None:
            least = f"{seen['least']:.3g} × solo"
            wanted = f"{limit**2:.3g} ×, or to rule {limit:g} × out where there is none"
            yield f"{STRETCHED[name]}: {detectable_in_words(msgspec.convert(seen, Seen), least, wanted)}"
    gaps = found["gap_stretch_inside_over_outside"]
    if gaps["value"] is not None:
        yield f"gaps while another was busy {_whole(gaps)} × those while none was"
    flags = found["flags"]
    if flags["looked_at"]:
        share = flags["runs_contended"]
        solo = flags["solo"]
        slow = f"TTFT service of {flags['flagged']} of {flags['looked_at']} overlapping calls is slow (FDR 5 %)"
        if solo["looked_at"]:
            beyond = "a larger share than" if flags["beyond_natural_tail"] else "no larger share than"
            yield (
                f"{slow}, {beyond} of solo calls ({solo['flagged']} of {solo['looked_at']}); "
                f"share of runs contended {_whole(share)}"
            )
        else:
            yield f"{slow}; too few solo calls to say how many of those would be"
    yield from flags["notes"]
    causes = [f"{CAUSES[cause]} {n}" for cause, n in found["attribution"].items() if n]
    if causes:
        sampled = found["attribution_by_samples"]
        gap = "" if sampled["sampling_gap_s"] is None else f" up to {sampled['sampling_gap_s']:.2g} s apart"
        beside = f"; {sampled['findings']} of these by samples{gap}" if sampled["findings"] else ""
        yield f"put down to: {', '.join(causes)}{beside}"
    for shift in found["shifts"][:RUNS_SHOWN]:
        change = f"from {shift['before']:.3g} to {shift['after']:.3g} × solo"
        yield f"run {shift['run']}: gaps went {change} at {shift['at_s']:g} s"
    for burst in found["bursts"][:RUNS_SHOWN]:
        span = f"{burst['from_s']:g} to {burst['to_s']:g} s"
        yield f"run {burst['run']}: gaps {burst['stretch']:.3g} × solo for a moment, {span}"
    n = told["runs"]["concurrent"]
    rules = ", ".join(f"{name} {'–' if k is None else f'{k} of {n}'}" for name, k in found["rules_runs"].items())
    yield f"runs labelled by the rules of earlier tools, whose speedup is the overlap: {rules}"


# --- charts ----------------------------------------------------------------------------------------------------------


def _decomposition(told: Content) -> Chart | None:
    """One bar of n agents: what was gained, what contention took, what imbalance took."""
    speedup, overlap = told["speedup"]["value"], told["overlap"]["value"]
    if overlap is None:
        return None
    n = len(told["names"])
    gained = overlap if speedup is None else speedup
    parts = [("gap", "overlap, no speedup" if speedup is None else "speedup", gained)]
    parts += [
        ("failed0", "lost to contention", max(0.0, overlap - gained)),
        ("wait", "lost to imbalance", max(0.0, n - max(overlap, gained))),
    ]
    base, traces = 0.0, []
    for role, name, amount in parts:
        traces.append(_bar(role, name, ["agents"], [base], [amount], f"{name}: %{{x:.3g}}<extra></extra>"))
        base += amount
    note = "Of as many agents as ran at once. Overlap less what contention took is the speedup."
    low, high = told["speedup"]["low"], told["speedup"]["high"]
    if low is not None and high is not None:
        traces.append(
            {
                **{"type": "scatter", "mode": "lines", "x": [low, high], "y": ["agents", "agents"]},
                **{"name": _level(told), "role": "ink", "line": {"width": 4}, "showlegend": True, "hoverinfo": "skip"},
            }
        )
    xaxis = {"title": {"text": "agents' worth of work at once"}, "range": [0, n * 1.02]}
    layout = {"xaxis": xaxis, "yaxis": {"showticklabels": False}, "barmode": "overlay"}
    return {"title": "What running together gained", "note": note, "traces": traces, "layout": layout}


def _bar(role: str, name: str, y: Sequence[str], base: Sequence[float], x: Sequence[float], hover: str) -> Chart:
    return {
        **{"type": "bar", "orientation": "h", "role": role, "name": name, "showlegend": True},
        **{"y": list(y), "base": list(base), "x": list(x), "hovertemplate": hover},
    }


def _lanes(told: Content) -> Chart | None:
    """Each agent's calls in one block, alone and together, on one time axis."""
    lanes = told["lanes"]
    if not lanes:
        return None
    parts: dict[str, tuple[str, list[str], list[float], list[float]]] = {
        "wait": ("waiting to send", [], [], []),
        "ttft": ("until the first token", [], [], []),
        "gap": ("streaming", [], [], []),
    }
    for call in lanes["calls"]:
        lane = f"{call['agent']}, {call['arm']}"
        edges = [call["intended_s"], call["sent_s"], call["first_s"], call["done_s"]]
        for role, begin, end in zip(parts, edges, edges[1:], strict=False):
            if begin is not None and end is not None and end > begin:
                _, names, bases, lengths = parts[role]
                names.append(lane)
                bases.append(begin)
                lengths.append(round(end - begin, 6))
    traces = [
        _bar(role, name, names, bases, lengths, f"%{{y}}<br>{name}: %{{x:.4g}} s<extra></extra>")
        for role, (name, names, bases, lengths) in parts.items()
        if names
    ]
    order = list(dict.fromkeys(f"{call['agent']}, {call['arm']}" for call in lanes["calls"]))
    layout = {
        "xaxis": {"title": {"text": "s since the start of the run"}, "rangemode": "tozero"},
        "yaxis": {"categoryorder": "array", "categoryarray": order[::-1], "showgrid": False},
        "barmode": "overlay",
    }
    note = f"Block {lanes['block']}: the concurrent run of middle length, and the same agents alone."
    title = "Call by call, alone and together"
    return {"title": title, "note": note, "traces": traces, "layout": layout, "wide": True}


def _timeline(told: Content) -> Chart | None:
    traces = []
    lines = told["contention"]["timeline"]
    longest = 0.0
    for line in lines:
        x = [line["from_s"] + (index + 0.5) * line["bin_s"] for index in range(len(line["stretch"]))]
        longest = max([longest, *x])
        hover = f"run {line['run']}<br>%{{x:.4g}} s: %{{y:.3g}} × solo<extra></extra>"
        traces.append(
            {
                **{"type": "scatter", "mode": "lines+markers" if len(x) < 3 else "lines", "x": x, "y": line["stretch"]},
                **{"name": f"run {line['run']}", "role": "gap", "hovertemplate": hover, "showlegend": False},
                **{"line": {"width": 2}, "opacity": 0.55 if len(lines) > 1 else 1},
            }
        )
    if not traces:
        return None
    alone = {"type": "scatter", "mode": "lines", "x": [0, longest], "y": [1, 1], "name": "alone", "role": "quiet"}
    traces.insert(0, alone | {"line": {"width": 1, "dash": "dot"}, "showlegend": False, "hoverinfo": "skip"})
    # At least a tenth to either side, or noise looks like a finding.
    values = [value for line in lines for value in line["stretch"] if value is not None]
    layout = {
        "xaxis": {"title": {"text": "s since the start of the run"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "gap, × solo"}, "range": [min([0.9, *values]), 1.02 * max([1.1, *values])]},
    }
    note = "Second by second, one line a concurrent run. Dotted: as alone."
    return {"title": "Gaps between tokens, together against alone", "note": note, "traces": traces, "layout": layout}


# --- text ------------------------------------------------------------------------------------------------------------


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "slim") -> str:
    """Return a table; cells are markup. The first column is the label."""
    heads = "".join(f"<th scope=col>{cell}</th>" for cell in head)
    body = "\n".join(
        f"<tr><th scope=row>{first}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for first, *cells in rows
    )
    table = f'<table class="{kind}">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'
    return f"<div class=wide>{table}</div>"


def _cell(estimate: Content) -> str:
    title = escape(clean("; ".join(estimate["notes"])), quote=True)
    doubt = f"<small>{escape(figures.interval(estimate))}</small>"
    return f'<span title="{title}">{escape(figures.value(estimate))}{doubt}</span>'


def _list(lines: Iterable[str]) -> str:
    return f"<ul class=note>{''.join(f'<li>{escape(clean(line))}</li>' for line in lines)}</ul>"
