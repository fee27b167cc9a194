"""How run values spread and differ: spread with outliers marked, Cohen's d, differences between agents and arms.

Differences may be negative, so their intervals are those of arithmetic means. A delta's direction is in its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from analysis.estimate import Estimate, Figure, NoteCode, note, refused, significant
from analysis.stats import intervals
from analysis.stats.outliers import LEAST, outliers

__all__ = [
    "COMPARED",
    "Deltas",
    "Outliers",
    "RunValue",
    "Spread",
    "SpreadFigure",
    "cohens_d",
    "deltas_of",
    "mean_difference",
    "over_runs",
    "spread",
    "spread_figure",
]

COMPARED = ("ttft_ms", "ttft_service_ms", "output_tokens_per_s")  # between agents, and between an agent's arms
FENCE = 1.5  # interquartile ranges

Deltas = dict[str, Figure | float | None]  # FIGURE_A_minus_B: the difference; FIGURE_A_minus_B_cohens_d: a number


class RunValue(Struct, frozen=True, kw_only=True):
    """The value of one run."""

    run: int
    value: float | None


class Outliers(Struct, frozen=True, kw_only=True):
    """The runs that stand out, by two rules: beyond the fences of the box plot, and by modified z."""

    iqr: tuple[int, ...] = ()
    z: tuple[int, ...] = ()


class Spread(Struct, frozen=True, kw_only=True):
    """How runs differ, outliers marked and included. The SD is the sample's; it is no interval."""

    values: tuple[RunValue, ...]
    mean: float | None = None
    median: float | None = None
    sd: float | None = None
    cv: float | None = None
    mean_without_outliers: float | None = None
    outliers: Outliers = Outliers()


class SpreadFigure(Figure, frozen=True, kw_only=True):
    """A figure over runs, and the spread of the runs."""

    spread: Spread


def spread(values: Mapping[int, float]) -> Spread:
    """The spread of `values`, {run: value}."""
    numbers = np.array(list(values.values()))
    runs = np.array(list(values), np.int64)
    listed = tuple(RunValue(run=run, value=significant(value)) for run, value in values.items())
    if not len(numbers):
        return Spread(values=listed)
    mean, median = float(numbers.mean()), float(np.median(numbers))
    sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else None
    cv = sd / abs(mean) if sd is not None and mean else None
    marked, mean_without = Outliers(), None
    if len(numbers) >= LEAST:
        low, high = np.percentile(numbers, [25, 75])
        fence = FENCE * (high - low)
        iqr = (numbers < low - fence) | (numbers > high + fence)
        z = np.array(outliers(numbers.tolist()))
        marked = Outliers(iqr=tuple(runs[iqr].tolist()), z=tuple(runs[z].tolist()))
        if (iqr | z).any() and not (iqr | z).all():
            mean_without = float(numbers[~(iqr | z)].mean())
    return Spread(
        values=listed,
        mean=significant(mean),
        median=significant(median),
        sd=significant(sd),
        cv=significant(cv),
        mean_without_outliers=significant(mean_without),
        outliers=marked,
    )


def spread_figure(values: Mapping[int, float], confidence: float) -> SpreadFigure:
    """The figure over the runs of `values`, {run: value}, and their spread."""
    figure = over_runs(list(values.values()), confidence).figure()
    return SpreadFigure(
        value=figure.value,
        low=figure.low,
        high=figure.high,
        confidence=figure.confidence,
        n=figure.n,
        notes=figure.notes,
        note_codes=figure.note_codes,
        spread=spread(values),
    )


def over_runs(values: Sequence[float], confidence: float) -> Estimate:
    """The estimate over runs of one value per run."""
    return intervals.over_runs(list(values), len(values), confidence)


def mean_difference(values: Sequence[float], confidence: float) -> Estimate:
    """The arithmetic mean of run values that may be negative or zero, with its t interval."""
    n = len(values)
    if not n:
        return refused(note(NoteCode.NO_PAIR_OF_RUNS))
    value = float(np.mean(values))
    if n < intervals.LEAST_RUNS:
        return Estimate(value, n=n, notes=(intervals.no_interval(n),))
    low, high = intervals.t_interval(values, confidence)
    notes = (intervals.FEW_RUNS,) if n < intervals.ENOUGH_RUNS else ()
    return Estimate(value, low, high, confidence, n, notes)


def cohens_d(minuend: Sequence[float], subtrahend: Sequence[float]) -> float | None:
    """The difference of means in pooled SDs; None where that is not known, or nothing varies."""
    a, b = np.array(minuend), np.array(subtrahend)
    if min(len(a), len(b)) < 2:
        return None
    pooled = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2)
    return significant(float((a.mean() - b.mean()) / math.sqrt(pooled))) if pooled > 0 else None


def deltas_of(concurrent: Mapping[str, Mapping[str, Spread]], names: Sequence[str], confidence: float) -> Deltas:
    """Each agent's figures in COMPARED minus the first agent's, over concurrent runs.

    concurrent: {agent: {figure: the spread of its concurrent runs}}.
    """
    deltas: Deltas = {}
    for name in names[1:]:
        for figure in COMPARED:
            a, b = (_by_run(concurrent[agent][figure]) for agent in (name, names[0]))
            key = f"{figure}_{name}_minus_{names[0]}"
            deltas[key] = mean_difference([a[run] - b[run] for run in a if run in b], confidence).figure()
            deltas[f"{key}_cohens_d"] = cohens_d(list(a.values()), list(b.values()))
    return deltas


def _by_run(values: Spread) -> dict[int, float]:
    return {entry.run: entry.value for entry in values.values if entry.value is not None}
