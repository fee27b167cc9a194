"""Sockets to stamped reads: three tiers, one kind of `Answer`, and every result says which tier it came from.

kernel    SO_TIMESTAMPNS through recvmsg: the stamp is the kernel's, however late the read is (Linux)
callback  stamped at the first line of the read callback: right while the loop is not late (anywhere)
aiohttp   stamped when the awaiting task resumes: for proxies, and as the rival of the benchmarks

A transport never interprets the answer and never retries, with one exception that is no fault of the server: a reused
connection that closes before any byte (docs/servers.md#stale-connections).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from loadgen.record import NO_INT64, Int64, Outcome
from loadgen.wire import Response

__all__ = ["Address", "Answer", "Limits", "Transport", "tls_context"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait, in seconds. Checked every tenth of a second, never per token."""

    connect_s: float = 10.0
    first_token_s: float = 120.0
    between_tokens_s: float = 60.0
    total_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. tls: None for plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(slots=True, eq=False)
class Answer:
    """The result of one exchange. Every *_ns is absolute CLOCK_MONOTONIC; failure is None when the framing completed.

    `unpack` must be called once before done_ns, head_read, stamps_ns, response, failure and error are read: a transport
    may leave work to it that need not be done at the instant the answer ends.
    """

    sent_ns: int | None = None
    sent_last_ns: int | None = None
    connect_ns: int | None = None
    connected_ns: int | None = None
    done_ns: int | None = None
    head_read: int = 0  # index of the read that completed the head
    stamps_ns: Int64 = field(default_factory=lambda: NO_INT64)  # shape (reads,)
    response: Response | None = None
    failure: Outcome | None = None
    error: str | None = None
    stale_connections: int = 0
    unpacked: bool = False  # set by the caller of `unpack`

    def unpack(self) -> None:
        """Finish the fields; here there is nothing left to do."""


LastTokenRead = Callable[[Response], int]  # index of the read that brought the latest token so far, -1 for none


class Transport(Protocol):
    """One endpoint's connections."""

    tier: str
    stopping: bool  # from now on a cancelled exchange returns as CANCELLED instead of raising

    async def exchange(self, request_id: str, body: bytes, last_token_read: LastTokenRead) -> Answer:
        """The result of one request that was answered, refused, late or lost. Never raises for a fault of the peer."""
        ...

    def activity(self) -> int:
        """A number that changes whenever something arrives."""
        ...

    def catch_up(self) -> None:
        """Read the bytes that have arrived, if nothing was read for a while. Does not wait."""
        ...

    async def close(self) -> None: ...


def tls_context(*, verify: bool = True, ca_file: str | None = None) -> ssl.SSLContext:
    """A client context that verifies the server unless `verify` is false and speaks HTTP/1.1."""
    context = ssl.create_default_context(cafile=ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
