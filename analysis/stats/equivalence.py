"""The verdict on a difference: two one-sided tests against a margin, the four verdicts, and p over a family.

docs/methodology.md#equivalence. A margin is a difference that does not matter, declared before the data are seen: a
ratio within [1/(1 + m), 1 + m]. "No difference found" is no verdict; "inside the margin" is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import special

from analysis.stats.ratio import Difference

__all__ = ["ALPHA", "ComparisonVerdict", "Margin", "Tost", "benjamini_hochberg", "decide", "holm", "tost"]

ALPHA = 0.05


class ComparisonVerdict(StrEnum):
    """The four verdicts on a difference under a margin."""

    DIFFERENT = "different"
    NEGLIGIBLE = "different but negligible"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Margin:
    """The differences that do not matter, in the scale of a `Difference`: logarithms for ratios, else points."""

    low: float
    high: float

    @staticmethod
    def of_ratio(m: float) -> Margin:
        """The margin [1/(1 + m), 1 + m], as logarithms. Raises ValueError unless 0 < m < infinity."""
        return Margin.of_points(math.log1p(m) if m > 0 else m)

    @staticmethod
    def of_points(points: float) -> Margin:
        """The margin [-points, points]. Raises ValueError unless 0 < points < infinity."""
        if not (points > 0 and math.isfinite(points)):
            raise ValueError(f"a margin must be > 0, got {points:g}")
        return Margin(-points, points)


@dataclass(frozen=True, slots=True)
class Tost:
    """Two one-sided tests: the greater p, and the interval of confidence 1 - 2 alpha that must lie in the margin."""

    p: float
    low: float
    high: float
    passes: bool


def tost(difference: Difference, margin: Margin, alpha: float = ALPHA) -> Tost:
    """The test of whether `difference` lies inside `margin`; the error at the margin is at most alpha."""
    low, high = difference.at(1 - 2 * alpha)
    above, below = difference.value - margin.low, margin.high - difference.value
    p = max(_one_sided(above, difference), _one_sided(below, difference))
    return Tost(p, low, high, p < alpha)


def _one_sided(distance: float, difference: Difference) -> float:
    if difference.se == 0:
        return 0.0 if distance > 0 else 1.0
    return float(special.stdtr(difference.df, -distance / difference.se))


def decide(p: float, test: Tost, alpha: float = ALPHA) -> ComparisonVerdict:
    """The verdict. p: two-sided, of no difference, adjusted if it belongs to a family.

    p is below alpha exactly when the interval of confidence 1 - alpha excludes zero difference.
    """
    if p < alpha:
        return ComparisonVerdict.NEGLIGIBLE if test.passes else ComparisonVerdict.DIFFERENT
    return ComparisonVerdict.EQUIVALENT if test.passes else ComparisonVerdict.INCONCLUSIVE


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p, in the order given: below alpha, the chance of any false finding is at most alpha."""
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    return _back(order, np.maximum.accumulate(np.asarray(p, np.float64)[order] * factors))


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p, in the order given: below q, at most a share q of findings is false.

    For screening; a family that was declared beforehand takes Holm's.
    """
    order = np.argsort(p, kind="stable")
    ranked = np.asarray(p, np.float64)[order] * len(p) / np.arange(1, len(p) + 1)
    return _back(order, np.minimum.accumulate(ranked[::-1])[::-1])


def _back(
    order: np.ndarray[tuple[int], np.dtype[np.int64]], adjusted: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> list[float]:
    result = np.empty(len(order))
    result[order] = np.minimum(adjusted, 1.0)
    return [float(value) for value in result]
