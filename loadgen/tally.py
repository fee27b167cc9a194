"""Live counters of a run: what a progress line or an exporter reads while records go to disk.

One `add` a request, nothing a token. Latencies go into logarithmic buckets 1 % wide, enough for a live quantile and of
constant size; the report never uses them.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from loadgen.record import Outcome, Record

__all__ = ["Buckets", "Tally"]

LOWEST_NS = 1_000  # 1 µs
LOG_WIDTH = math.log(1.01)
COUNT = 2_600  # up to 1 µs × 1.01^2600 ≈ 48 h


@dataclass(slots=True)
class Buckets:
    """Counts of durations in logarithmic buckets."""

    counts: list[int] = field(default_factory=lambda: [0] * COUNT)

    def add(self, duration_ns: int) -> None:
        index = int(math.log(duration_ns / LOWEST_NS) / LOG_WIDTH) if duration_ns > LOWEST_NS else 0
        self.counts[min(index, COUNT - 1)] += 1

    def quantile_ms(self, q: float) -> float | None:
        """Return the middle of the bucket that holds the q-quantile, in ms; None when empty."""
        cumulative = np.cumsum(self.counts)
        if cumulative[-1] == 0:
            return None
        index = int(np.searchsorted(cumulative, q * cumulative[-1]))
        return LOWEST_NS * math.exp((index + 0.5) * LOG_WIDTH) / 1e6


@dataclass(slots=True)
class Tally:
    """Counts since the start of the campaign, over all runs and endpoints of one process."""

    in_flight: int = 0
    finished: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    stale_connections: int = 0
    loop_lag_ns: int = 0  # the worst since the last look
    outcomes: Counter[str] = field(default_factory=Counter)
    ttft: Buckets = field(default_factory=Buckets)

    def add(self, record: Record) -> None:
        self.finished += 1
        self.outcomes[record.outcome] += 1
        self.stale_connections += record.stale_connections
        if record.outcome is Outcome.OK:
            self.input_tokens += record.input_tokens or 0
            self.output_tokens += record.output_tokens or 0
            first_ns = record.first_token_ns()
            if first_ns is not None:
                self.ttft.add(first_ns - record.intended_ns)

    def plus(self, other: Tally) -> Tally:
        """Return the sum, for the tallies of several processes."""
        return Tally(
            self.in_flight + other.in_flight,
            self.finished + other.finished,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.stale_connections + other.stale_connections,
            max(self.loop_lag_ns, other.loop_lag_ns),
            self.outcomes + other.outcomes,
            Buckets([a + b for a, b in zip(self.ttft.counts, other.ttft.counts, strict=True)]),
        )
