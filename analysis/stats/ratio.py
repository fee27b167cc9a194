"""The ratio of two sets of run values and its interval: of geometric means by t on the logarithms, of means by Fieller.

docs/methodology.md#ratios. A value is one figure of one run. Pairs (two arms of one block, solo and concurrent of one
block) take the differences of the logarithms, which halves the interval where blocks drift together; unpaired values
take Welch's t, never Student's, whose equal variances are what two systems do not have. Fieller's intervals are of the
ratio of arithmetic means, and printed for agreement. Nothing here decides anything: equivalence.py does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.estimate import Float64, Note, NoteCode, note
from analysis.stats.intervals import CONFIDENCE, t_quantile

__all__ = ["Difference", "Ratio", "fieller_paired", "fieller_unpaired", "log_paired", "log_welch", "paired", "welch"]

Values = Sequence[float] | Float64

ROUNDING = 1e-12  # of a mean: a smaller standard error is that of values which are all the same
UNBOUNDED = note(NoteCode.UNBOUNDED, why="the denominator may be zero")


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of means with its t test and interval; of the logarithms, it is a ratio's."""

    value: float
    se: float
    df: float
    low: float
    high: float
    confidence: float
    t: float  # infinite where the values do not vary
    p: float  # two-sided, of no difference

    def at(self, confidence: float) -> tuple[float, float]:
        """The interval at another confidence."""
        half = t_quantile(self.df, confidence) * self.se
        return self.value - half, self.value + half


@dataclass(frozen=True, slots=True)
class Ratio:
    """numerator / denominator. low and high are None where the ratio is unbounded; the notes say so."""

    value: float
    low: float | None
    high: float | None
    confidence: float
    df: float
    method: str
    log: Difference | None = None  # of the logarithms, where the method works on them
    notes: tuple[Note, ...] = ()

    @property
    def p(self) -> float | None:
        """The two-sided p of a ratio of 1; None for Fieller's."""
        return None if self.log is None else self.log.p

    def at(self, confidence: float) -> tuple[float, float] | None:
        """The interval at another confidence, where the method works on logarithms."""
        if self.log is None:
            return None
        low, high = self.log.at(confidence)
        return math.exp(low), math.exp(high)


def log_paired(numerator: Values, denominator: Values, confidence: float = CONFIDENCE) -> Ratio:
    """The ratio of geometric means of pairs: a t interval of log(numerator) - log(denominator), n - 1 degrees.

    Both of shape (n,), n >= 2, all > 0, pair i at place i. Raises ValueError otherwise.
    """
    difference = paired(_logs(numerator, "numerator"), _logs(denominator, "denominator"), confidence)
    return _exponential(difference, "paired t on logs")


def log_welch(numerator: Values, denominator: Values, confidence: float = CONFIDENCE) -> Ratio:
    """The ratio of geometric means of two independent samples by Welch's t on the logarithms.

    Shapes (n,) and (m,), n and m >= 2, all > 0. Raises ValueError otherwise.
    """
    difference = welch(_logs(numerator, "numerator"), _logs(denominator, "denominator"), confidence)
    return _exponential(difference, "Welch's t on logs")


def paired(minuend: Values, subtrahend: Values, confidence: float = CONFIDENCE) -> Difference:
    """The mean of minuend - subtrahend over pairs, n - 1 degrees. Raises ValueError for what makes no pairs."""
    a, b = _values(minuend, "minuend"), _values(subtrahend, "subtrahend")
    _check_pairs(a, b)
    differences, n = a - b, len(a)
    se = float(differences.std(ddof=1)) / math.sqrt(n)
    return _difference(float(differences.mean()), se, n - 1, confidence, _scale(a, b))


def welch(minuend: Values, subtrahend: Values, confidence: float = CONFIDENCE) -> Difference:
    """The difference mean(minuend) - mean(subtrahend) by Welch-Satterthwaite. Raises ValueError below two values."""
    a, b = _values(minuend, "minuend"), _values(subtrahend, "subtrahend")
    var_a, var_b = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    total = var_a + var_b
    df = float(len(a) + len(b) - 2)
    if total > 0:
        df = total**2 / (var_a**2 / (len(a) - 1) + var_b**2 / (len(b) - 1))
    return _difference(float(a.mean() - b.mean()), math.sqrt(total), df, confidence, _scale(a, b))


