"""Were the stated objectives held? An answer is `held`, `failed` or, where the data cannot decide, `inconclusive`.

The run is the unit. With three runs or more an objective is held if its figure, at the bad end of its interval, is
within the limit (one-sided, 5 %), and failed if it is beyond it at the good end; for a percentile that is the hull of
METHODOLOGY 4.4. From one or two runs a percentile or an error rate can still be decided for these runs alone, and the
answer says `within-run`: "p99 <= L" is a statement about how many requests exceed L, held if as few as were seen would
be improbable (5 %) with one in a hundred exceeding it, and failed if as many would be. So 299 requests with none over
the limit hold a p99, and 20 decide nothing. Means and rates are not decided by fewer than three runs.

A failed request exceeds every limit. One that we cancelled exceeds a limit it had already outlasted, and says nothing
otherwise.

Goodput asks of each request whether it met all terms: those are the limits on latencies that a request has once; if
several percentiles of one are limited, the highest, for that is the one meant for every request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.estimate import Estimate, EstimateJson
from analysis.figures import throughput
from analysis.figures.instrument import Verdict
from analysis.figures.metrics import NS_PER_MS, QUANTILES, forgiven, gap_means, latency_means
from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT, Bool
from analysis.stats import intervals
from analysis.stats.quantiles import Sorted, SortedArray
from loadgen.record import Outcome

__all__ = ["Terms", "decide", "good", "objectives_of", "terms_of"]

ERROR = 0.05  # of each one-sided decision
OVER_RUNS = "runs"
_LATENCY = re.compile(r"(?P<metric>.+)_(?P<stat>mean|p50|p90|p95|p99|p999)_ms")
Terms = dict[str, float]


@dataclass(frozen=True, slots=True)
class _Limit:
    name: str
    limit: float


def objectives_of(m: Measured) -> dict[str, float]:
    profile = m.manifest.get("profile")
    stated = profile.get("objectives") if isinstance(profile, Mapping) else None
    return {name: float(limit) for name, limit in (stated or {}).items()}


def terms_of(objectives: Mapping[str, float]) -> Terms:
    """Return what goodput asks of one request: {metric: limit, ms}."""
    best: dict[str, tuple[float, float]] = {}
    for name, limit in objectives.items():
        match = _LATENCY.fullmatch(name)
        if not match or match["stat"] == "mean" or f"{match['metric']}_ms" not in latency.LATENCIES:
            continue
        metric = f"{match['metric']}_ms"
        best[metric] = max(best.get(metric, (0.0, 0.0)), (QUANTILES[match["stat"]], limit))
    return {metric: limit for metric, (_, limit) in best.items()}


def good(m: Measured, terms: Terms) -> Bool | None:
    """Return which requests met all terms; None if that cannot be said. A one-token answer meets any TPOT."""
    if not terms or ("tpot_ms" in terms and (m.count_tokens() == ABSENT)[m.requests.ok].any()):
        return None
    met = m.requests.ok.copy()
    for metric, limit in terms.items():
        durations = latency.LATENCIES[metric](m)
        met &= np.isnan(durations) | (durations <= limit * NS_PER_MS)
    return met


def decide(
    m: Measured, objectives: Mapping[str, float], metrics: Mapping[str, Any], verdict: Verdict
) -> list[dict[str, Any]]:
    """Return every objective with its value and its verdict, in the order stated."""
    return [_decided(m, _Limit(name, limit), metrics, verdict) for name, limit in objectives.items()]


def _decided(m: Measured, aim: _Limit, metrics: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    value, answer, basis = _answer(m, aim, metrics)
    reason = _why_inconclusive(value, basis) if answer == "inconclusive" else None
    # What we spoilt ourselves decides nothing; an unstable run can fail an objective but never hold one.
    if verdict.name == "generator-limited" or (verdict.name == "unstable" and answer == "held"):
        answer, reason = "inconclusive", f"{verdict.name}, see the verdict"
    return {
        **{"name": aim.name, "limit": aim.limit, "value": value},
        **{"verdict": answer, "basis": basis, "reason": reason},
    }


def _why_inconclusive(value: EstimateJson, basis: str) -> str:
    told = next((note for note in value["notes"] if note.startswith(("no interval from", "not measured"))), None)
    if told is not None:
        return told
    if value["n"] == 0:
        return "no data"
    if basis == intervals.WITHIN_RUN:
        return f"{value['n']} requests cannot decide it: ask for more, or for --runs 5"
    return "the limit lies within the doubt: ask for more runs"


_Answer = tuple[EstimateJson, str, str]  # the figure, the verdict, and whether runs decided or the requests of one


def _answer(m: Measured, aim: _Limit, metrics: Mapping[str, Any]) -> _Answer:
    if aim.name == "error_rate":
        return _error_rate(m, aim.limit)
    m = m.counted
    if aim.name.endswith("_min"):
        value: EstimateJson = metrics[aim.name.removesuffix("_min")]
        name = aim.name.removesuffix("_min")
        met = good(m, terms_of(objectives_of(m)))
        runs = [run for run in throughput.of_runs(m, met).get(name, []) if run is not None]
        return value, _by_runs(runs, aim.limit, at_least=True), OVER_RUNS
    match = _LATENCY.fullmatch(aim.name)
    figures = metrics.get(f"{match['metric']}_ms") if match else None
    if match is None or figures is None:
        return Estimate(None, notes=("not measured",)).to_json(), "inconclusive", OVER_RUNS
    metric, stat = f"{match['metric']}_ms", match["stat"]
    if stat == "mean":
        means = latency_means(m, metric) if metric in latency.LATENCIES else gap_means(m)
        return figures[stat], _by_runs([mean for mean in means if not np.isnan(mean)], aim.limit), OVER_RUNS
    q = QUANTILES[stat]
    if metric not in latency.LATENCIES:
        gaps = [m.gaps.by_run[run] for run in m.runs if run in m.gaps.by_run]
        return figures[stat], _by_hull(m.gaps.stamped, gaps, q, aim.limit * NS_PER_MS), OVER_RUNS
    durations = latency.LATENCIES[metric](m)
    told, over = _told(m, durations, aim.limit)
    runs_told = [told & (m.requests.run == run) for run in m.runs]
    if sum(bool(mine.any()) for mine in runs_told) < intervals.LEAST_RUNS:
        return figures[stat], by_count(int(over.sum()), int(told.sum()), 1 - q), intervals.WITHIN_RUN
    # A request that is over without an answer, by failing, would have taken for ever.
    lasted = np.where(np.isnan(durations) | ~m.answered, np.inf, durations)
    runs_lasted = [SortedArray(lasted[mine]) for mine in runs_told]
    return figures[stat], _by_hull(SortedArray(lasted[told]), runs_lasted, q, aim.limit * NS_PER_MS), OVER_RUNS


def _told(m: Measured, durations: NDArray[np.float64], limit_ms: float) -> tuple[Bool, Bool]:
    """Return (which requests say whether they are over the limit, which are), failures included."""
    ours = m.requests.ended(Outcome.CANCELLED)
    answered = m.answered & ~np.isnan(durations)
    lasted = m.requests.done_ns - m.requests.intended_ns
    outlasted = ours & (m.requests.done_ns != ABSENT) & (lasted > limit_ms * NS_PER_MS)
    failed = m.inside & ~m.requests.ok & (~ours | outlasted)
    return answered | failed, (answered & (durations > limit_ms * NS_PER_MS)) | failed


def _by_runs(runs: Sequence[float], limit: float, *, at_least: bool = False) -> str:
    """Decide by the t interval of what each run gave."""
    figure = intervals.over_runs(runs, 0, 1 - 2 * ERROR)
    return _by_interval(figure.low, figure.high, limit, at_least=at_least)


def _by_hull(data: Sorted, runs: Sequence[Sorted], q: float, limit: float) -> str:
    held = [run for run in runs if run.n]
    if len(held) < intervals.LEAST_RUNS:
        return "inconclusive"
    return _by_interval(*intervals.hull(data, q, held, 1 - 2 * ERROR), limit)


def by_count(over: int, n: int, allowed: float) -> str:
    """Decide "at most the share `allowed` is over", having seen `over` of `n`."""
    if n and special.bdtr(over, n, allowed) <= ERROR:
        return "held"
    if over and special.bdtrc(over - 1, n, allowed) <= ERROR:
        return "failed"
    return "inconclusive"


def _by_interval(low: float | None, high: float | None, limit: float, *, at_least: bool = False) -> str:
    if at_least:
        low, high, limit = (None if high is None else -high), (None if low is None else -low), -limit
    if high is not None and high <= limit:
        return "held"
    return "failed" if low is not None and low > limit else "inconclusive"


def _error_rate(m: Measured, limit: float) -> _Answer:
    counted = m.inside & ~forgiven(m)
    failed = counted & ~m.requests.ok
    n, k = int(counted.sum()), int(failed.sum())
    mine = [counted & (m.requests.run == run) for run in m.counted.runs]  # failures count wherever they were
    shares = [float(failed[run].mean()) for run in mine if run.any()]
    value = intervals.proportion(k, n, shares, m.confidence).to_json()
    if limit == 0 and n:  # "none at all" is about these requests; no number of them proves it of all
        return value, "failed" if k else "held", intervals.WITHIN_RUN
    if len(shares) < intervals.LEAST_RUNS:
        return value, by_count(k, n, limit), intervals.WITHIN_RUN
    plain = intervals.t_half_width(shares, 1 - 2 * ERROR)
    answer = by_count(k, n, limit)
    # The runs must agree with the count: failures come in clusters, of which counts know nothing.
    low, high = k / n - plain, k / n + plain
    agreed = (answer == "held" and high <= limit) or (answer == "failed" and low > limit)
    return value, answer if agreed else "inconclusive", OVER_RUNS
