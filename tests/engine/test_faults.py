"""Everything a server can do wrong, through the real engine and a real socket: which Outcome, which words, which code.

All faults of the emulator are had in one run: each is a target of its own whose header asks for the fault, and one
target asks for none, so that the same run shows that a request is not touched by what befalls its neighbours.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from loadgen.emulator import Law, spawn
from loadgen.emulator.faults import FAULTS
from loadgen.record import TOKEN_KINDS, Outcome
from tests.fakes.command import Result, rows, run_here
from tests.fakes.peer import ANSWER, EVENT_STREAM, chunked, listening

EACH = 2  # requests a fault
TOKENS = 6
LIMITS = {
    "connect_s": 2,
    "first_token_s": 1.0,
    "between_tokens_s": 1.0,
    "total_s": 20,
    "drain_s": 2,
    "no_progress_s": 20,
}
NONE = "none"


@dataclass(frozen=True)
class Expected:
    outcome: Outcome
    status: int | None
    error: str  # a regular expression
    tokens: int  # whose arrival is on record, though the request failed
    at_least_s: float = 0.0  # how long it takes to give up


def http(status: int) -> Expected:
    words = rf"the emulator was told to answer {status} \(HTTP {status}\)"
    return Expected(Outcome.HTTP_ERROR, status, words, 0)


FAILING = {
    "refuse": Expected(Outcome.RESET, None, "connection lost: Connection reset by peer", 0),
    "429": http(429),
    "503": http(503),
    "500": http(500),
    "never-answer": Expected(Outcome.FIRST_TOKEN_TIMEOUT, None, "no token after 1 s", 0, 1.0),
    "html": Expected(
        Outcome.PROTOCOL, 200, r"gateway \(expected (text/event-stream|application/x-ndjson), got text/html\)", 0
    ),
    "empty": Expected(Outcome.TRUNCATED, 200, "the answer ended with no event", 0),
    "stall": Expected(Outcome.FIRST_TOKEN_TIMEOUT, 200, "no token after 1 s", 0, 1.0),
    "stall-mid": Expected(Outcome.STALLED, 200, "no further token for 1 s", 1, 1.0),
    "cut": Expected(Outcome.TRUNCATED, 200, "the server closed the connection in the middle of the answer", 1),
    "reset": Expected(Outcome.RESET, 200, "connection lost: Connection reset by peer", 1),
    "error-event": Expected(Outcome.SERVER_ERROR, 200, "the emulator was told to fail here", 1),
    "no-done": Expected(Outcome.TRUNCATED, 200, "the answer ended without a terminal marker", TOKENS),
    "bad-json": Expected(Outcome.PROTOCOL, 200, r"not a JSON object: \{.*", 1),
}
# Odd, and no failure: the answer is all there.
HARMLESS = (
    *("slow-header", "close-idle", "multi", "role-only", "comments", "wrong-length", "crlf", "split", "one-write"),
)
ENTRIES = [*FAILING, *HARMLESS, NONE]
# role-only would not show without one; a head of LM Studio's carries events and would take longer than the limit.
ARGUMENT = {"role-only": "=20", "slow-header": "=0.1"}


def test_every_fault_of_the_emulator_is_tested_here():
    assert {*FAILING, *HARMLESS} == set(FAULTS)


@dataclass(frozen=True)
class Everything:
    """One run with every fault in it."""

    result: Result
    directory: Path
    records: list[dict[str, Any]]
    served: Counter[str]  # how often each request reached the server

    def of(self, fault: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["endpoint"] == fault]


@pytest.fixture(scope="module", params=["vllm", "ollama", "lmstudio", "llamacpp"])
def everything(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everything]:
    folder = tmp_path_factory.mktemp("everything")
    with spawn(Law(ttft_s=0.02, gap_s=0.01), presents=request.param) as emulator:
        profile = {
            "target": [
                {"url": emulator.url, "name": fault, "headers": {"X-Emulator-Fault": fault + ARGUMENT.get(fault, "")}}
                for fault in ENTRIES
            ],
            "load": {"arrivals": "constant", "rate_per_s": 100, "requests": EACH * len(ENTRIES)},
            "work": {"prompt_tokens": 16, "output_tokens": TOKENS},
            "limits": LIMITS,
        }
        path = folder / "everything.yaml"
        path.write_text(yaml.safe_dump(profile))
        result = run_here("run", path, "--out", folder / "run", "--json", "--no-progress")
        emulator.truth()  # makes it write what it still holds
        served = Counter(json.loads(line)["request_id"] for line in emulator.truth_path.read_bytes().splitlines())
        yield Everything(result, folder / "run", rows(folder / "run"), served)


def tokens_of(record: dict[str, Any]) -> list[int]:
    """When each event that bears tokens arrived."""
    return [at for at, kind in zip(record["event_ns"], record["event_kind"], strict=True) if kind in TOKEN_KINDS]


@pytest.mark.parametrize("fault", FAILING)
def test_a_failing_request_says_how_it_failed(everything, fault):
    expected, found = FAILING[fault], everything.of(fault)
    assert len(found) == EACH
    for record in found:
        assert (record["outcome"], record["status"]) == (expected.outcome, expected.status), record["error"]
        assert re.fullmatch(expected.error, record["error"]), record["error"]


@pytest.mark.parametrize("fault", FAILING)
def test_a_failing_request_keeps_its_timings(everything, fault):
    expected = FAILING[fault]
    for record in everything.of(fault):
        tokens = tokens_of(record)
        assert len(tokens) == expected.tokens
        assert record["intended_ns"] <= record["sent_ns"] <= record["sent_last_ns"]
        assert record["done_ns"] - record["sent_ns"] >= expected.at_least_s * 1e9
        assert (record["headers_ns"] is None) == (expected.status is None)
        assert all(
            record["sent_ns"] < at <= record["done_ns"] for at in [*tokens, record["headers_ns"] or at_end(record)]
        )


def at_end(record: dict[str, Any]) -> int:
    return int(record["done_ns"])


@pytest.mark.parametrize("fault", HARMLESS)
def test_an_odd_but_whole_answer_is_no_failure(everything, fault):
    for record in everything.of(fault):
        assert (record["outcome"], record["error"]) == (Outcome.OK, None)
        assert record["output_tokens"] == TOKENS
        assert len(tokens_of(record)) == (2 if fault == "multi" else TOKENS)


def test_the_other_requests_are_not_touched(everything):
    found = everything.of(NONE)
    assert len(found) == EACH
    for record in found:
        assert (record["outcome"], record["status"], record["error"]) == (Outcome.OK, 200, None)
        assert (record["output_tokens"], len(tokens_of(record))) == (TOKENS, TOKENS)


def test_every_failure_is_counted_and_named(everything):
    summary = everything.result.json()
    expected: Counter[str] = Counter()
    for fault in FAILING.values():
        expected[fault.outcome] += EACH
    assert summary["requests"]["offered"] == EACH * len(ENTRIES)
    assert summary["requests"]["completed"] == EACH * (len(HARMLESS) + 1)
    assert summary["requests"]["failed"] == expected
    assert sum(error["n"] for error in summary["errors"]) == sum(expected.values())
    for fault in FAILING.values():
        assert any(
            error["outcome"] == fault.outcome
            and error["status"] == fault.status
            and re.match(fault.error, error["error"])
            for error in summary["errors"]
        ), fault
    # one-write and wrong-length bring many tokens in a read, which is a verdict of its own.
    assert everything.result.code in (0, 4)


def test_no_request_is_sent_twice(everything):
    assert len(everything.records) == len({(record["run"], record["seq"]) for record in everything.records})
    assert set(everything.served.values()) == {1}


# One fault alone: the exit code and the line


@pytest.fixture(scope="module")
def emulator():
    with spawn(Law(ttft_s=0.01, gap_s=0.01), presents="openai") as running:
        yield running


def profile(folder: Path, *, limits: dict[str, float] | None = None, **load: Any) -> Path:
    path = folder / "profile.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "load": load or {"concurrency": 2, "requests": 2},
                "work": {"prompt_tokens": 16, "output_tokens": TOKENS},
                "limits": LIMITS | (limits or {}),
            }
        )
    )
    return path


@pytest.mark.parametrize("fault", FAILING)
def test_when_every_request_fails_one_line_says_so_and_the_code_is_5(emulator, tmp_path, fault):
    result = run_here(
        *("run", profile(tmp_path), "--url", emulator.url, "--header", f"X-Emulator-Fault: {fault}"),
        *("--out", tmp_path / "run", "--json", "--no-progress"),
    )
    expected = FAILING[fault]
    assert result.code == 5
    assert f"every request failed: 2 {expected.outcome} (" in result.line
    assert re.search(expected.error, result.line)
    assert result.json()["requests"]["failed"] == {expected.outcome: 2}
    assert result.json()["verdict"] == "failed"


@pytest.mark.parametrize(("bound", "code"), [("0.9", 0), ("0.1", 1)])
def test_some_failures_decide_the_code_only_where_an_objective_says_so(tmp_path, bound, code):
    with spawn(Law(ttft_s=0.01), presents="openai", faults=("500=1/2",)) as half:
        result = run_here(
            *("run", profile(tmp_path, concurrency=2, requests=60), "--url", half.url, "--output-tokens", "1"),
            *("--objective", f"error_rate={bound}", "--out", tmp_path / "run", "--json", "--no-progress"),
        )
    assert result.code == code
    assert result.json()["requests"]["failed"] == {"http_error": 30}
    assert "objective failed: error_rate" in result.line if code else not result.err


def test_connections_refused_now_and_then_fail_those_requests_alone(tmp_path):
    with spawn(Law(ttft_s=0.01, gap_s=0.001), presents="openai", faults=("refuse=1/3",)) as picky:
        run_here(
            *("run", profile(tmp_path, concurrency=12, requests=24), "--url", picky.url, "--api", "openai"),
            *("--model", "emulated", "--out", tmp_path / "run", "--quiet"),
        )
    outcomes = Counter(record["outcome"] for record in rows(tmp_path / "run"))
    # The reset comes while connecting, while sending or while waiting, as the kernels please.
    assert set(outcomes) - {"refused", "reset"} == {"ok"}
    assert 0 < outcomes["ok"] < sum(outcomes.values()) == 24


# Limits


def test_an_answer_that_never_ends_meets_the_total_limit_and_keeps_its_tokens(emulator, tmp_path):
    result = run_here(
        *("run", profile(tmp_path, limits={"total_s": 0.5}), "--url", emulator.url, "--output-tokens", "1000"),
        *("--out", tmp_path / "run", "--quiet"),
    )
    assert result.code == 5
    for record in rows(tmp_path / "run"):
        assert (record["outcome"], record["error"]) == ("total_timeout", "no end of the answer after 0.5 s")
        assert len(tokens_of(record)) > 1
        assert record["output_tokens"] == len(tokens_of(record))
        assert record["tokens_from"] == "events"


def test_what_is_in_flight_when_the_drain_is_over_becomes_cancelled_records(emulator, tmp_path):
    path = profile(
        tmp_path, arrivals="constant", rate_per_s=20, duration_s=0.5, limits={"between_tokens_s": 60, "drain_s": 0.3}
    )
    result = run_here(
        *("run", path, "--url", emulator.url, "--header", "X-Emulator-Fault: stall-mid=2"),
        *("--out", tmp_path / "run", "--no-progress", "--json"),
    )
    found = rows(tmp_path / "run")
    assert len(found) == 10
    assert {record["outcome"] for record in found} == {"cancelled"}
    assert all(record["sent_ns"] is not None and record["done_ns"] > record["sent_ns"] for record in found)
    assert all(len(tokens_of(record)) == 2 for record in found)
    assert result.json()["requests"]["failed"] == {"cancelled": 10}
    assert result.code == 5


def test_a_server_gone_silent_ends_the_run_though_the_limits_are_far(emulator, tmp_path):
    path = profile(
        tmp_path, concurrency=2, requests=1000, limits={"first_token_s": 300, "total_s": 300, "no_progress_s": 1}
    )
    began = time.monotonic()
    result = run_here(
        *("run", path, "--url", emulator.url, "--header", "X-Emulator-Fault: stall"),
        *("--out", tmp_path / "run", "--json", "--no-progress"),
    )
    assert time.monotonic() - began < 60
    assert result.code == 5
    assert "nothing arrived on any connection for 1 s (limits.no_progress_s)" in result.line
    assert result.json()["requests"]["failed"] == {"cancelled": 2}
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["finished"] is False


# Peers that no emulator imitates


def against(peer: Any, folder: Path, *more: object, requests: int = 1) -> Result:
    return run_here(
        *(
            "run",
            profile(folder, concurrency=1, requests=requests),
            "--url",
            peer.url,
            "--api",
            "openai",
            "--model",
            "m",
        ),
        *("--out", folder / "run", "--json", "--no-progress", *more),
    )


def test_a_reused_connection_that_closes_is_stale_and_the_request_goes_once_more(tmp_path):
    def one_answer_a_connection(peer: Any, connection: Any, before: int) -> bool:
        if before == 0:
            connection.sendall(ANSWER)
        return before == 0

    with listening(one_answer_a_connection) as peer:
        result = against(peer, tmp_path, requests=8)
    found = rows(tmp_path / "run")
    assert {record["outcome"] for record in found} == {"ok"}
    # After three in a row the client opens a connection per request, and no request is wasted any more.
    assert [record["stale_connections"] for record in found] == [0, 1, 1, 1, 0, 0, 0, 0]
    assert list(peer.seen.values()) == [1, 2, 2, 2, 1, 1, 1, 1]
    assert peer.connections == 8
    assert all(record["connected_ns"] is not None for record in found)
    assert result.json()["stale_connections"] == 3


def test_after_a_stale_connection_the_request_goes_on_a_fresh_one_and_not_on_another_idle_one(tmp_path):
    def slow_and_once(peer: Any, connection: Any, before: int) -> bool:
        if before == 0:
            time.sleep(0.3)  # so that three connections are open at once, and idle when the fourth request comes
            connection.sendall(ANSWER)
        return before == 0

    stages = [{"rate_per_s": 20, "requests": 3}, {"rate_per_s": 1, "requests": 1}]
    path = profile(tmp_path, arrivals="constant", stages=stages, limits={"first_token_s": 5})
    with listening(slow_and_once) as peer:
        run_here(
            *("run", path, "--url", peer.url, "--api", "openai", "--model", "m"),
            *("--out", tmp_path / "run", "--quiet"),
        )
    assert [record["stale_connections"] for record in rows(tmp_path / "run")] == [0, 0, 0, 1]
    assert list(peer.seen.values()) == [1, 1, 1, 2]


def test_a_fresh_connection_that_closes_is_a_failure_and_not_tried_again(tmp_path):
    with listening(lambda peer, connection, before: False) as peer:
        result = against(peer, tmp_path, requests=3)
    assert result.code == 5
    for record in rows(tmp_path / "run"):
        assert record["outcome"] == "reset"
        assert record["error"] == "the server closed the connection before any byte of the answer"
    assert set(peer.seen.values()) == {1}


def test_a_stale_connection_is_forgiven_once_a_request(tmp_path):
    """Once it has been sent on a fresh connection, a close without an answer is the server's failure."""

    def answers_the_very_first(peer: Any, connection: Any, before: int) -> bool:
        if sum(peer.seen.values()) == 1:
            connection.sendall(ANSWER)
            return True
        return False

    with listening(answers_the_very_first) as peer:
        against(peer, tmp_path, requests=2)
    first, second = rows(tmp_path / "run")
    assert first["outcome"] == "ok"
    assert (second["outcome"], second["stale_connections"]) == ("reset", 1)
    assert list(peer.seen.values()) == [1, 2]


