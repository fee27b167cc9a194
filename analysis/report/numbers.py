"""How a figure is written for people: as many digits as its doubt leaves, and no more.

docs/methodology.md#what-is-printed: the half-width to two significant digits, the estimate to the same decimal. Where
there is no interval, three significant digits. A refused figure is a dash, or the one-sided bound that is left of it.
"""

from __future__ import annotations

import math

from analysis.estimate import Figure

__all__ = ["REFUSED", "decimals_for", "five", "interval", "number", "value", "value_and_interval"]

REFUSED = "–"
ALIKE = 0.1  # sides that differ by less than this share are one half-width


def decimals_for(figure: Figure) -> int:
    """The number of decimals the figure is worth; -1 is to tens. Without an interval, whole units are kept."""
    estimate = figure.value
    edges = [edge for edge in (figure.low, figure.high) if edge is not None]
    if estimate is not None and edges:
        half = max(abs(estimate - edge) for edge in edges)
        if figure.low is not None and figure.high is not None:
            half = (figure.high - figure.low) / 2
        if half > 0:
            return _decimals(half, 2)
    magnitude = estimate if estimate is not None else edges[0] if edges else 0.0
    return max(0, _decimals(magnitude, 3))


def _decimals(magnitude: float, digits: int) -> int:
    if magnitude == 0:
        return 0
    return min(6, digits - 1 - math.floor(math.log10(abs(magnitude))))


def number(amount: float, decimals: int) -> str:
    """`amount` with `decimals` decimals; negative ones round to tens, hundreds, ..."""
    return f"{round(amount, decimals):.{max(0, decimals)}f}"


def five(amount: float | None) -> str:
    """`amount` to five significant digits, as the value of a single run is written; a dash for None."""
    return REFUSED if amount is None else f"{amount:.5g}"


def value(figure: Figure) -> str:
    """The figure without its interval: `412`, `≥ 80.2` where only a lower bound is left, `–` where it is refused."""
    if figure.value is not None:
        return number(figure.value, decimals_for(figure))
    if figure.low is not None:
        return f"≥ {number(figure.low, decimals_for(figure))}"
    return REFUSED


def interval(figure: Figure, width: int = 80) -> str:
    """`± h` where both sides are alike, else `low..high`, `≥ low`, or nothing; at most `width` characters.

    What does not fit loses decimals.
    """
    decimals = decimals_for(figure)
    text = _interval(figure, decimals)
    while len(text) > width and decimals > 0:
        decimals -= 1
        text = _interval(figure, decimals)
    return text if len(text) <= width else ""


def value_and_interval(figure: Figure) -> str:
    """The figure with its interval, as it is written in a sentence: `412 ± 13`."""
    return f"{value(figure)} {interval(figure)}".strip()


def _interval(figure: Figure, decimals: int) -> str:
    estimate, low, high = figure.value, figure.low, figure.high
    if estimate is None or (low is None and high is None):
        return ""
    if low in (estimate, None) and high in (estimate, None):
        return ""
    if low is None or high is None:
        return f"≥ {number(low, decimals)}" if low is not None else f"≤ {number(high or 0.0, decimals)}"
    below, above = estimate - low, high - estimate
    if abs(below - above) <= ALIKE * max(below, above):
        return f"± {number((high - low) / 2, decimals)}"
    return f"{number(low, decimals)}..{number(high, decimals)}"
