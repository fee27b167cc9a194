"""Every wait has an end: connect, first token, between tokens, total."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest

from loadgen.clock import NS_PER_S
from loadgen.record import Outcome
from loadgen.transport import Answer, Limits
from tests.fakes.talker import END, Talk, chunked_head, talking
from tests.transport.conftest import Side, post
from tests.transport.waits import KERNEL, LATE_S, PING, TOKEN, deaf, deaf_port, saying, timed


def test_a_connection_that_takes_a_while_comes_about(either: Side) -> None:
    def let_in(listener: socket.socket) -> None:
        time.sleep(0.3)
        with contextlib.suppress(OSError):  # until the listener is closed
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=answer_one, args=(sock,), daemon=True).start()

    def answer_one(sock: socket.socket) -> None:
        with sock, contextlib.suppress(EOFError, OSError):
            talk = Talk(sock, 0)
            talk.read_request()
            talk.say(chunked_head() + TOKEN + END)
            talk.wait_for_end()

    async def main(side: Side) -> Answer:
        answer: Answer = await post(side.transport(listener.getsockname()[1]))
        return answer

    with deaf() as listener:
        host = threading.Thread(target=let_in, args=(listener,), daemon=True)
        host.start()
        answer = either.run(main)
        listener.shutdown(socket.SHUT_RDWR)
        host.join()
    assert answer.failure is None
    assert answer.response is not None
    assert answer.connect_ns is not None
    assert answer.connected_ns is not None
    assert answer.connected_ns - answer.connect_ns > 0.25 * NS_PER_S  # no connection was let in before


def test_a_connection_that_does_not_come_about_ends_at_its_limit(either: Side) -> None:
    async def main(side: Side) -> tuple[Answer, float]:
        began = time.monotonic()
        answer = await post(side.transport(port, Limits(connect_s=0.2)))
        return answer, time.monotonic() - began

    with deaf_port() as port:
        answer, took_s = either.run(main)
    assert (answer.failure, answer.error) == (Outcome.CONNECT_TIMEOUT, "no connection within 0.2 s")
    assert 0.19 <= took_s < 0.2 + LATE_S  # uvloop counts in whole milliseconds
    assert answer.connect_ns is not None
    assert (answer.connected_ns, answer.sent_ns) == (None, None)


def test_silence_ends_at_the_first_token_limit(either: Side) -> None:
    answer, took_s = timed(either, Limits(first_token_s=0.3), saying())
    assert (answer.failure, answer.error) == (Outcome.FIRST_TOKEN_TIMEOUT, "no token after 0.3 s")
    assert 0.3 <= took_s < 0.3 + LATE_S


def test_a_head_and_comments_are_no_token() -> None:
    answer, took_s = timed(KERNEL, Limits(first_token_s=0.4), saying((chunked_head(), 0.05), *[(PING, 0.05)] * 12))
    assert answer.failure is Outcome.FIRST_TOKEN_TIMEOUT
    assert 0.4 <= took_s < 0.4 + LATE_S
    assert answer.response is not None
    assert answer.response.status == 200


def test_silence_after_a_token_ends_at_the_limit_between_tokens(either: Side) -> None:
    # The comments that follow keep no request waiting.
    script = saying((chunked_head() + TOKEN, 0.1), *[(PING, 0.05)] * 12)
    answer, took_s = timed(either, Limits(first_token_s=0.2, between_tokens_s=0.5), script)
    assert (answer.failure, answer.error) == (Outcome.STALLED, "no further token for 0.5 s")
    assert 0.5 <= took_s < 0.5 + LATE_S
    assert answer.response is not None
    assert b"token" in answer.response.body


def test_tokens_within_their_limits_are_left_alone() -> None:
    script = saying((chunked_head(), 0.0), *[(TOKEN, 0.1)] * 8, (END, 0.0))
    answer, took_s = timed(KERNEL, Limits(first_token_s=0.6, between_tokens_s=0.6), script)
    assert answer.failure is None
    assert took_s > 0.75


def test_a_stream_without_end_ends_at_the_total_limit() -> None:
    script = saying((chunked_head(), 0.0), *[(TOKEN, 0.05)] * 40)
    answer, took_s = timed(KERNEL, Limits(total_s=0.5), script)
    assert (answer.failure, answer.error) == (Outcome.TOTAL_TIMEOUT, "no end of the answer after 0.5 s")
    assert 0.5 <= took_s < 0.5 + LATE_S


def test_limits_count_from_the_sending_not_from_the_connecting() -> None:
    # A limit shorter than a tick, and a second request that starts with the wheel at rest.
    async def main(side: Side) -> list[Answer]:
        transport = side.transport(peer.port, Limits(first_token_s=0.05))
        answers = []
        for _ in range(2):
            answers.append(await post(transport))
            await asyncio.sleep(0.25)
        return answers

    with talking(saying()) as peer:
        answers = KERNEL.run(main)
    for answer in answers:
        assert answer.failure is Outcome.FIRST_TOKEN_TIMEOUT
        assert answer.sent_ns is not None
        assert answer.done_ns is not None
        assert 0.05 <= (answer.done_ns - answer.sent_ns) / NS_PER_S < 0.05 + LATE_S


@pytest.mark.parametrize("limits", [Limits(first_token_s=0.2), Limits(total_s=0.2)])
def test_giving_up_closes_the_connection(either: Side, limits: Limits) -> None:
    def script(talk: Talk) -> str:
        talk.read_request()
        talk.wait_for_end()
        return "hung up"

    async def main(side: Side) -> None:
        await post(side.transport(peer.port, limits))

    with talking(script) as peer:
        either.run(main)
    assert peer.notes == ["hung up"]
