"""The stretch of gaps over the time of a run: second by second, its level shifts, and bursts too short for a level."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from analysis.agents.contention import THRESHOLD
from analysis.agents.overlap import BIN_NS, Gaps
from analysis.estimate import Float64, significant
from analysis.stats import steady
from analysis.stats.outliers import outliers
from loadgen.record import Int64

__all__ = ["Burst", "Levels", "Shift", "Timeline", "levels_of"]

TIMELINES_SHOWN = 10
TIMELINE_BINS = 240
SHIFT_BINS = 1000  # the search for level shifts takes memory with the square of them
BURST_BINS = 3  # docs/methodology.md#bursts-and-shifts: what is shorter is an event and no level


class Timeline(Struct, frozen=True, kw_only=True):
    """One concurrent run: measured over expected gaps in equal bins of bin_s from from_s on."""

    run: int
    from_s: float
    bin_s: float
    stretch: tuple[float | None, ...]


class Shift(Struct, frozen=True, kw_only=True):
    """A change of the level of the stretch."""

    run: int
    at_s: float
    before: float | None
    after: float | None
    p: float | None


class Burst(Struct, frozen=True, kw_only=True):
    """Some seconds with longer gaps, too few to be a level. stretch: the worst second's."""

    run: int
    from_s: float
    to_s: float
    stretch: float | None


class Levels(Struct, frozen=True, kw_only=True):
    """The stretch of gaps over time; `timeline` has the first runs only."""

    timeline: tuple[Timeline, ...]
    shifts: tuple[Shift, ...]
    bursts: tuple[Burst, ...]


def levels_of(gaps: Gaps) -> Levels:
    """The stretch of the concurrent runs' gaps over time."""
    timeline: list[Timeline] = []
    shifts: list[Shift] = []
    bursts: list[Burst] = []
    for run, (measured, expected) in sorted(gaps.bins.items()):
        seconds = np.flatnonzero(expected > 0)
        if not len(seconds):
            continue
        stretch = measured[seconds] / expected[seconds]
        timeline.append(_timeline(run, seconds, stretch))
        shifts += _shifts(run, seconds, stretch)
        bursts += _bursts(run, seconds, stretch)
    return Levels(timeline=tuple(timeline[:TIMELINES_SHOWN]), shifts=tuple(shifts), bursts=tuple(bursts))


def _timeline(run: int, seconds: Int64, stretch: Float64) -> Timeline:
    wide = -(-len(stretch) // TIMELINE_BINS)
    means = [significant(float(part.mean())) for part in np.array_split(stretch, -(-len(stretch) // wide))]
    return Timeline(run=run, from_s=int(seconds[0]) * BIN_NS / 1e9, bin_s=wide * BIN_NS / 1e9, stretch=tuple(means))


def _shifts(run: int, seconds: Int64, stretch: Float64) -> list[Shift]:
    coarse = -(-len(stretch) // SHIFT_BINS)
    levels = np.array([float(part.mean()) for part in np.array_split(stretch, -(-len(stretch) // coarse))])
    return [
        Shift(
            run=run,
            at_s=int(seconds[shift.at * len(seconds) // len(levels)]) * BIN_NS / 1e9,
            before=significant(shift.before),
            after=significant(shift.after),
            p=significant(shift.p),
        )
        for shift in steady.shifts(levels) or ()
    ]


def _bursts(run: int, seconds: Int64, stretch: Float64) -> list[Burst]:
    high = np.array(outliers(stretch.tolist())) & (stretch > THRESHOLD * np.median(stretch))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], high, [False]]).astype(np.int8)))
    return [
        Burst(
            run=run,
            from_s=int(seconds[begin]) * BIN_NS / 1e9,
            to_s=(int(seconds[end - 1]) + 1) * BIN_NS / 1e9,
            stretch=significant(float(stretch[begin:end].max())),
        )
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        if end - begin < BURST_BINS
    ]
