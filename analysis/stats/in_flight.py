"""Time spent in flight, from starts and ends alone: the integral behind mean concurrency and Little's law."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["time_in_flight"]

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def time_in_flight(starts: Int64, ends: Int64, at: Float64) -> Float64:
    """The request time spent until each instant of `at`: the sum over requests of min(at, end) - min(at, start).

    starts, ends: shape (n,), of the same requests. All in one unit, which is that of the result, shape of `at`.
    """
    return _until(starts, at) - _until(ends, at)


def _until(events: Int64, at: Float64) -> Float64:
    """The sum of max(0, at - event) over the events, for each `at`."""
    ordered = np.sort(events).astype(np.float64)
    sums = np.append(0.0, np.cumsum(ordered))
    before = np.searchsorted(ordered, at, side="right")
    spent: Float64 = before * at - sums[before]
    return spent
