"""A server in process: what it does is a coroutine, how it answers a real OpenAI stream of one token.

`serve(seq)` takes as long as the answer takes and returns None, or the Outcome that the transport is to report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

from loadgen.clock import NS_PER_S
from loadgen.engine.client import Client
from loadgen.record import Outcome
from loadgen.transport import Answer, LastTokenRead
from loadgen.wire import Response, Target
from loadgen.wire.dialects import dialect
from tests.fakes.virtual import VirtualLoop

BODY = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
HEADERS = {"content-type": "text/event-stream"}

Serve = Callable[[int], Awaitable[Outcome | None]]


@dataclass
class Served:
    """One exchange as the server saw it; instants as the loop counts them."""

    seq: int
    sent_ns: int
    done_ns: int | None = None


@dataclass
class ScriptedTransport:
    """A loadgen.transport.Transport without sockets."""

    serve: Serve
    loop: VirtualLoop
    tier: str = "scripted"
    stopping: bool = False
    in_flight: int = 0
    most_in_flight: int = 0
    reads: int = 0
    served: list[Served] = field(default_factory=list)  # in order of sending

    async def exchange(self, request_id: str, body: bytes, last_token_read: LastTokenRead) -> Answer:
        seq = int(request_id.partition("-")[2])
        seen = Served(seq, self.loop.now_ns())
        self.served.append(seen)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        answer = Answer(sent_ns=seen.sent_ns, sent_last_ns=seen.sent_ns)
        try:
            answer.failure = await self.serve(seq)
        except asyncio.CancelledError:
            if not self.stopping:
                raise
            answer.failure = Outcome.CANCELLED
        finally:
            self.in_flight -= 1
            answer.done_ns = seen.done_ns = self.loop.now_ns()
        if answer.failure is None:
            answer.stamps_ns = np.array([answer.done_ns], np.int64)
            answer.response = Response(200, HEADERS, BODY, np.array([len(BODY)], np.int64), True)
        return answer

    def catch_up(self) -> None:
        self.loop.read()

    def activity(self) -> int:
        return self.reads

    async def close(self) -> None: ...

    def client(self, name: str = "scripted", agent: str = "") -> Client:
        target = Target("openai", "vllm", "emulated", "/v1/chat/completions")
        return Client(name, target, dialect(target.api, target.path), self, agent)


def takes(seconds: float) -> Serve:
    """Answer every request after the same time, however many there are."""

    async def serve(seq: int) -> None:
        await asyncio.sleep(seconds)

    return serve


def hangs(*seqs: int, others_s: float = 0.0) -> Serve:
    """Never answer these requests (all, if none is named)."""

    async def serve(seq: int) -> None:
        if seq in seqs or not seqs:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(others_s)

    return serve


class OneAtATime:
    """A server of one slot, first in, first out, that does nothing before `stalled_until_ns`."""

    def __init__(self, loop: VirtualLoop, *, stalled_until_ns: int, each_ns: int) -> None:
        self._loop, self._free_ns, self._each_ns = loop, stalled_until_ns, each_ns

    async def __call__(self, seq: int) -> None:
        self._free_ns = max(self._free_ns, self._loop.now_ns()) + self._each_ns
        done = self._loop.create_future()
        self._loop.call_at(self._free_ns / NS_PER_S, lambda: done.done() or done.set_result(None))
        await done
