"""What running agents together gained: speedup, and the parts it is made of.

METHODOLOGY 9. For agents i = 1..n: T_i wall time alone, D_i wall time while the others run, W makespan of the
concurrent run. Speedup S = sum T / W needs measured solo runs; without them all that can be told is overlap
O = sum D / W, which is no speedup: two agents that take turns on one GPU have O = 2 and S = 1.

    S = O / stretch      E = S / n = balance / stretch      S* = sum T / max T      E* = S / S* = max T / W

First the formulas, then estimates over blocks: paired t on logs where a block holds the solo runs and the concurrent
run, Welch's t on logs where they are not blocked. Fieller's interval is the check on both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from analysis.estimate import Estimate, refused
from analysis.stats import ratio
from analysis.stats.intervals import CONFIDENCE, ENOUGH_RUNS, FEW_RUNS, LEAST_RUNS, no_interval

__all__ = [
    "Parts",
    "Walls",
    "jain",
    "parts",
    "parts_over_blocks",
    "ratio_of",
    "tokens_differ",
    "tokens_unknown",
]

Float64 = NDArray[np.float64]

UNEQUAL = 0.02  # METHODOLOGY 7.8, of the output tokens of an agent, concurrent against solo
NO_SOLO = "no solo runs: overlap is all that can be told, and overlap is no speedup"
TOLERANCE = 1e-9


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
class Walls:
    """Wall times in s, a row a block or run, a column an agent. solo is None where no solo arm was measured.

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


def parts(solo: Float64, concurrent: Float64, makespan: float) -> Parts:
    """Return the parts of one block. solo, concurrent: shape (agents,), s, > 0. Raises ValueError otherwise."""
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
    """Return Jain's fairness index of shape (agents,): 1 if all have the same, 1/n if one has everything."""
    rates = np.asarray(rates, np.float64)
    return float(rates.sum() ** 2 / (len(rates) * np.dot(rates, rates)))


def parts_over_blocks(walls: Walls) -> dict[str, Estimate]:
    """Return an Estimate for each name of Parts, and for "combined_over_solo" and "fieller_speedup".

    combined_over_solo: tokens/s of all agents together over tokens/s of the agents one after the other. With equal
    work that is the speedup; with unequal work it is used as the speedup, and marked.
    """
    n = walls.concurrent.shape[1]
    overlap = ratio_of(walls.concurrent.sum(axis=1), walls.makespan, walls.confidence)
    told = {"overlap": overlap, "balance": _scaled(overlap, 1 / n)}
    if walls.solo is None or not len(walls.solo):
        names = ("speedup", "efficiency", "ideal_speedup", "heterogeneous_efficiency", "stretch", "combined_over_solo")
        return dict.fromkeys(names, refused(NO_SOLO, overlap.n)) | told
    total, longest = walls.solo.sum(axis=1), walls.solo.max(axis=1)
    compare = ratio_of if walls.blocked else _unblocked
    speedup = compare(total, walls.makespan, walls.confidence)
    told |= {
        "ideal_speedup": ratio_of(total, longest, walls.confidence),
        "heterogeneous_efficiency": compare(longest, walls.makespan, walls.confidence),
        "stretch": compare(walls.concurrent.sum(axis=1), total, walls.confidence),
        "combined_over_solo": _combined_over_solo(walls, compare),
        "fieller_speedup": _fieller(total, walls),
    }
    if any("unbounded" in note for note in told["fieller_speedup"].sentences):
        speedup = replace(speedup, low=None, high=None, confidence=None).noted(ratio.UNBOUNDED)
    unequal = tokens_differ(walls)
    if unequal:
        note = f"unequal work ({'; '.join(unequal)}): token rates are compared instead of times"
        speedup = told["combined_over_solo"].noted(note)
        for name in ("ideal_speedup", "heterogeneous_efficiency", "stretch"):
            told[name] = told[name].noted(f"unequal work ({'; '.join(unequal)}): the times are of different work")
    unknown = tokens_unknown(walls)
    if unknown:
        note = f"output tokens of {', '.join(unknown)} are not known in all runs: equal work cannot be checked"
        speedup = speedup.noted(note)
        for name in ("ideal_speedup", "heterogeneous_efficiency", "stretch"):
            told[name] = told[name].noted(note)
    told["speedup"] = _flagged(speedup, told["ideal_speedup"], told["heterogeneous_efficiency"], walls)
    told["efficiency"] = _scaled(told["speedup"], 1 / n)
    return told


