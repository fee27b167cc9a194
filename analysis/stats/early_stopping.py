"""MLPerf Inference: how many queries settle "the q-quantile is within the limit", and what n say. METHODOLOGY 2.7.

With t of n queries over the limit, the limit holds at confidence c if P(Bin(n, 1-q) <= t) <= 1-c. The queries count as
independent, as the rules of the benchmark have it; that is not true of a queue, where the hull over runs is the answer.
"""

from __future__ import annotations

from typing import NamedTuple

from scipy import special

from analysis.stats.quantiles import Sorted, least_n, one_sided_upper_rank

__all__ = ["Bounds", "allowed_over", "bounds", "fixed_size", "queries_needed"]

CONFIDENCE = 0.99
MARGIN = 1 / 20  # of (1-q), in the older fixed sizes


class Bounds(NamedTuple):
    """Upper limits of a quantile; None where n supports none. The first is ours, the second what LoadGen prints."""

    exact: float | None  # X_(n-t): 1-based rank n-t
    loadgen: float | None  # one rank higher: it reads the ascending 0-based index n-t


def allowed_over(n: int, q: float, confidence: float = CONFIDENCE) -> int | None:
    """Return t, the most of n queries that may exceed the limit; None if n is too small even with none."""
    rank = one_sided_upper_rank(n, q, confidence)
    return None if rank is None else n - rank


def queries_needed(q: float, over: int = 0, confidence: float = CONFIDENCE) -> int:
    """Return the least n in which `over` queries may exceed the limit."""

    def enough(n: int) -> bool:
        return float(special.bdtr(over, n, 1 - q)) <= 1 - confidence

    low = high = least_n(q, confidence)
    if over == 0:
        return high
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def bounds(data: Sorted, q: float, confidence: float = CONFIDENCE) -> Bounds:
    """Return the upper limits of the q-quantile of `data`.

    LoadGen counts t from 1, so that it has no estimate where t is 0.
    """
    over = allowed_over(data.n, q, confidence)
    if over is None:
        return Bounds(None, None)
    return Bounds(data.at(data.n - over), data.at(data.n - over + 1) if over else None)


def fixed_size(q: float, confidence: float = CONFIDENCE) -> float:
    """Return the older fixed number of queries, unrounded: z^2 q (1-q) / ((1-q)/20)^2, z two-sided at `confidence`."""
    z = float(special.ndtri((1 + confidence) / 2))
    return z * z * q * (1 - q) / (MARGIN * (1 - q)) ** 2
