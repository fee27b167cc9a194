"""Live counters of a campaign, for the progress line and the exporter, while records go to disk.

One `add` per request, nothing per token, by endpoint and agent. Latencies are counted twice: in few buckets with round
bounds, which dashboards add up, and in buckets 2 % wide, from which a live quantile comes. The report uses neither.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from loadgen import latency
from loadgen.record import TOKEN_KINDS, Int64, Outcome, Record

__all__ = ["BOUNDS_NS", "GROWTH", "LOWEST", "Buckets", "Series", "Tally", "quantile_ms"]

# Six per decade, from 100 µs, the gaps of a fast server on this host, to 700 s, beyond the usual limit of an answer.
BOUNDS_NS = tuple(round(step * 10**power) for power in range(5, 12) for step in (1, 1.5, 2, 3, 5, 7))
BOUNDS_ARRAY_NS = np.array(BOUNDS_NS, np.int64)

# Bucket i of the fine ones ends at 2^(i/32) s: the native histogram schema 5 of Prometheus.
GROWTH = 32
LOWEST, HIGHEST = -GROWTH * 20, GROWTH * 17  # about 1 µs to 36 hours
LOG2_NS_PER_S = math.log2(1e9)

BARREN = bytes(set(range(256)) - set(TOKEN_KINDS))  # kinds of events that carry no token


MOST_NOTED = 4096

Who = tuple[str, str]  # (endpoint, agent)
Request = tuple[int, int]  # (run, seq)


@dataclass(slots=True)
class Buckets:
    """Counts of durations. `add` only appends; readers call `counted` first, which counts many at once."""

    round: Int64 = field(default_factory=lambda: np.zeros(len(BOUNDS_NS) + 1, np.int64))  # the last: above all bounds
    fine: Int64 = field(default_factory=lambda: np.zeros(HIGHEST - LOWEST + 1, np.int64))
    sum_ns: int = 0
    exemplars: dict[int, tuple[Request, int]] = field(default_factory=dict)  # place in `round` -> (request, duration)
    _noted: list[int] = field(default_factory=list)
    _by: list[Request] = field(default_factory=list)

    @property
    def n(self) -> int:
        return int(self.counted().round.sum())

    def add(self, duration_ns: int, request: Request) -> None:
        self._noted.append(duration_ns)
        self._by.append(request)
        if len(self._noted) > MOST_NOTED:
            self.counted()

    def add_many(self, durations_ns: Int64) -> Int64:
        """The place in `round` of each duration, all of which are counted. Both of shape (n,)."""
        at = np.searchsorted(BOUNDS_ARRAY_NS, durations_ns)
        self.round += np.bincount(at, minlength=len(self.round))
        fine = np.ceil((np.log2(np.maximum(durations_ns, 1)) - LOG2_NS_PER_S) * GROWTH).astype(np.int64)
        self.fine += np.bincount(np.clip(fine, LOWEST, HIGHEST) - LOWEST, minlength=len(self.fine))
        self.sum_ns += int(durations_ns.sum())
        return at

    def counted(self) -> Buckets:
        """The same buckets with every duration counted."""
        if self._noted:
            places = self.add_many(np.array(self._noted, np.int64)).tolist()
            self.exemplars.update(zip(places, zip(self._by, self._noted, strict=True), strict=True))
            self._noted.clear()
            self._by.clear()
        return self

    def plus(self, other: Buckets) -> Buckets:
        a, b = self.counted(), other.counted()
        return Buckets(a.round + b.round, a.fine + b.fine, a.sum_ns + b.sum_ns, {**a.exemplars, **b.exemplars})

    def quantile_ms(self, q: float) -> float | None:
        return quantile_ms(self.counted().fine, q)


def quantile_ms(fine: Int64, q: float) -> float | None:
    """The middle of the fine bucket that holds the q-quantile, in ms; None where all are empty."""
    cumulative = np.cumsum(fine)
    if cumulative[-1] == 0:
        return None
    index = int(np.searchsorted(cumulative, q * cumulative[-1]))
    return float(2 ** ((index + LOWEST - 0.5) / GROWTH)) * 1e3


@dataclass(slots=True)
class Series:
    """The outcomes of the requests of one agent at one endpoint."""

    outcomes: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    token_events: int = 0
    censored_events: int = 0  # share a read with a later one
    stale_connections: int = 0
    ttft: Buckets = field(default_factory=Buckets)
    event_gap: Buckets = field(default_factory=Buckets)
    tpot: Buckets = field(default_factory=Buckets)
    e2e: Buckets = field(default_factory=Buckets)
    queue: Buckets = field(default_factory=Buckets)

    def add(self, record: Record) -> None:
        self.outcomes[record.outcome] += 1
        self.stale_connections += record.stale_connections
        request = record.run, record.seq
        if record.sent_ns is not None:
            self.queue.add(latency.queue(record.intended_ns, record.sent_ns), request)
        if record.outcome is not Outcome.OK:
            return
        self.input_tokens += record.input_tokens or 0
        self.output_tokens += record.output_tokens or 0
        first_ns = record.first_token_ns()
        if first_ns is None:
            return
        self.ttft.add(latency.ttft(record.intended_ns, first_ns), request)
        bearing = len(record.event_kind.tobytes().translate(None, BARREN))
        self.token_events += bearing
        last_ns = first_ns if bearing == 1 else self._add_gaps(record, first_ns)
        self.e2e.add(latency.e2e(record.intended_ns, last_ns), request)

    def _add_gaps(self, record: Record, first_ns: int) -> int:
        """The time of the last token, ns. Counts the gaps and the TPOT of an answer with several events of tokens."""
        bearing = latency.bears_token(record.event_kind)
        stamps, reads = record.event_ns[bearing], record.event_read[bearing]
        last_ns = int(stamps[-1])
        self.censored_events += int((reads[1:] == reads[:-1]).sum())
        self.event_gap.add_many(latency.gaps(stamps))
        first_tokens = 1 if record.event_tokens is None else int(record.event_tokens[bearing][0])
        tokens = record.output_tokens
        if tokens is not None and latency.has_tpot(len(stamps), tokens, first_tokens):
            tpot_ns = latency.tpot(first_ns, last_ns, tokens, first_tokens)
            self.tpot.add(round(tpot_ns), (record.run, record.seq))
        return last_ns

    def plus(self, other: Series) -> Series:
        return Series(
            self.outcomes + other.outcomes,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.token_events + other.token_events,
            self.censored_events + other.censored_events,
            self.stale_connections + other.stale_connections,
            self.ttft.plus(other.ttft),
            self.event_gap.plus(other.event_gap),
            self.tpot.plus(other.tpot),
            self.e2e.plus(other.e2e),
            self.queue.plus(other.queue),
        )


@dataclass(slots=True)
class Tally:
    """Counts of one process since it began, or the sum of several."""

    in_flight: dict[Who, int] = field(default_factory=dict)
    due: int = 0  # by the schedule; without one, the number begun
    begun: int = 0
    loop_lag_ns: int = 0  # the worst of the last second
    send_lag_ns: int = 0  # sent - intended, the worst of the requests that ended since the last `look`
    cpu_ns: int = 0  # of this process, since the run began
    series: dict[Who, Series] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        key = record.endpoint, record.agent
        series = self.series.get(key)
        if series is None:
            series = self.series[key] = Series()
        series.add(record)

    def total(self) -> Series:
        """The sum over endpoints and agents."""
        return reduce(Series.plus, list(self.series.values()), Series())

    def plus(self, other: Tally) -> Tally:
        """The sum of two tallies, of several processes or of successive runs."""
        flying, keys = {*self.in_flight, *other.in_flight}, {*self.series, *other.series}
        return Tally(
            {who: self.in_flight.get(who, 0) + other.in_flight.get(who, 0) for who in sorted(flying)},
            self.due + other.due,
            self.begun + other.begun,
            max(self.loop_lag_ns, other.loop_lag_ns),
            max(self.send_lag_ns, other.send_lag_ns),
            self.cpu_ns + other.cpu_ns,
            {who: self.series.get(who, NOTHING).plus(other.series.get(who, NOTHING)) for who in sorted(keys)},
        )

    def at_rest(self) -> Tally:
        """A copy with the gauges at zero, for when the run is over."""
        return replace(self, in_flight=dict.fromkeys(self.in_flight, 0), loop_lag_ns=0, send_lag_ns=0)


NOTHING = Series()
