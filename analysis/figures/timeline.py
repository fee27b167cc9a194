"""A run over time, in a few hundred equal bins: the data of plots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.estimate import Float64
from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT
from analysis.records.tokens import SERIES_BINS
from analysis.stats.in_flight import time_in_flight

__all__ = ["Timeline", "timeline_of"]


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run. Arrays have shape (SERIES_BINS,), NaN where a bin has nothing; seconds from the run's start."""

    run: int
    at_s: Float64  # middle of each bin
    width_s: float
    in_flight: Float64  # mean number of requests sent and not done
    ttft_p50_ms: Float64  # of requests due in the bin
    ttft_greatest_ms: Float64
    tokens_per_s: Float64
    failures: dict[str, Float64]  # outcome: the number of requests that ended so in the bin


def timeline_of(m: Measured, run: int) -> Timeline:
    """The timeline of one run."""
    of_run = m.requests.run == run
    width = m.series.bin_ns
    edges = np.arange(SERIES_BINS + 1, dtype=np.float64) * width
    sent, done = m.requests.sent_ns[of_run], m.requests.done_ns[of_run]
    flown = (sent != ABSENT) & (done != ABSENT)
    held = np.diff(time_in_flight(sent[flown], done[flown], edges)) / width
    median, greatest = _ttft(m, run)
    tokens = m.series.tokens.get(run, np.zeros(SERIES_BINS, np.int64))
    return Timeline(
        run=run,
        at_s=(edges[:-1] + width / 2) / 1e9,
        width_s=width / 1e9,
        in_flight=held,
        ttft_p50_ms=median,
        ttft_greatest_ms=greatest,
        tokens_per_s=tokens / (width / 1e9),
        failures=_failures(m, run),
    )


def _ttft(m: Measured, run: int) -> tuple[Float64, Float64]:
    ttft = latency.ttft(m) / 1e6
    answered = (m.requests.run == run) & m.requests.ok & ~np.isnan(ttft)
    place = np.clip(m.requests.intended_ns[answered] // m.series.bin_ns, 0, SERIES_BINS - 1)
    order = np.lexsort((ttft[answered], place))
    values, place = ttft[answered][order], place[order]
    median, greatest = np.full(SERIES_BINS, np.nan), np.full(SERIES_BINS, np.nan)
    bins, starts, counts = np.unique(place, return_index=True, return_counts=True)
    lower, upper = values[starts + (counts - 1) // 2], values[starts + counts // 2]
    median[bins] = (lower + upper) / 2
    greatest[bins] = values[starts + counts - 1]
    return median, greatest


def _failures(m: Measured, run: int) -> dict[str, Float64]:
    failed = (m.requests.run == run) & ~m.requests.ok
    when = np.where(m.requests.done_ns == ABSENT, m.requests.intended_ns, m.requests.done_ns)
    place = np.clip(when // m.series.bin_ns, 0, SERIES_BINS - 1)
    counts = {}
    for code, name in sorted(enumerate(m.requests.outcomes), key=lambda item: item[1]):
        chosen = failed & (m.requests.outcome == code)
        if chosen.any():
            counts[name] = np.bincount(place[chosen], minlength=SERIES_BINS).astype(np.float64)
    return counts
