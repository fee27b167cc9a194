"""Tests of more than two sets of run values: whether any differ, which pairs differ, and a test by ranks alone.

docs/methodology.md#more-than-two. The overall test is Alexander and Govern's, which does not suppose equal variances;
nor does the test of all pairs, Games and Howell's. Dunnett's compares each with a baseline and does suppose equal
variances. Kruskal and Wallis's, on ranks, is printed beside the first. Values are logarithms where the ratio is what
matters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.stats.distributions import scipy_stats
from analysis.stats.intervals import CONFIDENCE

__all__ = ["Pair", "Test", "alexander_govern", "all_pairs", "dunnett", "kruskal"]

Float64 = NDArray[np.float64]
Groups = Sequence[Sequence[float]]

DUNNETT_SEED = 0  # its p is integrated by chance: the same data give the same p


@dataclass(frozen=True, slots=True)
class Test:
    """A statistic and its p, of no difference between any of the groups."""

    statistic: float
    p: float


@dataclass(frozen=True, slots=True)
class Pair:
    """mean(groups[a]) - mean(groups[b]), its p and interval over the whole family of pairs."""

    a: int
    b: int
    difference: float
    p: float
    low: float
    high: float


def alexander_govern(groups: Groups) -> Test | None:
    """Test equal means of groups of unequal variances; None if a group does not vary, because it then has no weight."""
    arrays = _checked(groups)
    if min(float(array.std()) for array in arrays) == 0:
        return None
    result = scipy_stats().alexandergovern(*arrays)
    return Test(float(result.statistic), float(result.pvalue))


def kruskal(groups: Groups) -> Test | None:
    """Test that no group tends to greater values than another, by ranks; None where all values are the same."""
    arrays = _checked(groups)
    if len(set(np.concatenate(arrays).tolist())) == 1:
        return None
    result = scipy_stats().kruskal(*arrays)
    return Test(float(result.statistic), float(result.pvalue))


def all_pairs(groups: Groups, confidence: float = CONFIDENCE, *, equal_variances: bool = False) -> list[Pair]:
    """Every pair by Games and Howell, or by Tukey and Kramer if variances are equal; p and interval are adjusted.

    About a quarter of a second for each cell of the groups' square, most of it integrals. A pair of which neither group
    varies has no test: its p is 1 or 0 and its interval a point.
    """
    arrays = _checked(groups)
    with np.errstate(divide="ignore", invalid="ignore"):  # by the spread of such a pair
        result = scipy_stats().tukey_hsd(*arrays, equal_var=equal_variances)
        ends = result.confidence_interval(confidence)
    pairs = []
    for a, b in itertools.combinations(range(len(arrays)), 2):
        difference = float(arrays[a].mean() - arrays[b].mean())
        p, low, high = float(result.pvalue[a, b]), float(ends.low[a, b]), float(ends.high[a, b])
        if math.isnan(p):
            p, low, high = float(difference == 0), difference, difference
        pairs.append(Pair(a, b, difference, p, low, high))
    return pairs


def dunnett(groups: Groups, baseline: int, confidence: float = CONFIDENCE) -> list[Pair]:
    """Each group minus groups[baseline], p and interval adjusted for the number of comparisons; b is the baseline."""
    arrays = _checked(groups)
    others = [place for place in range(len(arrays)) if place != baseline]
    result = scipy_stats().dunnett(
        *(arrays[place] for place in others),
        control=arrays[baseline],
        random_state=np.random.default_rng(DUNNETT_SEED),
    )
    ends = result.confidence_interval(confidence)
    middle = float(arrays[baseline].mean())
    return [
        Pair(place, baseline, float(arrays[place].mean()) - middle, float(p), float(low), float(high))
        for place, p, low, high in zip(others, result.pvalue, ends.low, ends.high, strict=True)
    ]


def _checked(groups: Groups) -> list[Float64]:
    arrays = [np.asarray(group, np.float64) for group in groups]
    if len(arrays) < 2 or min(len(array) for array in arrays) < 2:
        raise ValueError("at least two groups of at least two run values are needed")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("all run values must be finite")
    return arrays
