"""What running agents together gained and cost: the `agents` section of a summary, from records and manifest alone.

speedup.py has the formulas, contention.py the verdict, attribution.py the causes; here runs are matched into blocks,
what cannot be used is left out and said, and figures get their names. A delta's direction is in its name. TTFT is the
client's, from when a call was sent to its first token, unless it is called the server's. Null is "not measurable".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.agents import attribution, contention, speedup
from analysis.agents.conditions import Signs, signs_of
from analysis.agents.overlap import BIN_NS, Busy, Gaps, busy_beside, read_gaps
from analysis.agents.speedup import Walls
from analysis.estimate import Estimate, refused, significant
from analysis.records.calls import Calls, agents_of, read_calls
from analysis.records.frame import Frame
from analysis.records.requests import ABSENT, Bool
from analysis.records.samples import read_samples
from analysis.stats import intervals, steady
from analysis.stats.outliers import LEAST, outliers
from analysis.stats.planning import confidence_of
from loadgen.record import Int64

__all__ = ["agents_section", "grade"]

Float64 = NDArray[np.float64]

OVERLAP_NOTE = "the guide's formula, (d1 + d2) / wall / N with d while both run: overlap, blind to both slowing down"
FINDINGS_SHOWN = 200
TIMELINES_SHOWN = 10
TIMELINE_BINS = 240
SHIFT_BINS = 1000  # what looks for level shifts takes memory with the square of them
LANE_CALLS = 400
BURST_BINS = 3  # METHODOLOGY 11.6: what is shorter is an event and no level
GAPS_LEAST = 5  # on either side, for a call to have a gap stretch
FENCE = 1.5  # interquartile ranges

# SYSTEMS 1.7: (limit, grade), the first whose limit is exceeded, or undercut where less is better.
GRADES = {
    "overlap_efficiency": ((0.95, "excellent"), (0.90, "good"), (0.85, "acceptable"), (0.80, "below acceptable")),
    "contended_share": ((0.05, "excellent"), (0.10, "good"), (0.20, "acceptable"), (0.30, "above acceptable")),
    "cv": ((0.01, "excellent"), (0.05, "good"), (0.10, "acceptable")),
}
LESS_IS_BETTER = ("contended_share", "cv")
WORST_GRADE = "problematic"


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run. Arrays of shape (agents,), NaN for an agent that was not in it."""

    run: int
    block: int
    concurrent: bool
    wall_s: Float64  # last done - first sent
    permit_wait_s: Float64  # first sent - barrier
    first_sent_s: Float64
    calls: Float64
    tokens: Float64
    makespan_s: float
    problem: str | None  # why it is no repetition of the others


def agents_section(frame: Frame) -> dict[str, Any]:
    """Return the section; `frame` is of all arms, and its manifest names the agents."""
    names = agents_of(frame.manifest)
    calls = read_calls(frame)
    runs = _runs(calls)
    together = [run for run in runs if run.concurrent and run.problem is None]
    confidence = confidence_of(frame.manifest)
    walls, notes = _walls(runs, names, confidence)
    told = _speedup(walls, together, names)
    overlaps = np.array([_overlap(run) for run in together])
    told["overlap_efficiency"] = _overlap_efficiency(overlaps, len(names), confidence)
    usable = calls.only(np.isin(calls.run, [run.run for run in runs if run.problem is None]))
    per_agent = {name: _agent(usable, runs, index, frame.manifest) for index, name in enumerate(names)}
    section: dict[str, Any] = {name: estimate.to_json() for name, estimate in told.items()}
    section |= {
        "names": list(names),
        **{key: frame.manifest.get(key) for key in ("scenario", "permits")},
        "blocks": len(walls.makespan) if walls.solo is not None and walls.blocked else 0,
        "runs": {"concurrent": len(together), "solo": sum(not r.concurrent and r.problem is None for r in runs)},
        "makespan_s": _over([run.makespan_s for run in together], confidence),
        "start_skew_ms": _difference([_skew_ms(run) for run in together], confidence).to_json(),
        "balance_min_max": _over([float(np.nanmin(r.wall_s) / np.nanmax(r.wall_s)) for r in together], confidence),
        "fairness": _over(
            [speedup.jain(run.tokens / run.wall_s) for run in together if run.tokens.sum() > 0], confidence
        ),
        "deltas": _deltas(per_agent, names, confidence),
        "contention": _contention(frame, usable, together, overlaps),
        "per_agent": per_agent,
        "per_run": [_run_values(run, names) for run in runs],
        "lanes": _lanes(calls, runs),
        "cold_loads": attribution.cold_loads(calls),
        "short_answers": attribution.short_answers(calls),
        "notes": notes,
    }
    section["grades"] = _grades(section)
    return section


