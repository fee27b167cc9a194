"""The figures of each latency: mean, percentiles, extremes, and the notes that belong beside them.

A figure is first estimated over the runs (intervals.py), then widened by the instrument's error, then marked: survivors
only, several tokens a read, few tail samples. A verdict that forbids percentiles refuses them here; means stay, for the
total time is still what it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate, significant
from analysis.figures.instrument import Instrument, Verdict
from analysis.records import latency
from analysis.records.distribution import BIN_ERROR, Binned
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT, Bool
from analysis.stats import intervals
from analysis.stats.quantiles import Sorted, SortedArray, quantile, type7
from loadgen import latency as definitions
from loadgen.record import Outcome

__all__ = [
    "QUANTILES",
    "Context",
    "event_gaps",
    "gap_means",
    "itl_refusal",
    "latency_means",
    "one_token_share",
    "request_latencies",
]

Float64 = NDArray[np.float64]
Figures = dict[str, Any]

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
ITL_ONE_TOKEN_SHARE = 0.95  # METHODOLOGY 3.5
ITL_CENSORED_SHARE = 0.01
CENSORED_MARK = 0.01
PAIR_APART = 0.01  # two extremes of a percentile further apart than this are both told
SURVIVORS = 0.99
NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Context:
    """What every figure of a campaign has to know beside its data."""

    instrument: Instrument
    verdict: Verdict

    def judged(self, estimate: Estimate, halfwidth_us: float | None) -> Estimate:
        """Return a percentile as it may be printed: refused by the verdict, or with the instrument's error."""
        if self.verdict.forbids_percentiles:
            return estimate.without_value(f"no percentile: {self.verdict.name}")
        return intervals.with_instrument(estimate, None if halfwidth_us is None else halfwidth_us / 1e3)


def request_latencies(m: Measured, context: Context, chosen: Bool) -> dict[str, Figures]:
    """Return the figures of every latency that a request has once. chosen: which of the answered ones."""
    return {name: _request_latency(m, context, name, chosen) for name in latency.LATENCIES}


def _request_latency(m: Measured, context: Context, name: str, chosen: Bool) -> Figures:
    durations = latency.LATENCIES[name](m)
    kept = m.answered & chosen & ~np.isnan(durations)
    series = durations[kept] / NS_PER_MS
    data = SortedArray(series)
    runs = [SortedArray(one) for one in _by_run(m, durations, kept)]
    common = _common_notes(m, name, chosen)
    halfwidth = {"queue_ms": None, "tpot_ms": context.instrument.gap_halfwidth_us}.get(
        name, context.instrument.ttft_halfwidth_us
    )
    mean = intervals.over_runs(_known(latency_means(m, name, chosen)), data.n, m.confidence)
    mean = intervals.with_instrument(mean, None if halfwidth is None else halfwidth / 1e3)
    figures: Figures = {"mean": mean.noted(*common, *_mean_notes(m, name, kept)).to_json()}
    for label, q in QUANTILES.items():
        notes = [*_with_failures(m, name, series, chosen, q), *_first_token_pair(m, name, kept, data, q)]
        estimate = intervals.percentile(data, q, runs, m.confidence).noted(*notes, *common)
        figures[label] = context.judged(estimate, halfwidth).to_json()
    figures["min"] = significant(data.at(1)) if data.n else None
    figures["max"] = significant(data.at(data.n)) if data.n else None
    figures["sd"] = significant(float(durations[kept].std(ddof=1)) / NS_PER_MS) if data.n > 1 else None
    return figures


def latency_means(m: Measured, name: str, chosen: Bool | None = None) -> list[float]:
    """Return the mean of a latency in each run, ms, in order of `m.windows`; NaN where a run has none.

    chosen: which of the answered requests; None: all.
    """
    durations = latency.LATENCIES[name](m)
    kept = m.answered & ~np.isnan(durations)
    if chosen is not None:
        kept &= chosen
    return [float(one.mean()) if len(one) else np.nan for one in _by_run(m, durations, kept)]


