"""The instrument's own state, and the verdict on a campaign: was the server the bottleneck, or the client?

Verdicts, worst first: `failed` (nothing was answered), `generator-limited` (the client could not offer the
load, or its stamps are in doubt), `unstable` (an open loop faster than the server, or a drift: latency then depends on
how long the run lasted), `ok`. Every rule that fires is a reason, with its run, whatever the verdict is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from analysis.catalogue import RunVerdict
from analysis.estimate import Note, NoteCode, note, significant
from analysis.figures import throughput
from analysis.records import latency, settling
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT, Bool
from analysis.records.windows import Window
from analysis.stats.in_flight import time_in_flight
from analysis.stats.quantiles import SortedArray, type7
from analysis.stats.steady import kendall_p
from loadgen.manifest import Calibration
from loadgen.record import Int64, Outcome

__all__ = ["Error", "Instrument", "Judgement", "Spread", "beyond_calibration", "instrument_of", "judge"]

# docs/methodology.md#is-the-client-the-bottleneck.
SLIP_NS = 1e6
SLIP_SHARE_OF_TTFT = 0.1
UNSENT_SHARE = 0.01
LAG_SHARE_OF_GAP = 0.25
CPU_SHARE = 0.8
CENSORED_SHARE = 0.05
CALIBRATED_FACTOR = 2.0  # of the calibration's load; up to it the errors are given without a note
GROWTH_BINS = 10
CLOCK_JUMP_US = 50.0  # docs/methodology.md#kernel-stamps
GROWTH_FROM = 0.2  # of the window; before that any queue grows from nothing
GROWTH_SHARE = 0.02
GROWTH_P = 0.05
NEVER = 1 << 62
GROWTH_LEAST = 100  # arrivals: with fewer, ten bins of in-flight say nothing about a trend


class Error(Struct, frozen=True, kw_only=True):
    """The error of a stamp or of a gap, µs; None: not calibrated."""

    bias: float | None
    halfwidth: float | None


class Spread(Struct, frozen=True, kw_only=True):
    """The distribution of a delay, ms; None: not known."""

    p50: float | None = None
    p99: float | None = None
    max: float | None = None


class Instrument(Struct, frozen=True, kw_only=True):
    """The instrument as the manifest describes it and the records show it. None: not known."""

    tier: str | None
    workers: int | None
    stamp_error_us: Error
    gap_error_us: Error
    censored_share: float | None
    loop_lag_ms: Spread
    send_lag_ms: Spread
    cpu_share: float | None
    clock_source: str | None
    clock_jump_us: float | None  # the largest step of the wall clock, which the kernel stamps with
    unstamped_reads: int  # reads the kernel gave no stamp for


@dataclass(frozen=True, slots=True)
class Judgement:
    """A campaign's verdict and its reasons: every rule that fired."""

    verdict: RunVerdict
    reasons: tuple[Note, ...]


def instrument_of(m: Measured) -> Instrument:
    """The instrument's state over the measured windows."""
    facts = m.manifest.measured_by
    calibration = facts.calibration or Calibration()
    events = int(m.tokens.events[m.inside].sum())
    censored = int(m.tokens.censored[m.inside].sum())
    lag = facts.loop_lag_ms or {}
    return Instrument(
        tier=facts.tier,
        workers=facts.workers,
        stamp_error_us=Error(bias=calibration.ttft_bias_us, halfwidth=calibration.ttft_halfwidth_us),
        gap_error_us=Error(bias=calibration.gap_bias_us, halfwidth=calibration.gap_halfwidth_us),
        censored_share=significant(censored / events) if events else None,
        loop_lag_ms=Spread(p50=lag.get("p50"), p99=lag.get("p99"), max=lag.get("max")),
        send_lag_ms=_send_lag_ms(m, m.inside),
        cpu_share=facts.cpu_share,
        clock_source=facts.clock_source,
        clock_jump_us=facts.clock_jump_us,
        unstamped_reads=facts.unstamped_reads,
    )


def beyond_calibration(m: Measured) -> list[Note]:
    """A note if a run's load was far above the load at which its stated stamp errors were measured.

    Streams and rate are those of all workers together, because they share the machine.
    """
    calibration = m.manifest.measured_by.calibration or Calibration()
    streams, rate = calibration.streams, calibration.tokens_per_s
    if not streams or not rate:
        return []
    most = max((_peak_in_flight(m, m.requests.run == run, m.requests.sent_ns) for run in m.runs), default=0)
    fastest = max(throughput.event_rates(m), default=0.0)
    if most <= CALIBRATED_FACTOR * streams and fastest <= CALIBRATED_FACTOR * rate:
        return []
    calibrated = {"streams": streams, "tokens_per_s": rate}
    return [note(NoteCode.BEYOND_CALIBRATION, **calibrated, most=most, fastest_per_s=fastest)]


def _send_lag_ms(m: Measured, chosen: Bool) -> Spread:
    lag = latency.send_lag(m)[chosen]
    lag = lag[~np.isnan(lag)]
    if len(lag) == 0:
        return Spread()
    ordered = SortedArray(lag)
    p50, p99, most = type7(ordered, 0.5), type7(ordered, 0.99), ordered.at(ordered.n)
    return Spread(p50=significant(p50 / 1e6), p99=significant(p99 / 1e6), max=significant(most / 1e6))


