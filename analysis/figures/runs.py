"""The runs side by side: the value of each, their median, which of them stand out, and where the doubt comes from.

An estimate over five runs hides what each of them said, and one bad run in ten moves it (METHODOLOGY 4.2). So the
values are always listed. A run that stands out is marked and stays in every figure: the tail is the object of study,
and dropping what does not fit makes any interval look narrow (section 12). A run that did not come to its end is listed
with what it measured, and is in no median and no estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import significant
from analysis.figures import throughput
from analysis.figures.metrics import gap_means, latency_means
from analysis.records import latency
from analysis.records.measured import Measured
from analysis.records.requests import Bool
from analysis.stats import variance
from analysis.stats.outliers import outliers

__all__ = ["side_by_side"]

Float64 = NDArray[np.float64]

MEANS = ("ttft_ms", "tpot_ms", "e2e_ms")


def side_by_side(m: Measured, good: Bool | None = None) -> dict[str, dict[str, Any]]:
    """Return for each mean-like figure {"values", "median", "outliers", "components"}.

    values: one a run in order of `m.windows`, None where a run has none. outliers: the numbers of the runs that stand
    out. components: of logarithms, so that they are shares; only for latencies of requests, from two runs on.
    """
    whole = m.counted
    figures, others = _figures(whole, good), _figures(m.left_out, good)
    told = {}
    for name, values in figures.items():
        of_run = dict(zip(whole.runs, values, strict=True)) | dict(zip(m.left_out.runs, others[name], strict=True))
        told[name] = {
            "values": [significant(of_run[run]) for run in m.runs],
            "median": significant(_median(values)),
            "outliers": [run for run, out in zip(whole.runs, outliers(values), strict=True) if out],
            "components": _components(whole, name) if name in MEANS else None,
        }
    return told


def _figures(m: Measured, good: Bool | None) -> dict[str, Sequence[float | None]]:
    figures: dict[str, Sequence[float | None]] = {name: _values(latency_means(m, name)) for name in MEANS}
    figures["event_gap_ms"] = _values(gap_means(m))
    return figures | throughput.of_runs(m, good)


def _values(means: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(mean) else mean for mean in means]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _components(m: Measured, name: str) -> dict[str, Any] | None:
    durations = latency.LATENCIES[name](m)
    kept = m.answered & (durations > 0)
    parts = variance.components([np.log(durations[kept & (m.requests.run == run)]) for run in m.runs])
    if parts is None:
        return None
    return {
        "run": significant(parts.run),
        "request": significant(parts.request),
        "requests_per_run": significant(parts.requests),
        "run_share": significant(parts.run_share),
        "advice": variance.advice(parts),
    }