def _by_run(m: Measured, durations: Float64, kept: Bool) -> list[Float64]:
    return [durations[kept & (m.requests.run == run)] / NS_PER_MS for run in m.runs]


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if not np.isnan(value)]


def _common_notes(m: Measured, name: str, chosen: Bool) -> list[str]:
    notes = []
    if name == "tpot_ms" and (m.count_tokens() == ABSENT)[m.answered & chosen].any():
        notes.append("requests without token counts left out")
    due = m.inside & chosen & ~forgiven(m)
    if due.any() and (m.requests.ok & due).sum() < SURVIVORS * due.sum():
        notes.append("survivors only")
    return notes


def forgiven(m: Measured) -> Bool:
    """Return the requests that nobody can be blamed for: in flight when somebody interrupted the run."""
    interrupted = [window.run for window in m.windows if window.interrupted]
    blameless: Bool = m.requests.ended(Outcome.CANCELLED) & np.isin(m.requests.run, interrupted)
    return blameless


def _mean_notes(m: Measured, name: str, kept: Bool) -> list[str]:
    if name != "tpot_ms" or not kept.any():
        return []
    if (m.tokens.first_tokens == ABSENT)[kept].any():
        share, _ = one_token_share(m)
        certain = share is not None and share >= ITL_ONE_TOKEN_SHARE
        return [] if certain else ["first event taken as one token"]
    usual = latency.tpot_usual(m)[kept]
    own = latency.tpot(m)[kept]
    if np.array_equal(usual, own):
        return []
    return [f"with k_1 = 1, as usual elsewhere: {usual.mean() / NS_PER_MS:.4g}"]


def _with_failures(m: Measured, name: str, series: Float64, chosen: Bool, q: float) -> list[str]:
    """Return the percentile with failed requests as +infinity, where more than 1 % failed."""
    if name not in ("ttft_ms", "e2e_ms"):
        return []
    due = m.inside & chosen & ~forgiven(m)
    failed = int((due & ~m.requests.ok).sum())
    if not failed or failed <= (1 - SURVIVORS) * due.sum():
        return []
    value = type7(SortedArray(np.append(series, np.full(failed, np.inf))), q)
    return [f"with failures as +∞: {value:.4g}" if np.isfinite(value) else "with failures as +∞: +∞"]


def _first_token_pair(m: Measured, name: str, kept: Bool, data: Sorted, q: float) -> list[str]:
    """Return both extremes of a TTFT percentile, where first tokens that shared a read could move it by over 1 %."""
    if name not in ("ttft_ms", "ttft_service_ms") or data.n == 0:
        return []
    if (m.tokens.first_least_ns == m.tokens.first_ns)[kept].all():
        return []
    start, duration = (
        (m.requests.intended_ns, definitions.ttft)
        if name == "ttft_ms"
        else (m.requests.sent_ns, definitions.ttft_service)
    )
    least = SortedArray(duration(start, m.tokens.first_least_ns)[kept] / NS_PER_MS)
    return _pair(type7(least, q), type7(data, q), "first tokens share a read")


def _pair(low: float, high: float, why: str) -> list[str]:
    low, high = min(low, high), max(low, high)
    return [f"{why}: between {low:.4g} and {high:.4g}"] if high - low > PAIR_APART * high else []


