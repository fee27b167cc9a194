"""Servers that hold small writes back and servers that do not, asked over real sockets."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from pathlib import Path

import pytest

from analysis.probes.small_writes import LEAST_PAIRS, find_delay
from loadgen.emulator import Law, read_truth, spawn
from loadgen.probes.small_writes import PAIRS, Asked, ask_both_ways
from loadgen.servers.endpoint import Endpoint
from loadgen.wire import Target
from tests.fakes.command import Result, run_here
from tests.fakes.peer import ANSWER, EVENT_STREAM, Peer, Script, chunked, listening
from tests.fakes.relay import relaying
from tests.fakes.talker import END, chunk, sized

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs TCP_QUICKACK, which is Linux's")

CURE = "set TCP_NODELAY in the server or in the proxy before it"
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'


def discovered(url: str, *more: str) -> Result:
    result = run_here("discover", "--url", url, "--small-writes", *more)
    assert (result.code, result.err) == (0, "")
    return result


def asked(url: str, budget_s: float = 3.0) -> Asked:
    endpoint = Endpoint("one", url, Target("openai", "openai", "emulated", "/v1/chat/completions"))
    return asyncio.run(ask_both_ways(endpoint, seed=7, budget_s=budget_s))


def always(answer: bytes, *, keep: bool = True) -> Script:
    def script(peer: Peer, connection: socket.socket, posts: int) -> bool:
        connection.sendall(answer)
        return keep

    return script


def piecemeal(*pieces: bytes, after_s: float = 0.005) -> Script:
    """Write 5 ms apart, the first one after `after_s`; the peer leaves Nagle's algorithm on."""

    def script(peer: Peer, connection: socket.socket, posts: int) -> bool:
        time.sleep(after_s)
        connection.sendall(pieces[0])
        for piece in pieces[1:]:
            time.sleep(0.005)
            connection.sendall(piece)
        return True

    return script


@pytest.mark.alone
@pytest.mark.parametrize("presents", ["vllm", "ollama", "lmstudio"])
def test_nagle_before_a_server_is_found(presents: str) -> None:
    law = Law(ttft_s=0.008, gap_s=0.004)
    with spawn(law, presents=presents) as emulator, relaying(emulator.url, nodelay=False) as url:
        [found] = discovered(url, "--json").json()
    assert found["url"] == url
    small = found["small_writes"]
    assert small["verdict"] == "delays"
    late = max(small["ttft_ms"], small["second_token_ms"], key=lambda one: one["added_low"])
    assert late["pairs"] >= LEAST_PAIRS
    assert late["delayed_acks"] - late["immediate_acks"] > 10
    assert late["immediate_acks"] < 40  # the least that Linux delays an ACK
    assert small["sentence"].startswith("server delays small writes: median ")
    assert small["sentence"].endswith(f" requests); {CURE}")


@pytest.mark.alone
def test_with_tcp_nodelay_the_same_server_is_prompt() -> None:
    with spawn(Law(ttft_s=0.008, gap_s=0.004)) as emulator, relaying(emulator.url, nodelay=True) as url:
        _, line = discovered(url).out.splitlines()
    assert line.startswith("  no delay of small writes seen: median time to the second token ")
    assert "delays" not in line


@pytest.mark.alone
def test_second_token_tells_where_the_first_one_comes_with_the_head() -> None:
    pieces = (EVENT_STREAM + chunk(TOKEN), chunk(TOKEN), chunk(LAST) + END)
    with listening(piecemeal(*pieces)) as peer:
        result = asked(peer.url)
    found = find_delay(result.pairs, result.failure)
    assert found.verdict == "delays"
    assert found.ttft is not None
    assert found.ttft.low_ms < 10
    assert found.sentence.startswith("server delays small writes: median time to the second token ")


@pytest.mark.alone
def test_taking_turns_leaves_the_acks_delayed() -> None:
    # Two answers on the other connection last 100 ms: left to itself the kernel would no longer delay after that.
    pieces = (EVENT_STREAM, chunk(TOKEN), chunk(LAST) + END)
    with listening(piecemeal(*pieces, after_s=0.04)) as peer:
        result = asked(peer.url)
    found = find_delay(result.pairs, result.failure)
    assert found.verdict == "delays"
    assert found.ttft is not None
    assert found.ttft.low_ms > 20