def ratio_of(top: Float64, bottom: Float64, confidence: float = CONFIDENCE) -> Estimate:
    """Return the ratio of geometric means of pairs, shape (blocks,) both, with its paired log-t interval."""
    if not len(top):
        return refused("no complete block")
    if min(top.min(), bottom.min()) <= 0:
        return refused("a value of zero has no ratio", len(top))
    if len(top) < LEAST_RUNS:
        return _bare(float(np.exp(np.log(top / bottom).mean())), len(top))
    return _marked(ratio.log_paired(top, bottom, confidence), len(top))


def tokens_differ(walls: Walls) -> list[str]:
    """Return in words which agents did more or less work in the concurrent runs than alone, beyond 2 %."""
    return [
        f"{name}: {b:.4g} tokens against {a:.4g} alone"
        for name, a, b in _mean_tokens(walls)
        if abs(b - a) > UNEQUAL * a  # NaN > anything is False: `tokens_unknown` names those
    ]


def tokens_unknown(walls: Walls) -> list[str]:
    """Return the agents of which a run, alone or together, does not tell how many tokens they wrote."""
    return [name for name, a, b in _mean_tokens(walls) if math.isnan(a) or math.isnan(b)]


def _mean_tokens(walls: Walls) -> list[tuple[str, float, float]]:
    """Return (name, tokens alone, tokens together) of each agent, means over runs; NaN where a run does not tell."""
    unknown = np.full((1, walls.concurrent.shape[1]), np.nan)
    alone, together = (
        (unknown if tokens is None else tokens).mean(axis=0) for tokens in (walls.solo_tokens, walls.concurrent_tokens)
    )
    names = walls.agents or tuple(str(i) for i in range(len(alone)))
    return list(zip(names, alone.tolist(), together.tolist(), strict=True))


def _unblocked(top: Float64, bottom: Float64, confidence: float) -> Estimate:
    """Return the ratio of values that are not of the same blocks: Welch on logs."""
    note = "solo and concurrent runs are not of the same blocks: Welch's t on logs"
    n = min(len(top), len(bottom))
    if not n:
        return refused("no complete run")
    if n < LEAST_RUNS:
        return _bare(float(np.exp(np.log(top).mean() - np.log(bottom).mean())), n).noted(note)
    return _marked(ratio.log_welch(top, bottom, confidence), n).noted(note)


def _combined_over_solo(walls: Walls, compare: Callable[[Float64, Float64, float], Estimate]) -> Estimate:
    if walls.solo is None or walls.solo_tokens is None or walls.concurrent_tokens is None:
        return refused("output tokens unknown", len(walls.makespan))
    alone, together = walls.solo_tokens.sum(axis=1), walls.concurrent_tokens.sum(axis=1)
    if np.isnan(alone).any() or np.isnan(together).any() or min(alone.min(), together.min()) <= 0:
        return refused("output tokens unknown", len(walls.makespan))
    return compare(together / walls.makespan, alone / walls.solo.sum(axis=1), walls.confidence)


def _fieller(total: Float64, walls: Walls) -> Estimate:
    """Return the ratio of means with Fieller's interval, the check on that of geometric means."""
    n = min(len(total), len(walls.makespan))
    if n < LEAST_RUNS:
        return _bare(float(total.mean() / walls.makespan.mean()), n)
    check = ratio.fieller_paired if walls.blocked else ratio.fieller_unpaired
    return _marked(check(total, walls.makespan, walls.confidence), n)


def _flagged(speedup: Estimate, ideal: Estimate, heterogeneous: Estimate, walls: Walls) -> Estimate:
    """Mark a speedup above the ideal one: some agent ran faster than alone."""
    if speedup.value is None or ideal.value is None or walls.solo is None:
        return speedup
    if speedup.value <= ideal.value * (1 + TOLERANCE):
        return speedup
    stretches = walls.concurrent.mean(axis=0) / walls.solo.mean(axis=0)
    names = walls.agents or tuple(str(i) for i in range(len(stretches)))
    faster = ", ".join(name for name, k in zip(names, stretches.tolist(), strict=True) if k < 1) or "an agent"
    beyond = heterogeneous.low is not None and heterogeneous.low > 1
    doubt = "" if beyond else "; within the noise"
    return speedup.noted(f"above the ideal speedup: {faster} ran faster than alone{doubt}")


def _marked(one: ratio.Ratio, n: int) -> Estimate:
    confidence = None if one.low is None and one.high is None else one.confidence
    return _few(Estimate(one.value, one.low, one.high, confidence, n, one.notes))


def _few(estimate: Estimate) -> Estimate:
    return estimate.noted(FEW_RUNS) if estimate.n < ENOUGH_RUNS else estimate


def _bare(value: float, n: int) -> Estimate:
    return Estimate(value, n=n, notes=(no_interval(n),))


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    value, low, high = (None if x is None else x * factor for x in (estimate.value, estimate.low, estimate.high))
    return replace(estimate, value=value, low=low, high=high)
