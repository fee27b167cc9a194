"""Two sides of runs in, a comparison out: the `loadgen.compare/1` schema.

The unit is the run: each metric has one value a run, the very values that summary.json lists, and never a request
(METHODOLOGY 7.2: testing pooled requests finds everything significant). A side is a run's directory, or one arm of one.
Ratios are B / A of geometric means. Arms of one interleaved campaign are compared pair by pair, block by block; other
sides by Welch's t, unless somebody says that the runs are pairs. The declared metrics are one family: a difference
counts if Holm's p says so, and beside each interval stands the one at 1 - 0.05/k. Success rates differ by points, not
by ratios, and both the runs and the pooled counts must agree that they do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.compare.fairness import Work, fairness, work_of
from analysis.estimate import Estimate, significant
from analysis.records import arms
from analysis.records.frame import load
from analysis.records.measured import measure
from analysis.stats import equivalence, planning, proportions, ranks, ratio
from analysis.stats.equivalence import ALPHA, Margin, Verdict
from analysis.stats.intervals import CONFIDENCE, FEW_RUNS, LEAST_RUNS
from analysis.stats.ratio import Difference, Ratio
from analysis.summary import summarise

__all__ = ["METRICS", "SCHEMA", "Metric", "NotComparableError", "Side", "compare", "read_side"]

SCHEMA = "loadgen.compare/1"
MARGIN = 0.05
FEW_TAIL = 10  # METHODOLOGY 16: expected beyond a percentile
SURVIVORS = 0.99
ENOUGH_RUNS = 5
VOID = ("generator-limited", "unstable", "failed")


class NotComparableError(Exception):
    """A side that says nothing about its server: one line with the reason."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure that each run has once."""

    label: str
    unit: str
    over_runs: str | None = None  # where its values stand: in the summary's over_runs, or else in each entry of per_run
    higher_is_better: bool = False
    per_token: bool = False  # means the same where answers differ in length
    tail: float | None = None  # the share of requests beyond it, of a percentile
    points: bool = False  # a share: compared by its difference


METRICS = {
    "ttft_mean_ms": Metric("TTFT mean", "ms", "ttft_ms"),
    "ttft_p50_ms": Metric("TTFT p50", "ms", tail=0.5),
    "ttft_p99_ms": Metric("TTFT p99", "ms", tail=0.01),
    "event_gap_mean_ms": Metric("event gap mean", "ms", "event_gap_ms", per_token=True),
    "tpot_mean_ms": Metric("TPOT mean", "ms", "tpot_ms", per_token=True),
    "e2e_mean_ms": Metric("E2E mean", "ms", "e2e_ms"),
    "output_tokens_per_s": Metric("output tokens/s", "1/s", "output_tokens_per_s", True, per_token=True),
    "requests_per_s": Metric("requests/s", "1/s", "requests_per_s", True),
    "goodput_per_s": Metric("goodput", "1/s", "goodput_per_s", True),
    "success_rate": Metric("success rate", "", None, True, per_token=True, points=True),
}


@dataclass(frozen=True, slots=True)
class Side:
    """One side: what `summarise` says of its runs, and what they were."""

    name: str
    arm: str | None
    manifest: Mapping[str, Any]  # with the entries of its own runs only
    summary: Mapping[str, Any]
    work: Work


def read_side(directory: str | Path, arm: str | None = None) -> Side:
    """Read a run's directory, or one arm of it (default: the primary one).

    Raises NoRecordsError, and ValueError for an arm that is not there.
    """
    frame = load(directory)
    known = arms.arms(frame.manifest)
    if arm is not None and arm not in known:
        raise ValueError(f"{directory}: no arm named {arm!r}; there is {', '.join(known) or 'only one'}")
    m = measure(frame, runs=arms.runs_of(frame.manifest, frame.run_numbers(), arm))
    entries = [entry for entry in frame.manifest.get("runs") or [] if entry.get("run") in m.runs]
    named = arm or (arms.primary(frame.manifest) if len(known) > 1 else None)
    return Side(str(directory), named, {**frame.manifest, "runs": entries}, summarise(m), work_of(m.counted, frame))


