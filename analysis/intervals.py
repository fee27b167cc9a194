"""From samples to intervals. The only place that knows what the unit of replication is.

At present every interval is of the *within-run* kind: it says how far the figure would move if the same run had gone
on, not what a new run would give, and each one is labelled so. Requests of one run are not independent, and what can
be done about that inside a run is done: means use as many samples as the series is worth (Geyer's initial monotone
positive sequence), means of gaps take the request as the unit, percentiles of gaps and throughput take ten spans of
the window. Percentiles of requests are bracketed by order statistics, which assume independence.

Intervals over runs belong here too: give `percentile` the runs as its groups, and `t_interval` the run values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.estimate import Estimate
from analysis.quantiles import FEW_TAIL_SAMPLES, Sorted, quantile, type7

__all__ = [
    "WITHIN_RUN",
    "inefficiency",
    "log_t_half_width",
    "mean",
    "mean_of_clusters",
    "percentile",
    "proportion",
    "rate",
    "t_interval",
    "t_quantile",
    "with_instrument",
]

Float64 = NDArray[np.float64]

CONFIDENCE = 0.95
WITHIN_RUN = "within-run"
LEAST_SERIES = 20  # a shorter series says nothing of its own correlation, so its mean gets no interval
ROUNDING = 1e-24  # of the squares: below it a constant series is constant, whatever its mean was rounded to
POISSON_LEAST = 5.0  # completions a bin: with fewer, ten bins of a rate are too coarse for a t interval


def t_quantile(df: float, confidence: float = CONFIDENCE) -> float:
    """Return t such that a t variable of `df` degrees lies in [-t, t] with probability `confidence`."""
    return float(special.stdtrit(df, (1 + confidence) / 2))


def t_interval(values: Sequence[float] | Float64, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the t interval of the mean of independent values, n >= 2."""
    array = np.asarray(values, dtype=np.float64)
    half = t_quantile(len(array) - 1, confidence) * float(array.std(ddof=1)) / math.sqrt(len(array))
    centre = float(array.mean())
    return centre - half, centre + half


def log_t_half_width(values: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """Return h such that the geometric mean of independent values > 0 lies in (/exp(h), *exp(h)); None if it has none.

    This is t s/sqrt(n) over the logarithms: what METHODOLOGY 4.4 puts about a percentile, given those of the runs.
    """
    if len(values) < 3 or min(values) <= 0:
        return None
    logs = np.log(np.asarray(values, dtype=np.float64))
    return t_quantile(len(logs) - 1, confidence) * float(logs.std(ddof=1)) / math.sqrt(len(logs))


def inefficiency(series: Float64) -> float:
    """Return g = 1 + 2 sum(rho_k): how many correlated samples are worth one independent sample; g >= 1.

    Geyer's initial monotone positive sequence: pairs rho_2m + rho_2m+1 are summed while they are positive and do not
    grow. Negative correlation (g < 1) is not taken credit for.
    """
    n = len(series)
    centred = series - series.mean()
    spread = float(np.dot(centred, centred))
    if n < 4 or spread <= ROUNDING * float(np.dot(series, series)):
        return 1.0
    size = 1 << (2 * n - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size)) ** 2
    rho = np.fft.irfft(power, size)[:n] / spread
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = pairs > 0
    kept = len(pairs) if positive.all() else int(np.argmin(positive))
    return max(1.0, 2 * float(np.minimum.accumulate(pairs[:kept]).sum()) - 1)


