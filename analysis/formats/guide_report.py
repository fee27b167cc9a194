"""The multi-agent guide's two reports in Markdown, made from its own summary of a campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from analysis.formats.guide_grades import grade
from loadgen.manifest import Manifest

__all__ = ["Plain", "comparison_text", "summary_text"]

Plain = Mapping[str, Any]  # JSON of one of the guide's files

OVERLAP = "Speedup and efficiency here are overlap: how much the agents ran at the same time, not what that gained."
DIRECTION = "Deltas are the insight agent's figure minus the collector's."
TARGETS = {
    "speedup": "ideal 2.0, typical 1.6 to 2.0, target above 1.9",
    "efficiency": "ideal 100 %, typical 85 to 99 %, target above 95 %",
    "contention": "ideal 0 %, acceptable below 10 %, problematic above 30 %",
}
RUN_BY_RUN = {
    "concurrent_wall_time": "wall s",
    "concurrency_speedup": "speedup",
    "efficiency_percent": "efficiency %",
    "ttft_delta_ms": "TTFT service delta ms",
    "throughput_delta": "throughput delta tok/s",
    "resource_contention_detected": "contention",
}


def summary_text(summary: Plain) -> str:
    """The text of summary.md: the figures over all runs."""
    rows = [f"| {_label(name)} | {_shown(value)} |" for name, value in summary["aggregate"].items()]
    return "\n".join(
        [f"# {summary['scenario']}", "", "| figure | value |", "|---|---|", *rows, "", OVERLAP, DIRECTION, ""]
    )


def comparison_text(summary: Plain, manifest: Manifest) -> str:
    """The text of comparison_report.md."""
    grades = _grades(summary)
    verdict = grades["efficiency"] or "no grade"
    sections = {
        "Executive summary": [_executive(summary, verdict)],
        "Aggregate performance": _aggregate(summary, grades, verdict),
        "Run by run": _run_by_run(summary["runs"]),
        "Configuration": _configuration(manifest),
        "Conclusion": [
            f"Overlap is {verdict}. Whether running the agents together gained anything is told by the measured "
            "speedup in the campaign's own summary.json and report.html, which compare with each agent alone."
        ],
    }
    lines = _title(summary, manifest)
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    return "\n".join([*lines, ""])


def _label(name: str) -> str:
    """A key of the guide's in words; its TTFT is the service one."""
    return name.replace("ttft", "TTFT service").replace("_", " ")


def _grades(summary: Plain) -> dict[str, str | None]:
    runs, aggregate = summary["runs"], summary["aggregate"]
    values = [run["efficiency_percent"] for run in runs if run["efficiency_percent"] is not None]
    cv = stdev(values) / mean(values) if len(values) > 1 else None
    efficiency = aggregate["average_efficiency"]
    return {
        "efficiency": grade("overlap_efficiency", None if efficiency is None else efficiency / 100),
        "contention": grade("contended_share", aggregate["contention_detected_runs"] / len(runs) if runs else None),
        "cv": grade("cv", cv),
    }


def _title(summary: Plain, manifest: Manifest) -> list[str]:
    starts = [run.start_ns for run in manifest.runs if run.start_ns is not None]
    lasted_s = (max(starts) - min(starts)) / 1e9 if starts else 0.0
    models = sorted({target.model for target in manifest.targets if target.model is not None})
    return [
        f"# Agents: {summary['scenario']}",
        "",
        f"- date: {manifest.wall_start}",
        f"- model: {', '.join(models)}",
        f"- runs: {len(summary['runs'])}",
        f"- duration: {lasted_s:.4g} s from the first run's start to the last one's",
    ]


def _executive(summary: Plain, verdict: str) -> str:
    aggregate = summary["aggregate"]
    return (
        f"Over {len(summary['runs'])} runs the agents ran at the same time with an efficiency of "
        f"{_shown(aggregate['average_efficiency'])} % ({verdict}); {aggregate['contention_detected_runs']} runs are "
        f"labelled contended. {OVERLAP} {DIRECTION}"
    )


def _aggregate(summary: Plain, grades: Mapping[str, str | None], verdict: str) -> list[str]:
    aggregate = summary["aggregate"]
    contended = f"{aggregate['contention_detected_runs']} of {len(summary['runs'])}"
    return [
        "| figure | value | grade | guide |",
        "|---|---|---|---|",
        f"| speedup | {_shown(aggregate['average_concurrency_speedup'])} | | {TARGETS['speedup']} |",
        f"| efficiency % | {_shown(aggregate['average_efficiency'])} | {verdict} | {TARGETS['efficiency']} |",
        f"| contended runs | {contended} | {grades['contention'] or ''} | {TARGETS['contention']} |",
        f"| CV of efficiency | | {grades['cv'] or ''} | below 1 / 5 / 10 % |",
        f"| throughput, collector tok/s | {_shown(aggregate['baseline_throughput'])} | | |",
        f"| throughput, insight tok/s | {_shown(aggregate['chimera_throughput'])} | | |",
        f"| wall time s | {_shown(aggregate['average_wall_time'])} | | |",
    ]


def _run_by_run(runs: Sequence[Plain]) -> list[str]:
    rows = [[str(run["run_number"]), *(_shown(run[key]) for key in RUN_BY_RUN)] for run in runs]
    head = ["run", *RUN_BY_RUN.values()]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def _configuration(manifest: Manifest) -> list[str]:
    agents = [
        f"- {facts.name} at {facts.endpoint}: "
        + (", ".join(f"{key} {value}" for key, value in facts.asked_options.items()) or "the server's defaults")
        for facts in manifest.crew
    ]
    return [*agents, f"- permits: {manifest.permits}"]


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
