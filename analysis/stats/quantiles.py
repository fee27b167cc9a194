"""Quantiles, and their intervals as far as n samples have them.

The headline is type 7 (linear between order statistics, Hyndman & Fan 1996). Its interval is made of order
statistics: X_(l) and X_(u) bracket the q-quantile with a probability that depends on n and q alone, whatever the
distribution, as long as the samples are independent. Which (l, u) comes from the binomial distribution, and so does
the refusal: where (1-q) is too small for n there is no upper limit, and the interval is open above.

The data are a `Sorted`: an array, or a histogram (distribution.py).
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special  # not scipy.stats, which takes 0.6 s to import

from analysis.estimate import Estimate, NoteCode, note

__all__ = [
    "FEW_TAIL_SAMPLES",
    "Sorted",
    "bounds",
    "least_n",
    "name_of",
    "quantile",
    "ranks",
    "type7",
]

# docs/methodology.md#what-is-printed: below this many samples expected beyond it, a percentile is marked
FEW_TAIL_SAMPLES = 10
CONFIDENCE = 0.95


class Sorted(Protocol):
    """n values by rank."""

    @property
    def n(self) -> int: ...

    def at(self, rank: int) -> float:
        """The order statistic of 1-based `rank`, 1 <= rank <= n."""
        ...


class SortedArray:
    """A `Sorted` over an array, shape (n,), any order; sorted here once."""

    def __init__(self, values: NDArray[np.generic]) -> None:
        self._values = np.sort(values)
        self.n = len(values)

    def at(self, rank: int) -> float:
        return float(self._values[rank - 1])


def type7(data: Sorted, q: float) -> float:
    """The type-7 q-quantile, q in [0, 1]. Raises ValueError if there is no data."""
    if data.n == 0:
        raise ValueError("quantile of no data")
    at = (data.n - 1) * q
    below = math.floor(at)
    low = data.at(below + 1)
    if at == below or below + 2 > data.n:
        return low
    high = data.at(below + 2)
    # Infinite values stand for failed requests: between two of them, or up to one, is infinity and not NaN.
    if math.isinf(high):
        return high
    return low + (high - low) * (at - below)


def ranks(n: int, q: float, confidence: float = CONFIDENCE) -> tuple[int | None, int | None]:
    """The 1-based ranks (l, u) whose order statistics bracket the q-quantile; None where n has no such limit.

    l = max{l: F(l-1) <= a/2}, u = min{u: F(u-1) >= 1-a/2}, F the Bin(n, q) distribution function, a = 1-confidence.
    """
    tail = (1 - confidence) / 2
    return _lower_rank(n, q, tail), _upper_rank(n, q, tail)


def _lower_rank(n: int, q: float, tail: float) -> int | None:
    if n == 0 or _cdf(0, n, q) > tail:
        return None
    low, high = 1, n  # the answer lies in [low, high]; F grows with the rank
    while low < high:
        middle = (low + high + 1) // 2
        if _cdf(middle - 1, n, q) <= tail:
            low = middle
        else:
            high = middle - 1
    return low


def _upper_rank(n: int, q: float, tail: float) -> int | None:
    if n == 0 or _cdf(n - 1, n, q) < 1 - tail:
        return None
    low, high = 1, n
    while low < high:
        middle = (low + high) // 2
        if _cdf(middle - 1, n, q) >= 1 - tail:
            high = middle
        else:
            low = middle + 1
    return low


def _cdf(k: int, n: int, q: float) -> float:
    """P(Bin(n, q) <= k)."""
    if k < 0:
        return 0.0
    return 1.0 if k >= n else float(special.bdtr(k, n, q))


def coverage(n: int, q: float, lower: int | None, upper: int | None) -> float:
    """The probability that the q-quantile lies between the order statistics; a None side is open."""
    above = 1.0 if upper is None else _cdf(upper - 1, n, q)
    below = 0.0 if lower is None else _cdf(lower - 1, n, q)
    return above - below


def least_n(q: float, confidence: float = CONFIDENCE, *, two_sided: bool = False) -> int:
    """The fewest samples with which the q-quantile has an upper limit: q**n <= the tail that is allowed."""
    tail = (1 - confidence) / 2 if two_sided else 1 - confidence
    n = max(1, math.ceil(math.log(tail) / math.log(q)) - 1)  # one early: the logarithms may round either way
    while q**n > tail:
        n += 1
    return n


def bounds(data: Sorted, q: float, confidence: float = CONFIDENCE) -> tuple[float | None, float | None, float | None]:
    """(X_(l), X_(u), the coverage they achieve); a side that n cannot support is None."""
    lower, upper = ranks(data.n, q, confidence)
    low = None if lower is None else data.at(lower)
    high = None if upper is None else data.at(upper)
    achieved = None if lower is None and upper is None else coverage(data.n, q, lower, upper)
    return low, high, achieved


def quantile(data: Sorted, q: float, confidence: float = CONFIDENCE) -> Estimate:
    """The q-quantile with its order-statistic interval, refused or marked by docs/methodology.md#what-is-printed.

    Refused (value None, a lower bound if there is one) when fewer than one sample is expected beyond it: the type-7
    value would then be the maximum under another name, and that grows with n.
    """
    n = data.n
    if n == 0:
        return Estimate(None, notes=(note(NoteCode.NO_DATA),))
    low, high, achieved = bounds(data, q, confidence)
    beyond = round(n * min(q, 1 - q), 9)
    if beyond < 1:
        reason = note(NoteCode.BEYOND_DATA, percentile=name_of(q), n=n)
        return Estimate(None, low, None, achieved if low is not None else None, n, (reason,))
    notes = []
    if beyond < FEW_TAIL_SAMPLES:
        notes.append(note(NoteCode.FEW_TAIL_SAMPLES))
    if high is None:
        notes.append(note(NoteCode.NO_UPPER_LIMIT, least=least_n(q, confidence, two_sided=True)))
    return Estimate(type7(data, q), low, high, achieved, n, tuple(notes))


def name_of(q: float) -> str:
    """The common name of the q-quantile: 0.5 -> p50, 0.999 -> p99.9."""
    return f"p{100 * q:.6g}"
