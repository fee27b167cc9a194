"""Was it the server or were we the bottleneck? The instrument's own state, and the verdict on a campaign.

Verdicts, worst first: `failed` (nothing was answered), `generator-limited` (we could not offer the load or cannot
trust the stamps), `unstable` (an open loop faster than the server, or a drift: latency then measures how long we
watched), `ok`.
Every rule that fires is told in words, with the run it fired in, whatever the verdict is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.estimate import significant
from analysis.figures import throughput
from analysis.records import latency, settling
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT, Bool
from analysis.records.windows import Window
from analysis.stats.in_flight import time_in_flight
from analysis.stats.quantiles import SortedArray, type7
from analysis.stats.steady import kendall_p
from loadgen.record import Int64, Outcome

__all__ = ["Instrument", "Verdict", "beyond_calibration", "instrument_of", "judge"]

# METHODOLOGY 2.6 and 5.3.
SLIP_NS = 1e6
SLIP_SHARE_OF_TTFT = 0.1
UNSENT_SHARE = 0.01
LAG_SHARE_OF_GAP = 0.25
CPU_SHARE = 0.8
CENSORED_SHARE = 0.05
CALIBRATED_FACTOR = 2.0  # of the load of the calibration, up to which its errors are quoted without a word
GROWTH_BINS = 10
CLOCK_JUMP_US = 50.0  # METHODOLOGY 3.3
GROWTH_FROM = 0.2  # of the window; before that any queue grows from nothing
GROWTH_SHARE = 0.02
GROWTH_P = 0.05
NEVER = 1 << 62
GROWTH_LEAST = 100  # arrivals: with fewer, ten bins of in-flight say nothing about a trend


@dataclass(frozen=True, slots=True)
class Instrument:
    """The instrument as the manifest describes it and the records show it. None: not known."""

    tier: str | None
    workers: int | None
    ttft_bias_us: float | None
    ttft_halfwidth_us: float | None
    gap_bias_us: float | None
    gap_halfwidth_us: float | None
    censored_share: float | None
    loop_lag_ms: Mapping[str, float]
    send_lag_ms: Mapping[str, float]
    cpu_share: float | None
    clock_source: str | None
    clock_jump_us: float | None = None  # the largest step of the wall clock, which the kernel stamps with
    unstamped_reads: int = 0  # reads the kernel gave no stamp for

    def to_json(self) -> dict[str, Any]:
        return {
            "tier": self.tier,
            "workers": self.workers,
            "stamp_error_us": {"bias": self.ttft_bias_us, "halfwidth": self.ttft_halfwidth_us},
            "gap_error_us": {"bias": self.gap_bias_us, "halfwidth": self.gap_halfwidth_us},
            "censored_share": significant(self.censored_share),
            "loop_lag_ms": {name: self.loop_lag_ms.get(name) for name in ("p50", "p99", "max")},
            "send_lag_ms": {name: significant(self.send_lag_ms.get(name)) for name in ("p50", "p99", "max")},
            "cpu_share": self.cpu_share,
            "clock_source": self.clock_source,
            "clock_jump_us": self.clock_jump_us,
            "unstamped_reads": self.unstamped_reads,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    name: str  # ok | generator-limited | unstable | failed
    reasons: tuple[str, ...]

    @property
    def forbids_percentiles(self) -> bool:
        return self.name in ("generator-limited", "unstable")


def instrument_of(m: Measured) -> Instrument:
    told = m.manifest.get("instrument") or {}
    calibration = told.get("calibration") or {}
    events = int(m.tokens.events[m.inside].sum())
    censored = int(m.tokens.censored[m.inside].sum())
    return Instrument(
        tier=told.get("tier"),
        workers=told.get("workers"),
        ttft_bias_us=calibration.get("ttft_bias_us"),
        ttft_halfwidth_us=calibration.get("ttft_halfwidth_us"),
        gap_bias_us=calibration.get("gap_bias_us"),
        gap_halfwidth_us=calibration.get("gap_halfwidth_us"),
        censored_share=censored / events if events else None,
        loop_lag_ms=told.get("loop_lag_ms") or {},
        send_lag_ms=_send_lag_ms(m, m.inside),
        cpu_share=told.get("cpu_share"),
        clock_source=told.get("clock_source"),
        clock_jump_us=told.get("clock_jump_us"),
        unstamped_reads=told.get("unstamped_reads") or 0,
    )


def beyond_calibration(m: Measured) -> list[str]:
    """Return, in words, if a run's load was far above the one its quoted stamp errors were measured at.

    Streams and rate are those of all workers together, for they share the machine.
    """
    told = (m.manifest.get("instrument") or {}).get("calibration") or {}
    streams, rate = told.get("streams"), told.get("tokens_per_s")
    if not streams or not rate:
        return []
    most = max((_peak_in_flight(m, m.requests.run == run, m.requests.sent_ns) for run in m.runs), default=0)
    fastest = max(throughput.event_rates(m), default=0.0)
    if most <= CALIBRATED_FACTOR * streams and fastest <= CALIBRATED_FACTOR * rate:
        return []
    return [
        f"stamp errors were calibrated with concurrency {streams:,} and {rate:,.0f} token events/s, here were up to "
        f"{most:,} and {fastest:,.0f}: they may be larger; calibrate at this load with --concurrency and --gap-ms"
    ]


def _send_lag_ms(m: Measured, chosen: Bool) -> dict[str, float]:
    lag = latency.send_lag(m)[chosen]
    lag = lag[~np.isnan(lag)]
    if len(lag) == 0:
        return {}
    ordered = SortedArray(lag)
    return {"p50": type7(ordered, 0.5) / 1e6, "p99": type7(ordered, 0.99) / 1e6, "max": ordered.at(ordered.n) / 1e6}


def judge(m: Measured, instrument: Instrument) -> Verdict:
    """Apply the rules to every run."""
    if not m.requests.ok.any():
        return Verdict("failed", ("no request completed",))
    if not m.answered.any():
        return Verdict("failed", ("no request that was due in the measured window completed",))
    limited = [*_stamps_in_doubt(m, instrument)]
    unstable = []
    for window in m.windows:
        place = f"run {window.run}: " if len(m.windows) > 1 else ""
        limited += [place + reason for reason in _not_offered(m, window)]
        growth = _growth(m, window)
        if growth is not None:
            unstable.append(f"{place}the server did not keep up: of the arrivals, {growth:.0%} piled up")
    for run, reason in settling.drifting(m):
        unstable.append(f"run {run}: {reason}" if len(m.windows) > 1 else reason)
    name = "generator-limited" if limited else "unstable" if unstable else "ok"
    return Verdict(name, (*limited, *unstable))


def _not_offered(m: Measured, window: Window) -> list[str]:
    """Return in which ways the load of one run was not the one asked for."""
    mine = m.requests.run == window.run
    if not window.open_loop:
        return _concurrency_not_reached(m, window, mine)
    reasons = []
    inside = mine & m.inside
    slip = _send_lag_ms(m, inside).get("p99")
    ttft = latency.ttft_service(m)[inside & m.requests.ok]
    ttft = ttft[~np.isnan(ttft)]
    if slip is not None and len(ttft):
        allowed = max(SLIP_NS, SLIP_SHARE_OF_TTFT * float(np.median(ttft))) / 1e6
        if slip > allowed:
            reasons.append(f"requests were sent late: p99 of the slip {slip:.3g} ms, allowed {allowed:.3g} ms")
    unsent = max(window.offered - int(mine.sum()), 0) + int((mine & m.requests.ended(Outcome.NOT_SENT)).sum())
    # An interrupted run was cut short by somebody else.
    if not window.interrupted and not m.partial and window.offered and unsent > UNSENT_SHARE * window.offered:
        reasons.append(f"{unsent} of {window.offered} scheduled requests were not sent")
    return reasons


def _concurrency_not_reached(m: Measured, window: Window, mine: Bool) -> list[str]:
    asked = window.concurrency_asked
    if asked is None or window.interrupted:
        return []
    asked = min(asked, window.offered)  # fewer requests than that: the profile's doing, not ours
    reached = window.concurrency_reached
    if reached is None:
        reached = _peak_in_flight(m, mine, m.requests.intended_ns)
    return [f"concurrency reached {reached} of {asked} asked for"] if reached < asked else []


def _peak_in_flight(m: Measured, mine: Bool, starts_ns: Int64) -> int:
    known = mine & (m.requests.done_ns != ABSENT) & (m.requests.sent_ns != ABSENT)
    if not known.any():
        return 0
    times = np.concatenate([m.requests.done_ns[known], starts_ns[known]])
    steps = np.repeat([-1, 1], int(known.sum()))
    return int(np.cumsum(steps[np.lexsort((steps, times))]).max())


def _stamps_in_doubt(m: Measured, instrument: Instrument) -> list[str]:
    reasons: list[str] = []
    if instrument.tier == "kernel":
        # A busy client is late without being wrong, until it reads several tokens at once.
        share, jump = instrument.censored_share, instrument.clock_jump_us
        if share is not None and share > CENSORED_SHARE:
            reasons.append(f"{share:.1%} of token events share a read with a later one, allowed {CENSORED_SHARE:.0%}")
        if jump is not None and jump > CLOCK_JUMP_US:
            reasons.append(
                f"the wall clock was stepped by {jump:.0f} µs, allowed {CLOCK_JUMP_US:.0f} µs: stamps are void"
            )
        return reasons
    lag = instrument.loop_lag_ms.get("p99")
    if lag is not None and m.gaps.stamped.n:
        gap = type7(m.gaps.stamped, 0.5) / 1e6
        if lag > LAG_SHARE_OF_GAP * gap:
            reasons.append(f"event loop lag p99 {lag:.3g} ms, over a quarter of the median event gap {gap:.3g} ms")
    if instrument.cpu_share is not None and instrument.cpu_share > CPU_SHARE:
        reasons.append(f"the client used {instrument.cpu_share:.0%} of a core, allowed {CPU_SHARE:.0%}")
    return reasons


def _growth(m: Measured, window: Window) -> float | None:
    """Return the share of arrivals that piled up, if requests in flight grew throughout an open-loop run.

    Requests in flight are those due and not done; after the first fifth of the window their means over ten bins must
    rise (Kendall, one-sided p < 0.05) and arrivals exceed completions by 2 %.
    """
    if not window.open_loop:
        return None
    mine = (m.requests.run == window.run) & ~m.requests.ended(Outcome.NOT_SENT)
    due, done = m.requests.intended_ns[mine], m.requests.done_ns[mine]
    start = window.from_ns + round(GROWTH_FROM * (window.to_ns - window.from_ns))
    arrivals = int(((due >= start) & (due <= window.to_ns)).sum())
    if arrivals < GROWTH_LEAST:
        return None
    done = np.where(done == ABSENT, NEVER, done)
    completions = int(((done >= start) & (done <= window.to_ns)).sum())
    growth = (arrivals - completions) / arrivals
    if growth <= GROWTH_SHARE:
        return None
    edges = np.linspace(start, window.to_ns, GROWTH_BINS + 1)
    held = np.diff(time_in_flight(due, done, edges))
    return growth if kendall_p(held, "greater") < GROWTH_P else None
