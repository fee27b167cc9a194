"""The figures of each latency: mean, percentiles, extremes, and the notes that belong beside them.

A figure is first estimated over the runs (intervals.py), then widened by the instrument's error, then marked: survivors
only, several tokens per read, few tail samples. A verdict that forbids percentiles refuses them here; means stay,
because the total time is still right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from msgspec import Struct

from analysis.catalogue import QUANTILES, RunVerdict
from analysis.estimate import Estimate, Figure, Float64, Note, NoteCode, note, significant
from analysis.figures import throughput
from analysis.figures.instrument import Instrument
from analysis.records import latency
from analysis.records.distribution import BIN_ERROR, Binned
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT, Bool
from analysis.stats import intervals
from analysis.stats.quantiles import Sorted, SortedArray, quantile, type7
from loadgen import latency as definitions
from loadgen.record import Outcome

__all__ = [
    "Context",
    "LatencyFigures",
    "Metrics",
    "event_gaps",
    "gap_means",
    "itl_refusal",
    "latency_means",
    "metrics_of",
    "one_token_share",
    "request_latencies",
]

ITL_ONE_TOKEN_SHARE = 0.95  # docs/methodology.md#tokens-that-share-a-read
ITL_CENSORED_SHARE = 0.01
CENSORED_MARK = 0.01
PAIR_APART = 0.01  # two extremes of a percentile further apart than this are both noted
SURVIVORS = 0.99
NS_PER_MS = 1e6


class LatencyFigures(Struct, frozen=True, kw_only=True):
    """The figures of one latency, ms. min, max, sd: of the requests measured; None where there are too few."""

    mean: Figure
    p50: Figure
    p90: Figure
    p95: Figure
    p99: Figure
    p999: Figure
    min: float | None
    max: float | None
    sd: float | None

    def statistic(self, name: str) -> Figure:
        """The figure of that name: mean or one of QUANTILES."""
        figure: Figure = getattr(self, name)
        return figure


class Metrics(Struct, frozen=True, kw_only=True):
    """The metrics of a campaign, each under its key in the catalogue."""

    ttft_ms: LatencyFigures
    ttft_service_ms: LatencyFigures
    tpot_ms: LatencyFigures
    e2e_ms: LatencyFigures
    queue_ms: LatencyFigures
    event_gap_ms: LatencyFigures
    itl_ms: LatencyFigures | None  # None where an event may carry several tokens
    requests_per_s: Figure
    output_tokens_per_s: Figure
    total_tokens_per_s: Figure
    goodput_per_s: Figure

    def latency(self, key: str) -> LatencyFigures | None:
        """The figures of the latency `key`. Raises AttributeError for a key that the catalogue does not have."""
        figures: LatencyFigures | None = getattr(self, key)
        return figures

    def rate(self, key: str) -> Figure:
        """The figure of the rate `key`. Raises AttributeError likewise."""
        figure: Figure = getattr(self, key)
        return figure


@dataclass(frozen=True, slots=True)
class Context:
    """The instrument's state and the verdict, which apply to every figure of a campaign."""

    instrument: Instrument
    verdict: RunVerdict

    def judged(self, estimate: Estimate, halfwidth_us: float | None) -> Estimate:
        """A percentile as it may be printed: refused by the verdict, or with the instrument's error."""
        if self.verdict.forbids_percentiles:
            return estimate.without_value(note(NoteCode.NO_PERCENTILE, verdict=self.verdict.value))
        return intervals.with_instrument(estimate, None if halfwidth_us is None else halfwidth_us / 1e3)


def metrics_of(m: Measured, context: Context, good: Bool | None) -> Metrics:
    """Every metric of the runs of `m`. good: shape (n,), whether each request met the objectives, if any."""
    latencies = request_latencies(m, context, np.ones(len(m.requests), np.bool_))
    gaps = event_gaps(m, context)
    rates = throughput.rates(m, good)
    return Metrics(
        ttft_ms=latencies["ttft_ms"],
        ttft_service_ms=latencies["ttft_service_ms"],
        tpot_ms=latencies["tpot_ms"],
        e2e_ms=latencies["e2e_ms"],
        queue_ms=latencies["queue_ms"],
        event_gap_ms=gaps,
        itl_ms=gaps if itl_refusal(m, context.instrument) is None else None,
        requests_per_s=rates["requests_per_s"].figure(),
        output_tokens_per_s=rates["output_tokens_per_s"].figure(),
        total_tokens_per_s=rates["total_tokens_per_s"].figure(),
        goodput_per_s=rates["goodput_per_s"].figure(),
    )


def request_latencies(m: Measured, context: Context, chosen: Bool) -> dict[str, LatencyFigures]:
    """The figures of every latency that a request has once. chosen: of which answered requests, shape (n,)."""
    return {name: _request_latency(m, context, name, chosen) for name in latency.LATENCIES}


