"""A sweep as text or markdown: a row a configuration, then what goes across them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.report import figures

__all__ = ["sweep_markdown", "sweep_report"]

Line = Mapping[str, Any]
WIDTH = 100
TEXTS = 3  # columns of text, before those of figures
FIGURES = {"speedup": "speedup", "efficiency": "efficiency", "stretch": "stretch", "overlap_efficiency": "overlap eff."}
RATES = {
    "agent_output_tokens_per_s": "tok/s an agent",
    "agent_sustained_output_tokens_per_s": "with think time",
    "all_output_tokens_per_s": "tok/s of all",
}


def sweep_report(summary: Mapping[str, Any]) -> str:
    rows = _rows(summary)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    table = ["  ".join(_padded(row, widths)).rstrip() for row in rows]
    return "\n".join([*table, "", *(textwrap.fill(fact, WIDTH, subsequent_indent="  ") for fact in _facts(summary))])


def sweep_markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary as a section of markdown, ending in a newline."""
    head, *rows = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in _rows(summary)]
    rule = f"|{'---|' * TEXTS}{'---:|' * (len(_rows(summary)[0]) - TEXTS)}"
    lines = ["## Sweep", "", f"| {head} |", rule, *(f"| {row} |" for row in rows), ""]
    return "\n".join([*lines, *(f"- {fact}" for fact in _facts(summary))]) + "\n"


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the head of the table, then a row a configuration."""
    lines = summary["configurations"]
    # Without solo runs there is no speedup to show; rates are what such a sweep is about.
    measured = any(line["agents"] and line["agents"]["speedup"]["value"] is not None for line in lines)
    heads = list(FIGURES.values()) if measured else [*RATES.values(), FIGURES["overlap_efficiency"]]
    return [("id", "phase", "agents", *heads, "contention"), *(_configuration(line, measured) for line in lines)]


def _facts(summary: Mapping[str, Any]) -> list[str]:
    lines = summary["configurations"]
    facts = ["overlap eff.: the guide's figure, blind to agents slowing each other down alike"]
    lacking = [_lacks(line) for line in lines if line["id"] in summary["missing"]]
    if lacking:
        facts.append(f"incomplete or missing: {', '.join(lacking)}")
    facts += [f"{line['id']}: {line['error']}" for line in lines if line["error"]]
    facts += [_scenario(name, one) for name, one in summary["scenarios"].items()]
    if summary["late_over_early"] is not None:
        facts.append(f"late over early runs, makespan: {_figure(summary['late_over_early']['makespan'])}")
    return facts + [_scaling(one) for one in summary["scaling"]]


def _lacks(line: Line) -> str:
    runs = line["missing_runs"]
    return f"{line['id']} (not begun)" if runs is None else f"{line['id']} ({runs} run{'s' if runs != 1 else ''})"


def _padded(row: tuple[str, ...], widths: Sequence[int]) -> list[str]:
    """Align text to the left and figures to the right."""
    return [
        cell.ljust(width) if at < TEXTS else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _configuration(line: Line, measured: bool) -> tuple[str, ...]:
    first = (str(line["id"]), str(line["phase"]), f"{line['agents_count']} {line['scenario']}")
    told, rates = line["agents"], line["rates"]
    if told is None:
        return (*first, *["–"] * len(FIGURES), "not measured")
    shown = list(FIGURES) if measured else ["overlap_efficiency"]
    numbers = [] if measured else ["–" if rates[name] is None else f"{rates[name]:.4g}" for name in RATES]
    return (*first, *numbers, *(_figure(told[name]) for name in shown), line["contention"])


def _figure(estimate: Line) -> str:
    return f"{figures.value(estimate)} {figures.interval(estimate)}".strip()


def _scenario(name: str, one: Line) -> str:
    def percent(share: float | None) -> str:
        return "–" if share is None else f"{100 * share:.2f} %"

    return (
        f"{name}: overlap eff. {percent(one['overlap_efficiency_mean'])} ({one['grade'] or 'no grade'}), SD of runs "
        f"{percent(one['overlap_efficiency_sd_of_runs'])}, of configurations "
        f"{percent(one['overlap_efficiency_sd_of_configuration_means'])}; {one['labelled_runs']} of {one['runs']} runs "
        f"labelled by speedup<1.5"
    )


def _scaling(one: Line) -> str:
    eta = ", ".join(f"{n}: {100 * value:.1f} %" for n, value in one["eta"].items())
    fairness = [value for value in one["fairness"].values() if value is not None]
    least = f"; least fairness {min(fairness):.3g} (Jain)" if fairness else ""
    half = f"below a half from {one['halved_at']} agents on" if one["halved_at"] else "never below a half"
    return (
        f"think time {one['think_ms']:g} ms, an agent's rate among N over its rate alone: {eta}; {half}; "
        f"1/(s+(1-s)N): s {_figure(one['amdahl_parallel_share'])}; N^-a: a {_figure(one['power_alpha'])}{least}"
    )
