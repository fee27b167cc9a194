"""Arrival processes: from a load and a seed to the instants at which requests should be sent.

Everything is drawn before the run and depends on the seed alone. A stationary process of rate 1 is drawn in operational
time u, and each stage maps u to the clock through the inverse of its cumulative rate, Lambda^-1(u): so a Poisson
process stays one across stages and ramps (Cinlar, Introduction to Stochastic Processes, 1975, ch. 4.7), the mean rate
of a ramp holds, and gamma gaps keep their CV of 1/sqrt(b) in operational time. The bursts of an MMPP-2 are made the
same way, by one more such map from a Poisson process.

Rules a change must keep. Gaps are never rescaled to make the last arrival land somewhere: that fixes the count, and
the process is no longer Poisson. A longer schedule with the same seed begins with the shorter one. Offsets are
nanoseconds from the start of the run, ascending, and warm-up arrivals come first.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from loadgen.profile.loads import Burst, Closed, Load, Mmpp, Open, Stage, Staged
from loadgen.record import NS_PER_S, Int64

__all__ = ["concurrency_steps", "offsets"]

SCHEDULE_STREAM = 0x5C4ED  # keeps these draws apart from those of a workload with the same seed and run
BLOCK = 8192
BURSTS = 512  # and as many calms, drawn at a time

Float64 = NDArray[np.float64]


def offsets(load: Load, seed: int, run: int = 0) -> Int64:
    """The instants at which the requests of an open loop are due, warm-up included.

    Shape (requests,), ns from the start of the run, ascending. A load bounded by requests has exactly that many, one
    bounded by time as many as fall into it, which may be none. Raises ValueError for a closed loop.
    """
    if not load.is_open:
        raise ValueError("a closed loop has no schedule: its arrivals are set by completions")
    if isinstance(load, Burst):
        return np.zeros(load.requests, np.int64)
    arrivals = _UnitArrivals(load, seed, run)
    warmup = _warmup(load)
    pieces = [np.empty(0)]
    start_s = 0.0
    for stage in (warmup, *load.parts) if warmup else load.parts:
        most = load.most_requests if stage is not warmup else None
        within_s, length_s = _stage_offsets(stage, arrivals, most)
        pieces.append(start_s + within_s)
        start_s += length_s
    return np.rint(np.concatenate(pieces) * NS_PER_S).astype(np.int64)


def concurrency_steps(load: Load) -> list[tuple[int, int]]:
    """The concurrency of a closed loop over time: [(at_ns, concurrency), ...].

    Each value holds until the next; the first is at 0 and covers the warm-up. A ramp is a staircase of single steps,
    each half-way between the instants at which its line reaches whole numbers, so that the integral is the line's.
    """
    if isinstance(load, Closed):
        return [(0, load.concurrency)]
    if load.is_open or not isinstance(load, Staged):
        raise ValueError("an open loop has no concurrency to keep: its arrivals are set by the schedule")
    steps: list[tuple[int, int]] = []
    start_s = 0.0
    for index, stage in enumerate(load.stages):
        assert stage.concurrency is not None
        assert stage.duration_s is not None
        if not steps or steps[-1][1] != stage.concurrency:
            steps.append((round(start_s * NS_PER_S), stage.concurrency))
        if index == 0:
            start_s += load.warmup_s
        rise = int(stage.ramp_to or stage.concurrency) - stage.concurrency
        for step in range(1, abs(rise) + 1):
            at_s = start_s + stage.duration_s * (step - 0.5) / abs(rise)
            steps.append((round(at_s * NS_PER_S), stage.concurrency + int(math.copysign(step, rise))))
        start_s += stage.duration_s
    return steps


# --- drawing ---------------------------------------------------------------------------------------------------------


class _UnitArrivals:
    """Arrivals at mean rate 1 in operational time, handed out in order and drawn as far as they are needed."""

    def __init__(self, load: Load, seed: int, run: int) -> None:
        entropy = np.random.SeedSequence([seed, run, SCHEDULE_STREAM])
        self._rng = np.random.Generator(np.random.Philox(entropy))
        self._arrivals = load.arrivals
        self._shape = load.burstiness if isinstance(load, Open | Staged) else 1.0
        mmpp = load.mmpp if isinstance(load, Open) else None
        self._bursts = None if mmpp is None else _Bursts(mmpp, load.parts[0].mean_rate_per_s, self._rng)
        self._ahead: Float64 = np.empty(0)  # drawn, not yet handed out
        # Constant gaps start with a request at once; the random ones with their first gap.
        self._summed_to = -1.0 if load.arrivals == "constant" else 0.0  # the gaps drawn, before bursts
        self._drawn_to = self._summed_to
        self.now = 0.0  # operational time up to which arrivals were handed out

    def until(self, end: float, most: int | None) -> Float64:
        """The arrivals before `end` not handed out yet, at most `most` of them."""
        blocks = [self._ahead]
        have = len(self._ahead)
        while self._drawn_to < end and (most is None or have < most):
            blocks.append(self._block())
            have += BLOCK
        ahead = np.concatenate(blocks)
        # The end is a sum of floats: an arrival a billionth of a gap before it belongs to what comes after.
        count = int(np.searchsorted(ahead, end * (1 - 1e-12) - 1e-9))
        return self._hand_out(ahead, count if most is None else min(count, most), end)

    def next(self, count: int) -> Float64:
        """The next `count` arrivals."""
        blocks = [self._ahead]
        have = len(self._ahead)
        while have < count:
            blocks.append(self._block())
            have += BLOCK
        ahead = np.concatenate(blocks)
        return self._hand_out(ahead, count, float(ahead[count - 1]))

    def _hand_out(self, ahead: Float64, count: int, now: float) -> Float64:
        self._ahead = ahead[count:]
        self.now = now
        return ahead[:count]

    def _block(self) -> Float64:
        if self._arrivals == "constant":
            gaps = np.ones(BLOCK)
        elif self._arrivals == "gamma":
            gaps = self._rng.gamma(self._shape, 1 / self._shape, BLOCK)
        else:
            gaps = self._rng.exponential(1.0, BLOCK)
        block = self._summed_to + np.cumsum(gaps)
        self._summed_to = float(block[-1])
        if self._bursts is not None:
            block = self._bursts.at(block)
        self._drawn_to = float(block[-1])
        return block


class _Bursts:
    """The cumulative rate of an MMPP-2 whose mean rate is 1, drawn as far as it is needed.

    It maps a Poisson process of rate 1 to arrivals that come in bursts. The first state is drawn from the stationary
    distribution, so that the schedule's beginning is like any other part of it.
    """

    def __init__(self, mmpp: Mmpp, rate_per_s: float, rng: np.random.Generator) -> None:
        self._rng = rng
        lengths = np.array([mmpp.burst_s, mmpp.calm_s]) * rate_per_s
        rates = np.array([1.0, mmpp.calm_share]) * mmpp.burst_rate
        if rng.random() >= mmpp.burst_s / (mmpp.burst_s + mmpp.calm_s):
            lengths, rates = lengths[::-1], rates[::-1]
        self._lengths, self._rates = np.tile(lengths, BURSTS), np.tile(rates, BURSTS)
        self._reached = np.zeros(1)  # the cumulative rate at the ends of states,
        self._ends = np.zeros(1)  # and when, in operational time

    def at(self, cumulative: Float64) -> Float64:
        """The times at which the cumulative rate reaches `cumulative`, s, shape (n,), ascending over all calls."""
        reached, ends = [self._reached], [self._ends]
        while reached[-1][-1] <= cumulative[-1]:
            lengths = self._rng.exponential(self._lengths)
            reached.append(reached[-1][-1] + np.cumsum(lengths * self._rates))
            ends.append(ends[-1][-1] + np.cumsum(lengths))
        self._reached, self._ends = np.concatenate(reached), np.concatenate(ends)
        times: Float64 = np.interp(cumulative, self._reached, self._ends)
        past = max(0, int(np.searchsorted(self._reached, cumulative[-1])) - 1)
        self._reached, self._ends = self._reached[past:], self._ends[past:]
        return times


def _warmup(load: Load) -> Stage | None:
    """The warm-up as a stage: the load's first rate, held."""
    rate_per_s = load.parts[0].rate_per_s
    if load.warmup_requests:
        return Stage(rate_per_s=rate_per_s, requests=load.warmup_requests)
    return Stage(rate_per_s=rate_per_s, duration_s=load.warmup_s) if load.warmup_s else None