def _request_latency(m: Measured, context: Context, name: str, chosen: Bool) -> LatencyFigures:
    durations = latency.LATENCIES[name](m)
    usable = m.answered & chosen & ~np.isnan(durations)
    series = durations[usable] / NS_PER_MS
    data = SortedArray(series)
    runs = [SortedArray(run) for run in _by_run(m, durations, usable)]
    common = _common_notes(m, name, chosen)
    halfwidth = {"queue_ms": None, "tpot_ms": context.instrument.gap_error_us.halfwidth}.get(
        name, context.instrument.stamp_error_us.halfwidth
    )
    mean = intervals.over_runs(_not_nan(latency_means(m, name, chosen)), data.n, m.confidence)
    mean = intervals.with_instrument(mean, None if halfwidth is None else halfwidth / 1e3)
    figures = {"mean": mean.noted(*common, *_mean_notes(m, name, usable)).figure()}
    for label, q in QUANTILES.items():
        notes = [*_with_failures(m, name, series, chosen, q), *_first_token_pair(m, name, usable, data, q)]
        estimate = intervals.percentile(data, q, runs, m.confidence).noted(*notes, *common)
        figures[label] = context.judged(estimate, halfwidth).figure()
    return LatencyFigures(
        **figures,
        min=significant(data.at(1)) if data.n else None,
        max=significant(data.at(data.n)) if data.n else None,
        sd=significant(float(durations[usable].std(ddof=1)) / NS_PER_MS) if data.n > 1 else None,
    )


def latency_means(m: Measured, name: str, chosen: Bool | None = None) -> list[float]:
    """The mean of a latency in each run, ms, in order of `m.windows`; NaN where a run has none.

    chosen: of which answered requests, shape (n,); None: of all.
    """
    durations = latency.LATENCIES[name](m)
    usable = m.answered & ~np.isnan(durations)
    if chosen is not None:
        usable &= chosen
    return [float(run.mean()) if len(run) else np.nan for run in _by_run(m, durations, usable)]


def _by_run(m: Measured, durations: Float64, usable: Bool) -> list[Float64]:
    return [durations[usable & (m.requests.run == run)] / NS_PER_MS for run in m.runs]


def _not_nan(values: Iterable[float]) -> list[float]:
    return [value for value in values if not np.isnan(value)]


def _common_notes(m: Measured, name: str, chosen: Bool) -> list[Note]:
    notes = []
    if name == "tpot_ms" and (m.count_tokens() == ABSENT)[m.answered & chosen].any():
        notes.append(note(NoteCode.UNCOUNTED_LEFT_OUT))
    due = m.inside & chosen & ~forgiven(m)
    if due.any() and (m.requests.ok & due).sum() < SURVIVORS * due.sum():
        notes.append(note(NoteCode.SURVIVORS_ONLY))
    return notes


def forgiven(m: Measured) -> Bool:
    """Whether a request is no failure of the server, shape (n,): in flight when the run was interrupted."""
    interrupted = [window.run for window in m.windows if window.interrupted]
    blameless: Bool = m.requests.ended(Outcome.CANCELLED) & np.isin(m.requests.run, interrupted)
    return blameless


def _mean_notes(m: Measured, name: str, usable: Bool) -> list[Note]:
    if name != "tpot_ms" or not usable.any():
        return []
    if (m.tokens.first_tokens == ABSENT)[usable].any():
        share, _ = one_token_share(m)
        certain = share is not None and share >= ITL_ONE_TOKEN_SHARE
        return [] if certain else [note(NoteCode.FIRST_EVENT_ONE_TOKEN)]
    usual = latency.tpot_usual(m)[usable]
    own = latency.tpot(m)[usable]
    if np.array_equal(usual, own):
        return []
    return [note(NoteCode.USUAL_TPOT, ms=float(usual.mean()) / NS_PER_MS)]


def _with_failures(m: Measured, name: str, series: Float64, chosen: Bool, q: float) -> list[Note]:
    """A note with the percentile that counts failed requests as +infinity, where more than 1 % failed."""
    if name not in ("ttft_ms", "e2e_ms"):
        return []
    due = m.inside & chosen & ~forgiven(m)
    failed = int((due & ~m.requests.ok).sum())
    if not failed or failed <= (1 - SURVIVORS) * due.sum():
        return []
    value = type7(SortedArray(np.append(series, np.full(failed, np.inf))), q)
    finite = bool(np.isfinite(value))
    return [note(NoteCode.WITH_FAILURES, ms=float(value)) if finite else note(NoteCode.WITH_FAILURES_INFINITE)]


