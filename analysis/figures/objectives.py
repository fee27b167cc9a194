"""Were the stated objectives held? An answer is `held`, `failed` or, where the data cannot decide, `inconclusive`.

The run is the unit. With three runs or more an objective is held if its figure, at the bad end of its interval, is
within the limit (one-sided, 5 %), and failed if it is beyond it at the good end; for a percentile that is the hull of
docs/methodology.md#percentiles. From one or two runs a percentile or an error rate can still be decided for these runs
alone, and the answer says `within-run`: "p99 <= L" is a statement about how many requests exceed L, held if their
number would be improbably low (5 %) with one in a hundred exceeding L, and failed if it would be improbably high. So
299 requests with none over the limit hold a p99, and 20 decide nothing. Means and rates are not decided by fewer than
three runs.

A failed request exceeds every limit. A request that the client cancelled exceeds the limits that it had already
outlasted, and is no evidence on others.

Goodput counts the requests that met all terms: the limits on latencies that a request has once. Where several
percentiles of one latency are limited, its term is the limit on the highest, which is the one meant for every request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from msgspec import Struct
from scipy import special

from analysis.catalogue import Answer, Basis, RunVerdict
from analysis.estimate import Estimate, Figure, Float64, Note, NoteCode, note
from analysis.figures import throughput
from analysis.figures.metrics import NS_PER_MS, LatencyFigures, forgiven, gap_means, latency_means
from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT, Bool
from analysis.stats import intervals
from analysis.stats.quantiles import Sorted, SortedArray
from loadgen.latency import ERROR_RATE, OBJECTIVES, Objective
from loadgen.record import Outcome

__all__ = ["Decided", "Figures", "Terms", "decide", "good", "terms_of"]

ERROR = 0.05  # of each one-sided decision
Terms = dict[str, float]


class Figures(Protocol):
    """The metrics of a campaign, by their keys in the catalogue."""

    def latency(self, key: str) -> LatencyFigures | None: ...

    def rate(self, key: str) -> Figure: ...


class Decided(Struct, frozen=True, kw_only=True):
    """An objective, its figure and whether it was held."""

    name: str
    limit: float
    value: Figure
    verdict: Answer
    basis: Basis
    reason: str | None  # of an inconclusive answer
    reason_code: Note | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The figure of an objective and the answer, before the campaign's verdict applies."""

    value: Figure
    answer: Answer
    basis: Basis


def terms_of(objectives: Mapping[str, float]) -> Terms:
    """The limits that a request must meet to count as goodput: {metric: limit, ms}."""
    best: dict[str, tuple[float, float]] = {}
    for name, limit in objectives.items():
        objective = OBJECTIVES.get(name)
        if objective is None or objective.quantile is None or objective.metric not in latency.LATENCIES:
            continue
        best[objective.metric] = max(best.get(objective.metric, (0.0, 0.0)), (objective.quantile, limit))
    return {metric: limit for metric, (_, limit) in best.items()}


def good(m: Measured, terms: Terms) -> Bool | None:
    """Whether each request met all terms, shape (n,); None if that is not known. A one-token answer meets any TPOT."""
    if not terms or ("tpot_ms" in terms and (m.count_tokens() == ABSENT)[m.requests.ok].any()):
        return None
    met = m.requests.ok.copy()
    for metric, limit in terms.items():
        durations = latency.LATENCIES[metric](m)
        met &= np.isnan(durations) | (durations <= limit * NS_PER_MS)
    return met


def decide(m: Measured, metrics: Figures, verdict: RunVerdict) -> tuple[Decided, ...]:
    """Every objective with its value and its verdict, in the order stated."""
    return tuple(_decided(m, name, limit, metrics, verdict) for name, limit in m.manifest.objectives.items())


def _decided(m: Measured, name: str, limit: float, metrics: Figures, verdict: RunVerdict) -> Decided:
    objective = OBJECTIVES.get(name)
    outcome = _not_measured() if objective is None else _answer(m, objective, limit, metrics)
    answer = outcome.answer
    reason = _why_inconclusive(outcome) if answer is Answer.INCONCLUSIVE else None
    # A run that the client spoilt decides nothing; an unstable run can fail an objective but never hold one.
    if verdict is RunVerdict.LIMITED or (verdict is RunVerdict.UNSTABLE and answer is Answer.HELD):
        answer, reason = Answer.INCONCLUSIVE, note(NoteCode.SEE_VERDICT, verdict=verdict.value)
    return Decided(
        name=name,
        limit=limit,
        value=outcome.value,
        verdict=answer,
        basis=outcome.basis,
        reason=None if reason is None else reason.sentence,
        reason_code=reason,
    )


def _why_inconclusive(outcome: _Outcome) -> Note:
    value = outcome.value
    missing = value.note(NoteCode.NO_INTERVAL) or value.note(NoteCode.NOT_MEASURED)
    if missing is not None:
        return missing
    if value.n == 0:
        return note(NoteCode.NO_DATA)
    if outcome.basis is Basis.WITHIN_RUN:
        return note(NoteCode.REQUESTS_CANNOT_DECIDE, n=value.n, enough=intervals.ENOUGH_RUNS)
    return note(NoteCode.LIMIT_IN_DOUBT)


def _not_measured() -> _Outcome:
    value = Estimate(None, notes=(note(NoteCode.NOT_MEASURED),)).figure()
    return _Outcome(value, Answer.INCONCLUSIVE, Basis.RUNS)


