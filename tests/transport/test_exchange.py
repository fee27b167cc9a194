"""One request and its answer over real sockets: how answers end, how connections are reused, what a bad peer does."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time

import pytest

from loadgen.record import Outcome
from loadgen.transport import Address, Answer, Limits
from loadgen.transport.connection import Exchange
from loadgen.transport.kernel import Poller
from loadgen.transport.sockets import STALE_BEFORE_FRESH_ONLY, SocketTransport
from tests.fakes.talker import END, Talk, chunk, chunked_head, sized, talking
from tests.transport.conftest import Side, post

EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'


def stream(*events: bytes, extra: bytes = b"") -> bytes:
    return chunked_head(extra) + b"".join(map(chunk, events)) + END


def ask_once(side: Side, port: int, body: bytes = b"{}") -> Answer:
    async def main(side: Side) -> Answer:
        return await post(side.transport(port), body)

    return side.run(main)


def ask_often(side: Side, port: int, times: int) -> list[Answer]:
    """One after the other, over one pool."""

    async def main(side: Side) -> list[Answer]:
        transport = side.transport(port)
        return [await post(transport) for _ in range(times)]

    return side.run(main)


def body_of(answer: Answer) -> bytes:
    assert (answer.failure, answer.error) == (None, None)
    assert answer.response is not None
    assert answer.response.complete
    return answer.response.body


# --- how an answer ends ----------------------------------------------------------------------------------------------


def test_stamps_are_in_order_from_send_to_done(side: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(chunked_head(), chunk(EVENT), chunk(EVENT), END, gap_s=0.01)

    with talking(script) as peer:
        answer = ask_once(side, peer.port)
    assert body_of(answer) == EVENT * 2
    stamps = answer.stamps_ns.tolist()
    assert len(stamps) == 4
    assert answer.connect_ns is not None
    assert answer.sent_last_ns is not None
    in_order = [answer.connect_ns, answer.connected_ns, answer.sent_ns, answer.sent_last_ns]
    assert in_order == sorted(in_order)
    assert stamps == sorted(stamps)
    assert stamps[0] > answer.sent_ns
    assert answer.done_ns == stamps[-1]
    assert answer.head_read == 0
    assert answer.response.read_ends.tolist() == [0, len(EVENT), 2 * len(EVENT), 2 * len(EVENT)]


def test_an_end_that_arrives_in_two_pieces_is_an_end(side: Side) -> None:
    # A last read shorter than the end marker was once taken for a token, and the answer ended by its time limit.
    whole = stream(EVENT, EVENT)
    cuts = range(1, 10)

    def script(talk: Talk) -> None:
        for cut in cuts:
            talk.read_request()
            talk.say(whole[:-60], whole[-60:-cut], whole[-cut:], gap_s=0.01)

    with talking(script) as peer:
        answers = ask_often(side, peer.port, len(cuts))
    assert [body_of(answer) for answer in answers] == [EVENT * 2] * len(cuts)


def test_an_answer_may_arrive_byte_by_byte(either: Side) -> None:
    whole = stream(b"data: a\r\n\r\n", b"0\r\n\r\n", b"\r\n")

    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(*(whole[i : i + 1] for i in range(len(whole))), gap_s=0.0005)

    with talking(script) as peer:
        assert body_of(ask_once(either, peer.port)) == b"data: a\r\n\r\n0\r\n\r\n\r\n"


def test_a_body_may_end_with_the_connection(side: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(b"HTTP/1.1 200 OK\r\n\r\n", EVENT, EVENT, gap_s=0.02)
        time.sleep(0.05)

    with talking(script) as peer:
        answers = ask_often(side, peer.port, 2)
        assert peer.connections == 2
    for answer in answers:
        assert body_of(answer) == EVENT * 2
        assert answer.done_ns == answer.stamps_ns[-1]  # the last byte, not the end of the connection


def test_a_body_of_known_length_ends_with_its_last_byte(either: Side) -> None:
    whole = sized(b"0123456789" * 10)

    def script(talk: Talk) -> None:
        for _ in range(2):
            talk.read_request()
            talk.say(whole[:-90], whole[-90:-1], whole[-1:], gap_s=0.01)
        talk.wait_for_end()

    with talking(script) as peer:
        answers = ask_often(either, peer.port, 2)
        assert peer.connections == 1
    assert [body_of(answer) for answer in answers] == [b"0123456789" * 10] * 2


def test_an_answer_without_a_body_is_an_answer(either: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(b"HTTP/1.1 204 No Content\r\n\r\n")
        talk.wait_for_end()

    with talking(script) as peer:
        assert body_of(ask_once(either, peer.port)) == b""


def test_an_interim_answer_is_not_the_answer(either: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(
            b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + stream(EVENT), gap_s=0.02
        )
        talk.wait_for_end()

    with talking(script) as peer:
        answer = ask_once(either, peer.port)
    assert body_of(answer) == EVENT
    assert answer.response is not None
    assert (answer.response.status, answer.head_read) == (200, 1)


@pytest.mark.parametrize("size", [8_192, 20_000, 300_000, 3_000_000])
def test_one_event_may_be_larger_than_any_buffer(side: Side, size: int) -> None:
    large = b"data: " + b"x" * (size - 8) + b"\n\n"

    def script(talk: Talk) -> None:
        for _ in range(2):
            talk.read_request()
            talk.say(chunked_head() + chunk(EVENT), chunk(large) + chunk(EVENT) + END, gap_s=0.01)
        talk.wait_for_end()

    with talking(script) as peer:
        answers = ask_often(side, peer.port, 2)
        assert peer.connections == 1
    assert [body_of(answer) == EVENT + large + EVENT for answer in answers] == [True, True]


@pytest.mark.parametrize(("read_bytes", "longest"), [(1_024, 1_024), (65_536, 65_536), (None, 262_144)])
def test_a_read_is_no_longer_than_asked_for(read_bytes: int | None, longest: int) -> None:
    large = b"data: " + b"x" * 1_000_000 + b"\n\n"

    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(chunked_head() + chunk(EVENT), chunk(large) + END, gap_s=0.01)
        talk.wait_for_end()

    async def main() -> Answer:
        poller = Poller(asyncio.get_running_loop(), read_bytes)
        transport = SocketTransport(Address("127.0.0.1", peer.port), "/", {}, Limits(), poller)
        answer = await post(transport)
        await transport.close()
        poller.close()
        return answer

    with talking(script) as peer:
        answer = asyncio.run(main())
    assert body_of(answer) == EVENT + large
    assert isinstance(answer, Exchange)
    lengths = [len(read) for read in answer.framing.reads]
    assert max(lengths) <= longest
    assert longest in lengths or read_bytes != 1_024


def test_an_answer_of_exactly_the_buffers_size_leaves_nothing_behind(either: Side) -> None:
    # Edge-triggered: a full buffer uses up the edge, and it must be seen that nothing follows it.
    head = chunked_head()
    sizes = range(8_192 - 3, 8_192 + 4)

    def script(talk: Talk) -> None:
        for size in sizes:
            talk.read_request()
            frame = len(head) + len(chunk(b"x" * 8_000)) - 8_000 + len(END)
            whole = head + chunk(b"x" * (size - frame)) + END
            assert len(whole) == size
            talk.say(whole)
            talk.read_request()
            talk.say(head, whole[len(head) :] + b"", gap_s=0.005)
        talk.wait_for_end()

    with talking(script) as peer:
        answers = ask_often(either, peer.port, 2 * len(sizes))
        assert peer.connections == 1
    assert all(set(body_of(answer)) == {ord("x")} for answer in answers)


# --- large requests --------------------------------------------------------------------------------------------------


def test_a_large_request_reaches_a_slow_reader_whole(side: Side) -> None:
    body = bytes(range(256)) * 16_384  # 4 MiB

    def script(talk: Talk) -> bytes:
        size = int(talk.read_head().lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        digest = hashlib.sha256()
        time.sleep(0.1)
        for _ in range(64):
            time.sleep(0.001)
            digest.update(talk.read_body(size // 64))
        talk.say(sized(b"{}"))
        talk.wait_for_end()
        return digest.digest()

    with talking(script, receive_bytes=16_384) as peer:
        answer = ask_once(side, peer.port, body)
    assert body_of(answer) == b"{}"
    assert peer.notes == [hashlib.sha256(body).digest()]
    assert answer.sent_last_ns is not None
    assert answer.sent_ns is not None
    assert answer.sent_last_ns - answer.sent_ns > 50_000_000


@pytest.mark.parametrize("extra", [b"Connection: close\r\n", b""], ids=["close", "keep-alive"])
def test_an_answer_before_the_request_is_read_is_the_answer(side: Side, extra: bytes) -> None:
    # The rest of that request must not follow, nor may the connection carry another: it would be read as its start.
    body = b"x" * 16_000_000

    def script(talk: Talk) -> str:
        talk.read_head()
        if talk.number == 0:
            talk.say(sized(b"too large", b"413 Content Too Large", extra))
            time.sleep(0.2)  # no room for the rest meanwhile: more than the kernel holds for a socket
            talk.wait_for_end()
            return "refused"
        talk.read_body(2)
        talk.say(sized(b"fine"))
        talk.wait_for_end()
        return "answered"

    async def main(side: Side) -> tuple[Answer, Answer]:
        transport = side.transport(peer.port)
        return await post(transport, body), await post(transport)

    with talking(script, receive_bytes=16_384) as peer:
        refused, answered = side.run(main)
    assert body_of(refused) == b"too large"
    assert refused.response is not None
    assert refused.response.status == 413
    assert body_of(answered) == b"fine"
    assert (answered.stale_connections, answered.connected_ns is None) == (0, False)
    assert sorted(map(str, peer.notes)) == ["answered", "refused"]


def test_a_peer_that_slams_the_door_on_a_large_request_is_an_answer_or_a_reset(side: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_head()
        talk.say(sized(b"too large", b"413 Content Too Large", b"Connection: close\r\n"))

    with talking(script, receive_bytes=16_384) as peer:
        answer = ask_once(side, peer.port, b"x" * 8_000_000)
    if answer.failure is None:
        assert body_of(answer) == b"too large"
    else:
        assert answer.failure is Outcome.RESET
        assert (answer.error or "").startswith("connection lost")


# --- connections -----------------------------------------------------------------------------------------------------


def test_a_kept_connection_carries_the_next_request(side: Side) -> None:
    def script(talk: Talk) -> None:
        while True:
            talk.read_request()
            talk.say(stream(EVENT))

    with talking(script) as peer:
        first, *rest = ask_often(side, peer.port, 5)
        assert peer.connections == 1
    assert first.connected_ns is not None
    assert [(answer.connect_ns, answer.connected_ns, body_of(answer)) for answer in rest] == [(None, None, EVENT)] * 4


def test_a_connection_that_the_server_ends_carries_no_other(either: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(stream(EVENT, extra=b"Connection: close\r\n"))
        talk.wait_for_end()

    with talking(script) as peer:
        answers = ask_often(either, peer.port, 3)
        assert peer.connections == 3
    assert [answer.stale_connections for answer in answers] == [0, 0, 0]
    assert None not in [answer.connected_ns for answer in answers]


def test_a_kept_connection_seen_closed_is_not_used(either: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(stream(EVENT))

    async def main(side: Side) -> list[Answer]:
        transport = side.transport(peer.port)
        answers = []
        for _ in range(5):
            answers.append(await post(transport))
            await asyncio.sleep(0.03)  # the end of the connection is noticed
        return answers

    with talking(script) as peer:
        answers = either.run(main)
        assert peer.connections == 5
    assert [(answer.stale_connections, body_of(answer)) for answer in answers] == [(0, EVENT)] * 5


def test_a_stale_connection_costs_one_retry_and_after_a_few_none_is_reused(side: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(stream(EVENT))
        talk.read_request()  # and closes: unannounced, before any byte

    times = 2 * STALE_BEFORE_FRESH_ONLY + 4
    with talking(script) as peer:
        answers = ask_often(side, peer.port, times)
        assert peer.connections == times
    assert [body_of(answer) for answer in answers] == [EVENT] * times
    # The connection of a retry is a fresh one, and goes stale in its turn.
    stale = [answer.stale_connections for answer in answers]
    assert stale == [0] + [1] * STALE_BEFORE_FRESH_ONLY + [0] * (times - 1 - STALE_BEFORE_FRESH_ONLY)
    for answer in answers:
        assert answer.connected_ns is not None
        assert answer.sent_ns is not None
        assert answer.connected_ns <= answer.sent_ns  # of the second sending


def test_a_fresh_connection_that_closes_before_any_byte_is_a_reset_and_not_asked_again(either: Side) -> None:
    with talking(lambda talk: talk.read_request()) as peer:
        answer = ask_once(either, peer.port)
        assert peer.connections == 1
    assert answer.failure is Outcome.RESET
    assert answer.error == "the server closed the connection before any byte of the answer"
    assert answer.stale_connections == 0
    assert answer.done_ns is not None


def test_a_request_goes_twice_at_most(either: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        if talk.number == 0:
            talk.say(stream(EVENT))
            talk.read_request()

    with talking(script) as peer:
        _, answer = ask_often(either, peer.port, 2)
        assert peer.connections == 2
    assert (answer.failure, answer.stale_connections) == (Outcome.RESET, 1)


def test_a_reused_connection_that_breaks_within_the_answer_is_not_asked_again(either: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(stream(EVENT))
        talk.read_request()
        talk.say(chunked_head())

    with talking(script) as peer:
        _, answer = ask_often(either, peer.port, 2)
        assert peer.connections == 1
    assert (answer.failure, answer.stale_connections) == (Outcome.TRUNCATED, 0)


@pytest.mark.parametrize("when", ["at once", "later"])
def test_bytes_after_the_end_cost_the_connection_but_not_the_answer(either: Side, when: str) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        if when == "at once":
            talk.say(stream(EVENT) + b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            talk.say(stream(EVENT), b"garbage", gap_s=0.02)
        talk.wait_for_end()

    async def main(side: Side) -> list[Answer]:
        transport = side.transport(peer.port)
        answers = []
        for _ in range(3):
            answers.append(await post(transport))
            await asyncio.sleep(0.06)
        return answers

    with talking(script) as peer:
        answers = either.run(main)
        assert peer.connections == 3
    assert [(body_of(answer), answer.stale_connections) for answer in answers] == [(EVENT, 0)] * 3


def test_the_pool_holds_no_more_connections_than_were_needed_at_once(either: Side) -> None:
    def script(talk: Talk) -> None:
        while True:
            talk.read_request()
            talk.say(chunked_head(), END, gap_s=0.01)

    async def main(side: Side) -> None:
        transport = side.transport(peer.port)
        for _ in range(5):
            await asyncio.gather(*(post(transport) for _ in range(8)))

    with talking(script) as peer:
        either.run(main)
        assert peer.connections == 8


# --- bad peers -------------------------------------------------------------------------------------------------------


def test_a_reset_in_the_stream_keeps_what_had_come(side: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(chunked_head() + chunk(EVENT), chunk(EVENT), gap_s=0.02)
        time.sleep(0.05)
        talk.reset()

    with talking(script) as peer:
        answer = ask_once(side, peer.port)
    assert answer.failure is Outcome.RESET
    assert answer.response is not None
    assert (answer.response.body, answer.response.complete) == (EVENT * 2, False)
    assert answer.done_ns is not None
    assert answer.done_ns > answer.stamps_ns[-1]


def test_a_stream_cut_by_the_end_of_the_connection_is_truncated(either: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(chunked_head() + chunk(EVENT))

    with talking(script) as peer:
        answer = ask_once(either, peer.port)
    assert answer.failure is Outcome.TRUNCATED
    assert answer.response is not None
    assert answer.response.body == EVENT


def test_a_body_shorter_than_its_length_is_truncated(either: Side) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(sized(b"0123456789")[:-3])

    with talking(script) as peer:
        answer = ask_once(either, peer.port)
    assert answer.failure is Outcome.TRUNCATED


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not an HTTP/1.1 answer: b'SSH-2.0-OpenSSH_9.6"),
        (chunked_head() + b"-6\r\nabc\r\n\r\n", "not a chunk size: b'-6'"),
        (b"HTTP/1.1 2\xb20 OK\r\n\r\n", "not an HTTP/1.1 answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n", "Content-Length is not a number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "Content-Lengths that differ: '5, 6'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", "a blank before the colon of a header"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n", "Transfer-Encoding is not chunked alone"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "a line of the head ends in LF alone"),
    ],
)
def test_a_peer_that_does_not_speak_http_is_told_by_its_words(either: Side, said: bytes, error: str) -> None:
    def script(talk: Talk) -> None:
        talk.read_request()
        talk.say(said)
        talk.wait_for_end()

    with talking(script) as peer:
        answer = ask_once(either, peer.port)
    assert answer.failure is Outcome.PROTOCOL
    assert error in (answer.error or "")


def test_nobody_listening_is_refused(either: Side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = ask_once(either, port)
    assert (answer.failure, answer.error) == (Outcome.REFUSED, "connection refused")
    assert answer.sent_ns is None


def test_an_unknown_host_is_refused_by_name(either: Side) -> None:
    async def main(side: Side) -> Answer:
        return await post(side.transport(1, host="nobody.invalid"))

    answer = either.run(main)
    assert answer.failure is Outcome.REFUSED
    assert "no such host" in (answer.error or "")


# --- cancellation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", [True, False])
def test_a_cancelled_exchange_is_a_record_only_when_we_are_stopping(side: Side, stopping: bool) -> None:
    def script(talk: Talk) -> str:
        talk.read_request()
        talk.say(chunked_head() + chunk(EVENT))
        talk.wait_for_end()
        return "hung up"

    async def main(side: Side) -> Answer | None:
        transport = side.transport(peer.port)
        task = asyncio.create_task(post(transport))
        await asyncio.sleep(0.05)
        transport.stopping = stopping
        task.cancel()
        await asyncio.wait({task})
        return None if task.cancelled() else task.result()

    with talking(script) as peer:
        answer = side.run(main)
    assert peer.notes == ["hung up"]
    if not stopping:
        assert answer is None
        return
    assert answer is not None
    assert answer.failure is Outcome.CANCELLED
    assert answer.response is not None
    assert answer.response.body == EVENT


def test_cancelling_while_connecting_leaves_no_socket(side: Side) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # fill the backlog: from here on no connection gets through
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())

        async def main(side: Side) -> Answer:
            transport = side.transport(listener.getsockname()[1])
            task = asyncio.create_task(post(transport))
            await asyncio.sleep(0.05)
            transport.stopping = True
            task.cancel()
            return await task

        answer = side.run(main)
    assert (answer.failure, answer.sent_ns) == (Outcome.CANCELLED, None)


def test_while_a_server_is_gone_others_get_their_turns(side: Side) -> None:
    async def main(side: Side) -> int:
        turns = 0

        async def another() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        other = asyncio.create_task(another())
        transport = side.transport(port)
        answers = [await post(transport) for _ in range(50)]
        other.cancel()
        assert {answer.failure for answer in answers} == {Outcome.REFUSED}
        return turns

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert side.run(main, leaves_nothing=False) > 25
