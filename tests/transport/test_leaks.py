"""What a request leaves behind: nothing. Garbage collection is off during a run, so a cycle per request is a leak."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from loadgen.record import Outcome
from loadgen.transport import Answer, Limits
from tests.fakes.talker import END, Talk, chunk, chunked_head, sized, talking
from tests.transport.conftest import Side, post

REQUESTS = 60
EVENT = b"data: token\n\n"


def closes_after_each(talk: Talk) -> None:
    talk.read_request()
    talk.say(chunked_head(b"Connection: close\r\n") + chunk(EVENT) + END)
    talk.wait_for_end()


def keeps(talk: Talk) -> None:
    while True:
        talk.read_request()
        talk.say(sized(b"fine"))


def cuts(talk: Talk) -> None:
    talk.read_request()
    talk.say(chunked_head() + chunk(EVENT))


def resets(talk: Talk) -> None:
    talk.read_request()
    talk.reset()


def never_answers(talk: Talk) -> None:
    talk.read_request()
    talk.wait_for_end()


@pytest.fixture(scope="module", autouse=True)
def nothing_older() -> Iterator[None]:
    """What the rest of the test suite holds need not be looked through each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def garbage_of(one: Callable[[], Awaitable[Any]], times: int, before: int = 5) -> int:
    """Objects that only the collector could free after `times` calls."""
    for _ in range(before):
        await one()
    await asyncio.sleep(0.02)
    gc.collect()
    gc.disable()
    try:
        for _ in range(times):
            await one()
        await asyncio.sleep(0.02)  # transports of asyncio say good-bye in the next turns of the loop
        return gc.collect()
    finally:
        gc.enable()


def assert_none(side: Side, garbage: int, connections: int) -> None:
    """Fewer than one object for every second connection."""
    # Until 3.12 a socket transport of asyncio keeps a bound method of its own: a small cycle that is not ours to break.
    keeps_itself = sys.version_info < (3, 12) and (side.tier, side.loop) == ("callback", "asyncio")
    theirs = 8 if keeps_itself else 0
    assert garbage < connections * (theirs + 0.5)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("script", [closes_after_each, cuts])
def test_fresh_connections_leave_no_descriptor_and_no_entry(side: Side, script: Callable[[Talk], None]) -> None:
    async def main(side: Side) -> None:
        transport = side.transport(peer.port)
        await post(transport)
        await asyncio.sleep(0.05)
        before = open_files()
        for _ in range(200):
            assert (await post(transport)).failure in (None, Outcome.TRUNCATED)
        await asyncio.sleep(0.05)
        assert open_files() <= before + 5  # those of the peer's threads that are still closing
        assert transport._idle == []
        assert list(transport._deadlines) == []
        if side.poller is not None:
            assert side.poller._connections == {}
            assert side.poller._streams == {}

    with talking(script) as peer:
        side.run(main)


@pytest.mark.parametrize("script", [closes_after_each, keeps, cuts, resets])
def test_no_cycle_a_request(side: Side, script: Callable[[Talk], None]) -> None:
    async def main(side: Side) -> int:
        transport = side.transport(peer.port)
        return await garbage_of(lambda: post(transport), REQUESTS)

    with talking(script) as peer:
        assert_none(side, side.run(main), REQUESTS)


def test_no_cycle_a_refused_connection(side: Side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def main(side: Side) -> int:
        transport = side.transport(port)

        async def refused() -> None:
            assert (await post(transport)).failure is Outcome.REFUSED

        return await garbage_of(refused, REQUESTS)

    assert_none(side, side.run(main), REQUESTS)


def test_no_cycle_a_cancelled_request(side: Side) -> None:
    async def main(side: Side) -> int:
        transport = side.transport(peer.port)
        transport.stopping = True

        async def cancelled() -> None:
            task = asyncio.create_task(post(transport))
            for _ in range(5000):  # until it is sent: a connection on its way is uvloop's to clear away
                await asyncio.sleep(0.001)
                if list(transport._deadlines):
                    break
            task.cancel()
            assert (await task).failure is Outcome.CANCELLED

        return await garbage_of(cancelled, REQUESTS)

    with talking(never_answers) as peer:
        assert_none(side, side.run(main), REQUESTS)


def test_no_cycle_a_request_that_ran_into_its_limit(either: Side) -> None:
    async def main(side: Side) -> int:
        transport = side.transport(peer.port, Limits(first_token_s=0.01))

        async def late() -> list[Answer]:
            return await asyncio.gather(*(post(transport) for _ in range(30)))

        return await garbage_of(late, 2, before=1)

    with talking(never_answers) as peer:
        assert_none(either, either.run(main), 60)


def test_no_cycle_a_tls_connection(side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async def main(side: Side) -> int:
        transport = side.transport(peer.port, tls=client_tls)
        return await garbage_of(lambda: post(transport), 40)

    with talking(closes_after_each, tls=server_tls) as peer:
        assert_none(side, side.run(main), 40)


def test_no_cycle_a_failed_handshake(either: Side, client_tls: ssl.SSLContext) -> None:
    async def main(side: Side) -> int:
        transport = side.transport(peer.port, tls=client_tls)

        async def failed() -> None:
            assert (await post(transport)).failure is Outcome.TLS

        return await garbage_of(failed, 40)

    with talking(lambda talk: talk.read_body(1)) as peer:
        assert_none(either, either.run(main), 40)