def event_gaps(m: Measured, context: Context, endpoint: int | None = None) -> Figures:
    """Return the figures of the gaps between token events; of one endpoint, by its code, percentiles without doubt."""
    gaps = m.gaps.stamped if endpoint is None else m.gaps.by_endpoint[endpoint]
    data = _InMs(gaps)
    halfwidth = context.instrument.gap_halfwidth_us
    notes = [] if gaps.exact else ["percentiles from a histogram, within 0.1 %"]
    share = context.instrument.censored_share
    if share is not None and share > CENSORED_MARK:
        notes.append(f"{share:.1%} of events share a read with a later one")
    spread = _InMs(Binned(*m.gaps.spread())) if endpoint is None and m.gaps.moved else None
    runs = [_InMs(m.gaps.by_run[run]) for run in m.runs if run in m.gaps.by_run]
    mean = intervals.over_runs(_known(gap_means(m, endpoint)), gaps.n, m.confidence)
    figures: Figures = {
        "mean": intervals.with_instrument(mean, None if halfwidth is None else halfwidth / 1e3).to_json()
    }
    for label, q in QUANTILES.items():
        if endpoint is None:
            estimate = intervals.percentile(data, q, runs, m.confidence, clustered=True)
        else:
            estimate = replace(quantile(data, q), low=None, high=None, confidence=None)
        if not gaps.exact and estimate.value is not None:  # half a bin is a doubt too
            estimate = intervals.with_instrument(estimate, BIN_ERROR * estimate.value)
        pair = _pair(type7(spread, q), type7(data, q), "by when in a read they came") if spread and data.n else []
        figures[label] = context.judged(estimate.noted(*pair, *notes), halfwidth).to_json()
    figures["min"] = None if gaps.least is None else significant(gaps.least / NS_PER_MS)
    figures["max"] = None if gaps.greatest is None else significant(gaps.greatest / NS_PER_MS)
    figures["sd"] = significant(gaps.sd() / NS_PER_MS) if gaps.n > 1 else None
    return figures


def gap_means(m: Measured, endpoint: int | None = None) -> list[float]:
    """Return the mean gap between token events in each run, ms, in order of `m.windows`; NaN where a run has none."""
    some = m.answered & (m.tokens.events > 1)
    if endpoint is not None:
        some &= m.requests.endpoint == endpoint
    means = []
    for run in m.runs:
        mine = some & (m.requests.run == run)
        gaps = int((m.tokens.events[mine] - 1).sum())
        spent = int((m.tokens.last_ns[mine] - m.tokens.first_ns[mine]).sum())
        means.append(spent / gaps / NS_PER_MS if gaps else np.nan)
    return means


class _InMs:
    """A view of durations in ns as durations in ms."""

    def __init__(self, data: Sorted) -> None:
        self._data = data
        self.n = data.n

    def at(self, rank: int) -> float:
        return self._data.at(rank) / NS_PER_MS


def one_token_share(m: Measured) -> tuple[float | None, bool]:
    """Return (the least share of token events that carry exactly one token, whether that was deduced).

    Where the server told no counts per event but the total N, it can be deduced: every one of the n events bears at
    least one token, so the N - n left over lie in at most N - n events, and the others carry one.
    """
    some = m.answered & (m.tokens.events > 0)
    events = m.tokens.events[some]
    if len(events) == 0:
        return None, False
    told = m.tokens.single[some]
    counts = np.where(m.requests.counted_tokens(), m.requests.output_tokens, ABSENT)[some]
    possible = (counts != ABSENT) & (counts >= events)
    deduced = np.where(possible, np.maximum(2 * events - np.where(possible, counts, 0), 0), ABSENT)
    single = np.where(told != ABSENT, told, deduced)
    if (single == ABSENT).any():
        return None, False
    return float(single.sum() / events.sum()), bool((told == ABSENT).any())


def itl_refusal(m: Measured, instrument: Instrument) -> str | None:
    """Return why gaps between events may not be called gaps between tokens; None if they may."""
    share, _ = one_token_share(m)
    censored = instrument.censored_share
    if share is None or censored is None:
        return "no itl: tokens per event are not known"
    if share < ITL_ONE_TOKEN_SHARE:
        return f"no itl: perhaps only {share:.1%} of events carry one token, {ITL_ONE_TOKEN_SHARE:.0%} needed"
    if censored > ITL_CENSORED_SHARE:
        return f"no itl: {censored:.1%} of events share a read with a later one, {ITL_CENSORED_SHARE:.0%} allowed"
    return None
