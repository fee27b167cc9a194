"""The number of runs, and the effects that this number can show.

See docs/methodology.md#how-many-runs.

Runs may be added until the interval is narrow enough only if it is checked at fixed numbers of runs (a *look*) and at
97 % in place of 95 %: checking after every run at 95 % covered 87 to 93 %. Effects are in standard deviations of
the log run values (unpaired) or of the log ratios (paired).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import Struct

from analysis.estimate import significant
from analysis.stats.distributions import scipy_stats
from analysis.stats.intervals import log_t_half_width, t_interval, t_quantile
from analysis.stats.ratio import Difference

__all__ = [
    "LOOKS",
    "LOOK_CONFIDENCE",
    "Detectable",
    "Look",
    "Seen",
    "detectable",
    "look",
    "minimum_detectable",
    "power",
    "runs_needed",
]

LOOKS = (5, 8, 13, 21, 34, 55)
LOOK_CONFIDENCE = 0.97
SIZE = 0.05  # two-sided
POWER = 0.80
MOST_RUNS = 1_000_000


@dataclass(frozen=True, slots=True)
class Look:
    """The interval's width so far, and whether to add runs. Widths are relative to the figure, at LOOK_CONFIDENCE."""

    runs: int
    half_width: float | None  # None: no look with this number of runs
    reached: bool  # narrow enough
    next_look: int | None  # the number of runs to have then; None: stop and report at LOOK_CONFIDENCE


def look(values: Sequence[float], within: float) -> Look:
    """The look after these values of one figure, one per run: whether their interval is within `within` (0.05 for 5 %).

    The width is the wider side of the log-t interval; with a value of zero or below, that of the t interval over the
    mean. Between looks there is no width, so that no campaign stops there.
    """
    n = len(values)
    later = next((at for at in LOOKS if at > n), None)
    if n < LOOKS[-1] and n not in LOOKS:
        return Look(n, None, reached=False, next_look=later)
    width = _relative_half_width(values)
    reached = width <= within
    return Look(n, width, reached, None if reached else later)


def _relative_half_width(values: Sequence[float]) -> float:
    half = log_t_half_width(values, LOOK_CONFIDENCE)
    if half is not None:
        return math.expm1(half)
    low, high = t_interval(values, LOOK_CONFIDENCE)
    centre = abs(low + high) / 2
    return (high - low) / 2 / centre if centre else math.inf


# --- what can be seen ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Detectable:
    """The least effect that an inconclusive comparison could have found, with probability POWER."""

    least: float  # in the scale of the difference: of logarithms for a ratio
    runs_needed: int | None  # per side, to find the wanted effect; None: more than a million
    runs: int  # of the comparison, on its smaller side

    def seen(self, scale: Callable[[float], float] = math.exp) -> Seen:
        """The form that a summary holds. scale: from the scale of the difference to the printed one."""
        least = significant(scale(self.least))
        assert least is not None
        return Seen(power=POWER, least=least, runs_needed=self.runs_needed, runs=self.runs)


class Seen(Struct, frozen=True, kw_only=True):
    """The least effect that an inconclusive comparison could have found, in the printed scale: a ratio, or points."""

    power: float
    least: float
    runs_needed: int | None
    runs: int


def detectable(
    difference: Difference, n: int, other: int | None, wanted: float, size: float = SIZE
) -> Detectable | None:
    """The effect that runs which differ as these do can find; None where they do not differ.

    n: pairs, or with `other` the runs of one side, `other` those of the other. wanted: a difference that is worth
    finding. size: of the two-sided test; a one-sided test has half of it, and each of k tests a k-th.
    """
    worth = n if other is None else n * other / (n + other)
    sd = difference.se * math.sqrt(worth)  # of log ratios, or of the run values, as one would for both sides
    effect = minimum_detectable(n, other, size=size)
    if sd == 0 or effect is None:
        return None
    needed = runs_needed(wanted / sd, paired=other is None, size=size)
    return Detectable(effect * sd, needed, n if other is None else min(n, other))


def power(effect: float, n: int, other: int | None = None, size: float = SIZE) -> float:
    """The probability that a two-sided t test of `size` finds an effect, and finds it on the right side.

    effect: in SDs. n: pairs, or with `other` the runs of one arm, `other` those of the other.
    """
    df, worth = (n - 1, n) if other is None else (n + other - 2, n * other / (n + other))
    # The upper tail only: nct.cdf(-t) returned NaN at moderate noncentrality.
    return float(scipy_stats().nct.sf(t_quantile(df, 1 - size), df, abs(effect) * math.sqrt(worth)))


def minimum_detectable(n: int, other: int | None = None, target: float = POWER, size: float = SIZE) -> float | None:
    """The least effect, in SDs, found with probability `target`; None if there are too few runs to test."""
    if n < 2 if other is None else min(n, other) < 1 or n + other < 3:
        return None
    from scipy import optimize

    high = 1.0
    while power(high, n, other, size) < target:
        high *= 2
    return float(optimize.brentq(lambda effect: power(effect, n, other, size) - target, 0.0, high, xtol=1e-10))


def runs_needed(effect: float, *, paired: bool, target: float = POWER, size: float = SIZE) -> int | None:
    """The least number of pairs, or of runs per arm, that find `effect` (in SDs); None: more than a million."""

    def enough(n: int) -> bool:
        return power(effect, n, None if paired else n, size) >= target

    low, high = 1, 2  # `low` is too few
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_RUNS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