def test_a_server_that_dies_during_the_run_refuses_the_rest(tmp_path):
    def answers_and_stops_listening(peer: Any, connection: Any, before: int) -> bool:
        peer.listener.shutdown(2)
        peer.listener.close()
        connection.sendall(ANSWER)
        return False

    with listening(answers_and_stops_listening) as peer:
        result = against(peer, tmp_path, requests=3)
    found = rows(tmp_path / "run")
    assert [record["outcome"] for record in found] == ["ok", "refused", "refused"]
    assert found[2]["sent_ns"] is None
    assert result.json()["requests"]["failed"] == {"refused": 2}
    assert result.code == 0


def test_a_refused_connection_is_told_in_words(tmp_path):
    def stops_listening(peer: Any, connection: Any, before: int) -> bool:
        peer.listener.shutdown(2)
        peer.listener.close()
        return False

    with listening(stops_listening) as peer:
        against(peer, tmp_path, requests=2)
    assert rows(tmp_path / "run")[1]["error"] == "connection refused"


JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
SAID = {
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", "protocol", "not an HTTP/1.1 answer: b'SSH-2.0-OpenSSH_9.6"),
    "a head cut short": (
        b"HTTP/1.1 200 OK\r\nContent-Ty",
        "truncated",
        "the server closed the connection in the middle",
    ),
    "a chunk size that is none": (EVENT_STREAM + b"zz\r\nx\r\n0\r\n\r\n", "protocol", "not a chunk size: b'zz'"),
    "an error under 200": (
        chunked(b'{"error":"Unexpected endpoint or method. (POST /v1/chat/completions)"}', JSON_HEAD),
        "server_error",
        "Unexpected endpoint or method. (POST /v1/chat/completions)",
    ),
    "an error before [DONE]": (
        chunked(b'data: {"error":{"message":"out of memory","code":500}}\n\ndata: [DONE]\n\n'),
        "server_error",
        "out of memory",
    ),
    "[DONE] and nothing else": (chunked(b"data: [DONE]\n\n"), "truncated", "the answer ended with no event"),
    "an end without a token": (
        chunked(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'),
        "empty",
        None,
    ),
    "a redirect": (
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
        "http_error",
        "HTTP 302",
    ),
    "an error page of a proxy": (
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 45\r\n\r\n"
        b"<html><title>502 Bad Gateway</title>\n</html>\n ",
        "http_error",
        "502 Bad Gateway (HTTP 502)",
    ),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The records of one run whose requests are given one fault each."""
    folder = tmp_path_factory.mktemp("told")

    def say(peer: Any, connection: Any, before: int) -> bool:
        connection.sendall(list(SAID.values())[len(peer.seen) - 1][0])
        return False

    with listening(say) as peer:
        result = against(peer, folder, requests=len(SAID))
    assert result.code in (0, 5)
    return dict(zip(SAID, rows(folder / "run"), strict=True))


@pytest.mark.parametrize("what", SAID)
def test_whatever_a_server_says_is_an_outcome_with_its_words(told, what):
    _, outcome, error = SAID[what]
    record = told[what]
    assert record["outcome"] == outcome, record["error"]
    assert (record["error"] or "").startswith(error) if error else record["error"] is None


def test_a_certificate_nobody_vouches_for_is_refused_before_the_run(tmp_path):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def answer(peer: Any, connection: Any, before: int) -> bool:
        connection.sendall(ANSWER)
        return True

    with listening(answer, tls=context) as peer:
        refused = against(peer, tmp_path)
        assert refused.code == 5
        assert "certificate" in refused.line
        assert not (tmp_path / "run").exists()
        trusted = against(peer, tmp_path, "--ca-file", tmp_path / "ca.pem")
    assert trusted.json()["requests"]["completed"] == 1
    assert trusted.code == 0
