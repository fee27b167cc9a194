"""What running agents together gained: speedup, and the parts it is made of.

docs/methodology.md#speedup-of-agents. For agents i = 1..n: T_i wall time alone, D_i wall time while the others run, W
makespan of the concurrent run. Speedup S = sum T / W needs measured solo runs; without them only the overlap O = sum D
/ W is known, which is no speedup: two agents that take turns on one GPU have O = 2 and S = 1.

    S = O / stretch      E = S / n = balance / stretch      S* = sum T / max T      E* = S / S* = max T / W

First the formulas, then estimates over blocks: paired t on logs where a block holds the solo runs and the concurrent
run, Welch's t on logs where they are not blocked. Fieller's interval is the check on both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from analysis.estimate import Estimate, Float64, Note, NoteCode, note, refused
from analysis.stats import ratio
from analysis.stats.intervals import CONFIDENCE, ENOUGH_RUNS, FEW_RUNS, LEAST_RUNS, no_interval

__all__ = [
    "Parts",
    "PartsOverBlocks",
    "Walls",
    "jain",
    "parts",
    "parts_over_blocks",
    "parts_refused",
    "ratio_of",
    "tokens_differ",
    "tokens_unknown",
]

UNEQUAL = 0.02  # docs/methodology.md#fairness, of the output tokens of an agent, concurrent against solo
TOLERANCE = 1e-9

Compare = Callable[[Float64, Float64, float], Estimate]  # numerators, denominators, confidence


@dataclass(frozen=True, slots=True)
class Parts:
    """Speedup and what it is made of, of one block. All are pure ratios."""

    speedup: float
    efficiency: float
    ideal_speedup: float
    heterogeneous_efficiency: float
    overlap: float
    stretch: float
    balance: float


@dataclass(frozen=True, slots=True)
class PartsOverBlocks:
    """The same over blocks, with their intervals.

    combined_over_solo: tokens/s of all agents together over tokens/s of the agents one after the other. With equal
    work that is the speedup; with unequal work it is used as the speedup, and marked. fieller_speedup: the ratio of
    means, the check on that of geometric means; None without solo runs.
    """

    overlap: Estimate
    balance: Estimate
    ideal_speedup: Estimate
    heterogeneous_efficiency: Estimate
    stretch: Estimate
    combined_over_solo: Estimate
    speedup: Estimate
    efficiency: Estimate
    fieller_speedup: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Walls:
    """Wall times in s, a row per block or run, a column per agent. solo is None where no solo arm was measured.

    concurrent: shape (runs, agents); makespan: (runs,); solo: (runs, agents), in `blocked` walls row j of all three
    belongs to block j. Tokens are the output tokens behind each wall, NaN where unknown.
    """

    concurrent: Float64
    makespan: Float64
    solo: Float64 | None = None
    concurrent_tokens: Float64 | None = None
    solo_tokens: Float64 | None = None
    blocked: bool = True
    agents: tuple[str, ...] = field(default=())
    confidence: float = CONFIDENCE

    @property
    def names(self) -> tuple[str, ...]:
        """The agents' names, their numbers where they have none."""
        return self.agents or tuple(str(i) for i in range(self.concurrent.shape[1]))


def parts(solo: Float64, concurrent: Float64, makespan: float) -> Parts:
    """The parts of one block. solo, concurrent: shape (agents,), s, > 0. Raises ValueError otherwise."""
    solo, concurrent = np.asarray(solo, np.float64), np.asarray(concurrent, np.float64)
    if solo.shape != concurrent.shape or not len(solo):
        raise ValueError(f"as many solo as concurrent wall times are needed, got {solo.shape} and {concurrent.shape}")
    if min(solo.min(), concurrent.min(), makespan) <= 0:
        raise ValueError("wall times must be > 0")
    n = len(solo)
    speedup, overlap = float(solo.sum()) / makespan, float(concurrent.sum()) / makespan
    return Parts(
        speedup=speedup,
        efficiency=speedup / n,
        ideal_speedup=float(solo.sum() / solo.max()),
        heterogeneous_efficiency=float(solo.max()) / makespan,
        overlap=overlap,
        stretch=float(concurrent.sum() / solo.sum()),
        balance=overlap / n,
    )