# --- runs and blocks -------------------------------------------------------------------------------------------------


def _runs(calls: Calls) -> list[Run]:
    n = len(calls.agents)
    runs = []
    for number in np.unique(calls.run).tolist():
        here = calls.run == number
        columns = {name: np.full(n, np.nan) for name in ("wall", "wait", "first", "calls", "tokens")}
        sent = here & (calls.sent_ns != ABSENT) & (calls.done_ns != ABSENT)
        for agent in np.unique(calls.agent[sent]).tolist():
            mine = sent & (calls.agent == agent)
            first = int(calls.sent_ns[mine].min())
            columns["first"][agent] = first / 1e9
            columns["wall"][agent] = (int(calls.done_ns[mine].max()) - first) / 1e9
            columns["wait"][agent] = (first - int(calls.intended_ns[mine].min())) / 1e9
            columns["calls"][agent] = int(mine.sum())
            known = (calls.output_tokens[mine] != ABSENT).all()
            columns["tokens"][agent] = calls.output_tokens[mine].sum() if known else np.nan
        concurrent = bool(calls.concurrent[here].any())
        problem = None
        if number in calls.failures:
            problem = f"a call ended in {calls.failures[number]}"
        elif concurrent and np.isnan(columns["wall"]).any():
            absent = [calls.agents[agent] for agent in np.flatnonzero(np.isnan(columns["wall"]))]
            problem = f"no call of {', '.join(absent)}"
        span = int(calls.done_ns[sent].max()) - int(calls.sent_ns[sent].min()) if sent.any() else 0
        runs.append(
            Run(
                number,
                int(calls.block[here][0]),
                concurrent,
                columns["wall"],
                columns["wait"],
                columns["first"],
                columns["calls"],
                columns["tokens"],
                span / 1e9,
                problem,
            )
        )
    return runs


def _walls(runs: Sequence[Run], names: tuple[str, ...], confidence: float) -> tuple[Walls, list[str]]:
    """Match solo and concurrent runs into blocks; return their wall times, and what was left out."""
    notes = [f"run {run.run} left out: {run.problem}" for run in runs if run.problem is not None]
    fine = [run for run in runs if run.problem is None]
    together = [run for run in fine if run.concurrent]
    solo: dict[int, dict[int, Run]] = {}
    for run in fine:
        if not run.concurrent:
            solo.setdefault(run.block, {})[int(np.flatnonzero(~np.isnan(run.wall_s))[0])] = run
    missing = [name for agent, name in enumerate(names) if not any(agent in one for one in solo.values())]
    if missing and solo:
        notes.append(f"no solo runs of {', '.join(missing)}: no speedup")
    whole = {block: one for block, one in solo.items() if len(one) == len(names)}
    blocked = [run for run in together if run.block in whole]
    alone = [whole[run.block] for run in blocked]
    # Pairs are worth more, unless there are too few of them and enough runs that are no pairs.
    is_blocked = not whole or (
        bool(blocked) and not len(blocked) < intervals.LEAST_RUNS <= min(len(whole), len(together))
    )
    if not is_blocked:
        blocked, alone = together, list(whole.values())
    elif whole and len(blocked) < len(together):
        apart = ", ".join(str(run.run) for run in together if run not in blocked)
        notes.append(f"runs {apart} have no complete set of solo runs in their block: not in the speedup")
    if not alone:
        blocked = together
    return (
        Walls(
            concurrent=_rows([run.wall_s for run in blocked], len(names)),
            makespan=np.array([run.makespan_s for run in blocked]),
            solo=_rows([_diagonal(one, "wall_s") for one in alone], len(names)) if alone else None,
            concurrent_tokens=_rows([run.tokens for run in blocked], len(names)),
            solo_tokens=_rows([_diagonal(one, "tokens") for one in alone], len(names)) if alone else None,
            blocked=is_blocked,
            agents=names,
            confidence=confidence,
        ),
        notes,
    )


def _rows(rows: Sequence[Float64], width: int) -> Float64:
    return np.array(rows, np.float64).reshape(-1, width)