def _stage_offsets(stage: Stage, arrivals: _UnitArrivals, most: int | None) -> tuple[Float64, float]:
    """The arrivals of a stage, `most` at most, in seconds from its start, and how long it lasts."""
    start = arrivals.now
    if stage.duration_s is not None:
        within = arrivals.until(start + stage.mean_rate_per_s * stage.duration_s, most) - start
        return _at_s(stage, within), stage.duration_s
    assert stage.requests is not None
    at_s = _at_s(stage, arrivals.next(stage.requests) - start)
    return at_s, float(at_s[-1])


def _at_s(stage: Stage, u: Float64) -> Float64:
    """The times t with Lambda(t) = u: shape (n,), s from the start of the stage.

    Lambda(t) = r0 t + (r1 - r0) t^2 / 2D over the stage's length D, written so that r1 = r0 needs no case of its own.
    A stage bounded by requests ramps over the time they take on average and stays at r1 after it.
    """
    assert stage.rate_per_s is not None
    r0 = stage.rate_per_s
    r1 = stage.ramp_to or r0
    length_s = stage.duration_s or (stage.requests or 0) / stage.mean_rate_per_s
    reached = np.minimum(u, stage.mean_rate_per_s * length_s)
    slope = (r1 - r0) / length_s
    t: Float64 = 2 * reached / (r0 + np.sqrt(np.maximum(r0 * r0 + 2 * slope * reached, 0.0)))
    return t + (u - reached) / r1