def compare(
    a: Side, b: Side, *, margin: float = MARGIN, metrics: Sequence[str] | None = None, paired: bool = False
) -> dict[str, Any]:
    """Compare B with A. metrics: the declared ones, names of METRICS; None: all that both sides have.

    margin: 0.05 is a ratio within [1/1.05, 1.05], and 5 points of a success rate. Raises NotComparableError where a
    side is void, ValueError for a margin or a metric that is none.
    """
    for name in metrics or ():
        if name not in METRICS:
            raise ValueError(f"{name}: no metric to compare; there is {', '.join(METRICS)}")
    of_ratio, of_points = Margin.of_ratio(margin), Margin.of_points(margin)
    _refuse_void(a)
    _refuse_void(b)
    runs_a, runs_b = _runs(a), _runs(b)
    plan = _pairing(a, b, runs_a, runs_b, paired)
    fair = fairness(a.manifest, b.manifest, a.work, b.work)
    chosen = metrics or [name for name in METRICS if _has(name, a) or _has(name, b)]
    values = {name: _aligned(name, a, b, plan) for name in chosen}
    if not metrics and _alike(values.get("event_gap_mean_ms"), values.get("tpot_mean_ms")):
        del values["event_gap_mean_ms"]  # one token an event: the same figures twice would look like two findings
    results: dict[str, _Result] = {}
    for name, (values_a, values_b) in values.items():
        kind = METRICS[name]
        refusal = None
        if fair["per_token_only"] and not kind.per_token:
            refusal = "answers differ in length: only figures per token are compared"
        results[name] = _result(kind, values_a, values_b, plan.paired, a, b, refusal)
    family = [name for name, result in results.items() if result.difference is not None]
    adjusted = dict(zip(family, equivalence.holm([results[name].p for name in family]), strict=True))
    return {
        "schema": SCHEMA,
        "a": _side_json(a, runs_a),
        "b": _side_json(b, runs_b),
        "margin": margin,
        "confidence": CONFIDENCE,
        "paired": plan.paired,
        "pairing": plan.why,
        "family": {"size": len(family), "metrics": family, "adjustment": "Holm", "declared": metrics is not None},
        "metrics": {
            name: _metric_json(
                METRICS[name], result, of_points if METRICS[name].points else of_ratio, adjusted.get(name), len(family)
            )
            for name, result in results.items()
        },
        "fairness": fair,
        "gate": _gate(results, adjusted, of_ratio, of_points),
        "notes": _notes(a, b, results),
    }


# --- what is compared ------------------------------------------------------------------------------------------------


def _refuse_void(side: Side) -> None:
    verdict = side.summary["verdict"]
    if verdict in VOID:
        reasons = "; ".join(side.summary["verdict_reasons"])
        raise NotComparableError(f"{_named(side)}: {verdict}, so it says nothing about the server: {reasons}")
    if not _runs(side):
        raise NotComparableError(f"{_named(side)}: no run of it was finished")


def _named(side: Side) -> str:
    return side.name if side.arm is None else f"{side.name}, arm {side.arm}"