def _diagonal(solo: Mapping[int, Run], name: str) -> Float64:
    """Return the value of each agent in its own solo run."""
    return np.array([getattr(solo[agent], name)[agent] for agent in sorted(solo)])


def _speedup(walls: Walls, together: Sequence[Run], names: tuple[str, ...]) -> dict[str, Estimate]:
    if not together:
        every = (*speedup.Parts.__dataclass_fields__, "combined_over_solo")
        return dict.fromkeys(every, refused("no concurrent run finished with all its calls answered"))
    told = speedup.parts_over_blocks(walls)
    # Overlap needs no solo runs, so it is told over all concurrent runs.
    overlaps, n = [_overlap(run) for run in together], len(together)
    overlap = intervals.over_runs(overlaps, n, walls.confidence)
    balance = intervals.over_runs([one / len(names) for one in overlaps], n, walls.confidence)
    return told | {"overlap": overlap, "balance": balance}


def _overlap(run: Run) -> float:
    return float(np.nansum(run.wall_s)) / run.makespan_s


def _overlap_efficiency(overlaps: Float64, agents: int, confidence: float) -> Estimate:
    """Return the guide's parallel efficiency: the mean over runs, as it takes it."""
    if not len(overlaps):
        return refused("no concurrent run finished with all its calls answered")
    return _difference((overlaps / agents).tolist(), confidence).noted(OVERLAP_NOTE)


def _skew_ms(run: Run) -> float:
    return float(np.nanmax(run.first_sent_s) - np.nanmin(run.first_sent_s)) * 1e3


def _run_values(run: Run, names: tuple[str, ...]) -> dict[str, Any]:
    def by_agent(values: Float64) -> dict[str, float | None]:
        return {
            name: significant(value)
            for name, value in zip(names, values.tolist(), strict=True)
            if not math.isnan(value)
        }

    return {
        "run": run.run,
        "block": None if run.block == ABSENT else run.block,
        "concurrent": run.concurrent,
        "left_out": run.problem,
        "makespan_s": significant(run.makespan_s),
        "wall_s": by_agent(run.wall_s),
        "start_s": by_agent(run.first_sent_s),
        "output_tokens": by_agent(run.tokens),
        "overlap": significant(_overlap(run)) if run.concurrent and run.makespan_s > 0 else None,
    }


