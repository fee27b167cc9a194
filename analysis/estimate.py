"""A figure and its doubt: value, interval, the confidence the interval achieves, and what a reader must know beside it.

A refused figure is an Estimate whose value is None and whose notes say why; it may still carry a one-sided bound,
which is then everything the data can say. Nothing here computes: intervals.py and quantiles.py do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypedDict

__all__ = ["Estimate", "EstimateJson", "refused", "significant"]

# More digits than any stamp supports, fewer than the ones in which two machines' floating-point units may differ:
# `verify` compares a summary computed elsewhere byte by byte.
DIGITS = 10


class EstimateJson(TypedDict):
    """E of the `loadgen.summary/1` schema."""

    value: float | None
    low: float | None
    high: float | None
    confidence: float | None
    n: int
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure. `low` or `high` alone is a one-sided bound; both None: no interval, the notes say why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None  # the level achieved, not the one asked for
    n: int = 0  # samples behind it
    notes: tuple[str, ...] = ()

    def noted(self, *notes: str) -> Estimate:
        """Return the same figure with `notes` added, each once."""
        return replace(self, notes=(*self.notes, *(note for note in notes if note not in self.notes)))

    def without_value(self, reason: str) -> Estimate:
        """Return the figure refused altogether. Its other notes go too: some of them tell a value."""
        return Estimate(None, n=self.n, notes=(reason,))

    def to_json(self) -> EstimateJson:
        return {
            "value": significant(self.value),
            "low": significant(self.low),
            "high": significant(self.high),
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "n": self.n,
            "notes": list(self.notes),
        }


def refused(reason: str, n: int = 0, notes: Iterable[str] = ()) -> Estimate:
    return Estimate(None, n=n, notes=(reason, *notes))


def significant(value: float | None, digits: int = DIGITS) -> float | None:
    """Return `value` to `digits` significant digits; None for None and for what JSON cannot hold (NaN, infinity)."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{float(value):.{digits}g}")
