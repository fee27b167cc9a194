"""The runs side by side: the value of each, their median, the outliers, and the components of variance.

An estimate over five runs hides the value of each, and one bad run in ten moves it (docs/methodology.md#means). So the
values are always listed. A run that stands out is marked and stays in every figure: the tail is the object of study,
and dropping what does not fit makes any interval look narrow (section 12). A run that did not come to its end is listed
with its values, and is in no median and no estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from analysis.estimate import significant
from analysis.figures import throughput
from analysis.figures.metrics import gap_means, latency_means
from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import Bool
from analysis.stats import variance
from analysis.stats.outliers import outliers

__all__ = ["Doubt", "OverRuns", "side_by_side"]

MEANS = ("ttft_ms", "tpot_ms", "e2e_ms")


class Doubt(Struct, frozen=True, kw_only=True):
    """The components of a mean's variance, of logarithms, so that they are shares."""

    run: float | None
    request: float | None
    requests_per_run: float | None
    run_share: float | None
    advice: str


class OverRuns(Struct, frozen=True, kw_only=True):
    """One mean-like figure, run by run."""

    values: tuple[float | None, ...]  # one per run in order of the windows, None where a run has none
    median: float | None
    outliers: tuple[int, ...]  # the numbers of the runs that stand out
    components: Doubt | None  # only of latencies of requests, from two runs on


def side_by_side(m: Measured, good: Bool | None = None) -> dict[str, OverRuns]:
    """Each mean-like figure over the runs of `m`, by its key in the catalogue; goodput only with `good`."""
    whole = m.counted
    figures, others = _figures(whole, good), _figures(m.left_out, good)
    side = {}
    for name, values in figures.items():
        of_run = dict(zip(whole.runs, values, strict=True)) | dict(zip(m.left_out.runs, others[name], strict=True))
        side[name] = OverRuns(
            values=tuple(significant(of_run[run]) for run in m.runs),
            median=significant(_median(values)),
            outliers=tuple(run for run, out in zip(whole.runs, outliers(values), strict=True) if out),
            components=_components(whole, name) if name in MEANS else None,
        )
    return side


def _figures(m: Measured, good: Bool | None) -> dict[str, Sequence[float | None]]:
    figures: dict[str, Sequence[float | None]] = {name: _values(latency_means(m, name)) for name in MEANS}
    figures["event_gap_ms"] = _values(gap_means(m))
    return figures | throughput.of_runs(m, good)


def _values(means: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(mean) else mean for mean in means]


def _median(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.median(present)) if present else None


def _components(m: Measured, name: str) -> Doubt | None:
    durations = latency.LATENCIES[name](m)
    usable = m.answered & (durations > 0)
    parts = variance.components([np.log(durations[usable & (m.requests.run == run)]) for run in m.runs])
    if parts is None:
        return None
    return Doubt(
        run=significant(parts.run),
        request=significant(parts.request),
        requests_per_run=significant(parts.requests),
        run_share=significant(parts.run_share),
        advice=variance.advice(parts),
    )