def _lanes(calls: Calls, runs: Sequence[Run]) -> dict[str, Any] | None:
    """Return the calls of the concurrent run of middle length, and of the solo runs of its block; for a picture."""
    together = sorted((run for run in runs if run.concurrent and run.problem is None), key=lambda run: run.makespan_s)
    if not together:
        return None
    chosen = together[(len(together) - 1) // 2]
    solo = [run.run for run in runs if not run.concurrent and run.problem is None and run.block == chosen.block]
    shown = np.flatnonzero(np.isin(calls.run, [chosen.run, *solo]) & (calls.sent_ns != ABSENT))[:LANE_CALLS]

    def seconds(column: Int64, place: int) -> float | None:
        return None if column[place] == ABSENT else round(int(column[place]) / 1e9, 6)

    stamps = ("intended_ns", "sent_ns", "first_ns", "done_ns")
    told = [
        {
            "agent": calls.agents[calls.agent[place]],
            "arm": "together" if calls.concurrent[place] else "alone",
            **{name.replace("_ns", "_s"): seconds(getattr(calls, name), place) for name in stamps},
        }
        for place in sorted(shown.tolist(), key=lambda place: (calls.agent[place], calls.concurrent[place], place))
    ]
    return {"run": chosen.run, "block": None if chosen.block == ABSENT else chosen.block, "calls": told}


# --- one agent -------------------------------------------------------------------------------------------------------


def _agent(calls: Calls, runs: Sequence[Run], agent: int, manifest: Mapping[str, Any]) -> dict[str, Any]:
    entry, confidence = (manifest.get("agents") or [])[agent], confidence_of(manifest)
    arms = {}
    values: dict[str, dict[str, dict[int, float]]] = {}
    fine = [run for run in runs if run.problem is None and not np.isnan(run.wall_s[agent])]
    for arm, concurrent in (("solo", False), ("concurrent", True)):
        mine = [run for run in fine if run.concurrent == concurrent]
        values[arm] = _values(calls, mine, agent)
        arms[arm] = _arm(calls, mine, agent, values[arm], confidence)
    solo_of = {run.block: run for run in fine if not run.concurrent}
    pairs = [
        (run, solo_of[run.block]) for run in fine if run.concurrent and run.block in solo_of and run.block != ABSENT
    ]
    walls = np.array([[run.wall_s[agent], solo.wall_s[agent]] for run, solo in pairs]).reshape(-1, 2)
    told: dict[str, Any] = {key: entry.get(key) for key in ("endpoint", "workload", "options", "think_ms")}
    told |= arms
    told["stretch"] = speedup.ratio_of(walls[:, 0], walls[:, 1], confidence).to_json()
    waits = [float(run.permit_wait_s[agent]) * 1e3 for run in fine if run.concurrent]
    told["permit_wait_ms"] = _difference(waits, confidence).to_json()
    for name in ("ttft_ms", "output_tokens_per_s"):
        one, other = values["concurrent"][name], values["solo"][name]
        paired = [one[a.run] - other[b.run] for a, b in pairs if a.run in one and b.run in other]
        told[f"{name}_concurrent_minus_solo"] = _difference(paired, confidence).to_json()
        told[f"{name}_cohens_d_concurrent_minus_solo"] = cohens_d(list(one.values()), list(other.values()))
    return told


def _values(calls: Calls, runs: Sequence[Run], agent: int) -> dict[str, dict[int, float]]:
    """Return {figure: {run: value}} of an agent; a run without a value has no place."""
    ttft, tpot = calls.ttft_service() / 1e6, calls.tpot() / 1e6
    values: dict[str, dict[int, float]] = {name: {} for name in ("wall_s", "ttft_ms", "tpot_ms", "output_tokens_per_s")}
    for run in runs:
        mine = (calls.run == run.run) & (calls.agent == agent)
        values["wall_s"][run.run] = float(run.wall_s[agent])
        if run.wall_s[agent] > 0:
            values["output_tokens_per_s"][run.run] = float(run.tokens[agent] / run.wall_s[agent])
        for name, column in (("ttft_ms", ttft), ("tpot_ms", tpot)):
            known = column[mine & ~np.isnan(column)]
            if len(known):
                values[name][run.run] = float(known.mean())
    return {name: {run: x for run, x in one.items() if not math.isnan(x)} for name, one in values.items()}


def _arm(
    calls: Calls, runs: Sequence[Run], agent: int, values: Mapping[str, Mapping[int, float]], confidence: float
) -> dict[str, Any]:
    mine = np.isin(calls.run, [run.run for run in runs]) & (calls.agent == agent)
    told: dict[str, Any] = {"runs": len(runs), "calls": int(mine.sum())}
    tokens = [float(run.tokens[agent]) for run in runs]
    told["output_tokens_a_run"] = significant(float(np.mean(tokens))) if tokens else None
    for name, one in values.items():
        told[name] = _over(list(one.values()), confidence)
        told[name] |= {"spread": spread(one)}
    told["server"] = {
        f"{name}_ms": _mean_ms(getattr(calls, f"server_{name}_ns")[mine])
        for name in ("load", "prompt_eval", "eval", "queue")
    }
    both = mine & (calls.server_prompt_eval_ns != ABSENT)
    load = np.where(calls.server_load_ns == ABSENT, 0, calls.server_load_ns)
    # What some tools call TTFT: it leaves out queueing, and is never to be compared with the client's.
    told["server"]["load_plus_prompt_eval_ms"] = _mean_ms((load + calls.server_prompt_eval_ns)[both])
    evaluated = mine & (calls.server_eval_ns != ABSENT) & (calls.server_eval_ns > 0) & (calls.output_tokens != ABSENT)
    seconds = float(calls.server_eval_ns[evaluated].sum()) / 1e9
    told["server"]["output_tokens_per_eval_s"] = (
        significant(float(calls.output_tokens[evaluated].sum()) / seconds) if seconds else None
    )
    return told


def _mean_ms(column: Int64) -> float | None:
    known = column[column != ABSENT]
    return significant(float(known.mean()) / 1e6) if len(known) else None


def _deltas(per_agent: Mapping[str, Mapping[str, Any]], names: tuple[str, ...], confidence: float) -> dict[str, Any]:
    """Return each agent's TTFT and throughput minus the first one's, over concurrent runs."""
    deltas: dict[str, Any] = {}
    for name in names[1:]:
        for figure in ("ttft_ms", "output_tokens_per_s"):
            a, b = (
                {v["run"]: v["value"] for v in per_agent[n]["concurrent"][figure]["spread"]["values"]}
                for n in (name, names[0])
            )
            key = f"{figure}_{name}_minus_{names[0]}"
            deltas[key] = _difference([a[run] - b[run] for run in a if run in b], confidence).to_json()
            deltas[f"{key}_cohens_d"] = cohens_d(list(a.values()), list(b.values()))
    return deltas


def cohens_d(minuend: Sequence[float], subtrahend: Sequence[float]) -> float | None:
    """Return the difference of means in pooled SDs; None where that is not known, or nothing varies."""
    a, b = np.array(minuend), np.array(subtrahend)
    if min(len(a), len(b)) < 2:
        return None
    pooled = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2)
    return significant(float((a.mean() - b.mean()) / math.sqrt(pooled))) if pooled > 0 else None