def test_tokens_that_always_come_in_one_read_are_not_called_prompt() -> None:
    with listening(always(chunked(2 * TOKEN + LAST))) as peer:
        result = asked(peer.url)
    found = find_delay(result.pairs, result.failure)
    assert (result.failure, len(result.pairs), found.verdict) == (None, PAIRS, "together")
    assert found.sentence.startswith("first two tokens of every answer come in one read: ")


def test_one_connection_each_and_the_order_of_pairs_alternates() -> None:
    with listening(always(ANSWER)) as peer:
        result = asked(peer.url)
    assert (result.failure, len(result.pairs), peer.connections) == (None, PAIRS, 2)
    delayed = [int(request_id.partition("-")[2]) % 2 == 0 for request_id in peer.seen]
    assert delayed == [True, *[True, False, False, True] * (PAIRS // 2)]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (always(ANSWER, keep=False), "the server does not keep a connection, and on a fresh one ACKs are not delayed"),
        (
            always(ANSWER.replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n"), keep=False),
            "the server does not keep a connection, and on a fresh one ACKs are not delayed",
        ),
        (always(b"", keep=False), "a request ended as reset: "),
        (always(b"SSH-2.0-x\r\n"), "a request ended as protocol: not an HTTP/1.1 answer: b'SSH-2.0-x\\r\\n'"),
        (always(chunked(LAST)), "a request ended as empty"),
    ],
    ids=["closes-unannounced", "closes", "no-answer", "no-http", "no-token"],
)
def test_server_that_cannot_be_asked_gives_the_reason(script: Script, reason: str) -> None:
    with listening(script) as peer:
        result = asked(peer.url)
    assert result.failure is not None
    assert result.failure.startswith(reason)
    assert find_delay(result.pairs, result.failure).sentence == f"small writes: not known; {result.failure}"


@pytest.mark.parametrize("extra", [b"", b"Connection: close\r\n"], ids=["kept", "closes"])
def test_refusal_is_quoted_and_asked_only_once(extra: bytes) -> None:
    refusal = sized(b'{"error":"the key is missing"}', b"401 Unauthorized", extra)
    with listening(always(refusal)) as peer:
        result = asked(peer.url)
    assert sum(peer.seen.values()) == 1
    assert result.failure is not None
    assert result.failure.startswith("a request ended as http_error: ")
    assert "the key is missing" in result.failure


def test_nobody_there_is_a_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    result = asked(url)
    assert result.pairs == []
    assert result.failure is not None
    assert "refused" in result.failure


def test_slow_server_is_left_alone_when_the_time_is_over() -> None:
    with spawn(Law(ttft_s=0.1, gap_s=0.0)) as emulator:
        result = asked(emulator.url, budget_s=0.5)
    assert result.failure is None
    assert len(result.pairs) < LEAST_PAIRS
    found = find_delay(result.pairs, result.failure)
    assert found.verdict == "inconclusive"
    assert found.sentence.endswith("pairs of requests were answered in time, at least 5 are needed")


def test_server_that_says_nothing_is_left_when_the_time_is_over() -> None:
    def silent(peer: Peer, connection: socket.socket, posts: int) -> bool:
        peer.over.wait()
        return False

    with listening(silent) as peer:
        assert asked(peer.url, budget_s=0.2) == Asked()


def test_over_tls_nothing_is_sent() -> None:
    with listening(always(ANSWER)) as peer:
        result = asked(peer.url.replace("http:", "https:"))
    assert (result.failure, peer.connections) == ("over TLS the server is not asked", 0)


def test_requests_are_short_and_only_sent_when_asked_for(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    with spawn(Law(ttft_s=0.001, gap_s=0.001), truth=truth) as emulator:
        [plain] = run_here("discover", "--url", emulator.url, "--json").json()
        [more] = discovered(emulator.url, "--json").json()
    assert "small_writes" not in plain
    assert more["small_writes"]["ttft_ms"]["pairs"] >= LEAST_PAIRS
    sent = read_truth(truth).values()
    assert len(sent) == 1 + 2 * PAIRS  # the plain one sent none
    assert {2 <= len(one.token_ns) <= 4 for one in sent} == {True}


def test_model_that_is_not_there_is_a_reason_and_no_error() -> None:
    with spawn(Law(ttft_s=0.001, gap_s=0.001)) as emulator:
        _, line = discovered(emulator.url, "--model", "other").out.splitlines()
    assert line == f"  small writes: not known; {emulator.url}: no model 'other' there; it has emulated"
