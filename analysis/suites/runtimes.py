"""What a comparison of the client's runtimes shows: a line a variant, and which of them differ.

Made from `runtimes.json` and what the variants' own directories say, killed ones too. Two efficiencies are told, each
under its name: that against measured solo runs, and the multi-agent guide's from overlap alone. Peak, minimum,
median and SD are of runs; means are geometric, and their unit is the block: its value is the geometric mean over
configurations, so that configurations which differ do not pass for noise. The control is in no test, for it differs by
design.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median, stdev
from typing import Any

import numpy as np

from analysis.estimate import Estimate, refused, significant
from analysis.stats import equivalence, groups, intervals, planning, ratio
from analysis.stats.equivalence import Margin
from analysis.suites.suite import missing_in, summary_in

__all__ = ["RUNTIMES", "RUNTIMES_SUMMARY", "summarise_runtimes"]

RUNTIMES = "runtimes.json"
RUNTIMES_SUMMARY = "loadgen.runtimes-summary/1"
RULE = "speedup<1.5"  # SYSTEMS 1.5: what the guide calls contended
FIGURES = ("efficiency", "overlap_efficiency", "makespan_s")
CONTROL_TOLERANCE = 0.005  # of an efficiency: the control's is 50.0 %
MARGIN = 0.05
NO_SOLO = "no complete block of solo and concurrent runs"

Values = dict[int, float]  # by block


def summarise_runtimes(directory: Path, *, margin: float = MARGIN, against: str | None = None) -> dict[str, Any]:
    """Return the summary of `directory`. margin: what nobody would mind.

    against: a variant to compare the others with; None takes the one that was named when they were measured.
    Raises OSError, or ValueError for files that are not ours.
    """
    manifest = json.loads((directory / RUNTIMES).read_text(encoding="utf-8"))
    ended = {one["id"]: one for one in manifest.get("tests", [])}
    cells = [_cell(directory, one, ended.get(one["directory"], {})) for one in manifest["cells"]]
    values: dict[str, dict[str, Values]] = {}  # by variant and figure
    lines = []
    for variant in manifest["variants"]:
        mine = [cell for cell in cells if cell["variant"] == variant["name"]]
        values[variant["name"]] = {figure: _of_blocks([cell[figure] for cell in mine]) for figure in FIGURES}
        lines.append(_line(variant, mine, values[variant["name"]]))
    named = against if against is not None else manifest.get("against")
    working = [variant["name"] for variant in manifest["variants"] if variant["name"] != manifest["control"]]
    compared = [
        _compared(figure, {name: values[name][figure] for name in working}, margin, named)
        for figure in FIGURES
        if any(values[name][figure] for name in working)
    ]
    return {
        "schema": RUNTIMES_SUMMARY,
        "seed": manifest["seed"],
        "order": manifest["order"],
        "blocks": manifest["blocks"],
        "configurations": len({cell["configuration"] for cell in cells}),
        "contended_rule": RULE,
        "margin": margin,
        "variants": lines,
        "left_out": manifest["left_out"],
        "missing": [cell["directory"] for cell in cells if cell["missing_runs"] != 0],
        "same": _same(manifest["variants"]),
        "control": _control(manifest["control"], cells, values),
        "comparisons": compared,
        "cells": [{key: cell[key] for key in CELL_KEYS} for cell in cells],
    }


# --- a variant with a configuration ----------------------------------------------------------------------------------

CELL_KEYS = ("variant", "configuration", "directory", "scenario", "verdict", "contention", "missing_runs", "error")


def _cell(directory: Path, one: Mapping[str, Any], ended: Mapping[str, Any]) -> dict[str, Any]:
    folder = directory / one["directory"]
    summary, instrument = summary_in(folder), _read(folder / "manifest.json").get("instrument", {})
    section = summary.get("agents") or {}
    runs = [run for run in section.get("per_run", []) if not run["left_out"]]
    together = {run["block"]: run for run in runs if run["concurrent"] and len(run["wall_s"]) == len(section["names"])}
    n = len(section.get("names", ()))
    return {
        **{key: one[key] for key in ("variant", "configuration", "directory", "scenario")},
        "agents": n,
        "efficiency": _efficiencies(section, runs, together) if section else {},
        "overlap_efficiency": {block: run["overlap"] / n for block, run in together.items() if run["overlap"]},
        "makespan_s": {block: run["makespan_s"] for block, run in together.items() if run["makespan_s"]},
        "concurrent_runs": section["runs"]["concurrent"] if section else 0,
        "contended_runs": (section["contention"]["rules_runs"].get(RULE) or 0) if section else 0,
        "contention": section["contention"]["verdict"] if section else None,
        "verdict": summary.get("verdict"),
        "loop_lag_ms": instrument.get("loop_lag_ms") or {},
        "cpu_share": instrument.get("cpu_share"),
        "missing_runs": missing_in(summary, ended),
        "error": ended.get("error"),
    }


def _read(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return told


def _efficiencies(section: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], together: Mapping[int, Any]) -> Values:
    """Return the parallel efficiency of each block that has a solo run of every agent.

    Of times; of token rates where the agents' work was not the same alone and together, as the section has it.
    """
    names = section["names"]
    by_tokens = any(note.startswith("unequal work") for note in section["efficiency"]["notes"])
    alone: dict[int, dict[str, Mapping[str, Any]]] = {}
    for run in runs:
        if not run["concurrent"]:
            (name,) = run["wall_s"]
            alone.setdefault(run["block"], {})[name] = run
    found: Values = {}
    for block, run in together.items():
        solo = alone.get(block, {})
        if len(solo) < len(names) or not run["makespan_s"]:
            continue
        speedup = sum(solo[name]["wall_s"][name] for name in names) / run["makespan_s"]
        if by_tokens:
            tokens = [one["output_tokens"].get(name) for name in names for one in (run, solo[name])]
            if not all(tokens):
                continue
            speedup *= sum(tokens[::2]) / sum(tokens[1::2])
        found[block] = speedup / len(names)
    return found


def _of_blocks(cells: Sequence[Values]) -> Values:
    """Return the geometric mean over the cells, of the blocks that all of them have."""
    shared = set.intersection(*(set(cell) for cell in cells)) if cells else set()
    return {block: math.exp(sum(math.log(cell[block]) for cell in cells) / len(cells)) for block in sorted(shared)}


# --- a variant -------------------------------------------------------------------------------------------------------


def _line(
    variant: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], blocks: Mapping[str, Values]
) -> dict[str, Any]:
    verdicts = [cell["verdict"] for cell in cells]
    lags = [cell["loop_lag_ms"] for cell in cells if cell["loop_lag_ms"]]
    shares = [cell["cpu_share"] for cell in cells if cell["cpu_share"] is not None]
    return {
        **{key: variant[key] for key in ("name", "tier", "loop", "read_bytes", "permits")},
        **{figure: _spread([cell[figure] for cell in cells], blocks[figure]) for figure in FIGURES},
        "contended": {
            "rule": RULE,
            "runs": sum(cell["contended_runs"] for cell in cells),
            "of": sum(cell["concurrent_runs"] for cell in cells),
        },
        # Of several configurations the worst, for the samples of all are not kept.
        "loop_lag_ms": {
            name: significant(max(lag[name] for lag in lags)) if lags else None for name in ("p50", "p99", "max")
        },
        "cpu_share": significant(max(shares, default=None)),
        "verdicts": {one: verdicts.count(one) for one in dict.fromkeys(verdicts) if one is not None},
    }


def _spread(cells: Sequence[Values], blocks: Values) -> dict[str, Any]:
    runs = [value for cell in cells for value in cell.values()]
    means = [sum(cell.values()) / len(cell) for cell in cells if cell]
    estimate = intervals.over_runs(list(blocks.values()), len(runs)) if blocks else refused(NO_SOLO)
    return {
        "runs": len(runs),
        "peak": significant(max(runs, default=None)),
        "mean": estimate.to_json(),
        "median": significant(median(runs)) if runs else None,
        "sd_of_runs": significant(stdev(runs)) if len(runs) > 1 else None,
        "sd_of_configuration_means": significant(stdev(means)) if len(means) > 1 else None,
        "minimum": significant(min(runs, default=None)),
    }


def _same(variants: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the names of variants whose settings are the same."""
    by_settings: dict[tuple[Any, ...], list[str]] = {}
    for one in variants:
        settings = tuple(one[key] for key in ("tier", "loop", "read_bytes", "permits"))
        by_settings.setdefault(settings, []).append(one["name"])
    return [names for names in by_settings.values() if len(names) > 1]


