"""Two sets of run values by their order alone: shift, exact tests, Cliff's delta. Printed beside a ratio.

docs/methodology.md#ratios. Nothing is assumed of the values' distribution, and every p is exact: counted over all the
ways in which the values could have been dealt, ties included, never approximated. With few runs such a p cannot become
small; `least_p` gives the least possible. A rank-sum tests P(A < B), not means: where it disagrees with the ratio, both
are shown.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.stats.intervals import CONFIDENCE

__all__ = [
    "Shift",
    "cliffs_delta",
    "least_p_rank_sum",
    "least_p_sign_flip",
    "permutation_p",
    "rank_sum_p",
    "shift",
    "shift_of_pairs",
    "sign_flip_p",
]

Float64 = NDArray[np.float64]
Values = Sequence[float] | Float64

MOST_RUNS = 200  # both sides together: above it, counting all the ways takes seconds
MOST_DEALS = 200_000  # of a permutation test, whose ways are tried one by one: 10 v 10 runs, or 17 pairs
ROUNDING = 1e-12  # of the values: sums that differ by less are the same sum, added in another order


@dataclass(frozen=True, slots=True)
class Shift:
    """The Hodges-Lehmann shift and the interval of all shifts that the rank test does not reject."""

    value: float
    low: float | None  # both None where even the widest interval would be below the confidence asked for
    high: float | None
    confidence: float | None  # achieved, at least what was asked for


def shift(values: Values, baseline: Values, confidence: float = CONFIDENCE) -> Shift:
    """The median of all differences values - baseline, shapes (n,) and (m,), with the rank-sum's interval."""
    a, b = _checked(values), _checked(baseline)
    counts = _rank_sum_counts([2 * rank for rank in range(1, len(a) + len(b) + 1)], len(a))
    return _inverted(np.sort(np.subtract.outer(a, b).ravel()), counts[counts > 0], confidence)


def shift_of_pairs(values: Values, baseline: Values, confidence: float = CONFIDENCE) -> Shift:
    """The median of the Walsh averages of the differences of pairs, with the signed-rank's interval."""
    differences = _differences(values, baseline)
    first, second = np.triu_indices(len(differences))
    walsh = np.sort((differences[first] + differences[second]) / 2)
    counts = np.ones(1)
    for rank in range(1, len(differences) + 1):
        longer = np.zeros(len(counts) + rank)
        longer[: len(counts)] += counts
        longer[rank:] += counts
        counts = longer
    return _inverted(walsh, counts, confidence)


def _inverted(ordered: Float64, counts: Float64, confidence: float) -> Shift:
    """The interval between the k-th difference from either end. counts: of the statistic's values 0, 1, ..."""
    value = float(np.median(ordered))
    tail = np.cumsum(counts) / counts.sum()
    k = int(np.searchsorted(tail, (1 - confidence) / 2 * (1 + ROUNDING), side="right"))
    if k == 0:
        return Shift(value, None, None, None)
    return Shift(value, float(ordered[k - 1]), float(ordered[-k]), float(1 - 2 * tail[k - 1]))


def rank_sum_p(values: Values, baseline: Values) -> float:
    """The exact two-sided p of Wilcoxon's rank-sum (Mann-Whitney), given the ties there are.

    Raises ValueError for more than 200 values in all.
    """
    a, b = _checked(values), _checked(baseline)
    doubled = _doubled_midranks(np.concatenate([a, b]))
    counts = _rank_sum_counts(doubled.tolist(), len(a))
    at = int(doubled[: len(a)].sum())
    below, above = counts[: at + 1].sum() / counts.sum(), counts[at:].sum() / counts.sum()
    return min(1.0, 2 * float(min(below, above)))


def permutation_p(values: Values, baseline: Values) -> float | None:
    """The exact two-sided permutation p of the difference of means; None where there are too many deals."""
    a, b = _checked(values), _checked(baseline)
    if math.comb(len(a) + len(b), len(a)) > MOST_DEALS:
        return None
    everything = np.concatenate([a, b])
    places = np.array(list(itertools.combinations(range(len(everything)), len(a))))
    return _two_sided(everything[places].sum(axis=1), float(a.sum()), float(np.abs(everything).sum()))


def sign_flip_p(values: Values, baseline: Values) -> float | None:
    """The exact two-sided p of the mean difference of pairs over all sign flips; None if there are too many."""
    differences = _differences(values, baseline)
    if 2 ** len(differences) > MOST_DEALS:
        return None
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(differences))))
    return _two_sided(signs @ differences, float(differences.sum()), float(np.abs(differences).sum()))


def _two_sided(sums: Float64, observed: float, scale: float) -> float:
    slack = ROUNDING * scale
    below, above = np.mean(sums <= observed + slack), np.mean(sums >= observed - slack)
    return min(1.0, 2 * float(min(below, above)))


def cliffs_delta(values: Values, baseline: Values) -> float:
    """P(value > baseline) - P(value < baseline) over all pairs of runs, in [-1, 1]; 2 U / (n m) - 1."""
    return float(np.sign(np.subtract.outer(_checked(values), _checked(baseline))).mean())


def least_p_rank_sum(n: int, m: int) -> float:
    """The least two-sided p that an exact rank-sum or permutation test of n v m runs can give."""
    return min(1.0, 2.0 / math.comb(n + m, n))


def least_p_sign_flip(n: int) -> float:
    """The least two-sided p that an exact sign-flip or signed-rank test of n pairs can give."""
    return min(1.0, 0.5 ** (n - 1))


def _doubled_midranks(values: Float64) -> NDArray[np.int64]:
    """Twice the mean rank of each value, so that ties stay whole numbers."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    doubled: NDArray[np.int64] = (2 * last - count + 1)[place]
    return doubled


def _rank_sum_counts(doubled: Sequence[int], chosen: int) -> Float64:
    """The number of ways in which `chosen` of the doubled ranks add up to each sum 0, 1, 2, ..."""
    if len(doubled) > MOST_RUNS:
        raise ValueError(f"no exact rank test of {len(doubled)} runs; at most {MOST_RUNS} in all")
    ways = np.zeros((chosen + 1, sum(doubled) + 1))
    ways[0, 0] = 1
    for rank in doubled:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    counts: Float64 = ways[chosen]
    return counts


def _differences(values: Values, baseline: Values) -> Float64:
    a, b = _checked(values), _checked(baseline)
    if len(a) != len(b):
        raise ValueError(f"pairs are needed, got {len(a)} and {len(b)} run values")
    return a - b


def _checked(values: Values) -> Float64:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        raise ValueError("at least one run value is needed, and all must be finite")
    return array
