"""The durations of measured requests, by the definitions of `loadgen.latency`.

Each function returns one number per request, shape (n,), float64 ns; NaN where the request has no such duration. Which
requests count is not decided here (measured.py), nor how they are summarised (summary.py).

`intended` is when the schedule wanted the request sent; in a closed loop that is when the worker was free to send it.
Waiting for a connection, for a slot under a cap, or for the client, lies between intended and sent, and is part of what
a user feels; from sent on it is the server's doing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.records.measured import Measured
from analysis.records.requests import ABSENT, Bool
from loadgen import latency
from loadgen.record import Int64

__all__ = ["LATENCIES", "e2e", "queue", "send_lag", "tpot", "tpot_usual", "ttft", "ttft_service"]

Float64 = NDArray[np.float64]


def ttft(m: Measured) -> Float64:
    """TTFT: from the intended start."""
    return _where_known(latency.ttft, m.requests.intended_ns, m.tokens.first_ns)


def ttft_service(m: Measured) -> Float64:
    """TTFT of the server: from the sending."""
    return _where_known(latency.ttft_service, m.requests.sent_ns, m.tokens.first_ns)


def e2e(m: Measured) -> Float64:
    """E2E: from the intended start to the last token."""
    return _where_known(latency.e2e, m.requests.intended_ns, m.tokens.last_ns)


def queue(m: Measured) -> Float64:
    """The time on the client's side before the sending."""
    return _where_known(latency.queue, m.requests.intended_ns, m.requests.sent_ns)


def tpot(m: Measured) -> Float64:
    """TPOT: (t_last - t_first) / (N_out - k_1), k_1 the tokens in the first event, which all arrive at t_first."""
    return _per_token(m, m.first_tokens())


def tpot_usual(m: Measured) -> Float64:
    """TPOT with k_1 = 1, as other tools compute it: too low where the first event carries several tokens."""
    return _per_token(m, np.ones_like(m.tokens.events))


def send_lag(m: Measured) -> Float64:
    """How late the client was: from the intended start until it began to connect, or until it sent where it had a
    connection.

    NaN where the client is not the cause: it waited for a slot under a cap, or the server had closed the connection.
    """
    requests = m.requests
    acted = np.where(requests.connect_ns == ABSENT, requests.sent_ns, requests.connect_ns)
    lag = _where_known(latency.queue, requests.intended_ns, acted)
    lag[(requests.stale_connections > 0) | _waited_for_slot(m)] = np.nan
    return lag


def _waited_for_slot(m: Measured) -> Bool:
    """Whether the cap was full with earlier requests, not yet done, when each request was due; shape (n,)."""
    waited = np.zeros(len(m.requests), np.bool_)
    for window in m.windows:
        if not window.open_loop or window.most_in_flight is None:
            continue
        rows = np.flatnonzero(m.requests.run == window.run)
        due = m.requests.intended_ns[rows]
        done = m.requests.done_ns[rows]
        ended = np.searchsorted(np.sort(done[done != ABSENT]), due, side="right")
        ahead = np.argsort(np.argsort(due, kind="stable"), kind="stable") - ended
        waited[rows] = ahead >= window.most_in_flight
    return waited


def _where_known(duration: Callable[[Int64, Int64], Int64], start: Int64, end: Int64) -> Float64:
    """The duration of each request, NaN where one of its ends is not known."""
    has_both = (start != ABSENT) & (end != ABSENT)
    return np.where(has_both, duration(np.where(has_both, start, 0), np.where(has_both, end, 0)), np.nan)


def _per_token(m: Measured, first_tokens: Int64) -> Float64:
    """TPOT. first_tokens: k_1 of each request."""
    tokens, events = m.count_tokens(), m.tokens.events
    usable = (tokens != ABSENT) & latency.has_tpot(events, tokens, first_tokens)
    first_ns, last_ns = (np.where(usable, stamps, 0) for stamps in (m.tokens.first_ns, m.tokens.last_ns))
    per_token = latency.tpot(first_ns, last_ns, np.where(usable, tokens, 1), np.where(usable, first_tokens, 0))
    return np.where(usable, per_token, np.nan)


LATENCIES = {
    "ttft_ms": ttft,
    "ttft_service_ms": ttft_service,
    "tpot_ms": tpot,
    "e2e_ms": e2e,
    "queue_ms": queue,
}
