"""Asking a server for short answers with delayed ACKs and with immediate ones.

A server, or a proxy before it, that leaves Nagle's algorithm on holds a small write back until the one before it is
acknowledged, and clients' kernels delay ACKs on a connection whose requests follow its answers. Two kept connections
take turns here, one request at a time. Before each request of the one the kernel is set to delay ACKs (TCP_QUICKACK
0), as it does by itself where requests follow answers within 40 ms. That is not set again before each read: an ACK
that was delayed in vain is the last one delayed until the next request. Before each read of the other connection it is
set to send ACKs at once (1), because sending may undo that. `analysis.probes.small_writes` judges the records.

Nothing that a server does raises. Linux only. Plain HTTP only: the sockets here speak no TLS, so over https the server
is not asked.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from analysis.probes.small_writes import SmallWrites, find_delay
from loadgen.clock import now_ns
from loadgen.engine.client import Client
from loadgen.errors import Unreachable, UsageError
from loadgen.probes.probe import prompt
from loadgen.profile import TargetSpec
from loadgen.record import PROBE_RUN, Outcome, Record
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.resolve import resolve
from loadgen.transport import Answer, LastTokenRead
from loadgen.wire import Ask
from loadgen.wire.dialects import dialect
from loadgen.wire.http import BadHttp, Framing, request_bytes, request_head

__all__ = ["Asked", "ask_both_ways", "probe_small_writes"]

PAIRS = 10
BUDGET_S = 3.0  # for everything; what is not answered by then is given up
PROMPT_WORDS, OUTPUT_TOKENS = 8, 3
READ_BYTES = 65_536


@dataclass(slots=True)
class Asked:
    """pairs: (with delayed ACKs, with immediate ones), all answered. failure: one line, if that could not go on."""

    pairs: list[tuple[Record, Record]] = field(default_factory=list)
    failure: str | None = None


class _CannotGoOn(Exception):
    """One line that says why."""


async def probe_small_writes(spec: TargetSpec, seed: int) -> SmallWrites:
    """Whether the server holds small writes back; a failure of any kind becomes the reason for no verdict."""
    try:
        asked = await ask_both_ways(await resolve(spec), seed)
    except (UsageError, Unreachable) as error:
        return find_delay([], str(error))
    return find_delay(asked.pairs, asked.failure)


async def ask_both_ways(endpoint: Endpoint, seed: int, budget_s: float = BUDGET_S) -> Asked:
    """Send a request that is not kept, then up to ten pairs whose order alternates; end after `budget_s`."""
    asked = Asked()
    if sys.platform != "linux":
        asked.failure = f"there is no TCP_QUICKACK on {sys.platform}"
    elif endpoint.url.startswith("https:"):
        asked.failure = "over TLS the server is not asked"
    else:
        try:
            async with asyncio.timeout(budget_s):
                await _ask_in_turns(endpoint, seed, asked.pairs)
        except TimeoutError:
            pass  # the pairs say how far it got
        except (OSError, _CannotGoOn) as error:
            asked.failure = str(error)
    return asked


async def _ask_in_turns(endpoint: Endpoint, seed: int, pairs: list[tuple[Record, Record]]) -> None:
    numbers = itertools.count()

    def ask() -> Ask:
        return Ask(prompt=prompt(PROMPT_WORDS, seed, next(numbers)), output_tokens=OUTPUT_TOKENS)

    async with _kept(endpoint) as send_delayed, _kept(endpoint, immediate_acks=True) as send_immediate:
        await send_delayed(ask())  # may load the model
        for number in range(PAIRS):
            if number % 2:
                immediate = await send_immediate(ask())
                delayed = await send_delayed(ask())
            else:
                delayed = await send_delayed(ask())
                immediate = await send_immediate(ask())
            pairs.append((delayed, immediate))


@asynccontextmanager
async def _kept(
    endpoint: Endpoint, *, immediate_acks: bool = False
) -> AsyncIterator[Callable[[Ask], Awaitable[Record]]]:
    """Connect; yield a function that sends one request and returns its record, which has an answer."""
    address, target = endpoint.address(), endpoint.target
    with await asyncio.to_thread(socket.create_connection, (address.host, address.port), BUDGET_S) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = request_head("POST", endpoint.path(), address.netloc, endpoint.request_headers())
        transport = _KeptConnection(sock, head, immediate_acks)
        client = Client(endpoint.name, target, dialect(target.api, target.path), transport)
        numbers = itertools.count(int(immediate_acks), 2)

        async def send(ask: Ask) -> Record:
            seq = next(numbers)
            answer, body = await client.send(ask, f"{PROBE_RUN}-{seq}")
            record = client.record(ask, body, answer, run=PROBE_RUN, seq=seq, intended_ns=0, zero_ns=0)
            if record.outcome is not Outcome.OK and (transport.kept or answer.response is not None):
                why = f": {record.error}" if record.error else ""
                raise _CannotGoOn(f"a request ended as {record.outcome.value}{why}")
            if not transport.kept:
                raise _CannotGoOn("the server does not keep a connection, and on a fresh one ACKs are not delayed")
            return record

        yield send


class _KeptConnection:
    """A Transport of one connection, whose reads are all acknowledged alike."""

    tier = "one connection"
    stopping = False

    def __init__(self, sock: socket.socket, head: bytes, immediate_acks: bool) -> None:
        self.kept = True
        self._used = 0  # answers so far
        self._sock, self._head, self._immediate_acks = sock, head, immediate_acks

    async def exchange(self, request_id: str, body: bytes, last_token_read: LastTokenRead) -> Answer:
        answer, framing, stamps = Answer(), Framing(), list[int]()
        try:
            await self._carry(request_bytes(self._head, request_id, body), answer, framing, stamps)
            if framing.head is not None:
                answer.response = framing.response()
        except BadHttp as error:
            answer.failure, answer.error = Outcome.PROTOCOL, str(error)
        except OSError as error:
            answer.failure, answer.error = Outcome.RESET, str(error)
        answer.done_ns = now_ns()
        answer.stamps_ns, answer.head_read = np.array(stamps, np.int64), framing.head_read
        if framing.complete:
            self._used += 1
            self.kept = framing.keep_alive
        elif self._used and not stamps:
            self.kept = False  # without having said so, as llama.cpp does
        return answer

    async def _carry(self, request: bytes, answer: Answer, framing: Framing, stamps: list[int]) -> None:
        loop = asyncio.get_running_loop()
        if not self._immediate_acks:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        answer.sent_ns = now_ns()
        await loop.sock_sendall(self._sock, request)
        answer.sent_last_ns = now_ns()
        complete = False
        while not complete:
            if self._immediate_acks:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            data = await loop.sock_recv(self._sock, READ_BYTES)
            if not data:
                if not framing.eof():
                    answer.failure, answer.error = Outcome.RESET, "the server closed the connection"
                return
            stamps.append(now_ns())
            complete = framing.feed(data)

    def catch_up(self) -> None:
        pass

    def activity(self) -> int:
        return 0

    async def close(self) -> None:
        self._sock.close()
