"""Every fault, as a raw socket sees it; and how often those given by rate strike."""

from __future__ import annotations

import json
import socket
import time

import pytest

from loadgen.emulator import Law, spawn
from loadgen.emulator.faults import FAULTS, FaultPlan, from_header
from loadgen.emulator.spawn import Emulator

from .conftest import ask, build, chat, chat_body, dial, receive


def tokens(body: bytes) -> int:
    return body.count(b'"content":" ')


@pytest.mark.parametrize("status", ["429", "503", "500"])
def test_status(vllm: Emulator, status: str) -> None:
    seen = chat(vllm.port, X_Emulator_Fault=status)
    assert seen.status == int(status)
    assert json.loads(seen.body)["error"]["code"] == int(status)
    assert (b"retry-after: 1" in seen.head) is (status != "500")


def test_refuse_resets_before_any_byte(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="refuse")
    assert seen.reset
    assert seen.data == b""


def test_never_answer_is_silence(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="never-answer", wait_s=0.15)
    assert (seen.data, seen.closed) == (b"", False)


def test_stall_sends_the_head_and_no_more(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="stall", wait_s=0.15)
    assert (seen.status, seen.body, seen.closed) == (200, b"", False)


def test_stall_mid_is_silence_after_k_tokens(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="stall-mid=2", wait_s=0.15)
    assert (tokens(seen.body), seen.closed) == (2, False)


@pytest.mark.parametrize("gap_s", [0.0, 1e-6])
def test_stall_mid_holds_when_events_are_overdue(gap_s: float) -> None:
    # Several events of the stream come out of the physics in one turn; those after the strike must not be sent.
    with spawn(Law(ttft_s=0, gap_s=gap_s)) as emulator:
        seen = chat(emulator.port, 50, X_Emulator_Fault="stall-mid=3", wait_s=0.15)
        assert tokens(seen.body) == 3


def test_cut_closes_after_k_tokens(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="cut=3", until_closed=True)
    assert (tokens(seen.body), seen.closed, seen.reset) == (3, True, False)
    assert b"[DONE]" not in seen.body


def test_reset_breaks_the_connection(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="reset=2", until_closed=True)
    assert seen.reset
    assert tokens(seen.body) <= 2


@pytest.mark.parametrize("name", ["cut", "reset"])
def test_a_whole_answer_can_break_too(vllm: Emulator, name: str) -> None:
    request = build("/v1/chat/completions", chat_body(stream=False), X_Emulator_Fault=name)
    seen = ask(vllm.port, request, until_closed=True)
    assert seen.closed or seen.reset
    length = int(seen.head.partition(b"content-length: ")[2].partition(b"\r\n")[0]) if seen.data else 1
    assert len(seen.data.partition(b"\r\n\r\n")[2]) < length


def test_error_event_then_done(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="error-event=2")
    events = seen.events()
    assert tokens(seen.body) == 2
    assert events[-1]["error"]["code"] == 500
    assert seen.body.endswith(b"data: [DONE]\n\n")


def test_error_event_in_other_dialects(ollama_server: Emulator, lmstudio_server: Emulator) -> None:
    body = {"model": "tiny:1b", "prompt": "x"}
    lines = ask(ollama_server.port, build("/api/generate", body, X_Emulator_Fault="error-event")).lines()
    assert [sorted(lines[-1]), len(lines)] == [["error"], 2]
    body = {"model": "emulated", "input": "x", "stream": True}
    seen = ask(lmstudio_server.port, build("/api/v1/chat", body, X_Emulator_Fault="error-event"))
    assert seen.body.index(b"event: error") < seen.body.index(b"event: chat.end")


def test_no_done_ends_without_a_marker(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="no-done")
    assert tokens(seen.body) == 5
    assert b"[DONE]" not in seen.body
    assert {e["choices"][0]["finish_reason"] for e in seen.events()} == {None}


def test_bad_json_breaks_one_event(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="bad-json=2")
    lines = [line[6:] for line in seen.body.split(b"\n") if line.startswith(b"data: {")]
    broken = 0
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            broken += 1
    assert broken == 1
    assert seen.body.endswith(b"[DONE]\n\n")


def test_html(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="html")
    assert (seen.status, b"text/html" in seen.head) == (200, True)


def test_empty(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="empty")
    assert (seen.status, seen.body) == (200, b"")