def _control(
    name: str, cells: Sequence[Mapping[str, Any]], values: Mapping[str, Mapping[str, Values]]
) -> dict[str, Any] | None:
    """Return whether one permit gives the 1/N that it must, inside its interval or within half a point.

    None where it was not measured, or the configurations differ in N.
    """
    agents = {cell["agents"] for cell in cells if cell["variant"] == name and cell["agents"]}
    if len(agents) != 1:
        return None
    expected = 1 / agents.pop()
    told = {}
    for figure in ("efficiency", "overlap_efficiency"):
        mine = list(values[name][figure].values())
        if mine:
            estimate = intervals.over_runs(mine, len(mine))
            told[figure] = {"estimate": estimate.to_json(), "holds": _is_about(estimate, expected)}
    if not told:
        return None
    return {"variant": name, "expected": significant(expected), "figures": told}


def _is_about(estimate: Estimate, expected: float) -> bool:
    assert estimate.value is not None
    inside = estimate.low is not None and estimate.high is not None and estimate.low <= expected <= estimate.high
    return inside or abs(estimate.value - expected) <= CONTROL_TOLERANCE


# --- variants against each other -------------------------------------------------------------------------------------


def _compared(figure: str, values: Mapping[str, Values], margin: float, against: str | None) -> dict[str, Any]:
    names = [name for name, mine in values.items() if len(mine) >= intervals.LEAST_RUNS]
    result: dict[str, Any] = {
        "figure": figure,
        "variants": names,
        "not_tested": [name for name in values if name not in names],
        "runs": {name: len(values[name]) for name in names},
        "alexander_govern": None,
        "kruskal": None,
        "pairs": [],
        "against": None,
        "dunnett": [],
        "separated": None,
    }
    if len(names) < 2:
        runs = max((len(mine) for mine in values.values()), default=0)
        few = f"the most is {runs} of one variant, and {intervals.LEAST_RUNS} of each are needed: ask for --runs 5"
        alone = "only one variant can be compared"
        return result | {"conclusion": f"not tested: {few if runs < intervals.LEAST_RUNS else alone}"}
    logs = [np.log(list(values[name].values())).tolist() for name in names]
    overall, ranks = groups.alexander_govern(logs), groups.kruskal(logs)
    pairs = _judged(groups.all_pairs(logs), names, values, margin)
    if against in names:
        result["against"] = against
        result["dunnett"] = _judged(groups.dunnett(logs, names.index(str(against))), names, values, margin)
    result |= {
        "alexander_govern": overall and {"statistic": significant(overall.statistic), "p": significant(overall.p)},
        "kruskal": ranks and {"statistic": significant(ranks.statistic), "p": significant(ranks.p)},
        "pairs": pairs,
        "separated": any(pair["p"] < equivalence.ALPHA for pair in pairs),
    }
    return result | {"conclusion": _conclusion(result, margin)}


