"""Were the stated objectives held? An answer is `held`, `failed` or, where the data cannot decide, `inconclusive`.

"p99 <= L" is a statement about how many requests exceed L: it is held if as few as were seen would be improbable
(5 %) with one in a hundred exceeding it, and failed if as many would be. So 299 requests with none over the limit
hold a p99, and 20 decide nothing. A failed request exceeds every limit. One that we cancelled exceeds a limit it had
already outlasted, and says nothing otherwise.

Goodput asks of each request whether it met all terms: those are the limits on latencies that a request has once; if
several percentiles of one are limited, the highest, for that is the one meant for every request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis import intervals, latency
from analysis.estimate import Estimate, EstimateJson
from analysis.instrument import Verdict
from analysis.measured import Measured
from analysis.metrics import NS_PER_MS, QUANTILES, forgiven
from analysis.requests import ABSENT, Bool
from loadgen.record import Outcome

__all__ = ["Terms", "decide", "good", "objectives_of", "terms_of"]

ERROR = 0.05  # of each one-sided decision
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
    value, answer = _answer(m, aim, metrics)
    # What we spoilt ourselves decides nothing; an unstable run can fail an objective but never hold one.
    if verdict.name == "generator-limited" or (verdict.name == "unstable" and answer == "held"):
        answer = "inconclusive"
    return {"name": aim.name, "limit": aim.limit, "value": value, "verdict": answer}


def _answer(m: Measured, aim: _Limit, metrics: Mapping[str, Any]) -> tuple[EstimateJson, str]:
    if aim.name == "error_rate":
        return _error_rate(m, aim.limit)
    if aim.name.endswith("_min"):
        value: EstimateJson = metrics[aim.name.removesuffix("_min")]
        return value, _by_interval(value["low"], value["high"], aim.limit, at_least=True)
    match = _LATENCY.fullmatch(aim.name)
    figures = metrics.get(f"{match['metric']}_ms") if match else None
    if match is None or figures is None:
        return Estimate(None, notes=("not measured",)).to_json(), "inconclusive"
    metric, stat = f"{match['metric']}_ms", match["stat"]
    if metric not in latency.LATENCIES:
        return figures[stat], _by_interval(figures[stat]["low"], figures[stat]["high"], aim.limit)
    durations = latency.LATENCIES[metric](m)
    if stat == "mean":
        series = durations[m.answered & ~np.isnan(durations)] / NS_PER_MS
        mean = intervals.mean(series, 1 - 2 * ERROR)
        return figures["mean"], _by_interval(mean.low, mean.high, aim.limit)
    over, n = _violations(m, durations, aim.limit)
    return figures[stat], by_count(over, n, 1 - QUANTILES[stat])


def _violations(m: Measured, durations: NDArray[np.float64], limit_ms: float) -> tuple[int, int]:
    """Return (requests over the limit, requests that say whether they are), failures included."""
    ours = m.requests.ended(Outcome.CANCELLED)
    answered = m.answered & ~np.isnan(durations)
    lasted = m.requests.done_ns - m.requests.intended_ns
    outlasted = ours & (m.requests.done_ns != ABSENT) & (lasted > limit_ms * NS_PER_MS)
    failed = m.inside & ~m.requests.ok & (~ours | outlasted)
    over = int((durations[answered] > limit_ms * NS_PER_MS).sum()) + int(failed.sum())
    return over, int(answered.sum()) + int(failed.sum())


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


def _error_rate(m: Measured, limit: float) -> tuple[EstimateJson, str]:
    counted = m.inside & ~forgiven(m)
    n, failed = int(counted.sum()), int((counted & ~m.requests.ok).sum())
    value = intervals.proportion(failed, n).to_json()
    if limit == 0 and n:  # "none at all" is about these requests; no number of them proves it of all
        return value, "failed" if failed else "held"
    return value, by_count(failed, n, limit)
