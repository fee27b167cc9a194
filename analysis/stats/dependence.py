"""The dependence between values of one run.

See docs/methodology.md#dependence-within-a-run. n of them are worth n/g independent ones.

At 80 % load a request's wait still affects those a hundred places behind it in the queue. A test for a change inside a
run must allow for that, or it takes a rush for a change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bin_inefficiency", "inefficiency"]

Float64 = NDArray[np.float64]


def inefficiency(values: Float64) -> float:
    """The inefficiency g >= 1 of `values`, shape (n,), in order: the mean varies g times as if they were independent.

    g = 1 + 2 sum rho_k, over the lags of the initial monotone positive sequence (Geyer 1992). 1 where nothing varies.
    """
    g, _ = _summed(values)
    return g


def bin_inefficiency(values: Float64, length: float) -> float:
    """The inefficiency g >= 1 of means of successive bins of `length` values: near 1 if bins outlast the dependence."""
    g, rho = _summed(values)
    lags = np.arange(1, min(round(length), len(rho)))
    within = 1 + 2 * float(((1 - lags / length) * rho[lags]).sum())
    return max(1.0, g / max(1.0, within))


def _summed(values: Float64) -> tuple[float, Float64]:
    """(g, the autocorrelations from lag 0 on that it sums)."""
    n = len(values)
    if n < 2 or values.min() == values.max():  # the mean of equal values may be off by a rounding
        return 1.0, np.ones(1)
    centred = values - values.mean()
    size = 1 << (2 * n - 1).bit_length()  # as much padding as values: the ends do not meet
    spectrum = np.fft.rfft(centred, size)
    covariances = np.fft.irfft(np.abs(spectrum) ** 2, size)[: n - n % 2]
    rho = covariances / covariances[0]
    pairs = rho[::2] + rho[1::2]
    ends = np.flatnonzero(pairs <= 0)
    pairs_summed = int(ends[0]) if len(ends) else len(pairs)
    return max(1.0, 2 * float(np.minimum.accumulate(pairs[:pairs_summed]).sum()) - 1), rho[: 2 * pairs_summed]
