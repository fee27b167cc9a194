"""The waist of the house, first half: the record of one request.

Everything upstream (profile, workload, transport, wire) exists to fill a Record; everything downstream (journal,
analysis, report) reads Records. This module imports no other module of loadgen; durations are derived, never stored.
Every *_ns is an int of nanoseconds on the run's monotonic clock; 0 is the start of the run.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "IS_TOKEN",
    "NOT_MEASURED_RUNS",
    "NS_PER_MS",
    "NS_PER_S",
    "PROBE_RUN",
    "SIZING_RUN",
    "TOKEN_KINDS",
    "WARM_UP_RUN",
    "Int32",
    "Int64",
    "Kind",
    "Outcome",
    "Record",
    "TokensFrom",
    "UInt8",
]

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]

# Run numbers of requests outside a campaign, which no run of one has: a request id is "run-seq", some servers accept
# only digits, and the number keeps the words of such a request apart from measured ones.
WARM_UP_RUN, PROBE_RUN, SIZING_RUN = NOT_MEASURED_RUNS = (99_999_997, 99_999_998, 99_999_999)

NO_INT64: Int64 = np.empty(0, np.int64)
NO_INT32: Int32 = np.empty(0, np.int32)
NO_UINT8: UInt8 = np.empty(0, np.uint8)


class Outcome(StrEnum):
    """How a request ended. Only OK enters latency statistics; every other one is counted and named."""

    OK = "ok"
    EMPTY = "empty"  # a terminal marker, but no token at all
    REFUSED = "refused"  # no listener, no route, no such host
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    STALLED = "stalled"  # silence between tokens beyond the limit
    TOTAL_TIMEOUT = "total_timeout"
    HTTP_ERROR = "http_error"  # a status other than 2xx
    SERVER_ERROR = "server_error"  # an error inside a 200 answer
    TRUNCATED = "truncated"  # the stream ended without its terminal marker
    RESET = "reset"  # the connection broke
    PROTOCOL = "protocol"  # not HTTP, not the expected content type, not JSON
    TLS = "tls"  # handshake or certificate
    CANCELLED = "cancelled"  # by loadgen: drain limit, Ctrl-C
    NOT_SENT = "not_sent"  # scheduled, but the run ended before it could be sent


class Kind(IntEnum):
    """The kind of an event of the stream. REASONING, CONTENT and TOOL bear tokens; the others do not."""

    ROLE = 0
    EMPTY = 1
    REASONING = 2
    CONTENT = 3
    TOOL = 4
    USAGE = 5


TOKEN_KINDS = (Kind.REASONING, Kind.CONTENT, Kind.TOOL)
IS_TOKEN = np.zeros(256, np.bool_)  # by value of Kind: the mask of events that bear tokens
IS_TOKEN[list(TOKEN_KINDS)] = True
_TOKEN_KIND = re.compile(b"[" + re.escape(bytes(TOKEN_KINDS)) + b"]")


class TokensFrom(StrEnum):
    """The source of `output_tokens`, most trusted first."""

    USAGE = "usage"
    IDS = "ids"  # per-event token ids or continuous usage
    TOKENIZER = "tokenizer"
    EVENTS = "events"  # token-bearing events were counted: a lower bound


if sys.version_info < (3, 12):
    # There a member is found only after a failing search through the class, which costs a microsecond each time.
    for _enumeration in (Outcome, Kind, TokensFrom):
        for _member in _enumeration:
            type.__setattr__(_enumeration, _member.name, _member)


@dataclass(slots=True)
class Record:
    """One request, successful or not. Treat as frozen once the client has returned it.

    It is not `frozen=True` because that triples the cost of making one, and making one is on the measured path.
    """

    run: int
    seq: int  # place in the schedule, unique within a run
    endpoint: str
    intended_ns: int  # when the schedule wanted it sent
    outcome: Outcome
    agent: str = ""
    session: str | None = None
    turn: int | None = None
    sent_ns: int | None = None  # just before the first byte was given to the kernel; None if never sent
    sent_last_ns: int | None = None  # the kernel had accepted the last byte
    connected_ns: int | None = None  # None on a reused connection
    connect_ns: int | None = None  # when connecting began; None on a reused connection
    headers_ns: int | None = None  # the read that completed the response head
    done_ns: int | None = None  # the last read of the answer, or the moment it failed
    event_ns: Int64 = field(default_factory=lambda: NO_INT64)  # shape (events,), ascending
    event_kind: UInt8 = field(default_factory=lambda: NO_UINT8)  # shape (events,), values of Kind
    event_read: Int32 = field(default_factory=lambda: NO_INT32)  # shape (events,): which read it came in
    event_tokens: Int32 | None = None  # shape (events,); None where the server does not report them
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_from: TokensFrom | None = None
    status: int | None = None  # HTTP status
    error: str | None = None
    finish_reason: str | None = None
    server_load_ns: int | None = None
    server_prompt_eval_ns: int | None = None
    server_eval_ns: int | None = None
    server_queue_ns: int | None = None
    stale_connections: int = 0  # reused connections found closed before any byte of the answer
    prompt_sha: str | None = None  # of the request body, the first 64 bits of its SHA-256 in hex

    def first_token_ns(self) -> int | None:
        """The arrival of the first token-bearing event, None if there was none."""
        first = _TOKEN_KIND.search(self.event_kind.tobytes())
        return None if first is None else int(self.event_ns[first.start()])
