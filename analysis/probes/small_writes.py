"""The delay of a server's small writes, from pairs of requests: one with delayed ACKs, one with immediate ACKs.

Nagle's algorithm holds a small write back until the one before it is acknowledged, and a client's kernel delays that by
up to 40 ms (docs/methodology.md#small-writes). So a write that follows within 40 ms of an answer's first write comes
late: the first token after the response head, or the second token where head and first token are one write. Both are
compared, as times since the request was sent.

The time that delayed ACKs add is judged by the interval of the signed-rank test over the pairs, at 90 %, so that either
end alone misses once in 20 times: wholly above `NOTEWORTHY_MS` the server delays, wholly below it does not, else the
pairs can't say. Five pairs are the fewest that have such an interval.

If the first two tokens come in one read with either kind of ACK, there is no evidence on Nagle's algorithm: the server
may send them together, or a proxy may gather them, which waits for no ACK. HAProxy 2.6 without http-no-delay held a
whole answer until it ended or 200 ms had passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct, field

from analysis.stats.ranks import shift_of_pairs
from loadgen import latency
from loadgen.record import Outcome, Record

__all__ = ["LEAST_PAIRS", "NOTEWORTHY_MS", "Compared", "SmallWrites", "find_delay"]

NOTEWORTHY_MS = 10.0
LEAST_PAIRS = 5
CONFIDENCE = 0.9
CURE = "set TCP_NODELAY in the server or in the proxy before it"
TOGETHER = (
    "first two tokens of every answer come in one read: the server sends them so, or a proxy before it gathers them "
    "(HAProxy: set option http-no-delay)"
)

Pairs = Sequence[tuple[Record, Record]]


class Compared(Struct, frozen=True):
    """Medians of one time over n pairs, ms, and the interval of the time that delayed ACKs add."""

    delayed_ms: float = field(name="delayed_acks")
    immediate_ms: float = field(name="immediate_acks")
    low_ms: float = field(name="added_low")
    high_ms: float = field(name="added_high")
    n: int = field(name="pairs")


class SmallWrites(Struct, frozen=True):
    """The verdict on a server's small writes. A time is None where too few pairs have it."""

    verdict: Literal["delays", "prompt", "together", "inconclusive"]
    ttft: Compared | None = field(name="ttft_ms")
    second_token: Compared | None = field(name="second_token_ms")
    sentence: str


def find_delay(pairs: Pairs, failure: str | None = None) -> SmallWrites:
    """The verdict from pairs of records: (with delayed ACKs, with immediate ACKs).

    failure: why the requests could not be sent, or not all; there is no verdict then, whatever the pairs show.
    """
    ttft, second = _compared(pairs, 0), _compared(pairs, 1)
    if failure is not None:
        return SmallWrites("inconclusive", ttft, second, f"small writes: not known; {failure}")
    if ttft is None:
        few = f"{len(pairs)} pairs of requests were answered in time, at least {LEAST_PAIRS} are needed"
        return SmallWrites("inconclusive", ttft, second, f"small writes: not known; {few}")
    named = [(ttft, "TTFT")] + ([(second, "time to the second token")] if second is not None else [])
    for compared, name in named:
        if compared.low_ms > NOTEWORTHY_MS:
            sentence = f"server delays small writes: {_medians(compared, name)}; {CURE}"
            return SmallWrites("delays", ttft, second, sentence)
    if all(_together(immediate) for _, immediate in pairs):
        return SmallWrites("together", ttft, second, f"{TOGETHER}; {_medians(ttft, 'TTFT')}")
    for compared, name in named:
        if compared.high_ms >= NOTEWORTHY_MS:
            low_ms, high_ms, n = compared.low_ms, compared.high_ms, compared.n
            added = f"delayed ACKs add {low_ms:.1f} to {high_ms:.1f} ms to the {name} ({n} pairs)"
            return SmallWrites("inconclusive", ttft, second, f"small writes: not known; {added}")
    return SmallWrites("prompt", ttft, second, f"no delay of small writes seen: {_medians(*named[-1])}")


def _medians(times: Compared, name: str) -> str:
    return (
        f"median {name} {times.delayed_ms:.1f} ms with delayed ACKs, {times.immediate_ms:.1f} ms with immediate ones "
        f"({times.n} + {times.n} requests)"
    )


def _compared(pairs: Pairs, token: int) -> Compared | None:
    """The times of one token, compared; None with too few pairs. token: 0 for the first token, 1 for the second."""
    times = [(_token_ms(delayed, token), _token_ms(immediate, token)) for delayed, immediate in pairs]
    both = np.array([pair for pair in times if None not in pair], np.float64)
    if len(both) < LEAST_PAIRS:
        return None
    delayed, immediate = both.T
    added = shift_of_pairs(delayed, immediate, CONFIDENCE)
    assert added.low is not None
    assert added.high is not None
    medians_ms = float(np.median(delayed)), float(np.median(immediate))
    delayed_ms, immediate_ms, low_ms, high_ms = (float(f"{ms:.6g}") for ms in (*medians_ms, added.low, added.high))
    return Compared(delayed_ms, immediate_ms, low_ms, high_ms, len(both))


def _token_ms(record: Record, token: int) -> float | None:
    """The time from the sending to the event with that token, ms; None if there is none."""
    came_ns = record.event_ns[latency.bears_token(record.event_kind)]
    if record.outcome is not Outcome.OK or record.sent_ns is None or len(came_ns) <= token:
        return None
    return latency.ttft_service(record.sent_ns, int(came_ns[token])) / 1e6


def _together(record: Record) -> bool:
    reads = record.event_read[latency.bears_token(record.event_kind)]
    return len(reads) > 1 and bool(reads[0] == reads[1])
