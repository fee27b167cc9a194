"""Servers that keep a client waiting, and how long it did."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

from loadgen.transport import Answer, Limits
from loadgen.wire import Response
from tests.fakes.talker import Talk, chunk, talking
from tests.transport.conftest import Side, post

PING = chunk(b": ping\n\n")
TOKEN = chunk(b"data: token\n\n")
KERNEL = Side("kernel", "uvloop")  # the tiers share the limits: one will do where waiting takes long
LATE_S = 3.0  # other work shares the cores


def token_read(response: Response) -> int:
    """Index of the read that brought the latest b"token", -1 for none."""
    at = response.body.rfind(b"token")
    return -1 if at < 0 else next(i for i, end in enumerate(response.read_ends) if end > at)


def timed(side: Side, limits: Limits, script: Callable[[Talk], object]) -> tuple[Answer, float]:
    """One exchange under `limits`; return it and how long it took, in s."""

    async def main(side: Side) -> tuple[Answer, float]:
        began = time.monotonic()
        answer = await post(side.transport(peer.port, limits), last=token_read)
        return answer, time.monotonic() - began

    with talking(script) as peer:
        return side.run(main)


def saying(*script: tuple[bytes, float]) -> Callable[[Talk], None]:
    """Read the request; then each piece followed by a pause; then wait for the client to give up."""

    def talk_on(talk: Talk) -> None:
        talk.read_request()
        for piece, pause_s in script:
            talk.say(piece)
            time.sleep(pause_s)
        talk.wait_for_end()

    return talk_on


@contextlib.contextmanager
def deaf() -> Iterator[socket.socket]:
    """A listener on loopback that accepts no connection: its backlog is full until one is accepted."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    with deaf() as listener:
        yield listener.getsockname()[1]
