"""Intervals from samples. This is the only module that defines the unit of replication: the run.

An interval is where the figure of a new run, or of many, would lie. Requests of one run are not independent and share
the conditions of that run, so neither they nor tokens are the unit (docs/methodology.md#the-unit-is-the-run: intervals
over pooled requests covered 52 to 90 % instead of 95). A mean-like figure has one value per run, and t over their
logarithms gives its interval. A percentile is that of all requests; its interval is the hull of the t interval over the
percentiles of single runs and of the order statistics of all requests. One or two runs are no evidence about a new run:
means get no interval, percentiles keep their order statistics, labelled within-run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import special

from analysis.estimate import Estimate, Float64, Note, NoteCode, note
from analysis.stats.quantiles import Sorted, bounds, quantile, type7

__all__ = [
    "CONFIDENCE",
    "ENOUGH_RUNS",
    "FEW_RUNS",
    "LEAST_RUNS",
    "about",
    "centre",
    "few",
    "hull",
    "log_t_half_width",
    "no_interval",
    "over_runs",
    "percentile",
    "proportion",
    "t_half_width",
    "t_interval",
    "t_quantile",
    "with_instrument",
]

Ends = tuple[float | None, float | None]

CONFIDENCE = 0.95
LEAST_RUNS = 3  # docs/methodology.md#means: with fewer the differences between runs are not known
ENOUGH_RUNS = 5  # with fewer the interval is right, and very wide
FEW_RUNS = note(NoteCode.FEW_RUNS)


def t_quantile(df: float, confidence: float = CONFIDENCE) -> float:
    """The t such that a t variable of `df` degrees lies in [-t, t] with probability `confidence`."""
    return float(special.stdtrit(df, (1 + confidence) / 2))


def t_half_width(values: Sequence[float] | Float64, confidence: float = CONFIDENCE) -> float:
    """The half-width t s/sqrt(n) of the mean of independent values, n >= 2."""
    array = np.asarray(values, dtype=np.float64)
    return t_quantile(len(array) - 1, confidence) * float(array.std(ddof=1)) / math.sqrt(len(array))


def t_interval(values: Sequence[float] | Float64, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The t interval of the mean of independent values, n >= 2."""
    middle, half = float(np.mean(values)), t_half_width(values, confidence)
    return middle - half, middle + half


def log_t_half_width(values: Sequence[float] | Float64, confidence: float = CONFIDENCE) -> float | None:
    """The h such that the geometric mean g of independent values > 0 lies in [g/exp(h), g*exp(h)]; None without one.

    This is t s/sqrt(n) over the logarithms, n >= 3.
    """
    if len(values) < LEAST_RUNS or min(values) <= 0:
        return None
    return t_half_width(np.log(np.asarray(values, dtype=np.float64)), confidence)


def centre(values: Sequence[float]) -> float:
    """The geometric mean of the runs' values; their mean if a value is not positive.

    The geometric mean lies in the middle of its log-t interval, and its ratios are the ratios that compare prints.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.min() == array.max():
        return float(array[0])
    return float(np.exp(np.log(array).mean())) if array.min() > 0 else float(array.mean())


def about(value: float, runs: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval about `value` from the values of n >= 3 runs: log-t, or t if a value is not positive.

    A run whose value is infinite (more of its requests failed than lie above the percentile) leaves no limit on either
    side, unless all runs are like that.
    """
    if any(math.isinf(run) for run in runs) or math.isinf(value):
        return (math.inf if all(math.isinf(run) for run in runs) else -math.inf), math.inf
    half = log_t_half_width(runs, confidence) if value > 0 else None
    if half is None:
        plain = t_half_width(runs, confidence)
        low = value - plain
        return (max(0.0, low) if min(*runs, value) >= 0 else low), value + plain  # no duration is negative
    # 30 is a factor of 10^13: a wider interval says nothing, and exp overflows soon after.
    factor = math.exp(min(half, 30.0))
    return value / factor, value * factor


def no_interval(runs: int) -> Note:
    """The note that this number of runs has no interval."""
    return note(NoteCode.NO_INTERVAL, runs=runs, s="" if runs == 1 else "s", enough=ENOUGH_RUNS)