def spread(values: Mapping[int, float]) -> dict[str, Any]:
    """Return how runs differ, outliers marked by two rules and kept. SD is the sample's; it is no interval."""
    numbers = np.array(list(values.values()))
    runs = np.array(list(values), np.int64)
    told: dict[str, Any] = {
        "values": [{"run": run, "value": significant(x)} for run, x in values.items()],
        **dict.fromkeys(("mean", "median", "sd", "cv", "mean_without_outliers")),
        "outliers": {"iqr": [], "z": []},
    }
    if not len(numbers):
        return told
    told |= {"mean": significant(float(numbers.mean())), "median": significant(float(np.median(numbers)))}
    if len(numbers) > 1:
        sd = float(numbers.std(ddof=1))
        told |= {"sd": significant(sd), "cv": significant(sd / abs(float(numbers.mean()))) if numbers.mean() else None}
    if len(numbers) < LEAST:
        return told
    low, high = np.percentile(numbers, [25, 75])
    fence = FENCE * (high - low)
    iqr = (numbers < low - fence) | (numbers > high + fence)
    z = np.array(outliers(numbers.tolist()))
    told["outliers"] = {"iqr": runs[iqr].tolist(), "z": runs[z].tolist()}
    if (iqr | z).any() and not (iqr | z).all():
        told["mean_without_outliers"] = significant(float(numbers[~(iqr | z)].mean()))
    return told


def _over(values: Sequence[float], confidence: float) -> dict[str, Any]:
    return dict(intervals.over_runs(list(values), len(values), confidence).to_json())


def _difference(values: Sequence[float], confidence: float) -> Estimate:
    """Return the arithmetic mean of run values that may be negative or zero, with its t interval."""
    if not values:
        return refused("no pair of runs")
    value = float(np.mean(values))
    if len(values) < intervals.LEAST_RUNS:
        return Estimate(value, n=len(values), notes=(intervals.no_interval(len(values)),))
    low, high = intervals.t_interval(values, confidence)
    notes = (intervals.FEW_RUNS,) if len(values) < intervals.ENOUGH_RUNS else ()
    return Estimate(value, low, high, confidence, len(values), notes)


# --- contention ------------------------------------------------------------------------------------------------------


