"""Real sockets, real clocks, short: a client side of each tier on each event loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
import trustme

from loadgen.engine.eventloop import loop_factory
from loadgen.transport import Address, Answer, Limits, Transport
from loadgen.transport.aio import AiohttpTransport
from loadgen.transport.kernel import Poller
from loadgen.transport.sockets import SocketTransport
from loadgen.wire import Response

T = TypeVar("T")

QUICK = Limits(connect_s=5, first_token_s=10, between_tokens_s=10, total_s=10)


def no_token(_: Response) -> int:
    return -1


@dataclass
class Side:
    """Makes transports inside one running loop and closes them."""

    tier: str
    loop: str
    made: list[Transport] = field(default_factory=list)
    poller: Poller | None = None

    def transport(
        self,
        port: int,
        limits: Limits = QUICK,
        *,
        tls: ssl.SSLContext | None = None,
        headers: dict[str, str] | None = None,
        host: str = "127.0.0.1",
        path: str = "/v1/chat/completions",
        proxy: str | None = None,
    ) -> Any:
        address = Address(host, port, tls)
        transport: Transport
        if self.tier == "aiohttp":
            transport = AiohttpTransport(address, path, headers or {}, limits, proxy)
        else:
            transport = SocketTransport(address, path, headers or {}, limits, self.poller)
        self.made.append(transport)
        return transport

    def run(self, main: Callable[[Side], Coroutine[Any, Any, T]], *, leaves_nothing: bool = True) -> T:
        """Run `main(self)` in a new loop. Fails if a callback raised or a task is left."""
        broken: list[dict[str, Any]] = []

        async def within() -> T:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: broken.append(context))
            if self.tier == "kernel":
                self.poller = Poller(loop)
            try:
                return await main(self)
            finally:
                for transport in self.made:
                    await transport.close()
                self.made.clear()
                if self.poller is not None:
                    self.poller.close()
                    self.poller = None
                await asyncio.sleep(0)  # transports say good-bye in the next turn of the loop
                if leaves_nothing:
                    assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=loop_factory(self.loop)) as runner:
            result = runner.run(within())
        assert not broken, broken
        return result


async def post(transport: Transport, body: bytes = b"{}", request_id: str = "0-0", last: Any = no_token) -> Answer:
    """One exchange, unpacked."""
    answer = await transport.exchange(request_id, body, last)
    answer.unpack()
    return answer


@pytest.fixture(params=["kernel-uvloop", "kernel-asyncio", "callback-uvloop", "callback-asyncio"])
def side(request: pytest.FixtureRequest) -> Side:
    """Each tier on each loop."""
    return Side(*request.param.split("-"))


@pytest.fixture(params=["kernel-uvloop", "callback-asyncio"])
def either(request: pytest.FixtureRequest) -> Side:
    """Each tier once, for what does not depend on the loop."""
    return Side(*request.param.split("-"))


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