def judge(m: Measured, instrument: Instrument) -> Judgement:
    """The verdict on a campaign: every rule applied to every run."""
    if not m.requests.ok.any():
        return Judgement(RunVerdict.FAILED, (note(NoteCode.NOTHING_COMPLETED),))
    if not m.answered.any():
        return Judgement(RunVerdict.FAILED, (note(NoteCode.NOTHING_IN_WINDOW),))
    limited = _stamps_in_doubt(m, instrument)
    unstable = []
    several = len(m.windows) > 1
    for window in m.windows:
        limited += [reason.of_run(window.run if several else None) for reason in _not_offered(m, window)]
        growth = _growth(m, window)
        if growth is not None:
            unstable.append(note(NoteCode.PILED_UP, growth=growth).of_run(window.run if several else None))
    unstable += [drift if several else drift.of_run(None) for drift in settling.drifting(m)]
    verdict = RunVerdict.LIMITED if limited else RunVerdict.UNSTABLE if unstable else RunVerdict.OK
    return Judgement(verdict, (*limited, *unstable))


def _not_offered(m: Measured, window: Window) -> list[Note]:
    """A note per way in which the load of one run was not the wanted one."""
    of_run = m.requests.run == window.run
    if not window.open_loop:
        return _concurrency_not_reached(m, window, of_run)
    reasons = []
    inside = of_run & m.inside
    slip = _send_lag_ms(m, inside).p99
    ttft = latency.ttft_service(m)[inside & m.requests.ok]
    ttft = ttft[~np.isnan(ttft)]
    if slip is not None and len(ttft):
        allowed = max(SLIP_NS, SLIP_SHARE_OF_TTFT * float(np.median(ttft))) / 1e6
        if slip > allowed:
            reasons.append(note(NoteCode.SENT_LATE, slip_ms=slip, allowed_ms=allowed))
    unsent = max(window.offered - int(of_run.sum()), 0) + int((of_run & m.requests.ended(Outcome.NOT_SENT)).sum())
    # The client is not to blame for what an interrupted run did not send.
    if not window.interrupted and not m.partial and window.offered and unsent > UNSENT_SHARE * window.offered:
        reasons.append(note(NoteCode.NOT_SENT, unsent=unsent, offered=window.offered))
    return reasons


def _concurrency_not_reached(m: Measured, window: Window, of_run: Bool) -> list[Note]:
    asked = window.concurrency_asked
    if asked is None or window.interrupted:
        return []
    asked = min(asked, window.offered)  # fewer requests than that: the profile is the cause, not the client
    reached = window.concurrency_reached
    if reached is None:
        reached = _peak_in_flight(m, of_run, m.requests.intended_ns)
    return [note(NoteCode.CONCURRENCY_NOT_REACHED, reached=reached, asked=asked)] if reached < asked else []


def _peak_in_flight(m: Measured, of_run: Bool, starts_ns: Int64) -> int:
    done = of_run & (m.requests.done_ns != ABSENT) & (m.requests.sent_ns != ABSENT)
    if not done.any():
        return 0
    times = np.concatenate([m.requests.done_ns[done], starts_ns[done]])
    steps = np.repeat([-1, 1], int(done.sum()))
    return int(np.cumsum(steps[np.lexsort((steps, times))]).max())


def _stamps_in_doubt(m: Measured, instrument: Instrument) -> list[Note]:
    reasons: list[Note] = []
    if instrument.tier == "kernel":
        # A busy client is late without being wrong, until it reads several tokens at once.
        share, jump = instrument.censored_share, instrument.clock_jump_us
        if share is not None and share > CENSORED_SHARE:
            reasons.append(note(NoteCode.READS_SHARED, share=share, allowed=CENSORED_SHARE))
        if jump is not None and jump > CLOCK_JUMP_US:
            reasons.append(note(NoteCode.CLOCK_STEPPED, step_us=jump, allowed_us=CLOCK_JUMP_US))
        return reasons
    lag = instrument.loop_lag_ms.p99
    if lag is not None and m.gaps.stamped.n:
        gap = type7(m.gaps.stamped, 0.5) / 1e6
        if lag > LAG_SHARE_OF_GAP * gap:
            reasons.append(note(NoteCode.LOOP_LAG, lag_ms=lag, gap_ms=gap))
    if instrument.cpu_share is not None and instrument.cpu_share > CPU_SHARE:
        reasons.append(note(NoteCode.CPU_BUSY, share=instrument.cpu_share, allowed=CPU_SHARE))
    return reasons


def _growth(m: Measured, window: Window) -> float | None:
    """The share of arrivals that piled up, if requests in flight grew throughout an open-loop run.

    Requests in flight are those due and not done; after the first fifth of the window their means over ten bins must
    rise (Kendall, one-sided p < 0.05) and arrivals exceed completions by 2 %.
    """
    if not window.open_loop:
        return None
    sent = (m.requests.run == window.run) & ~m.requests.ended(Outcome.NOT_SENT)
    due, done = m.requests.intended_ns[sent], m.requests.done_ns[sent]
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
