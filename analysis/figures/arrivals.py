"""How requests arrived in an open loop, against what was asked; and Little's law, which no correct account breaks.

The schedule is drawn before the run and never bent to land on its mean, so a single one may well be off: that of a
Poisson process has a rate within 3 sqrt(rate/T) of the one asked for, and is told of where it has not (METHODOLOGY
2.6). The dispersion, variance over mean of counts in bins of a second, is 1 for a Poisson process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.estimate import significant
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT
from analysis.records.windows import Window
from analysis.stats.scaling import LITTLE_GAP, little_gap

__all__ = ["arrivals", "littles_law", "off_schedule", "out_of_balance"]

SIGMAS = 3
BIN_S = 1.0
LEAST_BINS = 10
# The requests that reach over an edge of the window are those of one residence time. What starts and what ends need
# not be alike, so with fewer residence times the edges alone may be 2 %.
LITTLE_LEAST = 200


def arrivals(m: Measured) -> list[dict[str, Any]] | None:
    """Return how requests were due in each run's window; None unless every loop was open.

    Each: {"run", "asked_per_s", "rate_per_s", "cv", "dispersion", "within"}; within: whether a Poisson schedule has
    the rate asked for, None if it is none or has stages.
    """
    if not m.windows or not all(window.open_loop for window in m.windows):
        return None
    return [_arrivals(m, window) for window in m.windows]


def _arrivals(m: Measured, window: Window) -> dict[str, Any]:
    profile = m.manifest.get("profile")
    load = profile.get("load") if isinstance(profile, Mapping) else None
    asked = (load or {}).get("rate_per_s") if window.stationary else None
    mine = m.requests.run == window.run
    due = np.sort(m.requests.intended_ns[mine])
    due = due[(due >= window.from_ns) & (due <= window.to_ns)]
    seconds = window.seconds
    rate = len(due) / seconds if seconds else None
    gaps = np.diff(due)
    mean = float(gaps.mean()) if len(gaps) > 1 else 0.0
    within = None
    if asked and rate is not None and (load or {}).get("arrivals") in (None, "poisson"):
        within = abs(rate - asked) <= SIGMAS * math.sqrt(asked / seconds)
    return {
        "run": window.run,
        "asked_per_s": asked,
        "rate_per_s": significant(rate),
        "cv": significant(float(gaps.std(ddof=1)) / mean) if mean else None,
        "dispersion": significant(_dispersion((due - window.from_ns) / 1e9, seconds)),
        "within": within,
    }


def _dispersion(due_s: np.ndarray[Any, np.dtype[np.float64]], seconds: float) -> float | None:
    bins = math.floor(seconds / BIN_S)
    if bins < LEAST_BINS or len(due_s) == 0:
        return None
    counts = np.bincount(due_s[due_s < bins * BIN_S].astype(np.int64), minlength=bins)
    return float(counts.var(ddof=1) / counts.mean()) if counts.mean() else None


def off_schedule(told: list[dict[str, Any]] | None) -> list[str]:
    """Return in words which runs had a schedule that is improbable for the rate asked for."""
    return [
        f"run {one['run']}: the schedule drawn has {one['rate_per_s']:.4g} requests/s, over three standard deviations "
        f"from the {one['asked_per_s']:g} asked for: choose another seed"
        for one in told or []
        if one["within"] is False
    ]


def littles_law(m: Measured) -> list[dict[str, Any]]:
    """Return {"run", "apart"} for each run: |N - X R| / N over its window.

    Runs whose window is shorter than two hundred residence times are left out.
    """
    found = []
    for window in m.windows:
        mine = (m.requests.run == window.run) & (m.requests.done_ns != ABSENT)
        start, done = m.requests.intended_ns[mine], m.requests.done_ns[mine]
        residence = float((done - start)[start >= window.from_ns].mean()) if (start >= window.from_ns).any() else 0.0
        if window.to_ns - window.from_ns < LITTLE_LEAST * residence or residence <= 0:
            continue
        apart = little_gap(start, done, window.from_ns, window.to_ns)
        if apart is not None:
            found.append({"run": window.run, "apart": significant(apart)})
    return found


def out_of_balance(told: list[dict[str, Any]]) -> list[str]:
    """Return in words where Little's law does not hold."""
    return [
        f"run {one['run']}: requests in flight and throughput times residence are {one['apart']:.1%} apart (Little's "
        f"law): the load was not in balance over the window"
        for one in told
        if one["apart"] > LITTLE_GAP
    ]