def jain(rates: Float64) -> float:
    """Jain's fairness index of `rates`, shape (agents,): 1 if all have the same, 1/n if one has everything."""
    rates = np.asarray(rates, np.float64)
    return float(rates.sum() ** 2 / (len(rates) * np.dot(rates, rates)))


def parts_over_blocks(walls: Walls) -> PartsOverBlocks:
    """The parts over the blocks, or the runs, of `walls`. All but overlap and balance are refused without solo runs."""
    n = walls.concurrent.shape[1]
    overlap = ratio_of(walls.concurrent.sum(axis=1), walls.makespan, walls.confidence)
    if walls.solo is None or not len(walls.solo):
        without = parts_refused(refused(note(NoteCode.NO_SOLO_RUNS), overlap.n))
        return replace(without, overlap=overlap, balance=_scaled(overlap, 1 / n))
    total, longest = walls.solo.sum(axis=1), walls.solo.max(axis=1)
    compare = ratio_of if walls.blocked else _unblocked
    by_times = compare(total, walls.makespan, walls.confidence)
    fieller = _fieller(total, walls)
    if fieller.has(NoteCode.UNBOUNDED):
        by_times = replace(by_times, low=None, high=None, confidence=None).noted(ratio.UNBOUNDED)
    measured = PartsOverBlocks(
        overlap=overlap,
        balance=_scaled(overlap, 1 / n),
        ideal_speedup=ratio_of(total, longest, walls.confidence),
        heterogeneous_efficiency=compare(longest, walls.makespan, walls.confidence),
        stretch=compare(walls.concurrent.sum(axis=1), total, walls.confidence),
        combined_over_solo=_combined_over_solo(walls, compare),
        speedup=by_times,
        efficiency=by_times,
        fieller_speedup=fieller,
    )
    checked = _work_checked(measured, walls)
    speedup = _above_ideal_marked(checked, walls)
    return replace(checked, speedup=speedup, efficiency=_scaled(speedup, 1 / n))


def parts_refused(estimate: Estimate) -> PartsOverBlocks:
    """The parts where `estimate`, which is a refused one, is all that is known of any of them."""
    return PartsOverBlocks(*[estimate] * 8)


def ratio_of(top: Float64, bottom: Float64, confidence: float = CONFIDENCE) -> Estimate:
    """The ratio of geometric means of pairs, shape (blocks,) both, with its paired log-t interval."""
    if not len(top):
        return refused(note(NoteCode.NO_COMPLETE_BLOCK))
    if min(top.min(), bottom.min()) <= 0:
        return refused(note(NoteCode.ZERO_VALUE), len(top))
    if len(top) < LEAST_RUNS:
        return _bare(float(np.exp(np.log(top / bottom).mean())), len(top))
    return _from_ratio(ratio.log_paired(top, bottom, confidence), len(top))


def tokens_differ(walls: Walls) -> list[str]:
    """The agents, in words, that did more or less work in the concurrent runs than alone, beyond 2 %."""
    return [
        f"{name}: {b:.4g} tokens against {a:.4g} alone"
        for name, a, b in _mean_tokens(walls)
        if abs(b - a) > UNEQUAL * a  # NaN > anything is False: `tokens_unknown` names those
    ]


def tokens_unknown(walls: Walls) -> list[str]:
    """The agents of which a run, alone or together, does not report how many tokens they wrote."""
    return [name for name, a, b in _mean_tokens(walls) if math.isnan(a) or math.isnan(b)]


def _mean_tokens(walls: Walls) -> list[tuple[str, float, float]]:
    """(name, tokens alone, tokens together) of each agent, means over runs; NaN where a run reports none."""
    unknown = np.full((1, walls.concurrent.shape[1]), np.nan)
    alone, together = (
        (unknown if tokens is None else tokens).mean(axis=0) for tokens in (walls.solo_tokens, walls.concurrent_tokens)
    )
    return list(zip(walls.names, alone.tolist(), together.tolist(), strict=True))


