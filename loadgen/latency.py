"""The durations of a request: TTFT, TPOT, E2E, queueing and gaps. To change what one of them means, change it here.

Tally, exporter, analysis, probes and calibration call these functions and compute none of their own. Each takes
instants in ns on one clock, as ints or as arrays of one shape, and returns ns of the same shape. The caller decides
which requests have the duration at all, and which count.

intended: when the schedule wanted the request sent; in a closed loop, when the worker was free to send it. A wait for a
connection, for a slot under a cap, or for a late client lies between intended and sent: part of what a user feels.
sent: just before its first byte was given to the kernel. The time after it is due to the server.
first, last: the first and the last event that bears tokens (`record.IS_TOKEN`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from loadgen.record import IS_TOKEN, Int64, UInt8

__all__ = [
    "ERROR_RATE",
    "LATENCIES",
    "OBJECTIVES",
    "QUANTILES",
    "RATES",
    "Objective",
    "bears_token",
    "e2e",
    "gaps",
    "has_tpot",
    "queue",
    "tpot",
    "ttft",
    "ttft_service",
]

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
_Ns = TypeVar("_Ns", int, Int64)


def ttft(intended_ns: _Ns, first_ns: _Ns) -> _Ns:
    """The time to first token, as a user feels it: first - intended."""
    return first_ns - intended_ns


def ttft_service(sent_ns: _Ns, first_ns: _Ns) -> _Ns:
    """The time to first token, as the server answered: first - sent."""
    return first_ns - sent_ns


def e2e(intended_ns: _Ns, last_ns: _Ns) -> _Ns:
    """The end-to-end latency: last - intended."""
    return last_ns - intended_ns


def queue(intended_ns: _Ns, sent_ns: _Ns) -> _Ns:
    """The time on the client's side: sent - intended, be it a wait for a slot, a new connection, or lateness."""
    return sent_ns - intended_ns


@overload
def tpot(first_ns: int, last_ns: int, tokens: int, first_tokens: int) -> float: ...
@overload
def tpot(first_ns: Int64, last_ns: Int64, tokens: Int64, first_tokens: Int64) -> Float64: ...
def tpot(
    first_ns: int | Int64, last_ns: int | Int64, tokens: int | Int64, first_tokens: int | Int64
) -> float | Float64:
    """The time per output token: (last - first) / (tokens - first_tokens), where `has_tpot`.

    tokens: of the whole answer. first_tokens: of the first event, which all arrive at `first`; 1 is what other tools
    assume, and too low where the first event carries several tokens.
    """
    return (last_ns - first_ns) / (tokens - first_tokens)


@overload
def has_tpot(events: int, tokens: int, first_tokens: int) -> bool: ...
@overload
def has_tpot(events: Int64, tokens: Int64, first_tokens: Int64) -> Bool: ...
def has_tpot(events: int | Int64, tokens: int | Int64, first_tokens: int | Int64) -> bool | Bool:
    """Whether a TPOT exists: two events with tokens, and tokens after those of the first. Counts must be known."""
    return (events > 1) & (tokens > first_tokens)


def gaps(token_ns: Int64) -> Int64:
    """The times between successive events that bear tokens, shape (n - 1,). token_ns: shape (n,), ascending."""
    between: Int64 = np.diff(token_ns)
    return between


def bears_token(event_kind: UInt8 | Int64) -> Bool:
    """The mask of events that bear tokens. event_kind: values of `record.Kind`, any shape."""
    bearing: Bool = IS_TOKEN[event_kind]
    return bearing


# --- the objectives that a profile may state of them -----------------------------------------------------------------

# `ttft_p99_ms: 500` limits a statistic of a latency from above, `requests_per_s_min: 8` a rate from below, and
# `error_rate: 0.01` the share of requests that failed. Which of them hold is decided in analysis.
LATENCIES = ("ttft", "ttft_service", "event_gap", "itl", "tpot", "e2e", "queue")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
RATES = ("requests_per_s", "output_tokens_per_s", "goodput_per_s")
ERROR_RATE = "error_rate"


@dataclass(frozen=True, slots=True)
class Objective:
    """What one objective is about. metric: the key of the figure in a summary, or ERROR_RATE."""

    name: str
    metric: str
    statistic: str | None = None  # of a latency: mean or one of QUANTILES
    at_least: bool = False

    @property
    def quantile(self) -> float | None:
        """In [0, 1]; None for what is no percentile."""
        return None if self.statistic is None else QUANTILES.get(self.statistic)


def _every() -> dict[str, Objective]:
    latencies = [
        Objective(f"{latency}_{statistic}_ms", f"{latency}_ms", statistic)
        for latency in LATENCIES
        for statistic in ("mean", *QUANTILES)
    ]
    rates = [Objective(f"{rate}_min", rate, at_least=True) for rate in RATES]
    return {objective.name: objective for objective in (*latencies, *rates, Objective(ERROR_RATE, ERROR_RATE))}


OBJECTIVES = _every()