def _judged(
    pairs: Sequence[groups.Pair], names: Sequence[str], values: Mapping[str, Values], margin: float
) -> list[dict[str, Any]]:
    """Return the pairs of a family, each with its verdict; equivalence, too, is adjusted for how many are asked."""
    within = Margin.of_ratio(margin)
    logs = []
    for pair in pairs:
        a, b = (list(values[names[place]].values()) for place in (pair.a, pair.b))
        log = ratio.log_welch(a, b).log
        assert log is not None
        logs.append(log)
    tests = [equivalence.tost(log, within) for log in logs]
    adjusted = equivalence.holm([test.p for test in tests])
    judged = []
    for pair, log, test, p in zip(pairs, logs, tests, adjusted, strict=True):
        told = _pair(pair, replace(test, p=p, passes=p < equivalence.ALPHA), names, values)
        found = None
        if told["verdict"] == equivalence.ComparisonVerdict.INCONCLUSIVE:
            n, other = (len(values[names[place]]) for place in (pair.a, pair.b))
            # Bonferroni's share of the error: a little more than the family's own tests need.
            found = planning.detectable(log, n, other, within.high, size=equivalence.ALPHA / len(pairs))
        judged.append(told | {"detectable": None if found is None else found.to_json()})
    return judged


def _pair(
    pair: groups.Pair, test: equivalence.Tost, names: Sequence[str], values: Mapping[str, Values]
) -> dict[str, Any]:
    """Return a pair as a ratio, its p and interval over the family, and the verdict."""
    a, b = names[pair.a], names[pair.b]
    n = len(values[a]) + len(values[b])
    few = (intervals.FEW_RUNS,) if min(len(values[a]), len(values[b])) < intervals.ENOUGH_RUNS else ()
    low, high = math.exp(pair.low), math.exp(pair.high)
    estimate = Estimate(math.exp(pair.difference), low, high, intervals.CONFIDENCE, n, few)
    return {
        "a": a,
        "b": b,
        "ratio": estimate.to_json(),
        "p": significant(pair.p),
        "p_equivalence": significant(test.p),
        "verdict": equivalence.decide(pair.p, test).value,
    }


def _conclusion(result: Mapping[str, Any], margin: float) -> str:
    names, pairs, overall = result["variants"], result["pairs"], result["alexander_govern"]
    p = "no overall test, a variant does not vary" if overall is None else f"Alexander-Govern p {overall['p']:.2g}"
    apart = [f"{one['a']} and {one['b']}" for one in pairs if one["p"] < equivalence.ALPHA]
    if apart:
        return f"{len(apart)} of {len(pairs)} pairs separate ({p}): {', '.join(apart)}"
    if overall is not None and overall["p"] < equivalence.ALPHA:
        return f"the {len(names)} working runtimes are not all alike ({p}), but no pair separates"
    alike = sum(one["verdict"] == equivalence.ComparisonVerdict.EQUIVALENT for one in pairs)
    within = f"{alike} of {len(pairs)} pairs are equivalent within {100 * margin:g} %"
    rest = "" if alike == len(pairs) else "; of the rest these runs cannot tell"
    return f"none of the {len(names)} working runtimes separates from the others ({p}); {within}{rest}"