def _work_checked(measured: PartsOverBlocks, walls: Walls) -> PartsOverBlocks:
    """The parts with a note where work was unequal or may have been, and then with token rates for a speedup."""
    checked = measured
    unequal = "; ".join(tokens_differ(walls))
    if unequal:
        by_tokens = measured.combined_over_solo.noted(note(NoteCode.UNEQUAL_WORK, agents=unequal))
        mark = note(NoteCode.UNEQUAL_TIMES, agents=unequal)
        checked = _of_times_noted(replace(checked, speedup=by_tokens), mark)
    unknown = ", ".join(tokens_unknown(walls))
    if unknown:
        mark = note(NoteCode.WORK_UNCHECKED, agents=unknown)
        checked = _of_times_noted(replace(checked, speedup=checked.speedup.noted(mark)), mark)
    return checked


def _of_times_noted(measured: PartsOverBlocks, mark: Note) -> PartsOverBlocks:
    """The parts with `mark` beside those that are ratios of times."""
    return replace(
        measured,
        ideal_speedup=measured.ideal_speedup.noted(mark),
        heterogeneous_efficiency=measured.heterogeneous_efficiency.noted(mark),
        stretch=measured.stretch.noted(mark),
    )


def _unblocked(top: Float64, bottom: Float64, confidence: float) -> Estimate:
    """The ratio of values that are not of the same blocks: Welch on logs."""
    mark = note(NoteCode.NOT_BLOCKED)
    n = min(len(top), len(bottom))
    if not n:
        return refused(note(NoteCode.NO_COMPLETE_RUN))
    if n < LEAST_RUNS:
        return _bare(float(np.exp(np.log(top).mean() - np.log(bottom).mean())), n).noted(mark)
    return _from_ratio(ratio.log_welch(top, bottom, confidence), n).noted(mark)


def _combined_over_solo(walls: Walls, compare: Compare) -> Estimate:
    unknown = refused(note(NoteCode.TOKENS_UNKNOWN), len(walls.makespan))
    if walls.solo is None or walls.solo_tokens is None or walls.concurrent_tokens is None:
        return unknown
    alone, together = walls.solo_tokens.sum(axis=1), walls.concurrent_tokens.sum(axis=1)
    if np.isnan(alone).any() or np.isnan(together).any() or min(alone.min(), together.min()) <= 0:
        return unknown
    return compare(together / walls.makespan, alone / walls.solo.sum(axis=1), walls.confidence)


def _fieller(total: Float64, walls: Walls) -> Estimate:
    """The ratio of means with Fieller's interval, the check on that of geometric means."""
    n = min(len(total), len(walls.makespan))
    if n < LEAST_RUNS:
        return _bare(float(total.mean() / walls.makespan.mean()), n)
    check = ratio.fieller_paired if walls.blocked else ratio.fieller_unpaired
    return _from_ratio(check(total, walls.makespan, walls.confidence), n)


def _above_ideal_marked(measured: PartsOverBlocks, walls: Walls) -> Estimate:
    """The speedup, with a note if it is above the ideal one: some agent ran faster than alone."""
    speedup, ideal, heterogeneous = measured.speedup, measured.ideal_speedup, measured.heterogeneous_efficiency
    if speedup.value is None or ideal.value is None or walls.solo is None:
        return speedup
    if speedup.value <= ideal.value * (1 + TOLERANCE):
        return speedup
    stretches = walls.concurrent.mean(axis=0) / walls.solo.mean(axis=0)
    faster = ", ".join(name for name, k in zip(walls.names, stretches.tolist(), strict=True) if k < 1) or "an agent"
    beyond_noise = heterogeneous.low is not None and heterogeneous.low > 1
    return speedup.noted(note(NoteCode.ABOVE_IDEAL if beyond_noise else NoteCode.ABOVE_IDEAL_BY_NOISE, agents=faster))


def _from_ratio(found: ratio.Ratio, n: int) -> Estimate:
    confidence = None if found.low is None and found.high is None else found.confidence
    estimate = Estimate(found.value, found.low, found.high, confidence, n, found.notes)
    return estimate.noted(FEW_RUNS) if n < ENOUGH_RUNS else estimate


def _bare(value: float, n: int) -> Estimate:
    return Estimate(value, n=n, notes=(no_interval(n),))


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    value, low, high = (None if x is None else x * factor for x in (estimate.value, estimate.low, estimate.high))
    return replace(estimate, value=value, low=low, high=high)
