"""A sweep as text: a row a configuration, then what goes across them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.report import figures

__all__ = ["sweep_report"]

Line = Mapping[str, Any]
COLUMNS = ("speedup", "efficiency", "stretch")


def sweep_report(summary: Mapping[str, Any]) -> str:
    rows = [_row("id", "phase", "scenario", "speedup", "efficiency", "stretch", "overlap eff.", "contention")]
    rows += [_configuration(line) for line in summary["configurations"]]
    parts = ["\n".join(rows), "overlap eff.: the guide's figure, blind to agents slowing each other down alike"]
    if summary["missing"]:
        parts.append(f"incomplete or missing: {', '.join(map(str, summary['missing']))}")
    parts += [_scenario(name, one) for name, one in summary["scenarios"].items()]
    if summary["late_over_early"] is not None:
        parts.append(f"late over early runs, makespan: {_figure(summary['late_over_early']['makespan'])}")
    parts += [_scaling(one) for one in summary["scaling"]]
    return "\n".join(parts)


def _row(*cells: str) -> str:
    name, phase, scenario, *rest = cells
    return f"{name:<10}{phase:<6}{scenario:<22}" + "".join(f"{cell:>20}" for cell in rest)


def _configuration(line: Line) -> str:
    told = line["agents"]
    shown = f"{line['agents_count']} x " if line["agents_count"] != 2 else ""
    first = (str(line["id"]), str(line["phase"]), f"{shown}{line['scenario']}")
    if told is None:
        return _row(*first, line["error"] or "not measured")
    return _row(
        *first, *(_figure(told[name]) for name in COLUMNS), _figure(told["overlap_efficiency"]), line["contention"]
    )


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
