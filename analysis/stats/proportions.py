"""Two success rates compared: docs/methodology.md#success-rates. One rate: intervals.proportion.

Two independent sets of trials and the same tasks tried in both arms are different questions. The usual case is the
second (one list of tasks, several servers), and the formulas for the first are then far too wide.
"""

from __future__ import annotations

import math

from analysis.estimate import Estimate
from analysis.stats import intervals
from analysis.stats.distributions import scipy_stats

__all__ = ["fisher_p", "mcnemar_p", "newcombe"]

CONFIDENCE = 0.95


def newcombe(k: int, n: int, k0: int, n0: int, confidence: float = CONFIDENCE) -> Estimate:
    """The difference k/n - k0/n0 of two independent sets, with Newcombe's interval (1998, method 10).

    The gaps from each rate to the ends of its Wilson interval are added as roots of sums of squares. n, n0 > 0.
    """
    rate = intervals.proportion(k, n, confidence=confidence)
    rate_0 = intervals.proportion(k0, n0, confidence=confidence)
    a, b = _ends(rate), _ends(rate_0)
    difference = a[1] - b[1]
    low = difference - math.hypot(a[1] - a[0], b[2] - b[1])
    high = difference + math.hypot(a[2] - a[1], b[1] - b[0])
    return Estimate(difference, low, high, confidence, n + n0)


def _ends(share: Estimate) -> tuple[float, float, float]:
    if share.value is None or share.low is None or share.high is None:
        raise ValueError("a rate of no trials")
    return share.low, share.value, share.high


def fisher_p(k: int, n: int, k0: int, n0: int) -> float:
    """Fisher's exact two-sided p that two independent sets have one rate; conservative."""
    return float(scipy_stats().fisher_exact([[k, k0], [n - k, n0 - k0]]).pvalue)


def mcnemar_p(only_one: int, only_other: int) -> float:
    """McNemar's exact two-sided p for the same tasks in both arms, from those that only one arm solved."""
    discordant = only_one + only_other
    if discordant == 0:
        return 1.0
    return float(scipy_stats().binomtest(only_one, discordant).pvalue)