def mean(series: Float64, confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of `series`, shape (n,), in order of issue, with a within-run interval."""
    n = len(series)
    if n == 0:
        return Estimate(None, notes=("no data",))
    value = float(series.mean())
    if n < LEAST_SERIES:
        return Estimate(value, n=n, notes=(f"no interval from fewer than {LEAST_SERIES}",))
    worth = n / inefficiency(series)
    if worth < 3:
        return Estimate(value, n=n, notes=("no interval: the samples follow each other too closely",))
    half = t_quantile(worth - 1, confidence) * float(series.std(ddof=1)) / math.sqrt(worth)
    return Estimate(value, value - half, value + half, confidence, n, (WITHIN_RUN,))


def mean_of_clusters(sums: Float64, counts: Float64, confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of samples that come in clusters (the gaps of a request): sum of sums over sum of counts.

    The cluster is the unit, by the usual linearisation of a ratio; taking each gap as a sample covered 21 %.
    """
    clusters, n = len(sums), int(counts.sum()) if len(counts) else 0
    if n == 0:
        return Estimate(None, notes=("no data",))
    value = float(sums.sum() / n)
    if clusters < LEAST_SERIES:
        return Estimate(value, n=n, notes=(f"no interval from fewer than {LEAST_SERIES} requests",))
    residual = sums - value * counts
    worth = clusters / inefficiency(residual)
    if worth < 3:
        return Estimate(value, n=n, notes=("no interval: the samples follow each other too closely",))
    error = float(residual.std(ddof=1)) / math.sqrt(worth) / (n / clusters)
    half = t_quantile(worth - 1, confidence) * error
    return Estimate(value, value - half, value + half, confidence, n, (WITHIN_RUN,))


def percentile(data: Sorted, q: float, groups: Sequence[Sorted] | None = None) -> Estimate:
    """Return the q-quantile; with `groups`, the hull of its order statistics and of what the groups say (log t).

    groups: the same data in parts that can be taken as independent. Where a part is too small for the percentile
    nothing is known of how it moves, and the interval is left out: order statistics of data that come in clusters
    would be far too narrow.
    """
    estimate = quantile(data, q)
    if estimate.low is None and estimate.high is None:
        return estimate
    if groups is None:
        return estimate.noted(WITHIN_RUN)
    bare = replace(estimate, low=None, high=None, confidence=None)
    if not groups:
        return bare.noted("no interval")
    if estimate.value is None or any(part.n * min(q, 1 - q) < FEW_TAIL_SAMPLES for part in groups):
        return bare.noted("no interval: too few gaps in a tenth of the window")
    half = log_t_half_width([type7(part, q) for part in groups])
    if half is None:
        return bare.noted("no interval: gaps of zero")
    low, high = estimate.value / math.exp(half), estimate.value * math.exp(half)
    low = low if estimate.low is None else min(low, estimate.low)
    high = high if estimate.high is None else max(high, estimate.high)
    return replace(estimate, low=low, high=high, confidence=CONFIDENCE).noted(WITHIN_RUN)


def rate(per_bin: Float64, seconds: float, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return total / seconds of what was counted in equal bins of a window, with a batch-means interval.

    per_bin: shape (k,), amounts; n: how many completions they come from.
    """
    if seconds <= 0:
        return Estimate(None, n=n, notes=("the measured window is empty",))
    value = float(per_bin.sum()) / seconds
    if n < POISSON_LEAST * len(per_bin) or len(per_bin) < 3:
        return Estimate(value, n=n, notes=("no interval: too few completions",))
    low, high = t_interval(per_bin * len(per_bin) / seconds, confidence)
    return Estimate(value, max(0.0, low), high, confidence, n, (WITHIN_RUN,))


def proportion(k: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return k/n with Wilson's interval."""
    if n == 0:
        return Estimate(None, notes=("no data",))
    z = float(special.ndtri((1 + confidence) / 2))
    share = k / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if k == 0 else centre - half
    high = 1.0 if k == n else centre + half
    return Estimate(share, low, high, confidence, n, (WITHIN_RUN,))


def with_instrument(estimate: Estimate, halfwidth: float | None) -> Estimate:
    """Widen each side by the instrument's own half-width (GUM quadrature); mark what is less than ten of them.

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
    return widened.noted("instrument-limited") if value < 10 * halfwidth else widened
