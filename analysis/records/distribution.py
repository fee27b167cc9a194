"""Durations in bounded memory: exact up to a limit, then a histogram that is right to half of 0.1 %.

A run may have a hundred million gaps between tokens. They are integers of nanoseconds, so up to `EXACT` of them are
kept as they are; beyond that only counts per bin are kept. The bins are HDR-like: 1024 per power of two, so integer
arithmetic alone decides where a value goes and the result does not depend on order, machine or number of pieces.
The sum, the least and the greatest value stay exact in both.
"""

from __future__ import annotations

import numpy as np

from loadgen.record import Int64

__all__ = ["BIN_ERROR", "EXACT", "Binned", "Distribution", "bin_of", "middle_of"]

EXACT = 4_000_000  # values kept exactly: 32 MB, and another 32 MB while they are sorted
_BITS = 10  # 2**10 bins per octave: a bin is at most 0.098 % wide, its middle wrong by half of that
BIN_ERROR = 2.0 ** -(_BITS + 1)  # relative: half a bin's width
_BINS = (64 - _BITS) << _BITS


def bin_of(values: Int64) -> Int64:
    """The bin of each value >= 0 (negative ones count as 0). Below 2048 a bin holds one integer."""
    positive = np.maximum(values, 0)
    # frexp is exact below 2**53 ns, which is 104 days.
    length = np.frexp(positive.astype(np.float64))[1].astype(np.int64)
    shift = np.maximum(length - _BITS - 1, 0)
    return (shift << _BITS) + (positive >> shift)


def middle_of(index: int) -> float:
    """The middle of a bin, ns."""
    if index < 2 << _BITS:
        return float(index)
    shift = (index >> _BITS) - 1
    start = (index - (shift << _BITS)) << shift
    return start + ((1 << shift) - 1) / 2


class Distribution:
    """A growing multiset of durations in ns that gives values by rank. `exact` is true while every value is kept."""

    def __init__(self, exact: int = EXACT) -> None:
        self._limit = exact
        self._parts: list[Int64] = []
        self._sorted: Int64 | None = None
        self._counts: Int64 | None = None
        self._cumulative: Int64 | None = None
        self.n = 0
        self.sum = 0
        self.least: int | None = None
        self.greatest: int | None = None

    @property
    def exact(self) -> bool:
        return self._counts is None

    def add(self, values: Int64) -> None:
        """Add `values`, shape (k,), ns, any order."""
        if len(values) == 0:
            return
        least, greatest = int(values.min()), int(values.max())
        self.n += len(values)
        self.sum += int(values.sum())
        self.least = least if self.least is None else min(self.least, least)
        self.greatest = greatest if self.greatest is None else max(self.greatest, greatest)
        self._sorted = self._cumulative = None
        if self._counts is None:
            self._parts.append(values)
            if self.n > self._limit:
                self._counts = np.zeros(_BINS, np.int64)
                for part in self._parts:
                    self._count(part)
                self._parts = []
        else:
            self._count(values)

    def _count(self, values: Int64) -> None:
        assert self._counts is not None
        counts = np.bincount(bin_of(values))
        self._counts[: len(counts)] += counts

    def at(self, rank: int) -> float:
        """The order statistic of 1-based `rank`, ns."""
        if self._counts is None:
            return float(self.values()[rank - 1])
        if self._cumulative is None:
            self._cumulative = np.cumsum(self._counts)
        index = int(np.searchsorted(self._cumulative, rank))
        assert self.least is not None
        assert self.greatest is not None
        return min(max(middle_of(index), self.least), self.greatest)

    def values(self) -> Int64:
        """Every value, ascending; only while exact."""
        if self._sorted is None:
            self._sorted = np.sort(np.concatenate(self._parts)) if self._parts else np.empty(0, np.int64)
            self._parts = [self._sorted] if self.n else []
        return self._sorted

    def counts(self) -> tuple[Int64, list[int]]:
        """(counts, bins): the number of values in each occupied bin, and the bins; in either form."""
        counts = self._counts
        if counts is None:
            counts = np.bincount(bin_of(self.values())) if self.n else np.empty(0, np.int64)
        occupied = np.flatnonzero(counts)
        return counts[occupied].astype(np.int64), occupied.tolist()

    def mean(self) -> float:
        return self.sum / self.n

    def sd(self) -> float:
        """The sample standard deviation (n-1), ns; needs n >= 2."""
        if self._counts is None:
            return float(np.std(self.values(), ddof=1))
        counts, bins = self.counts()
        middles = np.array([middle_of(index) for index in bins])
        squares = float(np.sum(counts * (middles - self.mean()) ** 2))
        return float(np.sqrt(squares / (self.n - 1)))


class Binned:
    """A fixed histogram that can be asked for by rank. bins: ascending, counts: of each, > 0."""

    def __init__(self, bins: list[int], counts: list[int]) -> None:
        self._bins = bins
        self._cumulative = np.cumsum(np.asarray(counts, dtype=np.int64))
        self.n = int(self._cumulative[-1]) if bins else 0

    def at(self, rank: int) -> float:
        """The order statistic of 1-based `rank`, ns."""
        return middle_of(self._bins[int(np.searchsorted(self._cumulative, rank))])
