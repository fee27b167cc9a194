"""Tests of a run's steadiness: has it settled, does it drift, did its level shift?

See docs/methodology.md#steadiness.

Three questions with a test each, because no test answers them all. MSER-5 finds where a start-up transient ends,
and is blind to drift. The trend over ten bins finds drift, and is blind to a step that comes back. Energy statistics
find steps, at places not known before. This module cuts and drops nothing: callers do, and report it.

Values are latencies or rates, positive, in any unit; changes are shares of the level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.stats import dependence
from analysis.stats.distributions import scipy_stats
from analysis.stats.ratio import welch

__all__ = [
    "Drift",
    "Shift",
    "WarmUp",
    "bin_quantiles",
    "correlated_p",
    "drift",
    "energy_split",
    "kendall_p",
    "mser",
    "shifts",
    "stands_out",
    "trend_inefficiency",
]

Float64 = NDArray[np.float64]

MSER_BATCH = 5
CUT_STEP = 0.05  # of the level that is left
CUT_P = 0.001  # n_eff; not 0.01, because the cut was chosen among all places
CUT_WORTH = 16  # independent values, at least, in what is left
CUT_STRETCHES_P = 0.002
CUT_STRETCHES = 8  # of what is left, at least
LAST_TENTH = 0.9  # of the half that is searched: a cut beyond it means that the best cut may lie further on
DRIFT_BINS = 10
DRIFT_LEAST_BINS = 5  # that hold data: below it no order of bins is improbable enough
DRIFT_P = 0.05
DRIFT_CHANGE = 0.05  # 0.15 where the bins hold a p99: docs/methodology.md#drift-and-level-shifts
TREND_MOST = 1.5
SHIFT_LEAST_BINS = 30
SHIFT_P = 0.01
SHIFT_STEP = 0.05
SHIFT_SEGMENT = 3  # docs/methodology.md#bursts-and-shifts: what is shorter is an event and no level


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Where a transient ends: leave out the first `cut` values. Not steady: the rest may still be transient."""

    cut: int
    steady: bool


@dataclass(frozen=True, slots=True)
class Drift:
    """A trend over the bins of a window. change: end to end, as a share of the median level."""

    p: float  # Mann-Kendall, two-sided
    change: float
    drifting: bool


@dataclass(frozen=True, slots=True)
class Shift:
    """A step between two levels: `at` is the index of the first bin of the new one."""

    at: int
    before: float
    after: float
    p: float  # Welch, between the levels on either side

    @property
    def change(self) -> float:
        return self.after / self.before - 1


# --- warm-up ---------------------------------------------------------------------------------------------------------


def mser(values: Float64, batch: int = MSER_BATCH) -> WarmUp:
    """The warm-up at the start of `values`, shape (n,), in order of issue, no NaN, by MSER-5.

    The cut minimises the squared standard error of what is left, over batch means and within the first half (White
    1997; Spratt 1998). The last n mod `batch` values take no part. Fewer than two batches: nothing is cut, not steady.

    From independent values it cuts next to nothing; from the sojourn times of a steady M/M/1 queue at 80 % load it cuts
    5 % of 4800 (rushes early on, so that what is left is too quick: mean -3 %, p99 -6 %; simulated). So check
    it with `stands_out`.
    """
    m = len(values) // batch
    if m < 2:
        return WarmUp(0, steady=False)
    means = values[: m * batch].reshape(m, batch).mean(axis=1)
    centred = means - means[-1]  # so that a tail of equal values has a spread of exactly zero
    left = np.arange(m, 0, -1)
    sums, squares = np.cumsum(centred[::-1])[::-1], np.cumsum(centred[::-1] ** 2)[::-1]
    spread = np.maximum(squares - sums**2 / left, 0.0)
    searched = math.ceil(m / 2)
    cut = int(np.argmin((spread / left**2)[:searched]))
    return WarmUp(cut * batch, steady=cut == 0 or cut < LAST_TENTH * m / 2)


