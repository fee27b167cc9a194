"""Sending a few requests of known shape and getting their records back: what the probes of a server are made of.

Nothing is kept on disk and nothing decided here. Every request has a number of its own and a prompt of its own, made of
random words whose first ones differ, so that no cache answers for another.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np

from loadgen.clock import now_ns
from loadgen.engine.client import Client
from loadgen.profile.secrets import REDACTED
from loadgen.record import PROBE_RUN, Record
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.opening import open_poller, open_transport
from loadgen.transport import Limits
from loadgen.transport.room import make_room_for_sockets
from loadgen.wire import Ask
from loadgen.wire.dialects import dialect
from loadgen.workload.text import WORDS

__all__ = ["ClockJumped", "Send", "open_sender", "prompt"]

Send = Callable[[Sequence[Ask]], Awaitable[list[Record]]]


class ClockJumped(Exception):
    """The wall clock was set meanwhile, so the kernel's stamps of these requests are wrong."""


@asynccontextmanager
async def open_sender(
    endpoint: Endpoint, tier: str, *, most: int = 1, limits: Limits | None = None
) -> AsyncIterator[Send]:
    """A function, while inside, that sends requests at one instant and returns their records when all have ended.

    Instants in the records are relative to that instant. most: connections at once. The function raises ClockJumped.
    Raises OSError if the system does not allow that number of connections.
    """
    make_room_for_sockets(most)
    poller = open_poller(tier)
    transport = open_transport(endpoint, tier, limits or Limits(), poller)
    target, secrets = endpoint.target, endpoint.access.secrets()
    client = Client(endpoint.name, target, dialect(target.api, target.path), transport)
    numbers = itertools.count()

    async def send(asks: Sequence[Ask]) -> list[Record]:
        if poller is not None:
            poller.offset.refresh()
        zero_ns = now_ns()
        seqs = [next(numbers) for _ in asks]
        sent = await asyncio.gather(
            *(client.send(ask, f"{PROBE_RUN}-{seq}") for ask, seq in zip(asks, seqs, strict=True))
        )
        records = [
            client.record(ask, body, answer, run=PROBE_RUN, seq=seq, intended_ns=0, zero_ns=zero_ns)
            for ask, seq, (answer, body) in zip(asks, seqs, sent, strict=True)
        ]
        if poller is not None:
            poller.offset.refresh()
            if poller.offset.void:
                raise ClockJumped("the wall clock was set while probing, so the kernel's stamps are wrong; run again")
        for record in records:
            for secret in secrets if record.error is not None else ():
                record.error = (record.error or "").replace(secret, REDACTED)
        return records

    try:
        yield send
    finally:
        await transport.close()
        if poller is not None:
            poller.close()


def prompt(words: int, seed: int, number: int) -> str:
    """A text of `words` words, at most 1,024, which differs from that of any other `number`."""
    order = np.random.default_rng([seed, number]).permutation(len(WORDS))[:words]
    return " ".join([WORDS[i] for i in order])