def _first_token_pair(m: Measured, name: str, usable: Bool, data: Sorted, q: float) -> list[Note]:
    """A note with both extremes of a TTFT percentile, if first tokens that shared a read could move it by over 1 %."""
    if name not in ("ttft_ms", "ttft_service_ms") or data.n == 0:
        return []
    if (m.tokens.first_least_ns == m.tokens.first_ns)[usable].all():
        return []
    start, duration = (
        (m.requests.intended_ns, definitions.ttft)
        if name == "ttft_ms"
        else (m.requests.sent_ns, definitions.ttft_service)
    )
    least = SortedArray(duration(start, m.tokens.first_least_ns)[usable] / NS_PER_MS)
    return _pair(type7(least, q), type7(data, q), NoteCode.FIRST_TOKENS_SHARE_READ)


def _pair(low: float, high: float, why: NoteCode) -> list[Note]:
    low, high = min(low, high), max(low, high)
    return [note(why, low=float(low), high=float(high))] if high - low > PAIR_APART * high else []


def event_gaps(m: Measured, context: Context, endpoint: int | None = None) -> LatencyFigures:
    """The figures of the gaps between token events; of one endpoint, by its code, percentiles without intervals."""
    gaps = m.gaps.stamped if endpoint is None else m.gaps.by_endpoint[endpoint]
    data = _InMs(gaps)
    halfwidth = context.instrument.gap_error_us.halfwidth
    notes = [] if gaps.exact else [note(NoteCode.HISTOGRAM)]
    share = context.instrument.censored_share
    if share is not None and share > CENSORED_MARK:
        notes.append(note(NoteCode.EVENTS_SHARE_READ, share=share))
    spread = _InMs(Binned(*m.gaps.spread())) if endpoint is None and m.gaps.moved else None
    runs = [_InMs(m.gaps.by_run[run]) for run in m.runs if run in m.gaps.by_run]
    mean = intervals.over_runs(_not_nan(gap_means(m, endpoint)), gaps.n, m.confidence)
    figures = {"mean": intervals.with_instrument(mean, None if halfwidth is None else halfwidth / 1e3).figure()}
    for label, q in QUANTILES.items():
        if endpoint is None:
            estimate = intervals.percentile(data, q, runs, m.confidence, clustered=True)
        else:
            estimate = replace(quantile(data, q), low=None, high=None, confidence=None)
        if not gaps.exact and estimate.value is not None:  # half a bin is a doubt too
            estimate = intervals.with_instrument(estimate, BIN_ERROR * estimate.value)
        pair = _pair(type7(spread, q), type7(data, q), NoteCode.ORDER_IN_READ) if spread and data.n else []
        figures[label] = context.judged(estimate.noted(*pair, *notes), halfwidth).figure()
    return LatencyFigures(
        **figures,
        min=None if gaps.least is None else significant(gaps.least / NS_PER_MS),
        max=None if gaps.greatest is None else significant(gaps.greatest / NS_PER_MS),
        sd=significant(gaps.sd() / NS_PER_MS) if gaps.n > 1 else None,
    )


def gap_means(m: Measured, endpoint: int | None = None) -> list[float]:
    """The mean gap between token events in each run, ms, in order of `m.windows`; NaN where a run has none."""
    several_events = m.answered & (m.tokens.events > 1)
    if endpoint is not None:
        several_events &= m.requests.endpoint == endpoint
    means = []
    for run in m.runs:
        of_run = several_events & (m.requests.run == run)
        gaps = int((m.tokens.events[of_run] - 1).sum())
        spent = int((m.tokens.last_ns[of_run] - m.tokens.first_ns[of_run]).sum())
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
    """(the least share of token events that carry exactly one token, whether it was deduced).

    Where the server reported no counts per event but the total N, it is deduced: every one of the n events bears at
    least one token, so the N - n other tokens lie in at most N - n events, and the remaining events carry one.
    """
    with_events = m.answered & (m.tokens.events > 0)
    events = m.tokens.events[with_events]
    if len(events) == 0:
        return None, False
    reported = m.tokens.single[with_events]
    counts = np.where(m.requests.counted_tokens(), m.requests.output_tokens, ABSENT)[with_events]
    possible = (counts != ABSENT) & (counts >= events)
    deduced = np.where(possible, np.maximum(2 * events - np.where(possible, counts, 0), 0), ABSENT)
    single = np.where(reported != ABSENT, reported, deduced)
    if (single == ABSENT).any():
        return None, False
    return float(single.sum() / events.sum()), bool((reported == ABSENT).any())


def itl_refusal(m: Measured, instrument: Instrument) -> Note | None:
    """Why gaps between events may not be called gaps between tokens; None if they may."""
    share, _ = one_token_share(m)
    censored = instrument.censored_share
    if share is None or censored is None:
        return note(NoteCode.ITL_UNKNOWN)
    if share < ITL_ONE_TOKEN_SHARE:
        return note(NoteCode.ITL_FEW_SINGLE, share=share, needed=ITL_ONE_TOKEN_SHARE)
    if censored > ITL_CENSORED_SHARE:
        return note(NoteCode.ITL_CENSORED, share=censored, allowed=ITL_CENSORED_SHARE)
    return None