def over_runs(runs: Sequence[float], n: int, confidence: float = CONFIDENCE) -> Estimate:
    """A mean-like figure with its interval. runs: its value in each run; n: the number of samples in them."""
    if not runs:
        return Estimate(None, n=n, notes=(note(NoteCode.NO_DATA),))
    value = centre(runs)
    if len(runs) < LEAST_RUNS:
        return Estimate(value, n=n, notes=(no_interval(len(runs)),))
    low, high = about(value, runs, confidence)
    return Estimate(value, low, high, confidence, n, few(len(runs)))


def few(runs: int) -> tuple[Note, ...]:
    """The note that an interval is over few runs; none from ENOUGH_RUNS on."""
    return (FEW_RUNS,) if runs < ENOUGH_RUNS else ()


def hull(data: Sorted, q: float, runs: Sequence[Sorted], confidence: float = CONFIDENCE) -> Ends:
    """The interval of the q-quantile of `data`, n >= 1: the hull of order statistics and of `about` over the runs.

    runs: the same data run by run, three runs or more that hold any. A side that n samples cannot limit is None.
    """
    low, high, _ = bounds(data, q, confidence)
    below, above = about(type7(data, q), [type7(run, q) for run in runs], confidence)
    return (None if low is None else min(low, below)), (None if high is None else max(high, above))


def percentile(
    data: Sorted, q: float, runs: Sequence[Sorted], confidence: float = CONFIDENCE, *, clustered: bool = False
) -> Estimate:
    """The q-quantile of all samples with its interval, refused or marked by docs/methodology.md#what-is-printed.

    runs: the same data run by run. clustered: samples that come in clusters (the gaps of a request), of which the
    order statistics of one run would be far too narrow.
    """
    estimate = quantile(data, q, confidence)
    runs = [run for run in runs if run.n]
    if data.n == 0:
        return estimate
    if len(runs) < LEAST_RUNS:
        if clustered:
            return replace(estimate, low=None, high=None, confidence=None).noted(no_interval(len(runs)))
        return estimate if estimate.low is None and estimate.high is None else estimate.noted(note(NoteCode.WITHIN_RUN))
    if estimate.low is None and estimate.high is None:
        return estimate
    low, high = hull(data, q, runs, confidence)
    if estimate.high is None:
        return replace(estimate, low=low).noted(*few(len(runs)))
    return replace(estimate, low=low, high=high, confidence=confidence).noted(*few(len(runs)))


def proportion(k: int, n: int, runs: Sequence[float] = (), confidence: float = CONFIDENCE) -> Estimate:
    """The share k/n with Wilson's interval; with three runs' shares or more, the hull of it and of t over them."""
    if n == 0:
        return Estimate(None, notes=(note(NoteCode.NO_DATA),))
    z = float(special.ndtri((1 + confidence) / 2))
    share = k / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if k == 0 else middle - half
    high = 1.0 if k == n else middle + half
    if len(runs) < LEAST_RUNS:
        return Estimate(share, low, high, confidence, n, (note(NoteCode.WITHIN_RUN),))
    plain = t_half_width(runs, confidence)
    low, high = max(0.0, min(low, share - plain)), min(1.0, max(high, share + plain))
    return Estimate(share, low, high, confidence, n, few(len(runs)))


def with_instrument(estimate: Estimate, halfwidth: float | None) -> Estimate:
    """The estimate, each side widened by the instrument's half-width (GUM quadrature), marked if below ten half-widths.

    halfwidth: in the unit of the estimate; None if the instrument was not calibrated. Nothing is subtracted.
    """
    if halfwidth is None or estimate.value is None:
        return estimate
    value, low, high = estimate.value, estimate.low, estimate.high
    widened = replace(
        estimate,
        low=None if low is None else value - math.hypot(value - low, halfwidth),
        high=None if high is None else value + math.hypot(high - value, halfwidth),
    )
    return widened.noted(note(NoteCode.INSTRUMENT_LIMITED)) if value < 10 * halfwidth else widened
