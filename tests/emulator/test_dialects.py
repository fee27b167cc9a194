"""The shape of each dialect on the wire, as a raw socket sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadgen.emulator import Law, spawn
from loadgen.emulator.spawn import Emulator

from .conftest import ask, build, chat, chat_body, dial, receive


def get(port: int, path: str) -> tuple[int, Any]:
    seen = ask(port, build(path))
    return seen.status, json.loads(seen.body) if seen.body else None


def post(port: int, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    seen = ask(port, build(path, body))
    return seen.status, json.loads(seen.body)


def text_of(events: list[Any]) -> str:
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])


def test_vllm_chat_stream(vllm: Emulator) -> None:
    seen = chat(vllm.port, 3, X_Request_Id="abc")
    events = seen.events()
    assert b"content-type: text/event-stream" in seen.head
    assert seen.body.endswith(b"data: [DONE]\n\n")
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [e["choices"][0]["finish_reason"] for e in events] == [None, None, None, "length"]
    assert len(text_of(events).split()) == 3
    assert {e["id"] for e in events} == {"chatcmpl-abc"}


def test_vllm_usage_and_ids_on_every_chunk(vllm: Emulator) -> None:
    body = chat_body(3, stream_options={"include_usage": True, "continuous_usage_stats": True}, return_token_ids=True)
    events = ask(vllm.port, build("/v1/chat/completions", body)).events()
    assert [e["usage"]["completion_tokens"] for e in events] == [0, 1, 2, 3, 3]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert [len(e["choices"][0]["token_ids"]) for e in events[1:-1]] == [1, 1, 1]
    assert len(events[0]["prompt_token_ids"]) == 3


def test_vllm_completions_stream_and_whole(vllm: Emulator) -> None:
    body = {"model": "emulated", "prompt": [1, 2, 3, 4], "max_tokens": 2}
    events = ask(vllm.port, build("/v1/completions", {**body, "stream": True})).events()
    assert [len(e["choices"][0]["text"].split()) for e in events] == [1, 1]
    assert events[0]["object"] == "text_completion"
    status, whole = post(vllm.port, "/v1/completions", body)
    assert (status, whole["usage"]["prompt_tokens"], whole["choices"][0]["finish_reason"]) == (200, 4, "length")


def test_vllm_whole_chat(vllm: Emulator) -> None:
    _, whole = post(vllm.port, "/v1/chat/completions", chat_body(4, stream=False))
    assert len(whole["choices"][0]["message"]["content"].split()) == 4
    assert whole["usage"]["total_tokens"] == 7


def test_vllm_side_pages(vllm: Emulator) -> None:
    assert get(vllm.port, "/v1/models")[1]["data"][0]["owned_by"] == "vllm"
    assert get(vllm.port, "/version")[0] == 200
    assert get(vllm.port, "/health") == (200, None)
    assert get(vllm.port, "/api/version") == (404, {"detail": "Not Found"})
    _, tokens = post(vllm.port, "/tokenize", {"prompt": "one two  three"})
    assert (tokens["count"], len(tokens["tokens"])) == (3, 3)
    page = ask(vllm.port, build("/metrics")).body.decode()
    assert 'vllm:num_requests_running{engine="0",model_name="emulated"} 0' in page
    assert "# TYPE vllm:generation_tokens counter" in page


def test_vllm_errors(vllm: Emulator) -> None:
    status, body = post(vllm.port, "/v1/chat/completions", {**chat_body(), "model": "other"})
    assert (status, body["error"]["type"], body["error"]["code"]) == (404, "NotFoundError", 404)
    status, body = post(vllm.port, "/v1/chat/completions", chat_body(10**7))
    assert (status, body["error"]["type"]) == (400, "BadRequestError")
    assert post(vllm.port, "/v1/chat/completions", {"model": "emulated"})[0] == 400
    assert ask(vllm.port, build("/v1/chat/completions", [])).status == 400


def test_generated_text_agrees_with_tokenize(vllm: Emulator) -> None:
    text = text_of(chat(vllm.port, 7).events())
    _, tokens = post(vllm.port, "/tokenize", {"prompt": text})
    assert tokens["count"] == 7
    assert post(vllm.port, "/detokenize", {"tokens": tokens["tokens"]})[1]["prompt"] == text.strip()


def test_ollama_generate_stream(ollama_server: Emulator) -> None:
    body = {"model": "tiny:1b", "prompt": "one two", "options": {"num_predict": 3}}
    seen = ask(ollama_server.port, build("/api/generate", body))
    lines = seen.lines()
    assert b"application/x-ndjson" in seen.head
    assert [line["done"] for line in lines] == [False, False, False, True]
    final = lines[-1]
    assert (final["eval_count"], final["prompt_eval_count"], final["done_reason"]) == (3, 2, "length")
    assert final["prompt_eval_duration"] == 10_000_000
    assert final["eval_duration"] == 4_000_000
    assert final["total_duration"] == 14_000_000
    assert "load_duration" not in final  # zero figures are left out
    assert len(final["context"]) == 5


def test_ollama_chat_whole(ollama_server: Emulator) -> None:
    message = {"role": "user", "content": "one two"}
    body = {"model": "tiny:1b", "messages": [message], "stream": False}
    status, value = post(ollama_server.port, "/api/chat", body)
    assert (status, value["done"], len(value["message"]["content"].split())) == (200, True, 5)


def test_ollama_side_pages(ollama_server: Emulator) -> None:
    port = ollama_server.port
    assert get(port, "/api/version")[0] == 200
    assert get(port, "/api/tags")[1]["models"][0]["name"] == "tiny:1b"
    assert get(port, "/api/ps")[1]["models"][0]["context_length"] == 131_072
    assert post(port, "/api/show", {"model": "tiny:1b"})[1]["capabilities"] == ["completion"]
    assert post(port, "/api/chat", {"model": "no"}) == (404, {"error": "model 'no' not found"})
    bad = {"model": "tiny:1b", "prompt": "x", "keep_alive": "300"}
    assert post(port, "/api/generate", bad)[0] == 400
    assert ask(port, build("/")).body == b"Ollama is running"
    with dial(port) as sock:
        sock.sendall(build("/", method="HEAD"))
        sock.settimeout(1)
        assert sock.recv(4096).endswith(b"\r\n\r\n")


def test_ollama_v1_repeats_the_role_and_ends_apart(ollama_server: Emulator) -> None:
    body = {**chat_body(2), "model": "tiny:1b"}
    events = ask(ollama_server.port, build("/v1/chat/completions", body)).events()
    assert [e["choices"][0]["delta"].get("role") for e in events] == ["assistant", "assistant", None]
    assert events[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}


def test_ollama_loads_and_unloads() -> None:
    with spawn(Law(ttft_s=0.005, gap_s=0, load_s=0.1, output_tokens=1), presents="ollama") as emulator:
        port, model = emulator.port, {"model": "emulated"}
        assert get(port, "/api/ps")[1] == {"models": []}
        assert post(port, "/api/generate", {**model, "keep_alive": -1})[1]["done_reason"] == "load"
        assert len(get(port, "/api/ps")[1]["models"]) == 1
        assert post(port, "/api/generate", {**model, "keep_alive": 0})[1]["done_reason"] == "unload"
        assert get(port, "/api/ps")[1] == {"models": []}
        cold = post(port, "/api/generate", {**model, "prompt": "x", "stream": False, "keep_alive": "5m"})[1]
        warm = post(port, "/api/generate", {**model, "prompt": "x", "stream": False})[1]
        assert cold["load_duration"] == 100_000_000
        assert "load_duration" not in warm


def named_events(body: bytes) -> list[tuple[str, Any]]:
    blocks = [block.split(b"\n") for block in body.strip().split(b"\n\n")]
    return [(name[7:].decode(), json.loads(data[6:])) for name, data in blocks]


def test_lmstudio_native_stream(lmstudio_server: Emulator) -> None:
    body = {"model": "emulated", "input": "one two", "stream": True, "max_output_tokens": 2, "store": False}
    events = named_events(ask(lmstudio_server.port, build("/api/v1/chat", body)).body)
    assert [name for name, _ in events] == [
        "chat.start",
        "prompt_processing.start",
        "prompt_processing.end",
        "message.start",
        "message.delta",
        "message.delta",
        "message.end",
        "chat.end",
    ]
    assert all(name == data["type"] for name, data in events)
    stats = events[-1][1]["result"]["stats"]
    assert (stats["input_tokens"], stats["total_output_tokens"]) == (2, 2)
    assert stats["time_to_first_token_seconds"] == 0.010
    assert "response_id" not in events[-1][1]["result"]


def test_lmstudio_other_routes(lmstudio_server: Emulator) -> None:
    port = lmstudio_server.port
    assert get(port, "/api/v1/models")[1]["models"][0]["loaded_instances"][0]["id"] == "emulated"
    assert get(port, "/api/v0/models")[1]["data"][0]["state"] == "loaded"
    status, unknown = get(port, "/version")
    assert status == 200
    assert unknown["error"].startswith("Unexpected endpoint or method.")
    _, whole = post(port, "/api/v0/chat/completions", chat_body(2, stream=False))
    assert whole["stats"]["stop_reason"] == "maxPredictedTokensReached"
    assert whole["stats"]["time_to_first_token"] == 0.010
    assert post(port, "/api/v1/chat", {"model": "no", "input": "x"})[1]["error"]["type"] == "model_not_found"
    assert post(port, "/api/v1/models/load", {"model": "emulated"})[1]["status"] == "loaded"


def test_llamacpp_closes_unannounced_and_tells_timings(llamacpp_server: Emulator) -> None:
    seen = chat(llamacpp_server.port, 3, until_closed=True)
    assert seen.closed
    assert b"connection: close" not in seen.head
    assert b"keep-alive: timeout=5" in seen.head
    events = seen.events()
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert events[-1]["timings"]["predicted_n"] == 3
    assert events[-1]["timings"]["predicted_ms"] == 4.0
    assert get(llamacpp_server.port, "/v1/models")[1]["data"][0]["owned_by"] == "llamacpp"
    assert get(llamacpp_server.port, "/props")[0] == 200
    with dial(llamacpp_server.port) as sock:  # answers that are not streamed keep the connection
        for _ in range(2):
            sock.sendall(build("/v1/chat/completions", chat_body(1, stream=False)))
            assert receive(sock).status == 200


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}])
def test_keep_alive_and_close(vllm: Emulator, headers: dict[str, str]) -> None:
    with dial(vllm.port) as sock:
        for _ in range(2):
            sock.sendall(build("/v1/chat/completions", chat_body(1), **headers))
            seen = receive(sock, until_closed=bool(headers))
            if headers:
                assert seen.closed
                assert b"connection: close" in seen.head
                return
            assert seen.body.endswith(b"[DONE]\n\n")


def test_body_may_be_chunked_split_and_announced(vllm: Emulator) -> None:
    text = json.dumps(chat_body(1)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    with dial(vllm.port) as sock:
        sock.sendall(head)
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for byte in (b"%x\r\n" % len(text), text[:10], text[10:] + b"\r\n", b"0\r\n\r\n"):
            sock.sendall(byte)
        assert receive(sock).status == 200


def test_what_is_not_http_is_refused_and_closed(vllm: Emulator) -> None:
    seen = ask(vllm.port, b"hello there, server\r\n\r\n", until_closed=True)
    assert (seen.status, seen.closed) == (400, True)
