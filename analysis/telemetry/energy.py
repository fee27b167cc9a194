"""Energy from power samples.

See docs/methodology.md#energy.

Whole boards only. A board's own power reading is averaged and sampled in ways that differ by model, so that a figure
needs a window much longer than a reading (60 s by default; energy of single requests is refused), and several runs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["joules", "net_of_idle"]

Float64 = NDArray[np.float64]


def joules(at_s: Float64, watts: Float64) -> float:
    """The energy between the first and the last sample, by trapezoids.

    at_s, watts: shape (n,), n >= 2, ascending times. Raises ValueError otherwise, and where a sample is missing (NaN):
    a bridge over it would invent energy.
    """
    if len(at_s) != len(watts) or len(at_s) < 2:
        raise ValueError(f"energy needs two samples or more, each with its time; got {len(at_s)} and {len(watts)}")
    if not (np.diff(at_s) > 0).all():
        raise ValueError("times of power samples must ascend")
    if not np.isfinite(watts).all():
        raise ValueError("a power sample is missing")
    return float(((watts[1:] + watts[:-1]) / 2 * np.diff(at_s)).sum())


def net_of_idle(energy_j: float, idle_w: float, seconds: float) -> float:
    """The energy beyond the idle power, J. idle_w: measured for 30 s or more before the load."""
    return energy_j - idle_w * seconds
