"""LM Studio's own API: named events, `chat.end` as the terminal marker, also after an error."""

from __future__ import annotations

import pytest

from loadgen.record import Outcome, TokensFrom
from loadgen.wire import lmstudio
from tests.wire.wire_streams import JSON, answer, dumps, kinds, named, tokens

STATS = {"input_tokens": 9, "total_output_tokens": 2, "reasoning_output_tokens": 0, "tokens_per_second": 50.1}
STATS |= {"time_to_first_token_seconds": 0.11}
START = {"type": "chat.start", "model_instance_id": "m"}
END = {"type": "chat.end", "result": {"model_instance_id": "m", "output": [], "stats": STATS}}


def delta(text, part="message"):
    return {"type": f"{part}.delta", "content": text}


def decode(*messages, **how):
    return lmstudio.decode(answer(named(*messages), **how), keep_text=True)


def test_a_stream_ends_with_chat_end_and_its_stats():
    got = decode(START, {"type": "message.start"}, delta("Hel"), delta("lo"), {"type": "message.end"}, END)
    assert (got.outcome, got.text) == (Outcome.OK, "Hello")
    assert kinds(got) == ["empty", "empty", "content", "content", "empty", "usage"]
    assert tokens(got) == [0, 0, 1, 1, 0, 0]
    assert (got.input_tokens, got.output_tokens, got.tokens_from) == (9, 2, TokensFrom.USAGE)
    assert got.server_prompt_eval_ns == 110_000_000


def test_reasoning_tool_and_progress_events():
    progress = {"type": "prompt_processing.progress", "progress": 0.5}
    called = [{"type": "tool_call.start"}, {"type": "tool_call.arguments", "arguments": {}}, {"type": "unheard.of"}]
    got = decode(START, progress, delta("hm", "reasoning"), delta("", "reasoning"), *called, delta("a"), END)
    assert kinds(got) == ["empty", "empty", "reasoning", "empty", "empty", "tool", "empty", "content", "usage"]
    assert got.text == "a"


def test_a_cold_load_is_told():
    loaded = {"type": "model_load.end", "load_time_seconds": 2.5}
    assert decode(START, loaded, delta("a"), END).server_load_ns == 2_500_000_000


def test_an_error_event_is_a_server_error_although_chat_end_follows():
    error = {"type": "error", "error": {"type": "internal_error", "message": "boom"}}
    got = decode(START, delta("a"), error, END)
    assert (got.outcome, got.error, kinds(got)) == (Outcome.SERVER_ERROR, "boom", ["empty", "content"])


@pytest.mark.parametrize("data", ['{"message":"boom"}', '{"type":"error","message":"boom"}', "boom"])
def test_an_event_named_error_is_a_server_error_whatever_its_data(data):
    got = lmstudio.decode(answer(named(START, delta("a")) + f"event: error\ndata: {data}\n\n".encode() + named(END)))
    assert (got.outcome, got.error) == (Outcome.SERVER_ERROR, "boom")


def test_no_chat_end_is_truncated():
    assert decode(START, delta("a"), delta("b")).outcome == Outcome.TRUNCATED


def test_chat_end_without_a_token_is_empty():
    nothing = {"type": "chat.end", "result": {"stats": {**STATS, "total_output_tokens": 0}}}
    assert decode(START, nothing).outcome == Outcome.EMPTY


def test_the_event_name_counts_where_the_data_has_no_type():
    body = b'event: message.delta\ndata: {"content":"a"}\n\nevent: chat.end\ndata: {"result":{}}\n\n'
    got = lmstudio.decode(answer(body))
    assert (got.outcome, kinds(got)) == (Outcome.OK, ["content", "usage"])


def test_a_reply_that_was_not_streamed_is_one_event():
    output = [{"type": "reasoning", "content": "hm"}, {"type": "message", "content": "Hello"}]
    body = dumps(
        {"model_instance_id": "m", "output": output, "stats": {**STATS, "model_load_time_seconds": 1}}
    ).encode()
    got = lmstudio.decode(answer(body, JSON), keep_text=True)
    assert (got.outcome, got.text, kinds(got), tokens(got)) == (Outcome.OK, "Hello", ["content"], [2])
    assert got.server_load_ns == 1_000_000_000


@pytest.mark.parametrize(
    ("status", "body", "outcome", "error"),
    [
        (
            400,
            '{"error":{"type":"model_not_found","message":"no such model"}}',
            "http_error",
            "no such model (HTTP 400)",
        ),
        (400, '{"error":"bad"}', "http_error", "bad (HTTP 400)"),
        (200, '{"error":"Unexpected endpoint or method. (POST /x)"}', "server_error", "Unexpected endpoint or method."),
    ],
)
def test_errors_outside_the_stream(status, body, outcome, error):
    got = lmstudio.decode(answer(body.encode(), JSON, status=status))
    assert got.outcome == outcome
    assert got.error.startswith(error)


@pytest.mark.parametrize(
    "odd", [{"type": 7}, {"type": "chat.end", "result": 3}, {"type": "message.delta", "content": 1}]
)
def test_odd_shapes_never_raise(odd):
    assert decode(START, delta("a"), odd, END).outcome == Outcome.OK
