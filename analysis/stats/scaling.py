"""Throughput by the number of clients: laws, their fits, the knee, and Little's law as a check on the accounts.

Two families. The whole-system law gives X(N), the throughput at N in flight: Gunther's universal scalability law
(docs/methodology.md#scaling). Per-agent laws give eta(N), the share of its rate that one agent keeps when N share the
server (docs/agents.md#rate-per-agent). A fit without enough data is refused with a note: a peak far beyond the levels
tried is no finding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate, Float64, Note, NoteCode, note, refused
from analysis.stats.in_flight import time_in_flight
from analysis.stats.intervals import t_quantile

__all__ = [
    "EtaFit",
    "Knee",
    "Usl",
    "efficiency",
    "fit_eta_amdahl",
    "fit_eta_power",
    "fit_usl",
    "halving_level",
    "knee",
    "little_gap",
    "usl",
    "usl_peak",
]

Int64 = NDArray[np.int64]

CONFIDENCE = 0.95
LEAST_LEVELS = 6
LEAST_SPAN = 16  # largest level over smallest
LEAST_RUNS = 3  # per level
FURTHEST_PEAK = 2  # times the largest level tried: beyond it the peak's interval covered 76 %
KNEE_SHARE = 0.9
HALF = 0.5
LITTLE_GAP = 0.02
TOO_WIDE = math.log(1e6)  # half-width of a logarithm: what a parameter at its boundary of zero has


# --- laws ------------------------------------------------------------------------------------------------------------


def usl(n: Float64, gamma: float, alpha: float, beta: float) -> Float64:
    """X(N) = gamma N / (1 + alpha (N-1) + beta N (N-1)): contention alpha, coherency beta (Gunther)."""
    return gamma * n / (1 + alpha * (n - 1) + beta * n * (n - 1))


def usl_peak(gamma: float, alpha: float, beta: float) -> tuple[float, float]:
    """(N*, X at N*): the level of most throughput, sqrt((1-alpha)/beta); infinite if nothing is retrograde."""
    if beta <= 0:
        return math.inf, (gamma / alpha if alpha > 0 else math.inf)
    level = math.sqrt(max(1 - alpha, 0.0) / beta)
    return level, float(usl(np.array([level]), gamma, alpha, beta)[0])


# --- the fit of the universal scalability law ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usl:
    """A fitted law. gamma: throughput of one; alpha, beta without a unit. Each has its interval or a note why not."""

    gamma: Estimate
    alpha: Estimate
    beta: Estimate
    peak_level: Estimate
    peak_rate: Estimate


def fit_usl(levels: Sequence[float], rates: Sequence[float], confidence: float = CONFIDENCE) -> Usl:
    """X(N) fitted to run values: `levels`, shape (points,), and the throughput at each, one point per run, all > 0.

    Least squares on log X with log parameters; t intervals of points - 3 degrees, N* by the delta method on log N*.
    Refused: fewer than 6 levels or less than a factor 16 between them. Without intervals: fewer than 3 runs at some
    level. Without a peak: N* beyond twice the largest level, where noise alone makes one.
    """
    n, x = np.asarray(levels, np.float64), np.asarray(rates, np.float64)
    tried, runs = np.unique(n, return_counts=True)
    reason = _unfit(tried, x)
    if reason:
        return _refused_usl(reason, len(n))
    fit = _fit_log(n, x)
    if fit is None:
        return _refused_usl(note(NoteCode.NO_FIT), len(n))
    logs, covariance = fit
    gamma, alpha, beta = np.exp(logs).tolist()
    few = int(runs.min()) < LEAST_RUNS
    t = t_quantile(len(n) - 3, confidence)

    def estimated(value: float, gradient: Sequence[float]) -> Estimate:
        """gradient: of the logarithm of `value`, by the logarithms of the parameters."""
        if few:
            return Estimate(value, n=len(n), notes=(note(NoteCode.FEW_RUNS_AT_LEVEL, least=LEAST_RUNS),))
        g = np.asarray(gradient)
        half = t * math.sqrt(max(float(g @ covariance @ g), 0.0))
        if not half < TOO_WIDE:
            return Estimate(value, n=len(n), notes=(note(NoteCode.UNSETTLED),))
        return Estimate(value, value * math.exp(-half), value * math.exp(half), confidence, len(n))

    estimates = (estimated(gamma, (1, 0, 0)), estimated(alpha, (0, 1, 0)), estimated(beta, (0, 0, 1)))
    level, rate = usl_peak(gamma, alpha, beta)
    largest = float(tried[-1])
    if not level <= FURTHEST_PEAK * largest:
        best = float(max(x[n == level_tried].mean() for level_tried in tried))
        plateau = note(NoteCode.PLATEAU, largest=largest, best=best)
        return Usl(*estimates, refused(plateau, len(n)), refused(plateau, len(n)))
    by_level = (0.0, -alpha / (2 * (1 - alpha)), -0.5) if alpha < 1 else (0.0, 0.0, 0.0)
    # At the peak dX/dN = 0: the rate there depends on the parameters alone, not on where the peak moves.
    below = 1 + alpha * (level - 1) + beta * level * (level - 1)
    by_rate = (1.0, -alpha * (level - 1) / below, -beta * level * (level - 1) / below)
    return Usl(*estimates, estimated(level, by_level), estimated(rate, by_rate))


def _refused_usl(reason: Note, n: int) -> Usl:
    nothing = refused(reason, n)
    return Usl(nothing, nothing, nothing, nothing, nothing)


def _unfit(tried: Float64, rates: Float64) -> Note | None:
    if len(rates) == 0 or float(rates.min()) <= 0 or float(tried[0]) <= 0:
        return note(NoteCode.NOT_POSITIVE)
    if len(tried) < LEAST_LEVELS:
        return note(NoteCode.FEW_LEVELS, levels=len(tried), least=LEAST_LEVELS)
    if tried[-1] < LEAST_SPAN * tried[0]:
        low, high = float(tried[0]), float(tried[-1])
        return note(NoteCode.NARROW_LEVELS, low=low, high=high, least=LEAST_SPAN)
    return None


def _fit_log(n: Float64, x: Float64) -> tuple[Float64, Float64] | None:
    """The log parameters and their covariance, from the best of a few starts; None if none converges."""
    from scipy import optimize  # slow to import, and needed only here

    def log_usl(n: Float64, *logs: float) -> Float64:
        gamma, alpha, beta = np.exp(np.clip(logs, -60, 60))
        return np.log(usl(n, gamma, alpha, beta))

    def residuals(logs: Float64) -> Float64:
        return np.log(x) - log_usl(n, *logs)

    first = math.log(float(np.median(x[n == n.min()])) / float(n.min()))
    best: Any = None
    for alpha, beta in ((0.1, 1e-3), (0.01, 1e-5), (0.5, 1e-4)):
        fit = optimize.least_squares(residuals, (first, math.log(alpha), math.log(beta)), xtol=1e-14, ftol=1e-14)
        if fit.success and (best is None or fit.cost < best.cost):
            best = fit
    if best is None:
        return None
    spread = 2 * best.cost / (len(n) - 3)
    return best.x, spread * np.linalg.pinv(best.jac.T @ best.jac)


# --- the knee --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Knee:
    """The least level with 90 % of the most throughput, and the levels tried on either side of it."""

    level: float
    below: float | None  # None: already the smallest level
    above: float | None  # None: throughput still rose at the largest level
    most_power: float | None  # the level with the largest X/R (Kleinrock); None without latencies


def knee(levels: Sequence[float], rates: Sequence[float], latencies: Sequence[float] | None = None) -> Knee:
    """The knee of throughputs at ascending distinct levels; latencies: of the same levels, any unit."""
    if not levels or len(levels) != len(rates) or any(b <= a for a, b in pairwise(levels)):
        raise ValueError("levels must ascend, one throughput each")
    place = next(i for i, rate in enumerate(rates) if rate >= KNEE_SHARE * max(rates))
    power = None if latencies is None else [rate / latency for rate, latency in zip(rates, latencies, strict=True)]
    return Knee(
        level=levels[place],
        below=levels[place - 1] if place else None,
        above=levels[place + 1] if place + 1 < len(levels) else None,
        most_power=None if power is None else levels[power.index(max(power))],
    )


# --- Little's law ----------------------------------------------------------------------------------------------------


def little_gap(starts_ns: Int64, ends_ns: Int64, from_ns: int, to_ns: int) -> float | None:
    """The distance |N - X R| / N over a window: N mean in flight, X ended in it per time, R their mean time inside.

    Above LITTLE_GAP the window cuts requests off, or the system is not in balance. None if nothing was in flight.
    """
    edges = np.array([from_ns, to_ns], np.float64)
    area = float(np.diff(time_in_flight(starts_ns, ends_ns, edges))[0])
    if area <= 0:
        return None
    ended = (ends_ns >= from_ns) & (ends_ns < to_ns)
    return abs(area - float((ends_ns - starts_ns)[ended].sum())) / area


# --- the rate that one agent keeps -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EtaFit:
    """A law of one parameter fitted to eta(N); r_squared: against the mean of eta, as in the sources."""

    parameter: Estimate
    r_squared: float | None


def efficiency(per_agent: dict[int, float]) -> dict[int, float]:
    """The efficiency eta(N) = an agent's rate among N / its rate alone. per_agent: the rate by N; must have N = 1."""
    if 1 not in per_agent:
        raise ValueError("no rate of one agent alone: eta has no base")
    return {n: rate / per_agent[1] for n, rate in sorted(per_agent.items())}