def stands_out(values: Float64, cut: int) -> bool:
    """Whether the first `cut` of `values` differ from the rest by more than chance, dependence included.

    values: as of `mser`, >= 0. Three conditions must hold: a step of 5 % in the mean; a t test over logarithms with n/g
    values for n, g from the rest (p < 0.001); and that the rest itself does not wander that far, by t over its
    stretches as long as the cut, or an eighth of it where that is shorter (p < 0.002). The second alone calls up to 8 %
    of steady queues a warm-up, because g of that few values is too small; the third compares with the queue's real
    wandering.

    Simulated, 1000 seeds: of steady M/M/1 queues of 400 to 4800 requests at 50 to 90 % load 3 % stand out at most, of
    independent values 0.2 %. Of transients from three times the level that decay over the first 5 or 10 %, 97 % do
    (lognormal, sigma 0.3, 400 requests); of those from twice the level 78 to 98 %, and all with 2000 requests. In front
    of a queue at 80 % load a start twelve times as slow is found in 70 %: a smaller factor is like any other rush.
    """
    head, rest = values[:cut], values[cut:]
    if len(head) == 0 or len(rest) < 2 * CUT_STRETCHES:
        return False
    if abs(head.mean() - rest.mean()) < CUT_STEP * rest.mean():
        return False
    positive = values[values > 0]
    logs = np.log(np.maximum(values, positive.min() if len(positive) else 1.0))
    head, rest = logs[:cut], logs[cut:]
    g = dependence.inefficiency(rest)
    worth = len(rest) / g
    if worth < CUT_WORTH:
        return False
    scatter = float(rest.std(ddof=1)) * math.sqrt(min(1.0, g / cut) + 1 / worth)
    if not _beyond(float(head.mean() - rest.mean()), scatter, worth - 1, CUT_P):
        return False
    length = min(cut, len(rest) // CUT_STRETCHES)
    count = len(rest) // length
    stretches = rest[len(rest) - count * length :].reshape(count, length).mean(axis=1)
    scatter = float(stretches.std(ddof=1)) * math.sqrt(length / cut + 1 / count)
    return _beyond(float(head.mean() - stretches.mean()), scatter, count - 1, CUT_STRETCHES_P)


def _beyond(difference: float, scatter: float, df: float, p: float) -> bool:
    if scatter == 0:
        return difference != 0
    return 2 * float(special.stdtr(df, -abs(difference) / scatter)) < p


# --- drift -----------------------------------------------------------------------------------------------------------


def bin_quantiles(at: Float64, values: Float64, start: float, end: float, q: float = 0.5) -> Float64:
    """The q-quantile in each of ten equal bins of [start, end): shape (10,); NaN where a bin holds nothing.

    at: shape (n,), the time of each value, in the unit of `start`; values outside the window are left out.
    """
    inside = (at >= start) & (at < end) & ~np.isnan(values)
    place = ((at[inside] - start) * DRIFT_BINS / (end - start)).astype(np.intp)
    chosen = values[inside]
    parts = [chosen[place == index] for index in range(DRIFT_BINS)]
    return np.array([np.quantile(part, q) if len(part) else np.nan for part in parts])


def drift(bins: Float64, least_change: float = DRIFT_CHANGE) -> Drift | None:
    """The trend of `bins`, shape (k,), in order of time; None if fewer than five of them hold data.

    Drifting if Mann-Kendall finds an order (p < 0.05) and the Theil-Sen line rises or falls by `least_change`.
    """
    index = np.flatnonzero(~np.isnan(bins))
    if len(index) < DRIFT_LEAST_BINS:
        return None
    held = bins[index]
    slope = float(scipy_stats().theilslopes(held, index).slope)
    level = float(np.median(held))
    change = slope * (len(bins) - 1) / level if level else 0.0
    p = kendall_p(held)
    return Drift(p, change, p < DRIFT_P and abs(change) >= least_change)


def kendall_p(values: Float64, alternative: Literal["two-sided", "less", "greater"] = "two-sided") -> float:
    """The p value of Kendall's tau between `values`, shape (k,), and their order; 1 where all are equal."""
    p = float(scipy_stats().kendalltau(np.arange(len(values)), values, alternative=alternative).pvalue)
    return 1.0 if math.isnan(p) else p


def correlated_p(p: float, inefficiency: float) -> float:
    """The two-sided `p` of a rank test of values whose mean varies `inefficiency` times as if independent.

    The variance correction of Hamed & Rao (1998); p of independent values is left as it is.
    """
    if inefficiency <= 1:
        return p
    return 2 * float(special.ndtr(float(special.ndtri(p / 2)) / math.sqrt(inefficiency)))


def trend_inefficiency(at: Float64, values: Float64, start: float, end: float, bins: Float64) -> float:
    """The factor by which the trend over `bins`, quantiles of [start, end), varies more than if bins were independent.

    at, values: as of `bin_quantiles`, in order of `at`. Ten bins are too few to estimate it; the values in them are
    enough: whether each is above the Theil-Sen line through the bins is the series that a quantile depends on, without
    its trend. At most 1.5, as of a queue at 95 % load in bins of 500: beyond it the trend is curved rather than the
    values dependent.
    """
    inside = (at >= start) & (at < end) & ~np.isnan(values)
    index = np.flatnonzero(~np.isnan(bins))
    line = scipy_stats().theilslopes(bins[index], index)
    place = (at[inside] - start) * len(bins) / (end - start) - 0.5
    above = (values[inside] > line.intercept + line.slope * place).astype(np.float64)
    return min(TREND_MOST, dependence.bin_inefficiency(above, len(above) / len(bins)))


# --- level shifts ----------------------------------------------------------------------------------------------------


def energy_split(values: Float64, least: int = 1) -> tuple[int, float]:
    """(tau, Q): the split into values[:tau] and values[tau:] with the largest energy statistic, and that.

    Q = mk/(m+k) (2 mean|x-y| - mean|x-x'| - mean|y-y'|), m and k the lengths of the parts, over all m^2 and k^2 pairs
    (Matteson & James 2014). values: shape (n,), n >= 2 least; both parts have `least` values or more. Memory is n^2.
    """
    n = len(values)
    if least < 1 or n < 2 * least:
        raise ValueError(f"cannot split {n} values into two parts of {least} or more")
    distances = np.abs(values[:, None] - values[None, :])
    rows = np.cumsum(distances.sum(axis=1))  # rows[t-1]: pairs (i < t, any j)
    tau = np.arange(least, n - least + 1)
    first = np.cumsum(np.cumsum(distances, axis=0), axis=1).diagonal()[tau - 1]  # pairs (i < t, j < t)
    across = rows[tau - 1] - first
    second = rows[-1] - rows[tau - 1] - across
    m, k = tau.astype(np.float64), (n - tau).astype(np.float64)
    q = m * k / (m + k) * (2 * across / (m * k) - first / m**2 - second / k**2)
    best = int(np.argmax(q))
    return int(tau[best]), float(q[best])


def shifts(bins: Float64) -> tuple[Shift, ...] | None:
    """The level shifts of `bins`, shape (k,), no NaN, in order of time; None if there are fewer than thirty.

    Split recursively at the largest energy statistic, each split accepted only if Welch's t finds the parts different
    (p < 0.01) and their means are 5 % apart: a t test in place of permutations, so that the same data give the same
    answer (Hunter, arXiv 2301.03034). At the end each is tested again between its final neighbours, worst first.

    A place that was chosen from the data makes p too good: of steady windows, 5 % show a shift where bins scatter by 5
    %, and 16 to 19 % where they scatter by 10 or 20 % (60 bins, simulated). Take wider bins where that matters.
    """
    if len(bins) < SHIFT_LEAST_BINS:
        return None
    edges = sorted({0, len(bins), *_splits(bins, 0)})
    while True:
        candidates = [_shift(bins, *around) for around in zip(edges, edges[1:], edges[2:], strict=False)]
        refuted = [shift for shift in candidates if not _accepted(shift)]
        if not refuted:
            return tuple(candidates)
        edges.remove(max(refuted, key=lambda shift: shift.p).at)


def _splits(part: Float64, start: int) -> list[int]:
    if len(part) < 2 * SHIFT_SEGMENT:
        return []
    tau, _ = energy_split(part, SHIFT_SEGMENT)
    if not _accepted(_shift(part, 0, tau, len(part))):
        return []
    return [*_splits(part[:tau], start), start + tau, *_splits(part[tau:], start + tau)]


def _shift(bins: Float64, start: int, at: int, end: int) -> Shift:
    before, after = bins[start:at], bins[at:end]
    return Shift(at, float(before.mean()), float(after.mean()), welch(before, after).p)


def _accepted(shift: Shift) -> bool:
    return shift.p < SHIFT_P and abs(shift.after - shift.before) >= SHIFT_STEP * abs(shift.before)