def _runs(side: Side) -> list[int]:
    """Return the places in per_run that count: the runs that came to their end."""
    return [place for place, run in enumerate(side.summary["per_run"]) if run["cut_short"] is None]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which runs of the two sides are set against each other, as places in per_run."""

    paired: bool
    why: str
    a: list[int]
    b: list[int]


def _pairing(a: Side, b: Side, runs_a: list[int], runs_b: list[int], asked: bool) -> _Plan:
    blocks_a, blocks_b = _blocks(a, runs_a), _blocks(b, runs_b)
    together = a.arm != b.arm and Path(a.name) == Path(b.name)
    common = sorted(blocks_a.keys() & blocks_b.keys())
    if together and len(common) >= LEAST_RUNS:
        why = f"paired: two arms of one interleaved campaign, {len(common)} blocks"
        return _Plan(True, why, [blocks_a[block] for block in common], [blocks_b[block] for block in common])
    if asked and len(runs_a) == len(runs_b):
        return _Plan(True, f"paired as asked: run by run, {len(runs_a)} pairs", runs_a, runs_b)
    why = "unpaired: separate campaigns"
    if together:
        why = f"unpaired: of {LEAST_RUNS} blocks that pairs need, {len(common)} have a run of both arms"
    if asked:
        why = f"unpaired, though pairs were asked for: {len(runs_a)} and {len(runs_b)} runs do not make pairs"
    return _Plan(False, why, runs_a, runs_b)


def _blocks(side: Side, runs: Sequence[int]) -> dict[int, int]:
    """Return block: place of the run in it."""
    per_run = side.summary["per_run"]
    return {per_run[place]["block"]: place for place in runs if per_run[place].get("block") is not None}


def _has(name: str, side: Side) -> bool:
    return any(_value(METRICS[name], name, side, place) is not None for place in _runs(side))


def _value(kind: Metric, name: str, side: Side, place: int) -> float | None:
    value: float | None
    if kind.over_runs is None:
        value = side.summary["per_run"][place][name]
    else:
        figure = side.summary["over_runs"].get(kind.over_runs)
        value = None if figure is None else figure["values"][place]
    return value


def _aligned(name: str, a: Side, b: Side, plan: _Plan) -> tuple[list[float], list[float]]:
    """Return the values of both sides; pairs stand at one place, and lose both where one has none."""
    values_a = [_value(METRICS[name], name, a, place) for place in plan.a]
    values_b = [_value(METRICS[name], name, b, place) for place in plan.b]
    if plan.paired:
        both = [(x, y) for x, y in zip(values_a, values_b, strict=True) if x is not None and y is not None]
        return [x for x, _ in both], [y for _, y in both]
    return [x for x in values_a if x is not None], [y for y in values_b if y is not None]


def _alike(one: tuple[list[float], list[float]] | None, other: tuple[list[float], list[float]] | None) -> bool:
    if one is None or other is None:
        return False
    return all(len(x) == len(y) and np.allclose(x, y, rtol=1e-6, atol=0) for x, y in zip(one, other, strict=True))


# --- one metric ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Result:
    """Before the family is known. difference: of logarithms, or of points; None where nothing can be said."""

    a: list[float]
    b: list[float]
    paired: bool
    value: float | None  # ratio, or difference in points
    difference: Difference | None
    p: float
    method: str
    pooled: tuple[int, int, int, int] | None  # successes and requests, B then A
    refusal: str | None
    notes: tuple[str, ...]
    limited: bool  # the difference of the means is less than two half-widths of the stamp error


def _result(
    kind: Metric, a: list[float], b: list[float], paired: bool, side_a: Side, side_b: Side, refusal: str | None
) -> _Result:
    notes, limited = _metric_notes(kind, a, b, side_a, side_b), _instrument_limited(kind, a, b, side_a, side_b)
    few = min(len(a), len(b))
    pooled = (*_successes(side_b), *_successes(side_a)) if kind.points else None
    if refusal is None and few == 0:
        refusal = "no value on " + " and ".join(name for name, side in (("A", a), ("B", b)) if not side)
    if refusal is not None:
        return _Result(a, b, paired, None, None, 1.0, "", pooled, refusal, notes, limited)
    if kind.points:
        value, difference = _points(b, a, paired)
        method = "paired t, with Newcombe's interval" if paired else "Welch's t, with Newcombe's interval"
    else:
        try:
            one = _ratio(b, a, paired) if few >= 2 else None
            value = one.value if one else b[0] / a[0]
        except (ValueError, ZeroDivisionError):
            refusal = "a run value of zero or infinity has no ratio"
            return _Result(a, b, paired, None, None, 1.0, "", pooled, refusal, notes, limited)
        difference, method = (one.log, one.method) if one else (None, "")
    if few < LEAST_RUNS:
        refusal = f"no interval from {few} run{'s' if few != 1 else ''} a side: at least {LEAST_RUNS} are needed"
        return _Result(a, b, paired, value, None, 1.0, method, pooled, refusal, notes, limited)
    assert difference is not None
    p = difference.p if pooled is None else max(difference.p, proportions.fisher_p(*pooled))
    return _Result(a, b, paired, value, difference, p, method, pooled, None, notes, limited)


def _ratio(b: list[float], a: list[float], paired: bool) -> Ratio:
    return ratio.log_paired(b, a) if paired else ratio.log_welch(b, a)


def _points(b: list[float], a: list[float], paired: bool) -> tuple[float, Difference | None]:
    value = float(np.mean(b) - np.mean(a))
    if min(len(a), len(b)) < 2:
        return value, None
    return value, ratio.paired(b, a) if paired else ratio.welch(b, a)


def _successes(side: Side) -> tuple[int, int]:
    runs = [side.summary["per_run"][place] for place in _runs(side)]
    return sum(run["succeeded"] for run in runs), sum(run["due"] for run in runs)


def _metric_notes(kind: Metric, a: list[float], b: list[float], side_a: Side, side_b: Side) -> tuple[str, ...]:
    notes = []
    if LEAST_RUNS <= min(len(a), len(b)) < ENOUGH_RUNS:
        notes.append(FEW_RUNS)
    if kind.tail is not None:
        least = min(side.summary["per_run"][place]["succeeded"] for side in (side_a, side_b) for place in _runs(side))
        if least * kind.tail < FEW_TAIL:
            notes.append(f"few tail samples: {least} requests in the smallest run")
    if kind.unit == "ms":
        for name, side in (("A", side_a), ("B", side_b)):
            succeeded, due = _successes(side)
            if due and succeeded < SURVIVORS * due:
                notes.append(f"survivors only on {name}: {1 - succeeded / due:.1%} of the requests failed")
    return tuple(notes)


def _instrument_limited(kind: Metric, a: list[float], b: list[float], side_a: Side, side_b: Side) -> bool:
    if kind.unit != "ms" or not a or not b:
        return False
    error = "gap_error_us" if kind.per_token else "stamp_error_us"
    told = [side.summary["instrument"][error]["halfwidth"] for side in (side_a, side_b)]
    u_ms = max((u / 1e3 for u in told if u is not None), default=0.0)
    return bool(abs(np.mean(b) - np.mean(a)) < 2 * u_ms)


# --- and what is said of it ------------------------------------------------------------------------------------------


def _judge(result: _Result, margin: Margin, p: float) -> Verdict:
    if result.difference is None:
        return Verdict.INCONCLUSIVE
    return equivalence.decide(p, _tost(result, margin))


def _tost(result: _Result, margin: Margin) -> equivalence.Tost:
    assert result.difference is not None
    test = equivalence.tost(result.difference, margin)
    if result.pooled is None:
        return test
    low, high = _hull(result, 1 - 2 * ALPHA)
    return replace(test, low=low, high=high, passes=test.passes and margin.low < low and high < margin.high)


def _hull(result: _Result, confidence: float) -> tuple[float, float]:
    """Return the interval of the difference; of points, the hull of what the runs and the pooled counts say."""
    assert result.difference is not None
    low, high = result.difference.at(confidence)
    if result.pooled is None:
        return low, high
    pooled = proportions.newcombe(*result.pooled, confidence=confidence)
    assert pooled.low is not None
    assert pooled.high is not None
    return min(low, pooled.low), max(high, pooled.high)


def _direction(kind: Metric, result: _Result) -> str | None:
    """Return whether B is better or worse by the estimate; None where they are the same or nobody knows."""
    neutral = 0.0 if kind.points else 1.0
    if result.value is None or result.value == neutral:
        return None
    return "better" if (result.value > neutral) == kind.higher_is_better else "worse"


def _metric_json(kind: Metric, result: _Result, margin: Margin, p_holm: float | None, k: int) -> dict[str, Any]:
    verdict = _judge(result, margin, 1.0 if p_holm is None else p_holm)
    shown: dict[str, Any] = {
        "label": kind.label,
        "unit": kind.unit,
        "scale": "points" if kind.points else "ratio",
        "higher_is_better": kind.higher_is_better,
        "a": _values_json(kind, result.a),
        "b": _values_json(kind, result.b),
        "b_to_a": _estimate(kind, result).to_json(),
        "method": result.method or None,
        "df": None,
        "p": None,
        "p_holm": None,
        "family_interval": None,
        "equivalence": None,
        "verdict": verdict.value,
        "direction": _direction(kind, result),
        "why": result.refusal,
        "detectable": None,
        "secondary": None,
        "notes": list(result.notes),
    }
    if result.difference is None:
        return shown
    test = _tost(result, margin)
    back = (lambda x: x) if kind.points else math.exp
    low, high = _hull(result, 1 - ALPHA / k)
    shown |= {
        "df": significant(result.difference.df),
        "p": significant(result.p),
        "p_holm": significant(p_holm),
        "family_interval": {
            "low": significant(back(low)),
            "high": significant(back(high)),
            "confidence": round(1 - ALPHA / k, 4),
        },
        "equivalence": {
            "p": significant(test.p),
            "low": significant(back(test.low)),
            "high": significant(back(test.high)),
            "confidence": 1 - 2 * ALPHA,
            "margin": [significant(back(margin.low)), significant(back(margin.high))],
        },
        "secondary": _secondary(kind, result),
    }
    if verdict in (Verdict.DIFFERENT, Verdict.NEGLIGIBLE) and result.limited:
        shown["notes"].append("instrument-limited: the difference is less than two half-widths of the stamp error")
    if verdict is Verdict.INCONCLUSIVE:
        n, other = len(result.b), None if result.paired else len(result.a)
        found = planning.detectable(result.difference, n, other, margin.high)
        shown["detectable"] = None if found is None else found.to_json(back)
    return shown


def _values_json(kind: Metric, values: list[float]) -> dict[str, Any]:
    middle = None
    if values:
        geometric = not kind.points and min(values) > 0
        middle = math.exp(float(np.mean(np.log(values)))) if geometric else float(np.mean(values))
    return {"value": significant(middle), "n": len(values), "values": [significant(value) for value in values]}


def _estimate(kind: Metric, result: _Result) -> Estimate:
    n = min(len(result.a), len(result.b))
    if result.difference is None:
        return Estimate(result.value, n=n, notes=(result.refusal or "",))
    low, high = _hull(result, CONFIDENCE)
    if not kind.points:
        low, high = math.exp(low), math.exp(high)
    return Estimate(result.value, low, high, CONFIDENCE, n)


def _secondary(kind: Metric, result: _Result) -> dict[str, Any]:
    """Return the same question asked in other ways. They are shown beside the ratio, and decide nothing."""
    a, b, paired = result.a, result.b, result.paired
    moved = ranks.shift_of_pairs(b, a) if paired else ranks.shift(b, a)
    fieller = None
    if not kind.points:
        other = ratio.fieller_paired(b, a) if paired else ratio.fieller_unpaired(b, a)
        fieller = {"value": significant(other.value), "low": significant(other.low), "high": significant(other.high)}
    p = ranks.sign_flip_p(b, a) if paired else ranks.rank_sum_p(b, a)
    least = ranks.least_p_sign_flip(len(b)) if paired else ranks.least_p_rank_sum(len(b), len(a))
    return {
        "ratio_of_means": fieller,
        "shift": {
            "value": significant(moved.value),
            "low": significant(moved.low),
            "high": significant(moved.high),
            "confidence": None if moved.confidence is None else round(moved.confidence, 4),
        },
        "exact_test": "sign flip" if paired else "rank sum",
        "exact_p": significant(p),
        "least_p": significant(least),
        "permutation_p": None if paired else significant(ranks.permutation_p(b, a)),
        "cliffs_delta": significant(ranks.cliffs_delta(b, a)),
        "agrees": None if p is None or least >= ALPHA else (p < ALPHA) == (result.p < ALPHA),
    }


# --- the whole -------------------------------------------------------------------------------------------------------


def _gate(
    results: Mapping[str, _Result], adjusted: Mapping[str, float], of_ratio: Margin, of_points: Margin
) -> dict[str, Any]:
    """Return {"verdict", "worse", "undecided"}: worse beyond the margin on any metric, held on all, or undecided."""
    worse: list[str] = []
    undecided: list[str] = []
    for name, result in results.items():
        kind = METRICS[name]
        margin = of_points if kind.points else of_ratio
        verdict = _judge(result, margin, adjusted.get(name, 1.0))
        if verdict is Verdict.INCONCLUSIVE:
            undecided.append(name)
        elif verdict is Verdict.DIFFERENT and _direction(kind, result) == "worse":
            assert result.difference is not None
            beyond = not margin.low <= result.difference.value <= margin.high
            (worse if beyond else undecided).append(name)
    return {
        "verdict": "worse" if worse else "undecided" if undecided else "held",
        "worse": worse,
        "undecided": undecided,
    }


def _notes(a: Side, b: Side, compared: Collection[str]) -> list[str]:
    notes = []
    figures = {METRICS[name].over_runs for name in compared}
    for name, side in (("A", a), ("B", b)):
        per_run = side.summary["per_run"]
        out = [f"run {run['run']} ({run['cut_short']})" for run in per_run if run["cut_short"] is not None]
        if out:
            notes.append(f"{name}: left out: {', '.join(out)}")
        missing = side.summary.get("missing_runs") or []
        missing = [run for run in missing if side.arm is None or run["arm"] == side.arm]
        if missing:
            notes.append(f"{name}: missing of the runs that were planned: {len(missing)}")
        unusual = [str(per_run[place]["run"]) for place in _runs(side) if figures & {*per_run[place]["outlier_in"]}]
        if unusual:
            notes.append(f"{name}: stands out among its runs, and was kept: run {', '.join(unusual)}")
        if side.summary["verdict"] != "ok":
            notes.append(f"{name}: verdict {side.summary['verdict']}")
    return notes


def _side_json(side: Side, runs: Sequence[int]) -> dict[str, Any]:
    return {
        "directory": side.name,
        "arm": side.arm,
        "runs": len(runs),
        "requests": _successes(side)[0],
        "verdict": side.summary["verdict"],
        "targets": side.summary["targets"],
        "load": side.summary["load"],
    }
