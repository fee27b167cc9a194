"""The aiohttp tier: the same answers and outcomes, through a proxy where there is one."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

import pytest
import trustme

from loadgen.record import Outcome
from loadgen.transport import Answer, Limits
from tests.fakes.proxy import forward
from tests.fakes.talker import END, Talk, chunk, chunked_head, sized, talking
from tests.transport.conftest import Side, post
from tests.transport.waits import LATE_S, PING, TOKEN, deaf_port, saying, timed

EVENT = b"data: token\n\n"


@pytest.fixture(params=["uvloop", "asyncio"])
def tier(request: pytest.FixtureRequest) -> Side:
    return Side("aiohttp", request.param)


def once(talk: Talk) -> None:
    talk.read_request()
    talk.say(chunked_head() + chunk(EVENT), chunk(EVENT), END, gap_s=0.02)
    talk.wait_for_end()


def ask(side: Side, port: int, tls: ssl.SSLContext | None = None, proxy: str | None = None) -> Answer:
    async def main(side: Side) -> Answer:
        return await post(side.transport(port, tls=tls, proxy=proxy))

    return side.run(main)


def assert_answered(answer: Answer) -> None:
    assert (answer.failure, answer.error) == (None, None)
    assert answer.response is not None
    assert (answer.response.status, answer.response.body, answer.response.complete) == (200, EVENT * 2, True)
    stamps = answer.stamps_ns.tolist()
    instants = [answer.connect_ns, answer.connected_ns, answer.sent_ns, answer.sent_last_ns, *stamps]
    assert None not in instants
    assert instants == sorted(instants)  # type: ignore[type-var]
    assert answer.done_ns is not None
    assert answer.done_ns >= stamps[-1]
    assert answer.response.read_ends[-1] == len(EVENT * 2)
    assert answer.response.read_ends[answer.head_read] == 0


def test_an_answer_is_stamped_read_by_read(tier: Side) -> None:
    with talking(once) as peer:
        assert_answered(ask(tier, peer.port))


def test_an_answer_over_tls(tier: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with talking(once, tls=server_tls) as peer:
        assert_answered(ask(tier, peer.port, client_tls))


def test_an_answer_through_a_proxy(tier: Side) -> None:
    with talking(once) as peer, talking(forward) as proxy:
        assert_answered(ask(tier, peer.port, proxy=f"http://127.0.0.1:{proxy.port}"))
    assert proxy.notes == [f"POST http://127.0.0.1:{peer.port}/v1/chat/completions"]


def test_an_answer_over_tls_through_a_proxy(tier: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with talking(once, tls=server_tls) as peer, talking(forward) as proxy:
        assert_answered(ask(tier, peer.port, client_tls, proxy=f"http://127.0.0.1:{proxy.port}"))
    assert proxy.notes == [f"CONNECT 127.0.0.1:{peer.port}"]


def test_a_proxy_that_is_not_there_is_refused(tier: Side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = ask(tier, 1, proxy=f"http://127.0.0.1:{port}")
    assert (answer.failure, answer.error) == (Outcome.REFUSED, "connection refused")


def test_connections_are_reused(tier: Side) -> None:
    def script(talk: Talk) -> None:
        while True:
            talk.read_request()
            talk.say(sized(b"fine"))

    async def main(side: Side) -> list[Answer]:
        transport = side.transport(peer.port)
        return [await post(transport) for _ in range(4)]

    with talking(script) as peer:
        answers = tier.run(main)
        assert peer.connections == 1
    assert [answer.connected_ns is None for answer in answers] == [False, True, True, True]
    assert None not in [answer.sent_ns for answer in answers]


def test_nobody_listening_is_refused(tier: Side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = ask(tier, port)
    assert (answer.failure, answer.error, answer.sent_ns) == (Outcome.REFUSED, "connection refused", None)


def test_a_certificate_of_an_unknown_authority_is_told(tier: Side, server_tls: ssl.SSLContext) -> None:
    stranger = ssl.create_default_context()
    trustme.CA().configure_trust(stranger)
    with talking(once, tls=server_tls) as peer:
        answer = ask(tier, peer.port, stranger)
    assert answer.failure is Outcome.TLS
    assert "certificate" in (answer.error or "").lower()


def test_a_connection_that_breaks_before_any_byte_is_a_reset(tier: Side) -> None:
    def resets(talk: Talk) -> None:
        talk.read_request()
        talk.reset()

    for script in (resets, lambda talk: talk.read_request()):
        with talking(script) as peer:
            answer = ask(tier, peer.port)
        assert answer.failure is Outcome.RESET


@pytest.mark.parametrize("reset", [True, False])
def test_a_connection_that_breaks_in_the_answer_keeps_what_had_come(tier: Side, reset: bool) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(chunked_head() + chunk(EVENT))
        time.sleep(0.05)
        if reset:
            talk.reset()

    with talking(script) as peer:
        answer = ask(tier, peer.port)
    assert answer.failure is Outcome.TRUNCATED  # a reset as well: aiohttp distinguishes the two only in prose
    assert answer.response is not None
    assert (answer.response.body, answer.response.complete) == (EVENT, False)


def test_a_peer_that_leaves_within_a_large_request_is_a_reset(tier: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_head()
        talk.reset()

    async def main(side: Side) -> Answer:
        return await post(side.transport(peer.port), b"x" * 8_000_000)

    with talking(script, receive_bytes=16_384) as peer:
        assert tier.run(main).failure is Outcome.RESET


def test_a_peer_that_does_not_speak_http_is_told(tier: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(b"SSH-2.0-OpenSSH_9.6\r\n")
        talk.wait_for_end()

    with talking(script) as peer:
        assert ask(tier, peer.port).failure is Outcome.PROTOCOL


def test_a_redirect_is_the_answer(tier: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(sized(b"", b"307 Temporary Redirect", b"Location: http://127.0.0.1:1/\r\n"))
        talk.wait_for_end()

    with talking(script) as peer:
        answer = ask(tier, peer.port)
    assert answer.response is not None
    assert answer.response.status == 307


def test_every_wait_has_its_limit() -> None:
    tier = Side("aiohttp", "uvloop")
    with deaf_port() as port:

        async def main(side: Side) -> Answer:
            return await post(side.transport(port, Limits(connect_s=0.2)))

        assert tier.run(main).failure is Outcome.CONNECT_TIMEOUT
    for limits, script, outcome in (
        (Limits(first_token_s=0.2), saying(), Outcome.FIRST_TOKEN_TIMEOUT),
        (Limits(first_token_s=0.2), saying((chunked_head(), 0.05), *[(PING, 0.05)] * 8), Outcome.FIRST_TOKEN_TIMEOUT),
        (
            Limits(first_token_s=0.2, between_tokens_s=0.3),
            saying((chunked_head() + TOKEN, 0.05), *[(PING, 0.05)] * 8),
            Outcome.STALLED,
        ),
        (Limits(total_s=0.3), saying((chunked_head(), 0.0), *[(TOKEN, 0.05)] * 10), Outcome.TOTAL_TIMEOUT),
    ):
        answer, took_s = timed(tier, limits, script)
        assert answer.failure is outcome
        assert 0.2 <= took_s < 0.3 + LATE_S


@pytest.mark.parametrize("stopping", [True, False])
def test_a_cancelled_exchange_is_a_record_only_when_we_are_stopping(tier: Side, stopping: bool) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(chunked_head() + chunk(EVENT))
        talk.wait_for_end()

    async def main(side: Side) -> Answer | None:
        transport = side.transport(peer.port)
        task = asyncio.create_task(post(transport))
        await asyncio.sleep(0.1)
        transport.stopping = stopping
        task.cancel()
        await asyncio.wait({task})
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return None if task.cancelled() else task.result()

    with talking(script) as peer:
        answer = tier.run(main)
    if not stopping:
        assert answer is None
        return
    assert answer is not None
    assert answer.failure is Outcome.CANCELLED
    assert answer.response is not None
    assert answer.response.body == EVENT


def test_the_answer_is_stamped_when_the_task_resumes(tier: Side) -> None:
    # Why this tier is not the default: what comes while the loop is busy is stamped afterwards.
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(chunked_head() + chunk(EVENT), chunk(EVENT) + END, gap_s=0.15)
        talk.wait_for_end()

    async def main(side: Side) -> Answer:
        asking = asyncio.create_task(post(side.transport(peer.port)))
        await asyncio.sleep(0.1)
        time.sleep(0.3)  # noqa: ASYNC251
        return await asking

    with talking(script) as peer:
        answer = tier.run(main)
    assert int(answer.stamps_ns[-1] - answer.stamps_ns[0]) > 200_000_000
