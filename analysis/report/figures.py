"""How a figure is written for people: as many digits as its doubt leaves, and no more.

METHODOLOGY 16: the half-width to two significant digits, the estimate to the same decimal. Where there is no interval,
three significant digits. A refused figure is a dash, or the one-sided bound that is left of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["decimals_for", "interval", "number", "value"]

E = Mapping[str, Any]  # the JSON form of an Estimate

REFUSED = "–"
ALIKE = 0.1  # sides that differ by less than this share are one half-width


def decimals_for(estimate: E) -> int:
    """Return how many decimals the figure is worth; -1 is to tens. Without an interval, whole units are kept."""
    known = estimate["value"]
    edges = [edge for edge in (estimate["low"], estimate["high"]) if edge is not None]
    if known is not None and edges:
        half = max(abs(known - edge) for edge in edges)
        if len(edges) == 2:
            half = (estimate["high"] - estimate["low"]) / 2
        if half > 0:
            return _decimals(half, 2)
    shown = known if known is not None else edges[0] if edges else 0.0
    return max(0, _decimals(shown, 3))


def _decimals(magnitude: float, digits: int) -> int:
    if magnitude == 0:
        return 0
    return min(6, digits - 1 - math.floor(math.log10(abs(magnitude))))


def number(amount: float, decimals: int) -> str:
    return f"{round(amount, decimals):.{max(0, decimals)}f}"


def value(estimate: E) -> str:
    if estimate["value"] is not None:
        return number(estimate["value"], decimals_for(estimate))
    if estimate["low"] is not None:
        return f"≥ {number(estimate['low'], decimals_for(estimate))}"
    return REFUSED


def interval(estimate: E, width: int = 80) -> str:
    """Return `± h` where both sides are alike, else `low..high`, `≥ low`, or nothing; at most `width` characters.

    What does not fit loses decimals.
    """
    decimals = decimals_for(estimate)
    text = _interval(estimate, decimals)
    while len(text) > width and decimals > 0:
        decimals -= 1
        text = _interval(estimate, decimals)
    return text if len(text) <= width else ""


def _interval(estimate: E, decimals: int) -> str:
    known, low, high = estimate["value"], estimate["low"], estimate["high"]
    if known is None or (low is None and high is None):
        return ""
    if low in (known, None) and high in (known, None):
        return ""
    if low is None or high is None:
        return f"≥ {number(low, decimals)}" if high is None else f"≤ {number(high, decimals)}"
    below, above = known - low, high - known
    if abs(below - above) <= ALIKE * max(below, above):
        return f"± {number((high - low) / 2, decimals)}"
    return f"{number(low, decimals)}..{number(high, decimals)}"