def _answer(m: Measured, objective: Objective, limit: float, metrics: Figures) -> _Outcome:
    if objective.metric == ERROR_RATE:
        return _error_rate(m, limit)
    m = m.counted
    if objective.at_least:
        return _least_rate(m, objective.metric, limit, metrics)
    figures = metrics.latency(objective.metric)
    if figures is None or objective.statistic is None:
        return _not_measured()
    value = figures.statistic(objective.statistic)
    if objective.quantile is None:
        means = latency_means(m, objective.metric) if objective.metric in latency.LATENCIES else gap_means(m)
        return _Outcome(value, _by_runs([mean for mean in means if not np.isnan(mean)], limit), Basis.RUNS)
    if objective.metric not in latency.LATENCIES:
        gaps = [m.gaps.by_run[run] for run in m.runs if run in m.gaps.by_run]
        answer = _by_hull(m.gaps.stamped, gaps, objective.quantile, limit * NS_PER_MS)
        return _Outcome(value, answer, Basis.RUNS)
    return _percentile(m, value, latency.LATENCIES[objective.metric](m), objective.quantile, limit)


def _least_rate(m: Measured, metric: str, limit: float, metrics: Figures) -> _Outcome:
    met = good(m, terms_of(m.manifest.objectives))
    runs = [run for run in throughput.of_runs(m, met).get(metric, []) if run is not None]
    return _Outcome(metrics.rate(metric), _by_runs(runs, limit, at_least=True), Basis.RUNS)


def _percentile(m: Measured, value: Figure, durations: Float64, q: float, limit: float) -> _Outcome:
    """Whether the q-quantile of `durations`, one per request in ns, is within `limit` ms."""
    decisive, over = _decisive(m, durations, limit)
    by_run = [decisive & (m.requests.run == run) for run in m.runs]
    if sum(bool(of_run.any()) for of_run in by_run) < intervals.LEAST_RUNS:
        return _Outcome(value, by_count(int(over.sum()), int(decisive.sum()), 1 - q), Basis.WITHIN_RUN)
    # A request that failed counts as one that took forever.
    lasted = np.where(np.isnan(durations) | ~m.answered, np.inf, durations)
    runs_lasted = [SortedArray(lasted[of_run]) for of_run in by_run]
    return _Outcome(value, _by_hull(SortedArray(lasted[decisive]), runs_lasted, q, limit * NS_PER_MS), Basis.RUNS)


def _decisive(m: Measured, durations: Float64, limit_ms: float) -> tuple[Bool, Bool]:
    """(whether each request is evidence, whether it is over the limit), both of shape (n,); failures included."""
    cancelled = m.requests.ended(Outcome.CANCELLED)
    answered = m.answered & ~np.isnan(durations)
    lasted = m.requests.done_ns - m.requests.intended_ns
    outlasted = cancelled & (m.requests.done_ns != ABSENT) & (lasted > limit_ms * NS_PER_MS)
    failed = m.inside & ~m.requests.ok & (~cancelled | outlasted)
    return answered | failed, (answered & (durations > limit_ms * NS_PER_MS)) | failed


def _by_runs(runs: Sequence[float], limit: float, *, at_least: bool = False) -> Answer:
    """The answer by the t interval of the runs' values."""
    figure = intervals.over_runs(runs, 0, 1 - 2 * ERROR)
    return _by_interval(figure.low, figure.high, limit, at_least=at_least)


def _by_hull(data: Sorted, runs: Sequence[Sorted], q: float, limit: float) -> Answer:
    some = [run for run in runs if run.n]
    if len(some) < intervals.LEAST_RUNS:
        return Answer.INCONCLUSIVE
    return _by_interval(*intervals.hull(data, q, some, 1 - 2 * ERROR), limit)


def by_count(over: int, n: int, allowed: float) -> Answer:
    """Whether at most the share `allowed` of all requests is over the limit, when `over` of `n` are."""
    if n and special.bdtr(over, n, allowed) <= ERROR:
        return Answer.HELD
    if over and special.bdtrc(over - 1, n, allowed) <= ERROR:
        return Answer.FAILED
    return Answer.INCONCLUSIVE


def _by_interval(low: float | None, high: float | None, limit: float, *, at_least: bool = False) -> Answer:
    if at_least:
        low, high, limit = (None if high is None else -high), (None if low is None else -low), -limit
    if high is not None and high <= limit:
        return Answer.HELD
    return Answer.FAILED if low is not None and low > limit else Answer.INCONCLUSIVE


def _error_rate(m: Measured, limit: float) -> _Outcome:
    counted = m.inside & ~forgiven(m)
    failed = counted & ~m.requests.ok
    n, k = int(counted.sum()), int(failed.sum())
    by_run = [counted & (m.requests.run == run) for run in m.counted.runs]  # failures count in every run
    shares = [float(failed[run].mean()) for run in by_run if run.any()]
    value = intervals.proportion(k, n, shares, m.confidence).figure()
    if limit == 0 and n:  # "none at all" is about these requests; no number of them proves it for all
        return _Outcome(value, Answer.FAILED if k else Answer.HELD, Basis.WITHIN_RUN)
    answer = by_count(k, n, limit)
    if len(shares) < intervals.LEAST_RUNS:
        return _Outcome(value, answer, Basis.WITHIN_RUN)
    plain = intervals.t_half_width(shares, 1 - 2 * ERROR)
    # The runs must agree with the count: failures come in clusters, which a count ignores.
    low, high = k / n - plain, k / n + plain
    agreed = (answer is Answer.HELD and high <= limit) or (answer is Answer.FAILED and low > limit)
    return _Outcome(value, answer if agreed else Answer.INCONCLUSIVE, Basis.RUNS)
