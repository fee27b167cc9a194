"""Where each run has settled, and whether it stayed there: docs/methodology.md#steadiness applied to measured runs.

The warm-up that the profile asks for is left out before this. MSER-5 then takes TTFT and TPOT in order of issue and may
open the window later, if the values it would cut differ from the rest by more than chance: a busy queue has a rush now
and then, and cutting an early rush makes all figures too good. The report gives both windows, and a cut that was not
made. Where MSER-5 finds no steady state nothing is cut, and the run is marked. The drift gate checks the rest. It makes
many tests (runs, and figures of each), so p values are multiplied by their number: a campaign of ten stationary runs is
called drifting as rarely as a campaign of one run, which is once in a hundred times, and no more often where requests
depend on each other. Level shifts are reported with their time and void nothing: a shift that matters over the window
is a drift as well.

Not judged: bursts, MMPP arrivals and loads in stages, which change by design, and runs of fewer than 300 answers. At
300 a tenth of the window holds thirty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Float64, Note, NoteCode, note
from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import Bool
from analysis.stats import steady

__all__ = ["LEAST", "Settled", "drifting", "settled", "shifted"]

LEAST = 300  # answers of a run
P99_LEAST = 1000  # a hundred in each tenth: with fewer its p99 is its greatest value
P99_CHANGE = 0.15  # docs/methodology.md#drift-and-level-shifts
# docs/methodology.md#drift-and-level-shifts asks 0.05, which would void every twentieth campaign of a steady server
P = 0.01
SHIFT_BINS = (30, 60)  # the fewest that can be judged, and the most that are needed
SHIFT_ANSWERS = 30  # per bin
SHIFT_P = 0.01
WATCHED = {"ttft_ms": "TTFT", "tpot_ms": "TPOT"}


@dataclass(frozen=True, slots=True)
class Settled:
    """The result of MSER-5 for one run."""

    from_ns: int  # when the first request that is left was due
    cut: int  # answered requests before it
    spared: int  # answered requests that MSER-5 would cut as well, and that are no more than chance apart
    steady: bool


def settled(m: Measured, index: int) -> Settled | None:
    """The point where the run of `m.windows[index]` has settled; None if that is not judged."""
    window = m.windows[index]
    of_run = m.answered & (m.requests.run == window.run)
    if not window.stationary or of_run.sum() < LEAST:
        return None
    from_ns = spared_until = window.from_ns
    is_steady = True
    for name in WATCHED:
        values, due = _series(m, name, of_run)
        if len(values) < LEAST:
            continue
        state = steady.mser(values)
        if steady.stands_out(values, state.cut):
            is_steady &= state.steady
            from_ns = max(from_ns, int(due[state.cut]))
        else:
            spared_until = max(spared_until, int(due[state.cut]))
    if not is_steady:
        return Settled(window.from_ns, 0, 0, steady=False)
    cut, wanted = ((m.requests.intended_ns[of_run] < at).sum() for at in (from_ns, max(from_ns, spared_until)))
    return Settled(from_ns, int(cut), int(wanted - cut), steady=True)


def _series(m: Measured, name: str, requests: Bool) -> tuple[Float64, NDArray[np.int64]]:
    """(the values, ns, when each of these requests was due) in order of issue, where there is a value."""
    durations = latency.LATENCIES[name](m)
    chosen = np.flatnonzero(requests & ~np.isnan(durations))
    chosen = chosen[np.argsort(m.requests.intended_ns[chosen], kind="stable")]
    return durations[chosen], m.requests.intended_ns[chosen]


@dataclass(frozen=True, slots=True)
class _Trend:
    run: int
    figure: str
    drift: steady.Drift
    least_change: float


def drifting(m: Measured) -> list[Note]:
    """A note per run that drifts, with its worst trend."""
    trends = [trend for index in range(len(m.windows)) for trend in _trends(m, index)]
    worst: dict[int, _Trend] = {}
    for trend in trends:
        if trend.drift.p * len(trends) >= P or abs(trend.drift.change) < trend.least_change:
            continue
        if trend.run not in worst or trend.drift.p < worst[trend.run].drift.p:
            worst[trend.run] = trend
    return [_drift(trend, len(trends)) for trend in worst.values()]


def _trends(m: Measured, index: int) -> list[_Trend]:
    window = m.windows[index]
    of_run = m.answered & (m.requests.run == window.run)
    if not window.stationary or of_run.sum() < LEAST:
        return []
    trends = []
    for name, label in WATCHED.items():
        values, due = _series(m, name, of_run)
        at = due.astype(np.float64)
        quantiles = [(0.5, "p50", steady.DRIFT_CHANGE, LEAST), (0.99, "p99", P99_CHANGE, P99_LEAST)]
        for q, stat, change, least in quantiles:
            if len(values) < least:
                continue
            bins = steady.bin_quantiles(at, values, window.from_ns, window.to_ns + 1, q)
            trend = steady.drift(bins, change)
            if trend is None:
                continue
            if trend.p < P:  # what is not even a trend of independent values needs no correction
                g = steady.trend_inefficiency(at, values, window.from_ns, window.to_ns + 1, bins)
                trend = replace(trend, p=steady.correlated_p(trend.p, g))
            trends.append(_Trend(window.run, f"{label} {stat}", trend, change))
    return trends


def _drift(trend: _Trend, tests: int) -> Note:
    moves = "rises" if trend.drift.change > 0 else "falls"
    share, p = abs(trend.drift.change), min(1.0, trend.drift.p * tests)
    return note(NoteCode.DRIFTING, figure=trend.figure, moves=moves, share=float(share), p=float(p)).of_run(trend.run)


def shifted(m: Measured) -> list[Note]:
    """Notes on shifts in the level of TTFT or TPOT, for runs with thirty bins of thirty answers.

    The place of a shift is chosen among all bins, so its p value is multiplied by their number: without that, one
    stationary run in ten would be reported as shifted.
    """
    return [shift for index in range(len(m.windows)) for name in WATCHED for shift in _shifts(m, index, name)]


def _shifts(m: Measured, index: int, name: str) -> list[Note]:
    window = m.windows[index]
    values, due = _series(m, name, m.answered & (m.requests.run == window.run))
    bins = min(SHIFT_BINS[1], len(values) // SHIFT_ANSWERS)
    if not window.stationary or bins < SHIFT_BINS[0]:
        return []
    levels = np.array([float(np.median(part)) for part in np.array_split(values, bins)])
    starts = np.array([int(part[0]) for part in np.array_split(due, bins)])
    tests = bins * len(m.windows) * len(WATCHED)
    return [
        note(
            NoteCode.SHIFTED,
            figure=WATCHED[name],
            before_ms=float(shift.before) / 1e6,
            after_ms=float(shift.after) / 1e6,
            at_s=float(starts[shift.at]) / 1e9,
        ).of_run(window.run)
        for shift in steady.shifts(levels) or ()
        if shift.p * tests < SHIFT_P
    ]