def _contention(frame: Frame, calls: Calls, together: Sequence[Run], overlaps: Float64) -> dict[str, Any]:
    busy, confidence = busy_beside(calls), confidence_of(frame.manifest)
    gaps = read_gaps(frame, calls, busy, _solo_gaps(calls))
    ttft, tpot = calls.ttft_service(), calls.tpot()
    while_waiting = contention.overlapping(calls, busy, calls.sent_ns, calls.first_ns)
    while_writing = contention.overlapping(calls, busy, calls.first_ns, calls.last_ns)
    stretches = {
        "TTFT": contention.stretch_over_runs(calls, ttft, while_waiting, confidence),
        "TPOT": contention.stretch_over_runs(calls, tpot, while_writing, confidence),
    }
    verdict, reasons = contention.verdict_of(stretches)
    ttft_s = _ttft_of_runs(calls, together)
    rules = contention.legacy_rules(overlaps, ttft_s)
    # Null where a rule had nothing to look at: answers that came in one piece have no TTFT.
    blind = {name for name in rules if not len(overlaps) or ("ttft" in name and np.isnan(ttft_s).all())}
    late, late_alone = contention.flag_calls(calls, ttft, while_waiting, by_prompt=True)
    slow, _ = contention.flag_calls(calls, tpot, while_writing, by_prompt=False)
    samples = read_samples(frame.samples, np.unique(calls.run).tolist())
    findings = [
        *_late(frame, calls, late, busy, signs_of(samples, calls, frame.manifest, calls.sent_ns, calls.first_ns)),
        *_slow(frame, calls, slow, gaps, signs_of(samples, calls, frame.manifest, calls.first_ns, calls.last_ns)),
        *_labelled(calls, together, overlaps, frame.manifest.get("permits") or len(calls.agents)),
    ]
    causes = Counter(finding.cause for finding in findings)
    sampled = [finding.sampling_gap_s for finding in findings if finding.sampling_gap_s is not None]
    widest = max((gap for gap in sampled if not math.isnan(gap)), default=None)
    return {
        "verdict": verdict,
        "reasons": list(reasons),
        "threshold": contention.THRESHOLD,
        "ttft_stretch": stretches["TTFT"].estimate.to_json(),
        "ttft_stretch_at_least": significant(stretches["TTFT"].lower),
        "ttft_stretch_detectable": _detectable(stretches["TTFT"]),
        "tpot_stretch": stretches["TPOT"].estimate.to_json(),
        "tpot_stretch_at_least": significant(stretches["TPOT"].lower),
        "tpot_stretch_detectable": _detectable(stretches["TPOT"]),
        "gap_stretch_inside_over_outside": _gap_stretch(calls, gaps, confidence).to_json(),
        "rules": {name: None if name in blind else bool(labelled.any()) for name, labelled in rules.items()},
        "rules_runs": {name: None if name in blind else int(labelled.sum()) for name, labelled in rules.items()},
        "attribution": {cause: causes.get(cause, 0) for cause in attribution.CAUSES},
        "attribution_by_samples": {"findings": len(sampled), "sampling_gap_s": significant(widest)},
        "findings": [finding.to_json() for finding in findings[:FINDINGS_SHOWN]],
        "findings_left_out": max(0, len(findings) - FINDINGS_SHOWN),
        "flags": _flags(calls, late, late_alone, while_waiting),
        "flags_tpot": int(slow.flagged.sum()),
        **_over_time(gaps),
    }


def _detectable(stretch: contention.Stretch) -> dict[str, Any] | None:
    found = contention.detectable(stretch)
    return None if found is None else found.to_json(lambda beyond: contention.THRESHOLD * math.exp(beyond))


def _solo_gaps(calls: Calls) -> Float64:
    """Return the mean gap between events of each agent when alone, ns, shape (agents,)."""
    expected = np.full(len(calls.agents), np.nan)
    for agent in range(len(calls.agents)):
        mine = ~calls.concurrent & calls.ok & (calls.agent == agent) & (calls.events > 1)
        if mine.any():
            expected[agent] = (calls.last_ns - calls.first_ns)[mine].sum() / (calls.events[mine] - 1).sum()
    return expected


def _ttft_of_runs(calls: Calls, together: Sequence[Run]) -> Float64:
    """Return the mean client TTFT, s, shape (runs, agents)."""
    ttft = calls.ttft_service() / 1e9
    table = np.full((len(together), len(calls.agents)), np.nan)
    for row, run in enumerate(together):
        for agent in range(len(calls.agents)):
            mine = ttft[(calls.run == run.run) & (calls.agent == agent) & ~np.isnan(ttft)]
            if len(mine):
                table[row, agent] = mine.mean()
    return table


def _lag_ns(frame: Frame) -> float | None:
    told = frame.manifest.get("instrument") or {}
    lag = (told.get("loop_lag_ms") or {}).get("p99")
    return None if told.get("tier") == "kernel" or lag is None else lag * 1e6


def _late(frame: Frame, calls: Calls, late: contention.Flags, busy: Busy, signs: Signs) -> list[attribution.Finding]:
    ttft, lag = calls.ttft_service(), _lag_ns(frame)
    prompts = calls.input_tokens.astype(np.float64)
    findings = []
    for agent in range(len(calls.agents)):
        told = np.where(calls.server_prompt_eval_ns == ABSENT, np.nan, calls.server_prompt_eval_ns)
        alone = ~calls.concurrent & calls.ok & (calls.agent == agent)
        prefill = contention.baseline_of(told[alone], prompts[alone])
        for place in np.flatnonzero(late.flagged & (calls.agent == agent)).tolist():
            yardstick = float(ttft[place] / late.stretch[place])
            why = attribution.why_ttft(calls, place, yardstick, busy, lag, prefill, signs)
            findings.append(_finding(calls, place, "ttft", late, why))
    return findings


