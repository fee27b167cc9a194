"""A sweep as text: a row a configuration, then what goes across them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.report import figures

__all__ = ["sweep_report"]

Line = Mapping[str, Any]
WIDTH = 100
FIGURES = {"speedup": "speedup", "efficiency": "efficiency", "stretch": "stretch", "overlap_efficiency": "overlap eff."}
RATES = {
    "agent_output_tokens_per_s": "tok/s an agent",
    "agent_sustained_output_tokens_per_s": "with think time",
    "all_output_tokens_per_s": "tok/s of all",
}


def sweep_report(summary: Mapping[str, Any]) -> str:
    lines = summary["configurations"]
    # Without solo runs there is no speedup to show; rates are what such a sweep is about.
    measured = any(line["agents"] and line["agents"]["speedup"]["value"] is not None for line in lines)
    heads = list(FIGURES.values()) if measured else [*RATES.values(), FIGURES["overlap_efficiency"]]
    rows = [("id", "phase", "agents", *heads, "contention"), *(_configuration(line, measured) for line in lines)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    table = ["  ".join(_padded(row, widths)).rstrip() for row in rows]
    parts = ["overlap eff.: the guide's figure, blind to agents slowing each other down alike"]
    if summary["missing"]:
        parts.append(f"incomplete or missing: {', '.join(map(str, summary['missing']))}")
    parts += [f"{line['id']}: {line['error']}" for line in lines if line["error"]]
    parts += [_scenario(name, one) for name, one in summary["scenarios"].items()]
    if summary["late_over_early"] is not None:
        parts.append(f"late over early runs, makespan: {_figure(summary['late_over_early']['makespan'])}")
    parts += [_scaling(one) for one in summary["scaling"]]
    return "\n".join([*table, "", *(textwrap.fill(part, WIDTH, subsequent_indent="  ") for part in parts)])


def _padded(row: tuple[str, ...], widths: Sequence[int]) -> list[str]:
    """Align text to the left and figures to the right."""
    return [
        cell.ljust(width) if at < 3 else cell.rjust(width)
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
    half = f"below a half from {one['halved_at']} agents on" if one["halved_at"] else "never below a half"
    return (
        f"think time {one['think_ms']:g} ms, an agent's rate among N over its rate alone: {eta}; {half}; "
        f"1/(s+(1-s)N): s {_figure(one['amdahl_parallel_share'])}; N^-a: a {_figure(one['power_alpha'])}"
    )
