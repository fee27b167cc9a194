"""What a matrix of configurations of agents shows: a line a configuration, and what goes across them.

Made from `matrix.json` (or an older `sweep.json`) and the summaries of the configurations' own directories, killed ones
too, and from nothing else. The figures of a configuration are those of its summary; across configurations each counts
once, whatever its runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from analysis.agents.grades import grade
from analysis.agents.speedup import ratio_of
from analysis.estimate import significant
from analysis.stats import scaling
from analysis.suites.suite import missing_in, summary_in
from loadgen.manifest import SWEEP, matrix_path

__all__ = ["MATRIX_SUMMARY", "SWEEP_SUMMARY", "summarise_matrix"]

MATRIX_SUMMARY = "loadgen.matrix-summary/1"
SWEEP_SUMMARY = "loadgen.sweep-summary/1"  # of a directory made while a matrix was called a sweep
FIGURES = ("speedup", "efficiency", "stretch", "balance", "overlap_efficiency", "combined_over_solo", "fairness")
LABEL = "speedup<1.5"
LEAST_LEVELS = 3  # numbers of agents, one of them 1, for a law to be fitted


def summarise_matrix(directory: Path) -> dict[str, Any]:
    """The summary of the matrix in `directory`. Raises OSError, or ValueError for files that are not ours."""
    path = matrix_path(directory)
    manifest = json.loads(path.read_text(encoding="utf-8"))
    ended = {str(one["id"]): one for one in manifest.get("tests", [])}
    lines = []
    for one in manifest["configurations"]:
        lines.append(_line(one, ended.get(str(one["id"]), {}), summary_in(directory / one["directory"])))
    measured = [line for line in lines if line["agents"] is not None]
    return {
        "schema": SWEEP_SUMMARY if path.name == SWEEP else MATRIX_SUMMARY,
        "seed": manifest["seed"],
        "order": manifest["order"],
        "blocks": manifest["blocks"],
        "configurations": [{key: value for key, value in line.items() if key != "per_run"} for line in lines],
        "missing": [line["id"] for line in lines if line["agents"] is None or line["missing_runs"]],
        "scenarios": {name: _scenario(same) for name, same in _by(measured, "scenario").items()},
        "late_over_early": _late_over_early(measured),
        "scaling": _scaling(measured),
    }


def _line(one: Mapping[str, Any], ended: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    section = summary.get("agents")
    runs = [run for run in (section or {}).get("per_run", []) if run["concurrent"] and not run["left_out"]]
    n = len(one["agents"])
    return {
        **{key: one[key] for key in ("id", "phase", "directory", "scenario", "permits", "think_ms")},
        "agents_count": n,
        "options": {agent["name"]: agent["options"] for agent in one["agents"]},
        "success": ended.get("success", False),
        "error": ended.get("error"),
        "missing_runs": missing_in(summary, ended),
        "verdict": summary.get("verdict"),
        "agents": section and {name: section[name] for name in FIGURES} | {"grades": section["grades"]},
        "contention": section and section["contention"]["verdict"],
        # One agent alone has a speedup of 1 by its nature.
        "labelled_runs": section and (section["contention"]["rules_runs"].get(LABEL) or 0 if n > 1 else 0),
        "concurrent_runs": len(runs),
        "rates": _rates(runs, n, one["think_ms"], section) if section else None,
        "per_run": [{**run, "n": n} for run in runs],
    }


def _rates(
    runs: Sequence[Mapping[str, Any]], n: int, think_ms: float, section: Mapping[str, Any]
) -> dict[str, float | None]:
    """Return tokens/s of an agent without and with its think time, of all, and by the server's own durations."""
    each = [agent["concurrent"] for agent in section["per_agent"].values()]
    calls = [agent["calls"] / max(agent["runs"], 1) for agent in each]
    thought_s = [max(one - 1, 0) * think_ms / 1e3 for one in calls]
    effective, sustained, total = [], [], []
    for run in runs:
        tokens, walls = list(run["output_tokens"].values()), list(run["wall_s"].values())
        if len(tokens) < n or len(walls) < n:
            continue
        effective.append(mean(t / (w - s) for t, w, s in zip(tokens, walls, thought_s, strict=True) if w > s))
        sustained.append(mean(t / w for t, w in zip(tokens, walls, strict=True) if w > 0))
        total.append(sum(tokens) / run["makespan_s"])
    told = [agent["server"]["output_tokens_per_eval_s"] for agent in each]
    return {
        "agent_output_tokens_per_s": significant(mean(effective)) if effective else None,
        "agent_sustained_output_tokens_per_s": significant(mean(sustained)) if sustained else None,
        "all_output_tokens_per_s": significant(mean(total)) if total else None,
        "agent_output_tokens_per_server_eval_s": None if None in told or not told else significant(mean(told)),
    }