def _slow(frame: Frame, calls: Calls, slow: contention.Flags, gaps: Gaps, signs: Signs) -> list[attribution.Finding]:
    expected, lag = _solo_gaps(calls), _lag_ns(frame)
    findings = []
    for place in np.flatnonzero(slow.flagged).tolist():
        alone, excess = float(expected[calls.agent[place]]), float(slow.stretch[place]) - 1
        why = attribution.why_decode(calls, place, alone, excess, gaps, lag, signs)
        findings.append(_finding(calls, place, "tpot", slow, why))
    return findings


def _finding(calls: Calls, place: int, what: str, flags: contention.Flags, why: attribution.Why) -> attribution.Finding:
    begin, end = (calls.sent_ns, calls.first_ns) if what == "ttft" else (calls.first_ns, calls.last_ns)
    return attribution.Finding(
        run=int(calls.run[place]),
        agent=calls.agents[calls.agent[place]],
        turn=int(calls.turn[place]),
        what=what,
        from_ns=int(begin[place]),
        to_ns=int(end[place]),
        stretch=float(flags.stretch[place]),
        cause=why.cause,
        sampling_gap_s=why.sampling_gap_s,
    )


def _labelled(calls: Calls, together: Sequence[Run], overlaps: Float64, permits: int) -> list[attribution.Finding]:
    """Explain the runs that the guide's rule, speedup < 1.5, would call contended: it looks at balance alone."""
    limit = contention.Rules().speedup_below[0]
    short, cold = attribution.short_answers(calls), attribution.cold_loads(calls)
    walls = [_solo_wall(calls, agent) for agent in range(len(calls.agents))]
    alone = float(np.min(walls) / np.max(walls)) if walls and not np.isnan(walls).any() else None
    findings = []
    for run, overlap in zip(together, overlaps.tolist(), strict=True):
        if overlap >= limit or len(calls.agents) < 2:
            continue
        shorter, longer = int(np.nanargmin(run.wall_s)), int(np.nanargmax(run.wall_s))
        idle = (len(calls.agents) * run.makespan_s - float(np.nansum(run.wall_s))) * 1e9
        wait = float(np.nansum(run.permit_wait_s)) * 1e9 if permits < len(calls.agents) else 0.0
        cause = attribution.why_unequal(calls, run.run, shorter, short, cold, wait, idle, alone)
        stretch = float(run.wall_s[longer] / run.wall_s[shorter]) if run.wall_s[shorter] > 0 else math.inf
        begin = int(np.nanmin(run.first_sent_s) * 1e9)
        end = begin + int(run.makespan_s * 1e9)
        findings.append(
            attribution.Finding(run.run, calls.agents[shorter], None, "balance", begin, end, stretch, cause)
        )
    return findings


def _solo_wall(calls: Calls, agent: int) -> float:
    alone = ~calls.concurrent & (calls.agent == agent)
    walls = [
        float(calls.done_ns[alone & (calls.run == run)].max() - calls.sent_ns[alone & (calls.run == run)].min())
        for run in np.unique(calls.run[alone])
    ]
    return float(np.mean(walls)) if walls else math.nan


def _gap_stretch(calls: Calls, gaps: Gaps, confidence: float) -> Estimate:
    """Return how much longer gaps are inside the intervals of overlap than outside: per call, then per run."""
    both = (gaps.inside >= GAPS_LEAST) & (gaps.outside >= GAPS_LEAST) & (gaps.inside_ns > 0) & (gaps.outside_ns > 0)
    if not both.any():
        return refused(f"no call has {GAPS_LEAST} gaps inside and outside of an overlap")
    inside, outside = gaps.inside_ns[both] / gaps.inside[both], gaps.outside_ns[both] / gaps.outside[both]
    logs, run = np.log(inside / outside), calls.run[both]
    values = [float(np.exp(logs[run == one].mean())) for one in np.unique(run)]
    return intervals.over_runs(values, int(both.sum()), confidence)


