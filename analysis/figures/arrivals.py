"""The arrivals of an open loop against the wanted schedule; and Little's law, which every correct account obeys.

The schedule is drawn before the run and never bent to land on its mean, so a single schedule may well be off: that
of a Poisson process usually has a rate within 3 sqrt(rate/T) of the wanted rate, and a note marks those that have not
(docs/methodology.md#is-the-client-the-bottleneck). The dispersion, variance over mean of counts in bins of one second,
is 1 for a Poisson process.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct

from analysis.estimate import Float64, Note, NoteCode, note, significant
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT
from analysis.records.windows import Window
from analysis.stats.scaling import LITTLE_GAP, little_gap
from loadgen.manifest import LoadFacts

__all__ = ["Arrivals", "LittlesLaw", "arrivals", "littles_law", "off_schedule", "out_of_balance"]

SIGMAS = 3
BIN_S = 1.0
LEAST_BINS = 10
# The requests that reach over an edge of the window are those of one residence time. What starts and what ends need
# not be alike, so with fewer residence times the edges alone may be 2 %.
LITTLE_LEAST = 200


class Arrivals(Struct, frozen=True, kw_only=True):
    """The schedule in one run's window."""

    run: int
    asked_per_s: float | None  # None where the load has stages, or states no rate
    rate_per_s: float | None
    cv: float | None  # of the gaps between them
    dispersion: float | None
    within: bool | None  # whether a Poisson schedule has the wanted rate; None if it is not Poisson or has stages


class LittlesLaw(Struct, frozen=True, kw_only=True):
    """The distance of one run from Little's law: |N - X R| / N over its window."""

    run: int
    apart: float


def arrivals(m: Measured) -> tuple[Arrivals, ...] | None:
    """The schedule of each run; None unless every loop was open."""
    if not m.windows or not all(window.open_loop for window in m.windows):
        return None
    return tuple(_arrivals(m, window) for window in m.windows)


def _arrivals(m: Measured, window: Window) -> Arrivals:
    load = m.manifest.load or LoadFacts()
    asked = load.rate_per_s if window.stationary else None
    due = np.sort(m.requests.intended_ns[m.requests.run == window.run])
    due = due[(due >= window.from_ns) & (due <= window.to_ns)]
    seconds = window.seconds
    rate = len(due) / seconds if seconds else None
    gaps = np.diff(due)
    mean = float(gaps.mean()) if len(gaps) > 1 else 0.0
    within = None
    if asked and rate is not None and load.arrivals in (None, "poisson"):
        within = abs(rate - asked) <= SIGMAS * math.sqrt(asked / seconds)
    return Arrivals(
        run=window.run,
        asked_per_s=asked,
        rate_per_s=significant(rate),
        cv=significant(float(gaps.std(ddof=1)) / mean) if mean else None,
        dispersion=significant(_dispersion((due - window.from_ns) / 1e9, seconds)),
        within=within,
    )


def _dispersion(due_s: Float64, seconds: float) -> float | None:
    bins = math.floor(seconds / BIN_S)
    if bins < LEAST_BINS or len(due_s) == 0:
        return None
    counts = np.bincount(due_s[due_s < bins * BIN_S].astype(np.int64), minlength=bins)
    return float(counts.var(ddof=1) / counts.mean()) if counts.mean() else None


def off_schedule(due: tuple[Arrivals, ...] | None) -> list[Note]:
    """A note per run whose schedule is improbable for the wanted rate."""
    return [
        note(NoteCode.OFF_SCHEDULE, rate_per_s=run.rate_per_s, asked_per_s=run.asked_per_s).of_run(run.run)
        for run in due or ()
        if run.within is False
    ]


def littles_law(m: Measured) -> tuple[LittlesLaw, ...]:
    """The distance of each run from Little's law. Runs with a window under two hundred residence times are left out."""
    balances = []
    for window in m.windows:
        finished = (m.requests.run == window.run) & (m.requests.done_ns != ABSENT)
        start, done = m.requests.intended_ns[finished], m.requests.done_ns[finished]
        residence = float((done - start)[start >= window.from_ns].mean()) if (start >= window.from_ns).any() else 0.0
        if window.to_ns - window.from_ns < LITTLE_LEAST * residence or residence <= 0:
            continue
        apart = significant(little_gap(start, done, window.from_ns, window.to_ns))
        if apart is not None:
            balances.append(LittlesLaw(run=window.run, apart=apart))
    return tuple(balances)


def out_of_balance(balances: tuple[LittlesLaw, ...]) -> list[Note]:
    """A note per run for which Little's law does not hold."""
    return [
        note(NoteCode.OUT_OF_BALANCE, apart=balance.apart).of_run(balance.run)
        for balance in balances
        if balance.apart > LITTLE_GAP
    ]
