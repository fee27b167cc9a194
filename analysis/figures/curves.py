"""A latency at every percentile, with its interval: the data of the page's curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.stats import intervals
from analysis.stats.quantiles import FEW_TAIL_SAMPLES, Sorted, bounds, type7

__all__ = ["RUNS_DRAWN", "Band", "Curve", "Curves", "curves_of"]

POINTS = 160  # of a curve
RUNS_DRAWN = 12
SHARES = np.unique(np.concatenate([np.linspace(0, 1, POINTS), 1 - np.geomspace(1e-4, 0.1, 40)]))

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over their odds, 1/(1-p), ascending; shapes (POINTS,)."""

    odds: Float64
    values: Float64


@dataclass(frozen=True, slots=True)
class Band:
    """The 95 % interval at each of some odds. over_runs: of runs, else of the order statistics of one run."""

    odds: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    over_runs: bool


@dataclass(frozen=True, slots=True)
class Curves:
    """The n values of one latency, in their unit. solid: while ten samples lie beyond; dotted: until one does.

    by_share: the values at SHARES, of which each share is no slower.
    """

    n: int
    solid: Curve
    dotted: Curve | None
    band: Band | None
    of_runs: tuple[Curve, ...]
    several_runs: bool
    shares: Float64
    by_share: Float64


def curves_of(data: Sorted, runs: Sequence[Sorted], *, clustered: bool = False) -> Curves | None:
    """The curves of `data`, and of `runs`, which are the same data run by run; None without values.

    clustered: neighbours depend on each other, so that order statistics of one run give no band.
    """
    if not data.n:
        return None
    most, turn = max(2.0, float(data.n)), max(2.0, data.n / FEW_TAIL_SAMPLES)
    filled = [run for run in runs if run.n]
    over_runs = len(filled) >= intervals.LEAST_RUNS
    return Curves(
        n=data.n,
        solid=_curve(data, 1.0, min(turn, most)),
        dotted=_curve(data, turn, most) if most > turn else None,
        band=_band(data, filled if over_runs else [], most) if over_runs or not clustered else None,
        of_runs=tuple(_curve(run, 1.0, run.n) for run in filled[:RUNS_DRAWN] if run.n > 1) if len(filled) > 1 else (),
        several_runs=len(filled) > 1,
        shares=SHARES,
        by_share=np.array([type7(data, float(share)) for share in SHARES]),
    )


def _odds(low: float, high: float) -> Float64:
    return np.geomspace(low, max(high, low * 1.0001), POINTS)


def _curve(data: Sorted, low: float, high: float) -> Curve:
    odds = _odds(low, high)
    return Curve(odds, np.array([type7(data, 1 - 1 / at) for at in odds]))


def _band(data: Sorted, runs: Sequence[Sorted], most: float) -> Band:
    """The interval at each percentile: over `runs`, where there are any, else of the order statistics alone."""
    odds, lows, highs = [], [], []
    for at in _odds(1.05, most).tolist():
        q = 1 - 1 / at
        low, high = intervals.hull(data, q, runs) if runs else bounds(data, q)[:2]
        if low is not None and high is not None:
            odds.append(at)
            lows.append(low)
            highs.append(high)
    return Band(tuple(odds), tuple(lows), tuple(highs), bool(runs))
