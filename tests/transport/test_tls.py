"""TLS over the tiers: who is trusted, how a handshake fails, and that stamps stay what they were."""

from __future__ import annotations

import asyncio
import ssl
import time

import pytest
import trustme

from loadgen.clock import NS_PER_MS, now_ns
from loadgen.record import Outcome
from loadgen.transport import Answer, Limits, tls_context
from loadgen.transport.callback import CallbackConnection
from tests.fakes.talker import END, Talk, chunk, chunked_head, sized, talking
from tests.transport.conftest import QUICK, Side, post

EVENT = b"data: token\n\n"


def once(talk: Talk) -> None:
    talk.read_request()
    talk.say(chunked_head() + chunk(EVENT), chunk(EVENT), END, gap_s=0.01)
    talk.wait_for_end()


def ask(side: Side, port: int, tls: ssl.SSLContext, host: str = "127.0.0.1", limits: Limits = QUICK) -> Answer:
    async def main(side: Side) -> Answer:
        return await post(side.transport(port, limits, tls=tls, host=host))

    return side.run(main)


def test_an_answer_over_tls_is_stamped_read_by_read(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with talking(once, tls=server_tls) as peer:
        answer = ask(side, peer.port, client_tls)
    assert (answer.failure, answer.error) == (None, None)
    assert answer.response is not None
    assert answer.response.body == EVENT * 2
    assert len(answer.stamps_ns) == 3
    assert answer.connect_ns is not None
    assert answer.connected_ns is not None
    assert answer.connected_ns - answer.connect_ns > 0  # with the handshake
    assert sorted(answer.stamps_ns.tolist()) == answer.stamps_ns.tolist()
    assert answer.stamps_ns[0] > (answer.sent_ns or 0)


def test_tls_connections_are_reused_without_a_handshake(
    side: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    def script(talk: Talk) -> None:
        while True:
            talk.read_request()
            talk.say(sized(b"fine"))

    async def main(side: Side) -> list[Answer]:
        transport = side.transport(peer.port, tls=client_tls)
        return [await post(transport) for _ in range(4)]

    with talking(script, tls=server_tls) as peer:
        answers = side.run(main)
        assert peer.connections == 1
    assert [answer.response.body if answer.response else None for answer in answers] == [b"fine"] * 4
    assert [answer.connected_ns is None for answer in answers] == [False, True, True, True]


@pytest.mark.parametrize("tier", ["kernel", "callback"])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_late_client_does_not_hurt_kernel_stamps_over_tls(
    tier: str, loop: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    # The peer writes while the loop is busy; the callback tier is the proof that it was.
    busy_s = 0.3

    def script(talk: Talk) -> int:
        talk.read_request()
        talk.say(chunked_head())
        time.sleep(0.1)
        written_ns = now_ns()
        talk.say(chunk(EVENT))
        time.sleep(2 * busy_s)
        talk.say(END)
        talk.wait_for_end()
        return written_ns

    async def main(side: Side) -> Answer:
        asking = asyncio.create_task(post(side.transport(peer.port, tls=client_tls)))
        await asyncio.sleep(0.05)
        time.sleep(busy_s)  # noqa: ASYNC251
        return await asking

    with talking(script, tls=server_tls) as peer:
        answer = Side(tier, loop).run(main)
    late_ns = int(answer.stamps_ns[1]) - int(str(peer.notes[0]))
    if tier == "kernel":
        assert -NS_PER_MS < late_ns < busy_s * 1e9 / 4
    else:
        assert late_ns > busy_s * 1e9 / 2


def test_a_certificate_of_an_unknown_authority_is_told(either: Side, server_tls: ssl.SSLContext) -> None:
    stranger = ssl.create_default_context()
    trustme.CA().configure_trust(stranger)
    with talking(once, tls=server_tls) as peer:
        answer = ask(either, peer.port, stranger)
    assert answer.failure is Outcome.TLS
    assert (answer.error or "").startswith("certificate not accepted: ")
    assert answer.sent_ns is None


def test_a_certificate_for_another_host_is_told(
    either: Side, authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    elsewhere = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(elsewhere)
    with talking(once, tls=elsewhere) as peer:
        answer = ask(either, peer.port, client_tls)
    assert answer.failure is Outcome.TLS
    assert "certificate not accepted" in (answer.error or "")
    assert "127.0.0.1" in (answer.error or "")


def test_a_host_may_be_a_name(either: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with talking(once, tls=server_tls) as peer:
        assert ask(either, peer.port, client_tls, host="localhost").failure is None


def test_without_verification_any_certificate_will_do(either: Side, server_tls: ssl.SSLContext) -> None:
    with talking(once, tls=server_tls) as peer:
        assert ask(either, peer.port, tls_context(verify=False)).failure is None


def test_a_ca_file_is_trusted(
    either: Side, authority: trustme.CA, server_tls: ssl.SSLContext, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    with talking(once, tls=server_tls) as peer:
        assert ask(either, peer.port, tls_context(ca_file=str(path))).failure is None


def test_a_peer_that_leaves_during_the_handshake_is_told(side: Side, client_tls: ssl.SSLContext) -> None:
    with talking(lambda talk: talk.read_body(1)) as peer:
        answer = ask(side, peer.port, client_tls)
    assert answer.failure is Outcome.TLS
    assert "closed the connection during the handshake" in (answer.error or "")


def test_a_peer_that_resets_during_the_handshake_is_told(side: Side, client_tls: ssl.SSLContext) -> None:
    def script(talk: Talk) -> None:
        talk.read_body(1)
        talk.reset()

    with talking(script) as peer:
        answer = ask(side, peer.port, client_tls)
    assert answer.failure is Outcome.TLS


def test_plain_http_where_tls_was_expected_is_told(either: Side, client_tls: ssl.SSLContext) -> None:
    def script(talk: Talk) -> None:
        talk.read_body(1)
        talk.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        talk.wait_for_end()

    with talking(script) as peer:
        answer = ask(either, peer.port, client_tls)
    assert answer.failure is Outcome.TLS
    assert (answer.error or "").startswith("TLS: ")


def test_a_handshake_that_never_ends_is_a_connect_timeout(either: Side, client_tls: ssl.SSLContext) -> None:
    with talking(lambda talk: talk.wait_for_end()) as peer:
        answer = ask(either, peer.port, client_tls, limits=Limits(connect_s=0.2))
    assert answer.failure is Outcome.CONNECT_TIMEOUT


def test_what_follows_the_last_flight_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    # Some servers send session tickets right behind their part of the handshake (BoringSSL's do; OpenSSL's do not).
    class Handshake:
        def __init__(self, *_: object) -> None:
            self.ready, self.seen = False, b""

        def handshake(self, ciphertext: bytes = b"") -> bytes:
            self.seen += ciphertext
            self.ready = b"last flight" in self.seen
            return b""

    class Wire(CallbackConnection):
        def _write(self, payload: bytes) -> None: ...

    async def main() -> bytes:
        wire = Wire()
        shaking = asyncio.create_task(wire.start_tls(ssl.create_default_context(), "localhost"))
        await asyncio.sleep(0)
        for piece in (b"last flight", b", ticket", b", ticket"):  # all before the task runs again
            wire.deliver(piece, 0)
        await shaking
        return wire._tls.seen  # type: ignore[union-attr]

    monkeypatch.setattr("loadgen.transport.connection.TlsLayer", Handshake)
    assert asyncio.run(main()) == b"last flight, ticket, ticket"


def test_tls_1_2_works_as_well(either: Side, authority: trustme.CA, client_tls: ssl.SSLContext) -> None:
    older = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    authority.issue_cert("127.0.0.1").configure_cert(older)
    with talking(once, tls=older) as peer:
        assert ask(either, peer.port, client_tls).failure is None


def test_a_stream_over_tls_may_end_with_the_connection(
    either: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(b"HTTP/1.1 200 OK\r\n\r\n" + EVENT)

    with talking(script, tls=server_tls) as peer:
        answer = ask(either, peer.port, client_tls)
    assert answer.failure is None
    assert answer.response is not None
    assert answer.response.body == EVENT


@pytest.mark.parametrize("size", [16_384, 300_000, 2_000_000])
def test_one_event_over_tls_may_span_many_records(
    either: Side, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, size: int
) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(chunked_head() + chunk(b"x" * size) + END)
        talk.wait_for_end()

    with talking(script, tls=server_tls) as peer:
        answer = ask(either, peer.port, client_tls)
    assert answer.failure is None
    assert answer.response is not None
    assert answer.response.body == b"x" * size