def fieller_paired(numerator: Values, denominator: Values, confidence: float = CONFIDENCE) -> Ratio:
    """The ratio of means of pairs with Fieller's interval, n - 1 degrees. Raises ValueError as `log_paired`."""
    top, bottom = _values(numerator, "numerator"), _values(denominator, "denominator")
    _check_pairs(top, bottom)
    n = len(top)
    covariance = np.cov(top, bottom, ddof=1) / n
    return _fieller(
        *(float(top.mean()), float(bottom.mean())),
        *(float(covariance[0, 0]), float(covariance[1, 1]), float(covariance[0, 1])),
        n - 1,
        confidence,
        "Fieller, paired",
    )


def fieller_unpaired(numerator: Values, denominator: Values, confidence: float = CONFIDENCE) -> Ratio:
    """The ratio of means of two independent samples with Fieller's interval, n + m - 2 degrees."""
    top, bottom = _values(numerator, "numerator"), _values(denominator, "denominator")
    variances = float(top.var(ddof=1)) / len(top), float(bottom.var(ddof=1)) / len(bottom)
    df = len(top) + len(bottom) - 2
    return _fieller(float(top.mean()), float(bottom.mean()), *variances, 0.0, df, confidence, "Fieller, unpaired")


def _fieller(
    top: float, bottom: float, var_top: float, var_bottom: float, cov: float, df: int, confidence: float, method: str
) -> Ratio:
    """The values r for which top - r * bottom is within t standard errors of zero."""
    if bottom == 0:
        raise ValueError("the denominator's mean is zero")
    value, t = top / bottom, t_quantile(df, confidence)
    g = t * t * var_bottom / bottom**2
    if g >= 1:
        return Ratio(value, None, None, confidence, df, method, notes=(UNBOUNDED,))
    centre = value - t * t * cov / bottom**2
    spread = (bottom**2 - t * t * var_bottom) * (top**2 - t * t * var_top)
    root = math.sqrt(max(0.0, (top * bottom - t * t * cov) ** 2 - spread)) / bottom**2
    return Ratio(value, (centre - root) / (1 - g), (centre + root) / (1 - g), confidence, df, method)


def _values(values: Values, name: str) -> Float64:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"{name}: at least two run values are needed, got {array.size}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: all run values must be finite")
    return array


def _logs(values: Values, name: str) -> Float64:
    array = _values(values, name)
    if (array <= 0).any():
        raise ValueError(f"{name}: a ratio of geometric means needs run values > 0, got {float(array.min()):g}")
    return np.log(array)


def _check_pairs(top: Float64, bottom: Float64) -> None:
    if len(top) != len(bottom):
        raise ValueError(f"pairs are needed, got {len(top)} and {len(bottom)} run values")


def _scale(a: Float64, b: Float64) -> float:
    return float(max(np.abs(a).max(), np.abs(b).max()))


def _difference(value: float, se: float, df: float, confidence: float, scale: float) -> Difference:
    """The t test and interval. scale: of the values, whose rounding is no variation."""
    if se <= ROUNDING * scale:
        same = abs(value) <= ROUNDING * scale
        t = 0.0 if same else math.copysign(math.inf, value)
        return Difference(value, 0.0, df, value, value, confidence, t, 1.0 if same else 0.0)
    t = value / se
    half = t_quantile(df, confidence) * se
    p = 2 * float(special.stdtr(df, -abs(t)))
    return Difference(value, se, df, value - half, value + half, confidence, t, p)


def _exponential(difference: Difference, method: str) -> Ratio:
    low, high = math.exp(difference.low), math.exp(difference.high)
    return Ratio(math.exp(difference.value), low, high, difference.confidence, difference.df, method, difference)