def _by(lines: Sequence[Mapping[str, Any]], key: str) -> dict[Any, list[Mapping[str, Any]]]:
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault(line[key], []).append(line)
    return groups


def _overlap_efficiencies(line: Mapping[str, Any]) -> list[float]:
    return [run["overlap"] / run["n"] for run in line["per_run"] if run["overlap"]]


def _scenario(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the guide's figure over runs and over configurations: two SDs that are often taken for each other."""
    runs = [value for line in lines for value in _overlap_efficiencies(line)]
    means = [mean(values) for line in lines if (values := _overlap_efficiencies(line))]
    labelled = sum(line["labelled_runs"] for line in lines)
    value = mean(runs) if runs else None
    return {
        "configurations": len(lines),
        "runs": len(runs),
        "overlap_efficiency_mean": significant(value),
        "overlap_efficiency_sd_of_runs": significant(stdev(runs)) if len(runs) > 1 else None,
        "overlap_efficiency_sd_of_configuration_means": significant(stdev(means)) if len(means) > 1 else None,
        "grade": grade("overlap_efficiency", value),
        "labelled_runs": labelled,
        "contended_grade": grade("contended_share", labelled / len(runs)) if runs else None,
    }


def _late_over_early(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Compare each configuration's later blocks with its earlier ones: a change of the server over the sweep.

    Returns the ratio of makespans with its paired interval over configurations; None with fewer than two blocks.
    """
    early, late = [], []
    for line in lines:
        walls = [run["makespan_s"] for run in sorted(line["per_run"], key=lambda run: run["run"])]
        half = len(walls) // 2
        if half:
            early.append(mean(walls[:half]))
            late.append(mean(walls[-half:]))
    if not early:
        return None
    return {"configurations": len(early), "makespan": ratio_of(np.array(late), np.array(early)).to_json()}


def _scaling(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what is left of an agent's rate among N, for each think time with enough numbers of agents."""
    found = []
    for think_ms, same in sorted(_by(lines, "think_ms").items()):
        rates = {
            line["agents_count"]: line["rates"]["agent_output_tokens_per_s"]
            for line in same
            if line["rates"]["agent_output_tokens_per_s"] is not None
        }
        if 1 not in rates or len(rates) < LEAST_LEVELS or len(rates) < len(same):
            continue
        eta = scaling.efficiency(rates)
        amdahl, power = scaling.fit_eta_amdahl(eta), scaling.fit_eta_power(eta)
        found.append(
            {
                "think_ms": think_ms,
                "eta": {str(n): significant(value) for n, value in eta.items()},
                "halved_at": scaling.halving_level(eta),
                "fairness": {str(line["agents_count"]): line["agents"]["fairness"]["value"] for line in same},
                "amdahl_parallel_share": amdahl.parameter.to_json(),
                "amdahl_r_squared": significant(amdahl.r_squared),
                "power_alpha": power.parameter.to_json(),
                "power_r_squared": significant(power.r_squared),
            }
        )
    return found