def halving_level(eta: dict[int, float]) -> int | None:
    """N*, the smallest N tried with eta below a half; None if there is none."""
    return next((n for n in sorted(eta) if eta[n] < HALF), None)


def fit_eta_amdahl(eta: dict[int, float]) -> EtaFit:
    """Fit eta = 1 / (s + (1-s) N). s is the *parallel* share: s = 1 keeps every agent at its full rate."""
    return _fit_eta(eta, lambda n, s: 1 / (s + (1 - s) * n), 0.5, (0.0, 1.0))


def fit_eta_power(eta: dict[int, float]) -> EtaFit:
    """Fit eta = N^-alpha: 0 keeps every agent at its full rate, 1 shares one rate among all."""
    return _fit_eta(eta, lambda n, alpha: n**-alpha, 0.5, (-1.0, 10.0))


def _fit_eta(
    eta: dict[int, float], law: Callable[[Float64, float], Float64], start: float, limits: tuple[float, float]
) -> EtaFit:
    n, values = np.array(sorted(eta), np.float64), np.array([eta[level] for level in sorted(eta)])
    informing = int((n > 1).sum())
    if informing < 2:
        return EtaFit(refused(note(NoteCode.ONE_LEVEL_ABOVE_ONE), len(n)), None)
    from scipy import optimize  # slow to import, and needed only here

    def residuals(parameter: Float64) -> Float64:
        difference: Float64 = law(n, float(parameter[0])) - values
        return difference

    fit = optimize.least_squares(residuals, (start,), bounds=([limits[0]], [limits[1]]), xtol=1e-14, ftol=1e-14)
    value, squares = float(fit.x[0]), float((fit.fun**2).sum())
    total = float(((values - values.mean()) ** 2).sum())
    r_squared = 1 - squares / total if total > 0 else None
    # eta(1) = 1 by definition and holds no information: it is no degree of freedom.
    error = math.sqrt(squares / (informing - 1) / max(float((fit.jac**2).sum()), 1e-300))
    half = t_quantile(informing - 1) * error
    return EtaFit(Estimate(value, value - half, value + half, CONFIDENCE, len(n)), r_squared)