def _flags(calls: Calls, late: contention.Flags, alone: contention.Flags, overlapped: Bool) -> dict[str, Any]:
    runs = np.unique(calls.run[late.looked_at]).tolist()
    per_run: list[dict[str, Any]] = []
    for run in runs:
        mine = late.looked_at & (calls.run == run)
        k, n = int(late.flagged[mine].sum()), int(mine.sum())
        beyond = contention.natural_tail_p(late, alone, mine) < contention.TAIL_P
        share = dict(intervals.proportion(k, n).to_json())
        per_run.append({"run": run, "overlapping": n, "flagged": k, "rate": share, "contended": beyond})
    contended = sum(bool(one["contended"]) for one in per_run)
    shares = [one["flagged"] / one["overlapping"] for one in per_run]
    rate = intervals.proportion(int(late.flagged.sum()), int(late.looked_at.sum()), shares)
    p = contention.natural_tail_p(late, alone)
    return {
        "what": "TTFT",
        "overlapping": int(overlapped.sum()),
        "looked_at": int(late.looked_at.sum()),
        "flagged": int(late.flagged.sum()),
        "rate": dict(rate.to_json()),
        # Its unit is the run already, so it is not within one.
        "runs_contended": dict(replace(intervals.proportion(contended, len(runs)), notes=()).to_json()),
        "per_run": per_run,
        "solo": {"looked_at": int(alone.looked_at.sum()), "flagged": int(alone.flagged.sum())},
        "natural_tail_p": significant(p),
        "beyond_natural_tail": p < contention.TAIL_P,
        "false_discovery_rate": contention.FALSE_DISCOVERIES,
        "notes": list(late.notes),
    }


def _over_time(gaps: Gaps) -> dict[str, Any]:
    """Return the stretch of gaps per second, its level shifts, and bursts too short to be a level."""
    timeline, shifts, bursts = [], [], []
    for run, (measured, expected) in sorted(gaps.bins.items()):
        some = np.flatnonzero(expected > 0)
        if not len(some):
            continue
        kappa = measured[some] / expected[some]
        wide = -(-len(kappa) // TIMELINE_BINS)
        shown = [significant(float(part.mean())) for part in np.array_split(kappa, -(-len(kappa) // wide))]
        timeline.append(
            {"run": run, "from_s": int(some[0]) * BIN_NS / 1e9, "bin_s": wide * BIN_NS / 1e9, "stretch": shown}
        )
        coarse = -(-len(kappa) // SHIFT_BINS)
        levels = np.array([float(part.mean()) for part in np.array_split(kappa, -(-len(kappa) // coarse))])
        for shift in steady.shifts(levels) or ():
            at = int(some[shift.at * len(some) // len(levels)]) * BIN_NS / 1e9
            change = {"before": significant(shift.before), "after": significant(shift.after), "p": significant(shift.p)}
            shifts.append({"run": run, "at_s": at, **change})
        bursts += [{"run": run, **burst} for burst in _bursts(some, kappa)]
    return {"timeline": timeline[:TIMELINES_SHOWN], "shifts": shifts, "bursts": bursts}


def _bursts(seconds: Int64, kappa: Float64) -> list[dict[str, Any]]:
    high = np.array(outliers(kappa.tolist())) & (kappa > contention.THRESHOLD * np.median(kappa))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], high, [False]]).astype(np.int8)))
    return [
        {
            "from_s": int(seconds[begin]) * BIN_NS / 1e9,
            "to_s": (int(seconds[end - 1]) + 1) * BIN_NS / 1e9,
            "stretch": significant(float(kappa[begin:end].max())),
        }
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        if end - begin < BURST_BINS
    ]


# --- the guide's grades ----------------------------------------------------------------------------------------------


def grade(name: str, value: float | None) -> str | None:
    """Return the guide's grade of a figure in GRADES; None where there is no figure."""
    if value is None:
        return None
    for limit, word in GRADES[name]:
        if value < limit if name in LESS_IS_BETTER else value > limit:
            return word
    return WORST_GRADE


def _grades(section: Mapping[str, Any]) -> dict[str, str | None]:
    runs = section["runs"]["concurrent"]
    labelled = section["contention"]["rules_runs"]["speedup<1.5"]
    efficiencies = {one["run"]: one["overlap"] for one in section["per_run"] if one["overlap"] and not one["left_out"]}
    return {
        "overlap_efficiency": grade("overlap_efficiency", section["overlap_efficiency"]["value"]),
        "contended_share": grade("contended_share", None if labelled is None else labelled / runs),
        "cv": grade("cv", spread(efficiencies)["cv"]),
    }