def test_slow_header_dribbles(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="slow-header=1")
    assert len(seen.reads) > 50
    assert tokens(seen.body) == 5


def test_close_idle_closes_a_kept_connection(vllm: Emulator) -> None:
    with dial(vllm.port) as sock:
        sock.sendall(build("/v1/chat/completions", chat_body(1), X_Emulator_Fault="close-idle=20"))
        seen = receive(sock, until_closed=True)
    assert b"connection: close" not in seen.head
    assert (seen.closed, seen.body.endswith(b"[DONE]\n\n")) == (True, True)


def test_multi_puts_k_tokens_in_an_event(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="multi=2")
    counts = [len(e["choices"][0]["delta"]["content"].split()) for e in seen.events()]
    assert counts == [0, 2, 2, 1]


def test_role_only_comes_alone_and_before() -> None:
    with spawn(Law(ttft_s=0.2, gap_s=0.002)) as emulator:  # long, so that a client which reads late gets two reads
        seen = chat(emulator.port, X_Emulator_Fault="role-only=1")
    at = [stamp for stamp, data in seen.reads if b'"role"' in data or b'"content":" ' in data]
    assert tokens(seen.reads[0][1]) == 0
    assert at[1] - at[0] > 2_000_000
    assert seen.body.count(b'"role"') == 1


def test_comments(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="comments")
    assert seen.body.count(b": ping\n\n") >= 5
    assert tokens(seen.body) == 5


def test_crlf(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="crlf")
    assert b"\n" not in seen.body.replace(b"\r\n", b"")
    assert tokens(seen.body) == 5


def test_split_dribbles_each_event(vllm: Emulator) -> None:
    plain, seen = chat(vllm.port), chat(vllm.port, X_Emulator_Fault="split=4")
    assert len(seen.reads) > len(plain.reads) + 5
    assert tokens(seen.body) == 5


def test_one_write_coalesces_everything(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="one-write")
    assert len(seen.reads) == 1
    assert tokens(seen.body) == 5


@pytest.mark.parametrize("stream", [True, False])
def test_wrong_length_promises_more_than_comes(vllm: Emulator, stream: bool) -> None:
    request = build("/v1/chat/completions", chat_body(stream=stream), X_Emulator_Fault="wrong-length=10")
    seen = ask(vllm.port, request, until_closed=True)
    length = int(seen.head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert (seen.closed, length - len(seen.body)) == (True, 10)


def test_every_fault_is_in_the_truth_and_leaves_the_server_well(vllm: Emulator) -> None:
    for name in FAULTS:
        chat(vllm.port, wait_s=0.05, X_Emulator_Fault=name, X_Request_Id=f"fault-{name}")
    assert chat(vllm.port).body.endswith(b"[DONE]\n\n")
    truth = vllm.truth()
    for name in FAULTS:
        assert (truth[f"fault-{name}"].fault or "").partition("=")[0] == name


def test_an_unknown_fault_is_a_bad_request(vllm: Emulator) -> None:
    seen = chat(vllm.port, X_Emulator_Fault="gremlins")
    assert seen.status == 400
    assert b"no fault is called" in seen.body


def test_rates() -> None:
    plan = FaultPlan(["503=1/4", "cut:3=0.25"], seed=1)
    drawn = [plan.for_request() for _ in range(4000)]
    assert [str(f) for f in drawn if f and f.name == "503"] == ["503"] * 1000
    assert 650 < sum(1 for f in drawn if f and str(f) == "cut=3") < 850  # a quarter of the other 3000
    assert not plan.for_accept()
    for bad in ("cut", "cut=2", "gremlins=0.1", "cut=1/x", "cut:k=0.1"):
        with pytest.raises(ValueError, match=r"fault|rate"):
            FaultPlan([bad], 0)
    assert from_header(b"none") is None


def test_refuse_by_rate_resets_on_accept() -> None:
    with spawn(Law(ttft_s=0, output_tokens=1), faults=("refuse=1/2",)) as emulator:
        results = []
        for _ in range(4):
            try:  # the reset may come before connect has returned
                with socket.create_connection(("127.0.0.1", emulator.port), timeout=2) as sock:
                    time.sleep(0.02)
                    sock.sendall(build("/v1/models"))
                    results.append(bool(sock.recv(100)))
            except ConnectionError:
                results.append(False)
        assert results == [True, False, True, False]
